//! `calicoctl selector`: try selectors without a cluster.

use anyhow::Context;
use calico_model::{Labels, Selector};
use clap::Subcommand;

use crate::outcome::Outcome;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say whether a selector matches labels.
    Eval {
        /// The selector, such as "role == 'database'".
        selector: String,
        /// The labels, as key=value.
        labels: Vec<String>,
    },
    /// Write a selector in the one form that all its spellings have.
    Canonical {
        /// The selector.
        selector: String,
    },
    /// Show the identifier that IP sets of a selector are named by.
    Id {
        /// The selector.
        selector: String,
    },
}

pub fn run(verb: Verb) -> anyhow::Result<Outcome> {
    let text = match verb {
        Verb::Eval { selector, labels } => {
            let selector: Selector = selector.parse()?;
            let pair = |label: &String| {
                let pair = label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
                pair.with_context(|| format!("{label:?} is not a label: write key=value"))
            };
            let labels: Labels = labels.iter().map(pair).collect::<anyhow::Result<_>>()?;
            selector.matches(&labels).to_string()
        }
        Verb::Canonical { selector } => selector.parse::<Selector>()?.to_string(),
        Verb::Id { selector } => selector.parse::<Selector>()?.id(),
    };
    Ok(Outcome::text(text + "\n"))
}
