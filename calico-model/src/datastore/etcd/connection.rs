//! The connection: one endpoint at a time, the next one when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Client, GetOptions, KvClient, WatchClient};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::super::StoreError;
use super::config::EtcdConfig;
use super::error::{Failure, Kind};

/// The largest answer that is accepted; pages and fragments are far smaller unless values are huge.
const LARGEST_ANSWER: usize = 128 * 1024 * 1024;

/// The servers of a cluster, and the connection to one of them.
#[derive(Debug)]
pub(super) struct Servers {
    config: EtcdConfig,
    urls: Vec<String>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// Which endpoint is next, counted without end.
    turn: usize,
    link: Option<Link>,
}

/// What happens when a question is asked twice, because nobody knows whether it was heard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Forbidden,
}

/// A connection to one server. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    /// The turn at which it was made, which tells connections apart.
    turn: usize,
    /// A request was answered since the connection was made.
    proven: Arc<AtomicBool>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("turn", &self.turn).field("proven", &self.proven).finish_non_exhaustive()
    }
}

impl Servers {
    pub(super) fn new(config: EtcdConfig) -> Result<Self, StoreError> {
        let urls = config.urls()?;
        let servers = Self { config, urls, current: Mutex::default() };
        for url in &servers.urls {
            servers.config.options(url, &servers.name())?;
        }
        Ok(servers)
    }

    pub(super) fn name(&self) -> String {
        format!("etcd {}", self.urls.join(","))
    }

    pub(super) fn deadline(&self) -> Duration {
        self.config.deadline
    }

    pub(super) fn unavailable(&self, action: &str, failure: Failure) -> StoreError {
        match failure.kind() {
            Kind::Unauthorized | Kind::Invalid => self.unauthorized(action),
            Kind::NotSent | Kind::Outdated | Kind::Lost | Kind::Busy | Kind::Compacted => {
                StoreError::Unavailable {
                    store: self.name(),
                    action: action.to_owned(),
                    source: failure.into(),
                }
            }
        }
    }

    pub(super) fn unauthorized(&self, action: &str) -> StoreError {
        StoreError::Unauthorized { store: self.name(), action: action.to_owned() }
    }

    /// Asks a question that may be asked twice, of one server after the other until one answers.
    ///
    /// The inner result is a server's answer, be it that it refuses.
    pub(super) async fn ask<T, A: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        action: &str,
        question: impl Fn(Link) -> A,
    ) -> Result<Result<T, Failure>, StoreError> {
        self.ask_in_turn(action, question, Repeat::Harmless).await
    }

    /// Asks a question that must not be asked twice, over a connection that has proved itself.
    pub(super) async fn ask_once<T, A: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        action: &str,
        question: impl Fn(Link) -> A,
    ) -> Result<Result<T, Failure>, StoreError> {
        self.ask_in_turn(action, question, Repeat::Forbidden).await
    }

    async fn ask_in_turn<T, A: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        action: &str,
        question: impl Fn(Link) -> A,
        repeat: Repeat,
    ) -> Result<Result<T, Failure>, StoreError> {
        let mut last = Failure::timed_out();
        // Once around, and the first one again: it may only have restarted.
        for _ in 0..=self.urls.len() {
            let link = match self.connect(action).await? {
                Ok(link) => link,
                Err(failure) => {
                    last = failure;
                    continue;
                }
            };
            if repeat == Repeat::Forbidden
                && let Err(failure) = self.prove(&link).await
            {
                last = failure;
                continue;
            }
            match self.try_on(&link, &question).await {
                Err(failure) if failure.kind().calls_for_another_link() => last = failure,
                Err(failure) if failure.kind() == Kind::Lost && repeat == Repeat::Harmless => last = failure,
                answer => return Ok(answer),
            }
        }
        Err(self.unavailable(action, last))
    }

    /// Makes sure that a connection works. Any answer proves it, even that this user may not read.
    async fn prove(&self, link: &Link) -> Result<(), Failure> {
        if link.proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        let probe =
            |mut link: Link| async move { link.kv.get("/", Some(GetOptions::new().with_count_only())).await };
        match self.try_on(link, &probe).await {
            Err(failure) if ends_link(&failure) => Err(failure),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn try_on<T, A: Future<Output = Result<T, etcd_client::Error>>>(
        &self,
        link: &Link,
        question: &impl Fn(Link) -> A,
    ) -> Result<T, Failure> {
        let answer = match timeout(self.config.deadline, question(link.clone())).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::timed_out()),
        };
        match &answer {
            Err(failure) if ends_link(failure) => self.give_up(link).await,
            Ok(_) | Err(_) => link.proven.store(true, Ordering::Relaxed),
        }
        answer
    }

    /// Returns the connection, making one to the endpoint whose turn it is when there is none.
    pub(super) async fn connect(&self, action: &str) -> Result<Result<Link, Failure>, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(link) = &current.link {
            return Ok(Ok(link.clone()));
        }
        let turn = current.turn;
        let url = &self.urls[turn % self.urls.len()];
        let options = self.config.options(url, &self.name())?;
        // Without a user this only prepares; with one it logs in, which a dead server would never answer.
        let client = match timeout(self.config.deadline, Client::connect([url], Some(options))).await {
            Ok(client) => client.map_err(Failure::from),
            Err(_) => Err(Failure::timed_out()),
        };
        match client {
            Ok(client) => {
                let link = Link {
                    kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
                    watch: client.watch_client().max_decoding_message_size(LARGEST_ANSWER),
                    turn,
                    proven: Arc::default(),
                };
                current.link = Some(link.clone());
                Ok(Ok(link))
            }
            Err(failure) if matches!(failure.kind(), Kind::Unauthorized | Kind::Invalid) => {
                Err(self.unauthorized(action))
            }
            Err(failure) => {
                current.turn += 1;
                Ok(Err(failure))
            }
        }
    }

    /// Gives up a connection that failed: it is the next endpoint's turn, unless somebody gave it up already.
    pub(super) async fn give_up(&self, link: &Link) {
        let mut current = self.current.lock().await;
        if current.turn == link.turn {
            current.turn += 1;
            current.link = None;
        }
    }
}

/// Reports whether a connection that failed like this is of no more use.
fn ends_link(failure: &Failure) -> bool {
    failure.kind() == Kind::Lost || failure.kind().calls_for_another_link()
}
