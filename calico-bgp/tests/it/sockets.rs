//! The driver on real sockets: floods, ports that change, stations, and BFD with BIRD.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use calico_bgp::bfd::{BfdConfig, Change};
use calico_bgp::net::{self, Handle, Station};
use calico_bgp::session::{Initiation, State};
use calico_bgp::speaker::{DynamicPeers, Password};
use calico_bgp::wire::{self, MessageType, Notification};
use calico_bgp::{Event, Origination, PeerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::lab::{Bird, Namespace, PATIENCE, wait_for_peer, wait_for_routes, wait_until_up};
use crate::world::{asn, ip, settings};

pub(crate) const US: &str = "127.0.0.1";
pub(crate) const GOOD: &str = "127.0.0.2";

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind((US, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) fn peer(address: &str, local: &str, number: u32, port: u16) -> PeerConfig {
    let mut peer = PeerConfig::new(ip(address), asn(number), asn(65001));
    peer.local_address = Some(ip(local));
    peer.port = port;
    peer.connect_retry = Duration::from_millis(200);
    peer
}

/// A speaker that dials ours from its own address, and has a route to tell.
pub(crate) async fn good_peer(port: u16) -> Handle {
    let handle = net::spawn(&[], settings(GOOD, 65001)).unwrap();
    // A loopback address, as this peer's, is no next hop.
    let mut how = Origination::default();
    how.next_hop = Some(ip("10.2.0.1"));
    handle.set_originated([("10.2.0.0/16".parse().unwrap(), how)].into()).await.unwrap();
    handle.set_peers(vec![peer(US, GOOD, 65001, port)]).await.unwrap();
    handle
}

pub(crate) async fn ours(port: u16) -> Handle {
    let handle = net::spawn(&[SocketAddr::new(ip(US), port)], settings(US, 65001)).unwrap();
    let mut expected = peer(GOOD, US, 65001, port);
    expected.initiation = Initiation::Passive;
    handle.set_peers(vec![expected]).await.unwrap();
    handle
}

pub(crate) async fn connect_from(from: Ipv4Addr, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.into(), 0)).unwrap();
    socket.connect(SocketAddr::new(ip(US), port)).await.unwrap()
}

#[tokio::test]
async fn where_it_listens_changes_under_running_sessions_and_a_taken_port_changes_nothing() {
    let (first, second) = (free_port(), free_port());
    let handle = ours(first).await;
    let good = good_peer(first).await;
    let before = wait_until_up(&handle, GOOD).await;
    let addresses = [SocketAddr::new(ip(US), second), SocketAddr::new(ip("127.0.0.9"), second)];
    handle.set_listen(&addresses).await.unwrap().unwrap();
    assert!(TcpStream::connect((US, first)).await.is_err());
    for address in addresses {
        TcpStream::connect(address).await.unwrap();
    }
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), second);
    handle.set_listen(&[any]).await.unwrap().unwrap();
    TcpStream::connect(("127.0.0.77", second)).await.unwrap();
    let taken = std::net::TcpListener::bind((US, 0)).unwrap();
    let error = handle.set_listen(&[taken.local_addr().unwrap()]).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("is taken by another program"), "{error}");
    TcpStream::connect((US, second)).await.unwrap();
    let after = wait_until_up(&handle, GOOD).await;
    assert_eq!(after.counters.established, before.counters.established, "the session noticed nothing");
    good.shut_down("").await.unwrap();
}

#[test]
fn who_can_listen_neither_where_it_shall_nor_where_it_did_says_so() {
    let ours = Namespace::new();
    ours.ip("addr add 10.99.0.1/32 dev lo");
    ours.block_on(async {
        let old = SocketAddr::new(ip("10.99.0.1"), 179);
        let handle = net::spawn(&[old], settings("10.99.0.1", 64512)).unwrap();
        let taken = std::net::TcpListener::bind((US, 179)).unwrap();
        let wanted = [taken.local_addr().unwrap()];
        let error = handle.set_listen(&wanted).await.unwrap().unwrap_err();
        assert!(!error.to_string().contains("no longer"), "{error}");
        TcpStream::connect(old).await.unwrap();
        ours.ip("addr del 10.99.0.1/32 dev lo");
        let error = handle.set_listen(&wanted).await.unwrap().unwrap_err().to_string();
        assert!(error.starts_with("port 179 on 127.0.0.1 is taken by another program"), "{error}");
        let lost =
            "and no longer where it was before: cannot listen on 10.99.0.1: no interface has this address";
        assert!(error.ends_with(lost), "{error}");
    });
}

