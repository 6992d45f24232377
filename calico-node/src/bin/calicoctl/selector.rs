//! `calicoctl selector`: try selectors without a cluster.
//!
//! The exit status is 0, or 1 when `eval` says false, and 2 when the selector or the labels cannot be read.

use anyhow::Context;
use calico_model::{Labels, Selector};
use clap::Subcommand;
use serde_json::json;

use crate::outcome::{Outcome, Output};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say whether a selector matches labels: true with exit status 0, or false with 1.
    Eval {
        /// The selector, such as "role == 'database'".
        selector: String,
        /// Labels as key=value, several with commas between; may be repeated.
        #[arg(short = 'l', long = "labels", value_name = "KEY=VALUE,...", value_delimiter = ',')]
        labels: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Write a selector in the one form that all its spellings have.
    Canonical {
        /// The selector.
        selector: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show the identifier that IP sets of a selector are named by.
    Id {
        /// The selector.
        selector: String,
        #[command(flatten)]
        output: Output,
    },
}

pub fn run(verb: Verb) -> Outcome {
    answer(verb).unwrap_or_else(|error| Outcome { status: 2, ..Outcome::failed(error) })
}

fn answer(verb: Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Eval { selector, labels, output } => {
            let selector: Selector = selector.parse()?;
            let pair = |label: &String| {
                let pair = label.split_once('=').filter(|(key, _)| !key.is_empty());
                let pair = pair.map(|(key, value)| (key.to_owned(), value.to_owned()));
                pair.with_context(|| format!("{label:?} is not a label: write key=value"))
            };
            let labels: Labels = labels.iter().map(pair).collect::<anyhow::Result<_>>()?;
            let matches = selector.matches(&labels);
            let text = output.of(
                || json!({"selector": selector.to_string(), "matches": matches}),
                || format!("{matches}\n"),
            );
            Ok(Outcome { status: u8::from(!matches), ..Outcome::text(text) })
        }
        Verb::Canonical { selector, output } => {
            let canonical = selector.parse::<Selector>()?.to_string();
            Ok(Outcome::text(output.of(|| json!({"canonical": canonical}), || format!("{canonical}\n"))))
        }
        Verb::Id { selector, output } => {
            let selector: Selector = selector.parse()?;
            let json = || json!({"canonical": selector.to_string(), "id": selector.id()});
            Ok(Outcome::text(output.of(json, || format!("{}\n", selector.id()))))
        }
    }
}
