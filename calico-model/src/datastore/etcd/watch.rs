//! Watches: a task that follows the server, and begins again where it was whenever the stream breaks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Key, Prefix, StoreError, Watch, WatchError, WatchEvent};
use super::connection::{Link, Servers};
use super::error::Failure;
use super::{end, entry, number, positive};
use crate::revision::Revision;

/// How long a watch looks for a server that answers before it reports the loss.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing may come before history counts as delivered.
///
/// Servers before 3.4.25 and 3.5.8 answer a request for progress at once, even when older changes are still under
/// way. Those are on their way within a tenth of a second.
const QUIET: Duration = Duration::from_millis(500);

/// What is ahead of a slow reader; beyond it the server keeps the changes.
const AHEAD: usize = 256;

type Sender = mpsc::Sender<Result<WatchEvent, WatchError>>;

/// The reading end of a watch.
pub(super) struct EtcdWatch {
    name: String,
    events: mpsc::Receiver<Result<WatchEvent, WatchError>>,
    over: Option<Over>,
}

/// How a watch ended, so that it can be said again.
enum Over {
    TooOld(Revision),
    Lost(String),
}

pub(super) fn begin(servers: Arc<Servers>, prefix: Prefix, from: Revision, newest: Revision) -> EtcdWatch {
    let (sender, events) = mpsc::channel(AHEAD);
    let name = servers.name();
    let follower = Follower {
        action: format!("watching {prefix}"),
        servers,
        prefix,
        position: Position { complete: from, within: BTreeSet::new() },
        sync_point: Some(newest),
    };
    tokio::spawn(follower.run(sender));
    EtcdWatch { name, events, over: None }
}

#[async_trait]
impl Watch for EtcdWatch {
    // Cancel-safe, as receiving from a channel is.
    async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        let over = match self.over.take() {
            Some(over) => over,
            None => match self.events.recv().await {
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => {
                    self.over = Some(match &error {
                        WatchError::TooOld { from } => Over::TooOld(*from),
                        WatchError::Store(error) => Over::Lost(error.to_string()),
                    });
                    return Err(error);
                }
                // The task ends without a word only with its runtime.
                None => Over::Lost("its runtime was shut down".to_owned()),
            },
        };
        let error = match &over {
            Over::TooOld(from) => WatchError::TooOld { from: *from },
            Over::Lost(text) => WatchError::Store(StoreError::Unavailable {
                store: self.name.clone(),
                action: "watching".to_owned(),
                source: text.clone().into(),
            }),
        };
        self.over = Some(over);
        Err(error)
    }
}

/// The task behind a watch.
struct Follower {
    servers: Arc<Servers>,
    prefix: Prefix,
    action: String,
    position: Position,
    /// The revision to report as in sync, until that is done.
    sync_point: Option<Revision>,
}

/// What was delivered, so that a new stream can begin there.
///
/// Large commits come in fragments, and a stream may break between two of them. The revision that was reached is
/// therefore asked for again, and what was delivered of it is left out.
struct Position {
    /// Every change up to this revision was delivered.
    complete: Revision,
    /// The keys that were delivered of a later revision, if any.
    within: BTreeSet<(Revision, Key)>,
}

impl Position {
    /// Returns the first revision that is not known to be complete.
    fn resume(&self) -> Revision {
        Revision(self.complete.0 + 1)
    }

    /// Notes a change, and reports whether it is a new one.
    fn advance(&mut self, revision: Revision, key: &Key) -> bool {
        if revision <= self.complete {
            return false;
        }
        if self.within.first().is_some_and(|(reached, _)| *reached < revision) {
            self.complete = Revision(revision.0 - 1);
            self.within.clear();
        }
        self.within.insert((revision, key.clone()))
    }

    /// Notes that there is nothing more up to a revision.
    fn complete(&mut self, revision: Revision) {
        if revision > self.complete {
            self.complete = revision;
            self.within.retain(|(reached, _)| *reached > revision);
        }
    }
}

/// Why a stream is no longer followed.
enum End {
    /// Nobody reads any more.
    Unread,
    TooOld,
    Failed(StoreError),
}

