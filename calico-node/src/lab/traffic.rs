//! Traffic that goes on while something is done to the lab, and is counted.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::task::JoinSet;

use super::error::LabError;
use super::probe::icmp::Echo;
use super::probe::{PATIENCE, Probe, Verdict, connect, converse};
use super::wait::{Interrupt, Stopwatch};
use super::{Lab, netns};

/// Flows that are running.
#[derive(Debug)]
pub struct Traffic {
    end: Interrupt,
    flows: Vec<JoinHandle<Result<TrafficCount, LabError>>>,
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// How many probes were sent.
    pub sent: u64,
    /// How many of them were answered.
    pub answered: u64,
}

impl Lab {
    /// Starts flows, each given as where from, where to and what. A flow of pings is one flow to connection tracking,
    /// and each connect or datagram is a new one. A ping is sent every ten milliseconds, the others every twenty.
    ///
    /// # Errors
    /// When there is no such host or workload.
    pub fn traffic(&self, flows: &[(&str, IpAddr, Probe)]) -> Result<Traffic, LabError> {
        let end = Interrupt::default();
        let mut running = Vec::new();
        for (from, to, probe) in flows {
            let (netns, to, probe, end) = (self.state.netns(from)?.to_owned(), *to, *probe, end.clone());
            running.push(thread::spawn(move || {
                let counted = netns::within(&netns, || match (probe, to) {
                    (Probe::Ping, IpAddr::V4(to)) => pings(to, &end),
                    (Probe::Ping, IpAddr::V6(_)) => Err(io::ErrorKind::Unsupported.into()),
                    (Probe::Tcp(port), to) => repeat(&end, || connect(SocketAddr::new(to, port))),
                    (Probe::Udp(port), to) => repeat(&end, || converse(SocketAddr::new(to, port))),
                })?;
                counted.map_err(LabError::io(format!("send from {netns} to {to}")))
            }));
        }
        Ok(Traffic { end, flows: running })
    }
}

impl Traffic {
    /// Ends the flows, waits for answers that are on their way, and returns the counts in the order of the flows.
    ///
    /// # Errors
    /// When a flow could not be sent.
    pub fn stop(self) -> Result<Vec<TrafficCount>, LabError> {
        self.end.raise();
        let joined = self.flows.into_iter().map(|flow| flow.join().unwrap_or(Err(LabError::Interrupted)));
        joined.collect()
    }
}

fn pings(to: std::net::Ipv4Addr, end: &Interrupt) -> io::Result<TrafficCount> {
    let echo = Echo::open()?;
    let mut sent = 0;
    let mut answered = BTreeSet::new();
    while end.check().is_ok() {
        // A request that the kernel does not take is one that was lost.
        drop(echo.send(to, sent));
        sent += 1;
        let tick = Stopwatch::start();
        while tick.elapsed() < Duration::from_millis(10) {
            answered.extend(echo.receive()?.map(|(_, number)| number));
        }
    }
    let late = Stopwatch::start();
    while late.elapsed() < PATIENCE && (answered.len() as u64) < sent {
        answered.extend(echo.receive()?.map(|(_, number)| number));
    }
    Ok(TrafficCount { sent, answered: answered.len() as u64 })
}

/// Asks anew every twenty milliseconds.
fn repeat<F>(end: &Interrupt, ask: impl Fn() -> F) -> io::Result<TrafficCount>
where
    F: Future<Output = Verdict> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut attempts = JoinSet::new();
        let mut count = TrafficCount::default();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while end.check().is_ok() {
            ticks.tick().await;
            attempts.spawn(ask());
            count.sent += 1;
        }
        while let Some(verdict) = attempts.join_next().await {
            count.answered += u64::from(matches!(verdict, Ok(Verdict::Allowed)));
        }
        Ok(count)
    })
}
