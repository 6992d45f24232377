//! What the driver reads before it gives a peer up.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calico_bgp::Origination;
use calico_bgp::family::{FamilySet, PerFamily};
use calico_bgp::net::{self, Handle};
use calico_bgp::session::{Initiation, State};
use calico_bgp::wire::open::{Forwarding, GracefulRestart, OnNotification, RestartState};
use calico_bgp::wire::{self, Capabilities, HoldTime, Notification, Open};
use calico_model::Community;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::hostile::{good_attributes, update};
use crate::lab::{wait_for_peer, wait_for_routes, wait_until_up};
use crate::sockets::{GOOD, US, free_port, peer};
use crate::world::{asn, ip, settings};

const THEIR_AS: u16 = 65066;

/// Our speaker, and a peer that is nothing but a socket, restarts gracefully, and has told a route.
async fn meet(hold_time: u16) -> (Handle, TcpStream) {
    let port = free_port();
    let handle = net::spawn(&[SocketAddr::new(ip(US), port)], settings(US, 65001)).unwrap();
    let mut expected = peer(GOOD, US, THEIR_AS.into(), port);
    expected.initiation = Initiation::Passive;
    handle.set_peers(vec![expected]).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::new(ip(GOOD), 0)).unwrap();
    let mut stream = socket.connect(SocketAddr::new(ip(US), port)).await.unwrap();
    let open = Open {
        asn: asn(THEIR_AS.into()),
        hold_time: HoldTime::new(hold_time).unwrap(),
        router_id: GOOD.parse().unwrap(),
        capabilities: Capabilities {
            families: Some(FamilySet::V4),
            four_octet_as: Some(asn(THEIR_AS.into())),
            graceful_restart: Some(GracefulRestart {
                restart_time: 120,
                state: RestartState::Fresh,
                on_notification: OnNotification::Keep,
                families: PerFamily { v4: Some(Forwarding::Preserved), v6: None },
            }),
            ..Capabilities::default()
        },
    };
    let route = update(&good_attributes(THEIR_AS), &[8, 20]);
    stream.write_all(&[open.encode(), wire::keepalive(), route].concat()).await.unwrap();
    wait_for_routes(&handle, |routes| routes.len() == 1).await;
    (handle, stream)
}

#[tokio::test]
async fn the_last_words_of_a_peer_that_left_much_unread_count() {
    let (handle, stream) = meet(240).await;
    const ROUTES: u16 = 40_000;
    let route = |number: u16| {
        let mut how = Origination::default();
        // More octets than the sockets take: some 200 for each.
        how.communities = (0..50).map(|at| Community::Standard(at, number)).collect();
        let [high, low] = number.to_be_bytes();
        (format!("30.{high}.{low}.0/24").parse().unwrap(), how)
    };
    handle.set_originated((0..ROUTES).map(route).collect()).await.unwrap();
    // The sockets are full when it goes on no further.
    let (mut sent, mut before) = (0, u64::MAX);
    while sent == 0 || sent != before {
        tokio::time::sleep(Duration::from_millis(200)).await;
        before = sent;
        sent = wait_until_up(&handle, GOOD).await.counters.updates_out;
    }
    assert!(sent < ROUTES.into(), "{sent}");
    // Nobody else runs between these words and the reset behind them.
    let hard = Notification::new(Notification::ADMINISTRATIVE_SHUTDOWN).into_hard_reset();
    let words = wire::notification(&hard);
    assert_eq!(stream.try_write(&words).unwrap(), words.len());
    drop(stream);
    let status = wait_for_peer(&handle, GOOD, |status| status.state != State::Established).await;
    assert_eq!(status.last_received.as_deref(), Some("administrative shutdown (6/2)"));
    assert_eq!(status.prefixes_in.v4, 0, "nothing is kept after a hard reset");
}

#[tokio::test]
async fn who_is_held_up_for_longer_than_the_hold_time_hears_what_was_said_meanwhile() {
    let (handle, stream) = meet(3).await;
    let mut stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let talking = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let _lost = stream.write_all(&wire::keepalive());
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let before = wait_until_up(&handle, GOOD).await;
    // The owner has a command to carry out, and no time on this thread of all until the hold time is over.
    let mut answer = Box::pin(handle.status());
    std::future::poll_fn(|context| {
        assert!(answer.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    std::thread::sleep(Duration::from_secs(4));
    answer.await.unwrap();
    let after = wait_until_up(&handle, GOOD).await;
    assert_eq!((after.since, after.counters.established), (before.since, 1), "{:?}", after.last_error);
    is_over.store(true, Ordering::Relaxed);
    talking.join().unwrap();
}