impl Follower {
    async fn run(mut self, sender: Sender) {
        const FIRST_PAUSE: Duration = Duration::from_millis(100);
        const LONGEST_PAUSE: Duration = Duration::from_secs(2);
        let mut pause = FIRST_PAUSE;
        let mut lost_since = None;
        loop {
            let mut stream = Stream::default();
            let end = tokio::select! {
                end = self.follow(&mut stream, &sender) => end,
                () = sender.closed() => return,
            };
            let error = match end {
                End::Unread => return,
                End::TooOld => WatchError::TooOld { from: self.position.complete },
                End::Failed(error) => {
                    if stream.created {
                        (lost_since, pause) = (None, FIRST_PAUSE);
                    }
                    let now = Instant::now();
                    if now.duration_since(*lost_since.get_or_insert(now)) < PATIENCE {
                        tokio::select! {
                            () = sleep(pause) => {}
                            () = sender.closed() => return,
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                    error.into()
                }
            };
            let _ = sender.send(Err(error)).await;
            return;
        }
    }

    /// Follows one stream to its end.
    async fn follow(&mut self, stream: &mut Stream, sender: &Sender) -> End {
        let link = match self.servers.connect(&self.action).await {
            Ok(Ok(link)) => link,
            Ok(Err(failure)) => return End::Failed(self.servers.unavailable(&self.action, failure)),
            Err(error) => return End::Failed(error),
        };
        match self.read(&link, stream, sender).await {
            Ok(end) => end,
            Err(failure) => {
                self.servers.give_up(&link).await;
                End::Failed(self.servers.unavailable(&self.action, failure))
            }
        }
    }

    async fn read(&mut self, link: &Link, stream: &mut Stream, sender: &Sender) -> Result<End, Failure> {
        let mut responses = self.open(link).await?;
        loop {
            let events = tokio::select! {
                response = responses.message() => {
                    let Some(response) = response? else { return Err(Failure::ended("")) };
                    // A compaction is announced as a cancellation with a revision and no reason.
                    if response.compact_revision() > 0 {
                        return Ok(End::TooOld);
                    }
                    if response.canceled() {
                        return Err(Failure::ended(response.cancel_reason()));
                    }
                    self.take(&response, stream)
                }
                () = sleep(QUIET), if stream.created && self.sync_point.is_some() => {
                    if !stream.progressed {
                        responses.request_progress().await?;
                        continue;
                    }
                    self.sync_point.take().map(WatchEvent::InSync).into_iter().collect()
                }
            };
            for event in events {
                if sender.send(Ok(event)).await.is_err() {
                    return Ok(End::Unread);
                }
            }
        }
    }

    async fn open(&self, link: &Link) -> Result<WatchStream, Failure> {
        let options = WatchOptions::new()
            .with_range(end(&self.prefix))
            .with_start_revision(number(self.position.resume()))
            .with_fragment()
            .with_progress_notify();
        let mut client = link.watch.clone();
        match timeout(self.servers.deadline(), client.watch(self.prefix.as_str(), Some(options))).await {
            Ok(responses) => Ok(responses?),
            Err(_) => Err(Failure::timed_out()),
        }
    }

    /// Takes in a response, and returns the events to deliver for it.
    fn take(&mut self, response: &WatchResponse, stream: &mut Stream) -> Vec<WatchEvent> {
        let revision = Revision(positive(response.header().map_or(0, |header| header.revision())));
        let mut events = Vec::new();
        if response.created() {
            stream.created = true;
            // A watch from the newest revision has no history to wait for.
            events.extend(
                self.sync_point.take_if(|point| *point <= self.position.complete).map(WatchEvent::InSync),
            );
        } else if response.events().is_empty() {
            stream.progressed |= self.sync_point.is_some_and(|point| revision >= point);
            // Only the server's own notes are in order with its events; answers to requests carry no watch's number.
            if response.watch_id() >= 0 {
                self.position.complete(revision);
            }
        }
        for change in response.events().iter().filter_map(change) {
            stream.progressed = false;
            let (revision, key) = match &change {
                WatchEvent::Put(entry) => (entry.revision, &entry.key),
                WatchEvent::Deleted { key, revision } => (*revision, key),
                WatchEvent::InSync(_) => continue,
            };
            if self.position.advance(revision, key) {
                let passed = self.sync_point.take_if(|point| revision > *point);
                events.extend(passed.map(WatchEvent::InSync));
                events.push(change);
            }
        }
        events
    }
}

/// What has come over one stream.
#[derive(Debug, Default)]
struct Stream {
    /// The server has begun the watch.
    created: bool,
    /// The server is as far as the sync point, and has sent no change since it said so.
    progressed: bool,
}

fn change(event: &Event) -> Option<WatchEvent> {
    let kv = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => WatchEvent::Put(entry(kv.clone())?),
        EventType::Delete => {
            let key = kv.key_str().ok()?.parse().ok()?;
            WatchEvent::Deleted { key, revision: Revision(positive(kv.mod_revision())) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        format!("/{name}").parse().unwrap()
    }

    #[test]
    fn a_stream_that_broke_within_a_commit_resumes_before_it_and_repeats_nothing() {
        let mut position = Position { complete: Revision(4), within: BTreeSet::new() };
        assert!(position.advance(Revision(6), &key("a")));
        assert!(position.advance(Revision(8), &key("a")));
        assert!(position.advance(Revision(8), &key("b")));
        assert_eq!(position.resume(), Revision(8));
        assert!(!position.advance(Revision(8), &key("a")));
        assert!(!position.advance(Revision(8), &key("b")));
        assert!(position.advance(Revision(8), &key("c")));
        assert!(position.advance(Revision(9), &key("a")));
        assert_eq!(position.resume(), Revision(9));
    }

    #[test]
    fn progress_moves_the_position_past_what_was_delivered() {
        let mut position = Position { complete: Revision(4), within: BTreeSet::new() };
        assert!(position.advance(Revision(6), &key("a")));
        position.complete(Revision(20));
        assert_eq!(position.resume(), Revision(21));
        assert!(!position.advance(Revision(6), &key("a")));
        assert!(position.advance(Revision(21), &key("a")));
    }
}
