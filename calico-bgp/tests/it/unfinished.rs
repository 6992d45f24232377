//! Messages that never end: what they cost the speaker, in octets that it holds, and what they cost others.

use std::net::SocketAddr;
use std::time::Duration;

use calico_bgp::net::Handle;
use calico_bgp::session::{Initiation, State};
use calico_bgp::speaker::DynamicPeers;
use calico_bgp::wire::open::Feature;
use calico_bgp::wire::{self, Capabilities, HoldTime, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Open};
use calico_bgp::{Origination, PeerConfig, PeerStatus, Speaker};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::lab::{wait_for_peer, wait_for_routes, wait_until_up};
use crate::sockets::{GOOD, US, connect_from, free_port, good_peer, ours, peer};
use crate::world::{asn, beginning, ip, settings};

/// In how many seconds keepalives have to come from the one who is no stranger.
const HOLD_TIME: u16 = 6;
/// How many strangers there may be.
const STRANGERS: u16 = 1000;

/// All but the last octet of a message of this length.
fn begun(kind: u8, len: usize) -> Vec<u8> {
    let header = [&[0xff; 16][..], &(len as u16).to_be_bytes(), &[kind]].concat();
    [header, vec![0; len - 20]].concat()
}

fn opening(router_id: &str) -> Vec<u8> {
    let capabilities = Capabilities {
        four_octet_as: Some(asn(65066)),
        features: [Feature::ExtendedMessages].into(),
        ..Default::default()
    };
    let open = Open {
        asn: asn(65066),
        hold_time: HoldTime::SUGGESTED,
        router_id: router_id.parse().unwrap(),
        capabilities,
    };
    [open.encode(), wire::keepalive()].concat()
}

fn strangers(prefix: &str) -> DynamicPeers {
    let settings = PeerConfig::new(ip(US), asn(65066), asn(65001));
    DynamicPeers { prefix: prefix.parse().unwrap(), limit: STRANGERS.into(), settings }
}

fn held(status: &[PeerStatus]) -> usize {
    status.iter().map(|status| status.octets_begun).sum()
}

#[test]
fn what_a_connection_has_begun_is_held_once_and_no_more_than_a_message() {
    let now = beginning();
    let mut speaker = Speaker::new(settings(US, 65001), now);
    speaker.set_dynamic_peers(vec![strangers("10.0.0.0/8")], now);
    let mut expected = 0;
    for number in 0..STRANGERS {
        let address = format!("10.1.{}.{}", number >> 8, number & 255);
        let connection = speaker.accept(ip(&address), ip(US), now).unwrap();
        let is_up = number % 2 == 0;
        let (unfinished, most) = if is_up {
            speaker.receive(connection, &opening(&address.replace("10.1", "10.2")), now);
            (begun(2, MAX_EXTENDED_MESSAGE), MAX_EXTENDED_MESSAGE)
        } else {
            (begun(1, MAX_MESSAGE), MAX_MESSAGE)
        };
        // Octet by octet, in larger parts, in one piece.
        let portion = match number {
            0..4 => 1,
            4..500 => 1000,
            _ => unfinished.len(),
        };
        unfinished.chunks(portion).for_each(|octets| speaker.receive(connection, octets, now));
        expected += 2 * most;
        let status = speaker.status().into_iter().find(|status| status.address == ip(&address)).unwrap();
        assert_eq!(status.state == State::Established, is_up);
        assert!(status.octets_begun >= unfinished.len(), "{status:?}");
    }
    let held = held(&speaker.status());
    assert!(held <= expected, "{held} of {expected}");
}

