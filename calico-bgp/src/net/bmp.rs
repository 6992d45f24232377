//! Feeding monitoring stations (RFC 7854): one task for each, which connects, asks the speaker's owner for what the station
//! does not know yet, and writes it at the station's pace.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::handle::Command;
use crate::speaker::FeedId;

/// How long a station may take to answer, and the first rest after it was lost; each later one is twice as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest rest between two attempts.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// How often stations hear what was counted.
pub(super) const STATISTICS: Duration = Duration::from_secs(60);

/// A monitoring station.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it shall call us (sysName).
    pub name: String,
}

/// The task that feeds a station. Dropping it ends the feed.
#[derive(Debug)]
pub(super) struct Feeding(AbortHandle);

impl Feeding {
    pub(super) fn start(station: Station, owner: mpsc::WeakSender<Command>) -> Self {
        Self(tokio::spawn(feed(station, owner)).abort_handle())
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn feed(station: Station, owner: mpsc::WeakSender<Command>) {
    let mut rest = PATIENCE;
    loop {
        if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, TcpStream::connect(station.address)).await {
            rest = PATIENCE;
            if serve(stream, &station, &owner).await.is_none() {
                return;
            }
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(LONGEST_REST);
    }
}

/// Feeds a connected station until it is lost; `None` when the speaker is gone.
async fn serve(mut stream: TcpStream, station: &Station, owner: &mpsc::WeakSender<Command>) -> Option<()> {
    let (answer, opened) = oneshot::channel();
    owner.upgrade()?.send(Command::OpenFeed(station.name.clone(), answer)).await.ok()?;
    let feed = Open { id: opened.await.ok()?, owner };
    loop {
        let (answer, answered) = oneshot::channel();
        owner.upgrade()?.send(Command::Feed(feed.id, answer)).await.ok()?;
        // The answer may take as long as nothing happens, and never comes when the feed was cut off.
        let Ok(octets) = answered.await else { return owner.upgrade().map(|_| ()) };
        if stream.write_all(&octets).await.is_err() {
            return Some(());
        }
    }
}

/// A feed that ends with its connection.
struct Open<'o> {
    id: FeedId,
    owner: &'o mpsc::WeakSender<Command>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            let close = Command::CloseFeed(self.id);
            tokio::spawn(async move { owner.send(close).await });
        }
    }
}
