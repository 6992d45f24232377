//! `calicoctl get --watch`: the resources that there are, and then what becomes of them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use calico_model::Namespace;
use calico_model::datastore::WatchError;
use calico_model::datastore::client::{Client, ResourceEvent, ResourceWatch};
use calico_model::resource::{Document, Kind, ResourceKey};
use calico_node::ctl::events::{Change, Events};

use crate::outcome::Outcome;

/// Which resources.
pub struct Asked {
    pub kind: Kind,
    pub folder: Option<Namespace>,
    /// These alone; all when there is none.
    pub keys: Vec<ResourceKey>,
}

/// Shows changes until the reader has seen enough, or the datastore is gone.
pub async fn run(client: &Client, asked: Asked, events: Events) -> anyhow::Result<Outcome> {
    let mut shown = Shown { asked, events, known: BTreeMap::new() };
    loop {
        let listed = client.list(shown.asked.kind, shown.asked.folder.as_ref()).await?;
        let first = shown.known.is_empty();
        let printed = shown.catch_up(listed.items, first);
        for (key, error) in listed.corrupt {
            complain(&format!("{key} cannot be read: {error}"));
        }
        let watch = client.watch(shown.asked.kind, shown.asked.folder.as_ref(), listed.revision).await;
        let ended = match (printed, watch) {
            (Err(closed), _) => return finish(&closed),
            (Ok(()), Ok(mut watch)) => shown.follow(&mut watch).await,
            (Ok(()), Err(error)) => Err(error),
        };
        match ended {
            Ok(closed) => return finish(&closed),
            // The changes since then are forgotten: what differs from what was shown is shown.
            Err(WatchError::TooOld { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Shown {
    asked: Asked,
    events: Events,
    known: BTreeMap<ResourceKey, Document>,
}

impl Shown {
    /// Shows how a listing differs from what was shown. The first one is shown even when it is empty.
    fn catch_up(&mut self, items: Vec<Document>, first: bool) -> io::Result<()> {
        let listed: BTreeMap<ResourceKey, Document> = items
            .into_iter()
            .filter_map(|document| Some((document.key()?, document)))
            .filter(|(key, _)| self.asked.wants(key))
            .collect();
        let before = std::mem::replace(&mut self.known, listed);
        let gone = before.iter().filter(|(key, _)| !self.known.contains_key(key));
        let mut changes: Vec<_> = gone.map(|(_, document)| (Change::Deleted, document)).collect();
        for (key, document) in &self.known {
            match before.get(key) {
                None => changes.push((Change::Added, document)),
                Some(old) if old != document => changes.push((Change::Modified, document)),
                Some(_) => {}
            }
        }
        if changes.is_empty() && !first { Ok(()) } else { print(&self.events.render(&changes)) }
    }

    /// Shows what a watch tells. Returns the error of the output that has been closed.
    async fn follow(&mut self, watch: &mut ResourceWatch) -> Result<io::Error, WatchError> {
        loop {
            let (change, document) = match watch.next().await? {
                ResourceEvent::Put(document) => {
                    let Some(key) = document.key().filter(|key| self.asked.wants(key)) else { continue };
                    let before = self.known.insert(key, document.clone());
                    (if before.is_some() { Change::Modified } else { Change::Added }, document)
                }
                ResourceEvent::Deleted { key, .. } => {
                    let Some(document) = self.known.remove(&key) else { continue };
                    (Change::Deleted, document)
                }
                ResourceEvent::Corrupt { key, source } => {
                    complain(&format!("{key} cannot be read: {source}"));
                    continue;
                }
                ResourceEvent::InSync(_) | _ => continue,
            };
            if let Err(closed) = print(&self.events.render(&[(change, &document)])) {
                return Ok(closed);
            }
        }
    }
}

impl Asked {
    fn wants(&self, key: &ResourceKey) -> bool {
        self.keys.is_empty() || self.keys.contains(key)
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn complain(sentence: &str) {
    // Nobody is left to be told that standard error is closed.
    let _ = writeln!(io::stderr(), "{sentence}");
}

/// A reader that has seen enough is no error.
fn finish(closed: &io::Error) -> anyhow::Result<Outcome> {
    if closed.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Outcome::default());
    }
    anyhow::bail!("the output cannot be written: {closed}")
}