#[test]
fn a_message_that_would_be_too_long_is_refused_by_its_header_alone() {
    let now = beginning();
    let mut speaker = Speaker::new(settings(US, 65001), now);
    speaker.set_dynamic_peers(vec![strangers("10.0.0.0/8")], now);
    let connection = speaker.accept(ip("10.1.0.1"), ip(US), now).unwrap();
    // Longer ones are agreed on in OPENs only (RFC 8654 section 4).
    speaker.receive(connection, &begun(1, MAX_EXTENDED_MESSAGE)[..19], now);
    let mut said = Vec::new();
    speaker.transmit(connection, &mut said, now);
    let frame = std::iter::from_fn(|| {
        let frame = wire::frame(&said, MAX_MESSAGE).unwrap()?;
        let (kind, body) = (frame.kind, frame.body.to_vec());
        said.drain(..frame.len);
        Some((kind, body))
    });
    let (kind, body) = frame.last().unwrap();
    assert_eq!((kind, &body[..2]), (wire::MessageType::Notification, &[1, 2][..]), "bad message length");
}

/// Waits until the speaker holds so many octets of messages that are not whole.
async fn wait_until_held(handle: &Handle, least: usize) -> usize {
    let mut now_held = 0;
    for _ in 0..400 {
        now_held = held(&handle.status().await.unwrap());
        if now_held >= least {
            return now_held;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{now_held} octets are held, and not {least}");
}

async fn tell(good: &Handle, prefix: &str) {
    let mut how = Origination::default();
    how.next_hop = Some(ip("10.2.0.1"));
    good.set_originated([(prefix.parse().unwrap(), how)].into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_half_open_connections_and_slow_senders_starve_nobody() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(8192), most).unwrap();
    let port = free_port();
    let handle = ours(port).await;
    let mut expected = peer(GOOD, US, 65001, port);
    expected.initiation = Initiation::Passive;
    expected.hold_time = HoldTime::new(HOLD_TIME).unwrap();
    handle.set_peers(vec![expected]).await.unwrap();
    let good = good_peer(port).await;
    wait_until_up(&handle, GOOD).await;
    handle.set_dynamic_peers(vec![strangers("127.1.0.0/16")]).await.unwrap();
    let mut connections: Vec<TcpStream> = Vec::new();
    for number in 0..STRANGERS + 10 {
        let [high, low] = (number + 256).to_be_bytes();
        let mut stream = connect_from([127, 1, high, low].into(), port).await;
        // A tenth says nothing, a tenth dribbles, and of the others half are up and have a longer message to say.
        let octets = match number % 10 {
            0 | 1 => Vec::new(),
            2..6 => begun(1, MAX_MESSAGE),
            _ => {
                let SocketAddr::V4(own) = stream.local_addr().unwrap() else { unreachable!() };
                [opening(&own.ip().to_string()), begun(2, MAX_EXTENDED_MESSAGE)].concat()
            }
        };
        let _more_than_allowed = stream.write_all(&octets).await;
        connections.push(stream);
    }
    let dribble = tokio::spawn(async move {
        for octet in begun(1, MAX_MESSAGE) {
            for stream in connections.iter_mut().skip(1).step_by(10) {
                let _closed = stream.write_all(&[octet]).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let fifths = usize::from(STRANGERS) / 5;
    let all = 2 * fifths * (MAX_MESSAGE - 1) + 2 * fifths * (MAX_EXTENDED_MESSAGE - 1);
    let now_held = wait_until_held(&handle, all).await;
    assert!(now_held <= 2 * all + fifths * MAX_MESSAGE, "{now_held} octets");
    let before = wait_until_up(&handle, GOOD).await;
    for number in 0..10 {
        let prefix = format!("10.{}.0.0/16", 100 + number);
        tell(&good, &prefix).await;
        let is_here = |routes: &calico_model::LearnedRoutes| routes.contains_key(&prefix.parse().unwrap());
        wait_for_routes(&handle, is_here).await;
    }
    let passed = Duration::from_secs(u64::from(HOLD_TIME) + 1);
    let after = wait_for_peer(&handle, GOOD, |status| status.since.elapsed() > passed).await;
    assert_eq!((after.counters.established, after.state), (1, State::Established));
    assert!(after.counters.messages_in > before.counters.messages_in + 10);
    let status = handle.status().await.unwrap();
    assert!(status.len() <= usize::from(STRANGERS) + 1, "as many as are allowed: {}", status.len());
    assert!(status.len() > 900, "they are still there: {}", status.len());
    dribble.abort();
    good.shut_down("").await.unwrap();
}