#[tokio::test]
async fn a_key_for_a_prefix_lets_in_only_those_who_have_it() {
    let port = free_port();
    let handle = net::spawn(&[SocketAddr::new(ip(US), port)], settings(US, 65001)).unwrap();
    let mut allowed = PeerConfig::new(ip(US), asn(65001), asn(65001));
    allowed.password = Password::new("secret");
    let range = DynamicPeers { prefix: "127.2.0.0/16".parse().unwrap(), limit: 10, settings: allowed };
    handle.set_dynamic_peers(vec![range]).await.unwrap();
    let mut others = Vec::new();
    for (from, key) in [("127.2.0.2", None), ("127.2.0.3", Some("wrong")), ("127.2.0.1", Some("secret"))] {
        let other = net::spawn(&[], settings(from, 65001)).unwrap();
        let mut peer = peer(US, from, 65001, port);
        peer.password = key.and_then(Password::new);
        other.set_peers(vec![peer]).await.unwrap();
        others.push(other);
    }
    wait_until_up(&handle, "127.2.0.1").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let here: Vec<_> = handle.status().await.unwrap().into_iter().map(|status| status.address).collect();
    assert_eq!(here, [ip("127.2.0.1")]);
}

#[tokio::test]
async fn who_is_not_taken_is_told_so() {
    let port = free_port();
    let handle = ours(port).await;
    let range = DynamicPeers {
        prefix: "127.4.0.0/16".parse().unwrap(),
        limit: 0,
        settings: peer(US, US, 65001, port),
    };
    handle.set_dynamic_peers(vec![range]).await.unwrap();
    for stranger in [[127, 0, 0, 3], [127, 4, 0, 1]] {
        let mut connection = connect_from(stranger.into(), port).await;
        let mut heard = Vec::new();
        connection.read_to_end(&mut heard).await.unwrap();
        let said = wire::frame(&heard, wire::MAX_MESSAGE).unwrap().expect("a message");
        let said = (said.kind, wire::read_notification(said.body).kind());
        assert_eq!(said, (MessageType::Notification, Notification::CONNECTION_REJECTED), "{stranger:?}");
    }
}

#[tokio::test]
async fn a_dial_that_is_not_answered_is_given_up_when_it_is_time_for_another() {
    // Whoever knows of no key does not answer those who have one.
    let silent = TcpListener::bind((US, 0)).await.unwrap();
    let handle = net::spawn(&[], settings(GOOD, 65001)).unwrap();
    let mut dialed = peer(US, GOOD, 65001, silent.local_addr().unwrap().port());
    dialed.password = Password::new("secret");
    handle.set_peers(vec![dialed]).await.unwrap();
    let told = async {
        loop {
            let why = handle.status().await.unwrap()[0].last_error.clone();
            if why.as_ref().is_some_and(|why| why.contains("no answer for 1 s")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("the dial is given up");
}

#[tokio::test]
async fn a_station_is_fed_and_when_it_went_away_it_is_fed_anew() {
    let port = free_port();
    let handle = ours(port).await;
    let _good = good_peer(port).await;
    wait_for_routes(&handle, |routes| routes.len() == 1).await;
    let listener = TcpListener::bind((US, 0)).await.unwrap();
    let station = Station { address: listener.local_addr().unwrap(), name: "node1".to_owned() };
    handle.set_stations(vec![station.clone()]).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        let mut head = [0; 6];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 3);
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; len - 6];
        stream.read_exact(&mut body).await.unwrap();
        kinds.push(head[5]);
        if head[5] == 3 {
            let [local, remote] = [58, 60].map(|at| u16::from_be_bytes([body[at], body[at + 1]]));
            assert!(local == port && remote != port && remote != 0, "{local} {remote}");
        }
    }
    assert_eq!(kinds, [4, 3, 0, 0], "who we are, a session, its route, the end");
    handle.set_stations(Vec::new()).await.unwrap();
    const GOODBYE: [u8; 6] = [3, 0, 0, 0, 42, 5];
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest[..6], GOODBYE);
    handle.set_stations(vec![station]).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut [0; 6]).await.unwrap();
    handle.shut_down("").await.unwrap();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest[rest.len() - 42..][..6], GOODBYE);
}

