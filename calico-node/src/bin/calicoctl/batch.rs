//! Many resources at once: read them all, attempt every one, and count.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;
use calico_model::Namespace;
use calico_model::resource::{Document, Kind};
use calico_node::ctl::input::{self, Depth};

use crate::outcome::Outcome;
use crate::session::place;

/// Which manifests.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// Read the folders below a folder too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Let input without resources be.
    #[arg(long)]
    pub skip_empty: bool,
}

/// Which namespace.
#[derive(Debug, clap::Args)]
pub struct InNamespace {
    /// The namespace of the resources [default: default].
    #[arg(short = 'n', long)]
    pub namespace: Option<Namespace>,
}

/// The order in which resources are written when some need others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What others need comes first.
    Creation,
    /// What needs others comes first.
    Deletion,
}

/// How far a batch has come.
#[derive(Debug, Default)]
pub struct Batch {
    kinds: BTreeSet<Kind>,
    total: usize,
    done: usize,
    errors: Vec<anyhow::Error>,
}

impl Files {
    /// Reads all documents; those that cannot be used are counted as failed already.
    pub fn read(
        &self,
        namespace: Option<&Namespace>,
        order: Order,
    ) -> anyhow::Result<(Batch, Vec<Document>)> {
        let mut batch = Batch::default();
        let mut documents = Vec::new();
        if self.files.is_empty() {
            bail!("no input: name a file or folder with -f, or - for standard input");
        }
        let depth = if self.recursive { Depth::Recursive } else { Depth::Flat };
        for file in &self.files {
            let read = input::read(file, depth)?;
            if read.is_empty() && !self.skip_empty {
                let from = if file.as_os_str() == "-" {
                    "standard input".into()
                } else {
                    file.display().to_string()
                };
                bail!("{from} has no resources");
            }
            for document in read {
                let placed = document.map_err(anyhow::Error::from).and_then(|mut document| {
                    batch.kinds.insert(document.kind());
                    place(&mut document, namespace).map(|()| document)
                });
                batch.total += 1;
                match placed {
                    Ok(document) => documents.push(document),
                    Err(error) => batch.errors.push(error),
                }
            }
        }
        // A policy needs its tier; otherwise the order of the file stays.
        documents.sort_by_key(|document| {
            let tier = document.kind() == Kind::Tier;
            if order == Order::Creation { !tier } else { tier }
        });
        Ok((batch, documents))
    }
}

impl Batch {
    /// Begins a batch of resources that are named on the command line.
    pub fn of(kind: Kind) -> Self {
        Self { kinds: BTreeSet::from([kind]), ..Self::default() }
    }

    /// Counts an attempt at one more resource, which [`Files::read`] has not counted.
    pub fn attempt(&mut self, result: anyhow::Result<()>) {
        self.total += 1;
        self.settle(result);
    }

    /// Notes how the attempt at a resource ended.
    pub fn settle(&mut self, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.done += 1,
            Err(error) => self.errors.push(error),
        }
    }

    /// Says what was done, in the words of `done`: `applied`, `created`.
    pub fn outcome(self, done: &str) -> Outcome {
        let mut kinds = self.kinds.iter();
        let kind = match (kinds.next(), kinds.next()) {
            (Some(only), None) => format!(" '{only}'"),
            _ => String::new(),
        };
        let text = if self.errors.is_empty() && self.total == 0 {
            "No resources specified\n".to_owned()
        } else if self.errors.is_empty() {
            format!("Successfully {done} {}{kind} resource(s)\n", self.done)
        } else if self.done > 0 {
            format!("Partial success: {done} {} out of {}{kind} resources\n", self.done, self.total)
        } else {
            String::new()
        };
        Outcome { text, errors: self.errors, status: 0 }
    }
}
