//! **Who else is told**: a BGP speaker as a pure machine, with a tokio driver.
//!
//! A [`Speaker`] holds the sessions with its peers and the tables of routes. It owns no socket and reads no clock:
//! octets, the time and commands go in; octets, deadlines and route events come out. A program embeds it in whatever
//! loop it has, or starts the ready one of `net` (feature `net`) and keeps its `Handle`.
//!
//! # The run loop
//!
//! Whoever drives a speaker does four things: carries out its actions, hands it what arrives, takes what is to be
//! sent, and wakes it at its deadline.
//!
//! ```
//! use std::time::Instant;
//! use calico_bgp::{Action, Origination, PeerConfig, Speaker, SpeakerConfig};
//! use calico_model::AsNumber;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let now = Instant::now();
//! let us = AsNumber::DEFAULT;
//! let mut speaker = Speaker::new(SpeakerConfig::new(us, "172.16.6.10".parse()?), now);
//! speaker.set_originated([("192.168.0.0/26".parse()?, Origination::default())].into(), now);
//! speaker.set_peers(vec![PeerConfig::new("172.16.6.11".parse()?, us, us)], now);
//!
//! while let Some(action) = speaker.poll() {
//!     match action {
//!         Action::Dial { connection, peer } => {
//!             // Open a socket to `peer.address`, then say how it went:
//!             speaker.connected(connection, "172.16.6.10".parse()?, now);
//!         }
//!         Action::Wake(connection) => {
//!             let mut octets = Vec::new();
//!             speaker.transmit(connection, &mut octets, now);
//!             // Write them to the socket; when it took them all, ask again. (`offer` is for one that takes a part.)
//! #           assert_eq!(octets[18], 1, "an OPEN");
//!         }
//!         Action::Close(connection) => { /* close the socket */ }
//!         Action::Event(event) => println!("{event:?}"),
//!         _ => {}
//!     }
//! }
//! // Then wait for the first of: octets on a socket (`receive`), a new connection (`accept`), the end of one
//! // (`closed`), and the deadline (`timeout`).
//! assert!(speaker.deadline().is_some());
//! # Ok(())
//! # }
//! ```
//!
//! # The rooms
//!
//! - [`wire`]: messages, to and from octets; a decode error names its RFC 7606 remedy.
//! - [`session`]: one peer's state machine, its deadlines, and which of two connections lives.
//! - [`rib`] and [`decision`]: every path once, and the choice between them, whatever the order of arrival.
//! - [`filter`]: what passes between us and a peer, compiled from Calico's filters.
//! - [`peers`]: which sessions and prefixes Calico's resources ask for.
//! - [`speaker`]: all of it together, with update groups and graceful restart.
//! - [`bfd`]: whether packets still reach a neighbour, noticed in a fraction of a second.
//! - [`bmp`]: what a monitoring station is told.
//! - `net`: sockets, with feature `net`.
#![deny(missing_docs)]

pub mod bfd;
pub mod bmp;
pub mod decision;
pub mod family;
pub mod filter;
mod jitter;
#[cfg(feature = "net")]
pub mod net;
pub mod peers;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod wire;

pub use speaker::{
    Action, Event, Origination, PeerConfig, PeerStatus, Refused, RouteStatus, Speaker, SpeakerConfig, Start,
};
