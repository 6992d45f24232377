//! Feeding monitoring stations (RFC 7854): one task for each, which connects, asks the speaker's owner for what the station
//! does not know yet, and writes it at the station's pace. Its `select!`s have only branches that may be dropped: a connection
//! that is begun anew, a sleep, one-time channels, and a question of a feed that ends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::handle::Command;
use crate::bmp;
use crate::speaker::FeedId;

/// How long a station may take to answer, and the first rest after it was lost; each later one is twice as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a station may take to take one portion, of about 64 KiB: to one that takes nothing, what changes is owed meanwhile.
const STALL: Duration = Duration::from_secs(60);
/// How long it may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
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

/// The task that feeds a station. Dropping it ends the feed, after the portion that is being written and a goodbye.
#[derive(Debug)]
pub(super) struct Feeding {
    task: JoinHandle<()>,
    /// Nothing is sent on it: the feed goes on for as long as it is there.
    _goes_on: oneshot::Sender<()>,
}

impl Feeding {
    pub(super) fn start(station: Station, owner: mpsc::WeakSender<Command>) -> Self {
        let (_goes_on, ends) = oneshot::channel();
        Self { task: tokio::spawn(feed(station, owner, ends)), _goes_on }
    }

    /// Ends the feed, and returns what ends with it.
    pub(super) fn end(self) -> JoinHandle<()> {
        self.task
    }
}

async fn feed(station: Station, owner: mpsc::WeakSender<Command>, mut ends: oneshot::Receiver<()>) {
    let mut rest = PATIENCE;
    loop {
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(station.address));
        let connected = tokio::select! {
            connected = connecting => connected,
            _ = &mut ends => return,
        };
        if let Ok(Ok(stream)) = connected {
            rest = PATIENCE;
            if serve(stream, &station, &owner, &mut ends, STALL).await.is_none() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            _ = &mut ends => return,
        }
        rest = (rest * 2).min(LONGEST_REST);
    }
}

/// Feeds a connected station until it is lost, or takes nothing for so long; `None` when the feed or the speaker has ended.
async fn serve(
    mut stream: TcpStream,
    station: &Station,
    owner: &mpsc::WeakSender<Command>,
    ends: &mut oneshot::Receiver<()>,
    stall: Duration,
) -> Option<()> {
    let (answer, opened) = oneshot::channel();
    owner.upgrade()?.send(Command::OpenFeed(station.name.clone(), answer)).await.ok()?;
    let feed = Open { id: opened.await.ok()?, owner };
    loop {
        let (answer, answered) = oneshot::channel();
        let asking = owner.upgrade()?;
        let answered = async {
            asking.send(Command::Feed(feed.id, answer)).await.ok()?;
            // Where a clone of it stayed, the speaker would not end with its last handle.
            drop(asking);
            Some(answered.await)
        };
        // The answer may take as long as nothing happens, and never comes when the feed was cut off. An owner that ends
        // takes no more questions.
        let octets = tokio::select! {
            biased;
            octets = answered => octets?,
            _ = &mut *ends => {
                let goodbye = bmp::termination("the operator ends the feed");
                let _unheard = tokio::time::timeout(GOODBYE, stream.write_all(&goodbye)).await;
                return None;
            }
        };
        let Ok(octets) = octets else { return owner.upgrade().map(|_| ()) };
        let Ok(Ok(())) = tokio::time::timeout(stall, stream.write_all(&octets)).await else {
            return Some(());
        };
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::{Handle, spawn};
    use crate::speaker::SpeakerConfig;

    const SOON: Duration = Duration::from_secs(10);

    fn speaker() -> Handle {
        let asn = "64512".parse().unwrap();
        spawn(&[], SpeakerConfig::new(asn, "10.0.0.1".parse().unwrap())).unwrap()
    }

    async fn open_feed(handle: &Handle) -> FeedId {
        let (answer, opened) = oneshot::channel();
        handle.commands.send(Command::OpenFeed("n1".to_owned(), answer)).await.unwrap();
        opened.await.unwrap()
    }

    #[tokio::test]
    async fn a_station_that_takes_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let station = Station { address: listener.local_addr().unwrap(), name: "n1".to_owned() };
        let stream = TcpStream::connect(station.address).await.unwrap();
        let (mut silent, _) = listener.accept().await.unwrap();
        let id = open_feed(&speaker()).await;
        // An owner that always has more to tell.
        let (owner, mut asked) = mpsc::channel(1);
        let weak = owner.downgrade();
        let told = tokio::spawn(async move {
            let mut portions = 0;
            while let Some(command) = asked.recv().await {
                if let Command::OpenFeed(_, answer) = command {
                    answer.send(id).unwrap();
                } else if let Command::Feed(_, answer) = command {
                    portions += 1;
                    let _gone = answer.send(vec![0; 64 * 1024]);
                } else {
                    assert!(matches!(command, Command::CloseFeed(closed) if closed == id));
                    return portions;
                }
            }
            portions
        });
        let (_goes_on, mut ends) = oneshot::channel();
        let served = serve(stream, &station, &weak, &mut ends, Duration::from_millis(300));
        assert_eq!(tokio::time::timeout(SOON, served).await, Ok(Some(())));
        let portions = tokio::time::timeout(SOON, told).await.unwrap().unwrap();
        assert!(portions > 1, "as much as the sockets hold");
        let mut held = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut held).await.unwrap();
        assert!(held.len() < portions * 64 * 1024);
        drop(owner);
    }

    #[tokio::test]
    async fn a_station_hears_goodbye_from_an_owner_that_takes_no_more_questions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let station = Station { address: listener.local_addr().unwrap(), name: "n1".to_owned() };
        let stream = TcpStream::connect(station.address).await.unwrap();
        let (mut hears, _) = listener.accept().await.unwrap();
        let id = open_feed(&speaker()).await;
        let (owner, mut asked) = mpsc::channel(1);
        let (goes_on, mut ends) = oneshot::channel::<()>();
        let answers = async {
            let Some(Command::OpenFeed(_, answer)) = asked.recv().await else {
                panic!("it asks for a feed first")
            };
            owner.send(Command::CloseFeed(id)).await.unwrap();
            answer.send(id).unwrap();
            tokio::task::yield_now().await;
            drop(goes_on);
        };
        let weak = owner.downgrade();
        let served = async { tokio::join!(serve(stream, &station, &weak, &mut ends, STALL), answers).0 };
        assert_eq!(tokio::time::timeout(SOON, served).await, Ok(None));
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut hears, &mut heard).await.unwrap();
        assert_eq!(heard, bmp::termination("the operator ends the feed"));
    }

    #[tokio::test]
    async fn who_asks_for_more_of_a_feed_that_is_over_is_told_so() {
        let handle = speaker();
        let id = open_feed(&handle).await;
        handle.commands.send(Command::CloseFeed(id)).await.unwrap();
        let (answer, answered) = oneshot::channel();
        handle.commands.send(Command::Feed(id, answer)).await.unwrap();
        assert!(tokio::time::timeout(SOON, answered).await.unwrap().is_err());
    }
}
