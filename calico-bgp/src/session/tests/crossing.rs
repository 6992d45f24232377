//! Connections that cross: which one lives, and when a session is confirmed meanwhile (RFC 4271 section 6.8).

use super::*;

/// Two connections, ours and the peer's, both with our OPEN sent.
fn crossing(now: Instant) -> (Session, ConnectionId, ConnectionId) {
    let (mut session, ours) = in_state(State::OpenSent, now);
    let theirs = session.next_connection().unwrap();
    session.handle(Input::Accepted(theirs), now);
    assert_eq!(gist(&outputs(&mut session)), ["OPEN"]);
    (session, ours, theirs)
}

#[test]
fn of_two_crossing_connections_the_one_of_the_higher_identifier_lives() {
    let now = beginning();
    for (peer, ours_lives) in [("10.0.0.4", true), ("10.0.0.6", false)] {
        for ours_first in [true, false] {
            let (mut session, ours, theirs) = crossing(now);
            let (first, second) = if ours_first { (ours, theirs) } else { (theirs, ours) };
            session.handle(Input::Heard(first, Heard::Open(Box::new(open(peer)))), now);
            let said: &[&str] = if ours_first { &["KEEPALIVE"] } else { &[] };
            assert_eq!(gist(&outputs(&mut session)), said, "nothing is decided on one OPEN");
            session.handle(Input::Heard(second, Heard::Open(Box::new(open(peer)))), now);
            let done = outputs(&mut session);
            let loser = if ours_lives { theirs } else { ours };
            assert!(done.contains(&Output::Close(loser)), "{peer} {ours_first} {done:?}");
            assert!(gist(&done).contains(&"NOTIFICATION 6/7".to_owned()));
            assert_eq!(
                gist(&done).contains(&"KEEPALIVE".to_owned()),
                !(ours_lives && ours_first),
                "{done:?}"
            );
            let winner = if ours_lives { ours } else { theirs };
            session.handle(Input::Heard(winner, Heard::Keepalive), now);
            assert_eq!(session.state(), State::Established);
        }
    }
}

#[test]
fn a_connection_that_crossed_one_that_is_established_by_now_loses() {
    let now = beginning();
    let (mut session, ours, theirs) = crossing(now);
    session.handle(Input::Heard(ours, Heard::Open(Box::new(open("10.0.0.9")))), now);
    session.handle(Input::Heard(ours, Heard::Keepalive), now);
    outputs(&mut session);
    session.handle(Input::Heard(theirs, Heard::Open(Box::new(open("10.0.0.9")))), now);
    let done = outputs(&mut session);
    assert_eq!(gist(&done), ["NOTIFICATION 6/7", "close", "failed"]);
    assert_eq!(session.state(), State::Established);
}

/// The peer's connection with everything that the peer has to say for a session, while ours may still collide with it.
fn confirmed_by_the_peer(state: State, now: Instant) -> (Session, ConnectionId, ConnectionId) {
    let (mut session, ours) = in_state(state, now);
    let theirs = session.next_connection().unwrap();
    session.handle(Input::Accepted(theirs), now);
    outputs(&mut session);
    session.handle(Input::Heard(theirs, Heard::Open(Box::new(open("10.0.0.9")))), now);
    session.handle(Input::Heard(theirs, Heard::Keepalive), now);
    assert_eq!((outputs(&mut session), session.state()), (vec![], State::OpenConfirm));
    (session, ours, theirs)
}

#[test]
fn a_session_is_not_confirmed_while_a_connection_that_we_dialed_may_be_waiting_for_the_peer() {
    let now = beginning();
    let over: &[(State, &str, &[&str])] = &[
        (State::OpenSent, "OPEN", &["NOTIFICATION 6/7", "close", "failed"]),
        (State::OpenSent, "bad OPEN", &["NOTIFICATION 2/2", "close", "failed"]),
        (State::OpenSent, "NOTIFICATION", &["close", "failed"]),
        (State::OpenSent, "closed", &["close", "failed"]),
        (State::Connect, "refused", &["failed"]),
    ];
    for (state, end_of_ours, end) in over {
        let (mut session, ours, theirs) = confirmed_by_the_peer(*state, now);
        session.handle(Input::Timeout, now + CROSSING_WAIT / 2);
        assert_eq!(outputs(&mut session), []);
        session.handle(input(end_of_ours, ours), now + CROSSING_WAIT / 2);
        let done = outputs(&mut session);
        assert_eq!(gist(&done), [*end, &["KEEPALIVE", "up"]].concat());
        assert!(matches!(&done[done.len() - 1], Output::Up(id, _) if *id == theirs));
    }
}

#[test]
fn a_connection_that_we_dialed_has_a_second_to_collide_and_is_then_given_up() {
    let now = beginning();
    for (state, end) in
        [(State::OpenSent, &["KEEPALIVE", "up"][..]), (State::Connect, &["KEEPALIVE", "up", "close"])]
    {
        let (mut session, ours, theirs) = confirmed_by_the_peer(state, now);
        let due = session.deadline().unwrap();
        assert_eq!(due - now, CROSSING_WAIT);
        session.handle(Input::Timeout, due);
        let done = outputs(&mut session);
        assert_eq!(gist(&done), end);
        assert!(matches!(&done[1], Output::Up(id, _) if *id == theirs));
        assert!(done.get(2).is_none_or(|output| *output == Output::Close(ours)));
        session.handle(Input::Connected(ours), due);
        assert_eq!(session.state(), State::Established);
        assert_eq!(gist(&outputs(&mut session)), ["close"]);
    }
}

#[test]
fn a_peer_that_restarted_replaces_its_old_connection_when_it_confirms_the_new_one() {
    let now = beginning();
    let (mut session, old) = in_state(State::Established, now);
    let new = session.next_connection().unwrap();
    session.handle(Input::Accepted(new), now);
    assert_eq!(gist(&outputs(&mut session)), ["OPEN"]);
    session.handle(Input::Heard(new, Heard::Open(Box::new(open("10.0.0.9")))), now);
    assert_eq!(gist(&outputs(&mut session)), ["KEEPALIVE"]);
    session.handle(Input::Heard(old, Heard::Update), now);
    assert_eq!(outputs(&mut session), [], "the old one is in use until then");
    session.handle(Input::Heard(new, Heard::Keepalive), now);
    let done = outputs(&mut session);
    assert_eq!(done[0], Output::Close(old));
    assert_eq!(done[1], Output::Down(old, Ended::Replaced), "without a NOTIFICATION");
    assert!(matches!(&done[2], Output::Up(id, _) if *id == new));
    assert_eq!(session.state(), State::Established);
}

#[test]
fn a_connection_that_waited_until_the_session_was_established_is_no_restart() {
    let now = beginning();
    let (mut session, old) = in_state(State::Established, now);
    let late = session.next_connection().unwrap();
    session.handle(Input::Accepted(late), now);
    session.handle(Input::Heard(late, Heard::Open(Box::new(open("10.0.0.9")))), now);
    outputs(&mut session);
    let collision = Notification::new(Notification::COLLISION);
    session.handle(Input::Heard(late, Heard::Notification(collision)), now);
    assert_eq!(gist(&outputs(&mut session)), ["close", "failed"]);
    session.handle(Input::Heard(old, Heard::Update), now);
    assert_eq!((outputs(&mut session), session.state()), (vec![], State::Established));
}