#[test]
fn bfd_with_bird_notices_in_a_second_that_nobody_is_there() {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    ours.wire(&["10.99.0.1/24"], &theirs, &["10.99.0.2/24"]);
    let bird = Bird::start(
        &theirs,
        "router id 10.99.0.2;
protocol static { ipv4; route 192.168.5.0/26 blackhole; }
protocol bfd { interface \"*\" { interval 200 ms; multiplier 3; }; }
protocol bgp calico {
  local 10.99.0.2 as 64512;
  neighbor 10.99.0.1 as 64512;
  direct;
  bfd on;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  graceful restart on;
  ipv4 { import all; export all; next hop self; };
}
",
    );
    ours.block_on(async {
        let handle = net::spawn(&["0.0.0.0:179".parse().unwrap()], settings("10.99.0.1", 64512)).unwrap();
        let mut peer = PeerConfig::new(ip("10.99.0.2"), asn(64512), asn(64512));
        peer.local_address = Some(ip("10.99.0.1"));
        peer.connect_retry = Duration::from_secs(1);
        let mut bfd = BfdConfig::default();
        bfd.min_tx = Duration::from_millis(200);
        bfd.min_rx = Duration::from_millis(200);
        peer.bfd = Some(bfd);
        handle.set_peers(vec![peer]).await.unwrap();
        wait_for_routes(&handle, |routes| routes.len() == 1).await;
        wait_for_peer(&handle, "10.99.0.2", |status| status.path == Some(Change::Up)).await;
        bird.wait_for("show bfd sessions", "Up").await;
        // For a while nothing happens, however the packets are spread.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let status = wait_until_up(&handle, "10.99.0.2").await;
        assert_eq!((status.path, status.counters.established), (Some(Change::Up), 1));
        bird.freeze();
        let status = wait_for_peer(&handle, "10.99.0.2", |status| status.state != State::Established).await;
        assert_eq!(status.last_error.as_deref(), Some("we closed the session: BFD session down (6/10)"));
        wait_for_routes(&handle, |routes| routes.is_empty()).await;
    });
}

#[test]
fn a_watch_that_cannot_begin_is_told_of_once_and_begins_when_it_can() {
    let namespace = Namespace::new();
    namespace.block_on(async {
        let taken = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 3784)).unwrap();
        let handle = net::spawn(&[SocketAddr::new(ip(US), 179)], settings(US, 65001)).unwrap();
        let mut events = handle.events();
        let mut watched = peer(GOOD, US, 65001, 179);
        watched.initiation = Initiation::Passive;
        watched.bfd = Some(BfdConfig::default());
        handle.set_peers(vec![watched]).await.unwrap();
        let _good = good_peer(179).await;
        let warning = async {
            loop {
                let Event::Warning(_, why) = events.recv().await.unwrap() else { continue };
                return why;
            }
        };
        let why = tokio::time::timeout(PATIENCE, warning).await.unwrap();
        assert!(why.starts_with("cannot be watched by BFD: UDP port 3784 cannot be had"), "{why}");
        drop(taken);
        let is_taken = || std::fs::read_to_string("/proc/thread-self/net/udp").unwrap().contains(":0EC8 ");
        assert!(!is_taken());
        let begins = async {
            while !is_taken() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, begins).await.expect("it is tried again");
        assert_eq!(wait_until_up(&handle, GOOD).await.counters.established, 1);
    });
}

#[tokio::test]
async fn who_connects_from_where_the_kernel_takes_no_more_keys_is_refused_and_the_operator_is_told() {
    let port = free_port();
    let handle = net::spawn(&[SocketAddr::new(ip(US), port)], settings(US, 65001)).unwrap();
    let mut events = handle.events();
    // Each key costs about 150 octets of what a socket may have for options.
    let room: u32 = std::fs::read_to_string("/proc/sys/net/core/optmem_max").unwrap().trim().parse().unwrap();
    let address = |number: u32| Ipv4Addr::from(0x7f03_0001 + number);
    let with_key = |number: u32| {
        let mut peer = peer(&address(number).to_string(), US, 65001, port);
        peer.initiation = Initiation::Passive;
        peer.password = Password::new("secret");
        peer
    };
    let peers: Vec<PeerConfig> = (0..room / 64).map(with_key).collect();
    let last = address(peers.len() as u32 - 1);
    handle.set_peers(peers.clone()).await.unwrap();
    let Event::Warning(_, why) = events.recv().await.unwrap() else { panic!("no warning") };
    assert!(why.starts_with("may not connect to us, and ") && why.contains(" others neither: "), "{why}");
    assert!(why.contains("no TCP MD5 key for 127.3.") && why.contains("Cannot allocate memory"), "{why}");

    let mut unsigned = connect_from(last, port).await;
    let mut said = Vec::new();
    let _reset_or_closed = unsigned.read_to_end(&mut said).await;
    assert_eq!(said.len(), 0, "not even an OPEN");
    assert!(tokio::time::timeout(Duration::from_millis(300), connect_from(address(0), port)).await.is_err());

    // As soon as there is room again, the key is laid.
    handle.set_peers(peers[peers.len() - 1..].to_vec()).await.unwrap();
    let other = net::spawn(&[], settings(&last.to_string(), 65001)).unwrap();
    let mut back = peer(US, &last.to_string(), 65001, port);
    back.password = Password::new("secret");
    other.set_peers(vec![back]).await.unwrap();
    wait_until_up(&handle, &last.to_string()).await;
}
