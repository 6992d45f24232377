//! The whole transition table as data, and the cases that span several steps.

mod crossing;

use super::*;
use crate::wire::HoldTime;
use crate::wire::open::{Capabilities, Forwarding, GracefulRestart, OnNotification, RestartState, Role};

const RETRY: Duration = Duration::from_secs(5);

#[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
fn beginning() -> Instant {
    Instant::now()
}

fn asn(number: u32) -> calico_model::AsNumber {
    calico_model::AsNumber::new(number).unwrap()
}

fn restart() -> GracefulRestart {
    GracefulRestart {
        restart_time: 120,
        state: RestartState::Fresh,
        on_notification: OnNotification::Keep,
        families: crate::family::PerFamily { v4: Some(Forwarding::Preserved), v6: None },
    }
}

fn terms(id: &str, local_as: u32, remote_as: u32) -> Terms {
    Terms {
        local_as: asn(local_as),
        local_id: id.parse().unwrap(),
        remote_as: asn(remote_as),
        hold_time: HoldTime::SUGGESTED,
        capabilities: Capabilities {
            four_octet_as: Some(asn(local_as)),
            graceful_restart: Some(restart()),
            ..Capabilities::default()
        },
        roles: Roles::Lenient,
    }
}

fn session(initiation: Initiation) -> Session {
    Session::new(7, terms("10.0.0.5", 1, 1), initiation, RETRY, 42)
}

/// The OPEN of a peer with this identifier.
fn open(id: &str) -> Open {
    terms(id, 1, 1).open()
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

/// What the outputs amount to, in a few words.
fn gist(outputs: &[Output]) -> Vec<String> {
    let gist = |output: &Output| match output {
        Output::Dial(_) => "dial".to_owned(),
        Output::Transmit(_, message) => match message[18] {
            1 => "OPEN".to_owned(),
            3 => format!("NOTIFICATION {}/{}", message[19], message[20]),
            4 => "KEEPALIVE".to_owned(),
            other => format!("message {other}"),
        },
        Output::Close(_) => "close".to_owned(),
        Output::Up(..) => "up".to_owned(),
        Output::Down(..) => "down".to_owned(),
        Output::Failed(_) => "failed".to_owned(),
    };
    outputs.iter().map(gist).collect()
}

/// A session brought into a state, with the connection that is there (or under way) in it.
fn in_state(state: State, now: Instant) -> (Session, ConnectionId) {
    let mut session = session(Initiation::Active);
    let none = ConnectionId { peer: 7, serial: 0 };
    if state == State::Idle {
        return (session, none);
    }
    session.handle(Input::Start, now);
    let id = match outputs(&mut session).as_slice() {
        [Output::Dial(id)] => *id,
        other => panic!("{other:?}"),
    };
    match state {
        State::Idle | State::Connect => {}
        State::Active => session.handle(Input::Refused(id, "refused".to_owned()), now),
        State::OpenSent | State::OpenConfirm | State::Established => {
            session.handle(Input::Connected(id), now);
        }
    }
    if state >= State::OpenConfirm {
        session.handle(Input::Heard(id, Heard::Open(Box::new(open("10.0.0.9")))), now);
    }
    if state == State::Established {
        session.handle(Input::Heard(id, Heard::Keepalive), now);
    }
    outputs(&mut session);
    assert_eq!(session.state(), state);
    (session, id)
}

/// What can happen, by name.
fn input(name: &str, id: ConnectionId) -> Input {
    let cease = Notification::new(Notification::ADMINISTRATIVE_SHUTDOWN);
    match name {
        "start" => Input::Start,
        "stop" => Input::Stop(cease),
        "reset" => Input::Reset(Notification::new(Notification::CONFIGURATION_CHANGE)),
        "connected" => Input::Connected(id),
        "refused" => Input::Refused(id, "no route".to_owned()),
        "closed" => Input::Heard(id, Heard::Closed("reset".to_owned())),
        "OPEN" => Input::Heard(id, Heard::Open(Box::new(open("10.0.0.9")))),
        "bad OPEN" => Input::Heard(id, Heard::Open(Box::new(terms("10.0.0.9", 2, 1).open()))),
        "KEEPALIVE" => Input::Heard(id, Heard::Keepalive),
        "UPDATE" => Input::Heard(id, Heard::Update),
        "REFRESH" => Input::Heard(id, Heard::Refresh),
        "NOTIFICATION" => Input::Heard(id, Heard::Notification(cease)),
        "malformed" => Input::Heard(id, Heard::Malformed(Notification::new((1, 1)))),
        "timeout" => Input::Timeout,
        other => panic!("{other}"),
    }
}

const HERE: &str = "as before";

/// For each state: what happens, the state afterwards, and what is done.
const TABLE: &[(State, &str, &str, &[&str])] = {
    use State::*;
    &[
        (Idle, "start", "Connect", &["dial"]),
        (Idle, "stop", HERE, &[]),
        (Idle, "reset", HERE, &[]),
        (Idle, "connected", HERE, &["close"]),
        (Idle, "refused", HERE, &[]),
        (Idle, "closed", HERE, &[]),
        (Idle, "OPEN", HERE, &[]),
        (Idle, "bad OPEN", HERE, &[]),
        (Idle, "KEEPALIVE", HERE, &[]),
        (Idle, "UPDATE", HERE, &[]),
        (Idle, "REFRESH", HERE, &[]),
        (Idle, "NOTIFICATION", HERE, &[]),
        (Idle, "malformed", HERE, &[]),
        (Idle, "timeout", HERE, &[]),
        (Connect, "start", HERE, &[]),
        (Connect, "stop", "Idle", &[]),
        (Connect, "reset", HERE, &["dial"]),
        (Connect, "connected", "OpenSent", &["OPEN"]),
        (Connect, "refused", "Active", &["failed"]),
        (Connect, "closed", HERE, &[]),
        (Connect, "OPEN", HERE, &[]),
        (Connect, "bad OPEN", HERE, &[]),
        (Connect, "KEEPALIVE", HERE, &[]),
        (Connect, "UPDATE", HERE, &[]),
        (Connect, "REFRESH", HERE, &[]),
        (Connect, "NOTIFICATION", HERE, &[]),
        (Connect, "malformed", HERE, &[]),
        (Connect, "timeout", HERE, &[]),
        (Active, "start", HERE, &[]),
        (Active, "stop", "Idle", &[]),
        (Active, "reset", "Connect", &["dial"]),
        (Active, "connected", HERE, &["close"]),
        (Active, "refused", HERE, &[]),
        (Active, "closed", HERE, &[]),
        (Active, "OPEN", HERE, &[]),
        (Active, "bad OPEN", HERE, &[]),
        (Active, "KEEPALIVE", HERE, &[]),
        (Active, "UPDATE", HERE, &[]),
        (Active, "REFRESH", HERE, &[]),
        (Active, "NOTIFICATION", HERE, &[]),
        (Active, "malformed", HERE, &[]),
        (Active, "timeout", "Connect", &["dial"]),
        (OpenSent, "start", HERE, &[]),
        (OpenSent, "stop", "Idle", &["NOTIFICATION 6/2", "close", "failed"]),
        (OpenSent, "reset", "Connect", &["NOTIFICATION 6/6", "close", "failed", "dial"]),
        (OpenSent, "connected", HERE, &["close"]),
        (OpenSent, "refused", HERE, &[]),
        (OpenSent, "closed", "Active", &["close", "failed"]),
        (OpenSent, "OPEN", "OpenConfirm", &["KEEPALIVE"]),
        (OpenSent, "bad OPEN", "Active", &["NOTIFICATION 2/2", "close", "failed"]),
        (OpenSent, "KEEPALIVE", "Active", &["NOTIFICATION 5/1", "close", "failed"]),
        (OpenSent, "UPDATE", "Active", &["NOTIFICATION 5/1", "close", "failed"]),
        (OpenSent, "REFRESH", "Active", &["NOTIFICATION 5/1", "close", "failed"]),
        (OpenSent, "NOTIFICATION", "Active", &["close", "failed"]),
        (OpenSent, "malformed", "Active", &["NOTIFICATION 1/1", "close", "failed"]),
        (OpenSent, "timeout", "Active", &["NOTIFICATION 4/0", "close", "failed"]),
        (OpenConfirm, "start", HERE, &[]),
        (OpenConfirm, "stop", "Idle", &["NOTIFICATION 6/2", "close", "failed"]),
        (OpenConfirm, "reset", "Connect", &["NOTIFICATION 6/6", "close", "failed", "dial"]),
        (OpenConfirm, "connected", HERE, &["close"]),
        (OpenConfirm, "refused", HERE, &[]),
        (OpenConfirm, "closed", "Active", &["close", "failed"]),
        (OpenConfirm, "OPEN", "Active", &["NOTIFICATION 5/2", "close", "failed"]),
        (OpenConfirm, "bad OPEN", "Active", &["NOTIFICATION 5/2", "close", "failed"]),
        (OpenConfirm, "KEEPALIVE", "Established", &["up"]),
        (OpenConfirm, "UPDATE", "Active", &["NOTIFICATION 5/2", "close", "failed"]),
        (OpenConfirm, "REFRESH", "Active", &["NOTIFICATION 5/2", "close", "failed"]),
        (OpenConfirm, "NOTIFICATION", "Active", &["close", "failed"]),
        (OpenConfirm, "malformed", "Active", &["NOTIFICATION 1/1", "close", "failed"]),
        (OpenConfirm, "timeout", "Active", &["NOTIFICATION 4/0", "close", "failed"]),
        (Established, "start", HERE, &[]),
        (Established, "stop", "Idle", &["NOTIFICATION 6/2", "close", "down"]),
        (Established, "reset", "Connect", &["NOTIFICATION 6/6", "close", "down", "dial"]),
        (Established, "connected", HERE, &["close"]),
        (Established, "refused", HERE, &[]),
        (Established, "closed", "Active", &["close", "down"]),
        (Established, "OPEN", "Active", &["NOTIFICATION 5/3", "close", "down"]),
        (Established, "bad OPEN", "Active", &["NOTIFICATION 5/3", "close", "down"]),
        (Established, "KEEPALIVE", HERE, &[]),
        (Established, "UPDATE", HERE, &[]),
        (Established, "REFRESH", HERE, &[]),
        (Established, "NOTIFICATION", "Active", &["close", "down"]),
        (Established, "malformed", "Active", &["NOTIFICATION 1/1", "close", "down"]),
        (Established, "timeout", "Active", &["NOTIFICATION 4/0", "close", "down"]),
    ]
};

#[test]
fn every_input_in_every_state_does_what_the_table_says() {
    let now = beginning();
    for (state, name, next, done) in TABLE {
        let (mut session, id) = in_state(*state, now);
        // Long enough for every timer but the send hold timer, whose turn comes last.
        let later = now + Duration::from_secs(if *name == "timeout" { 100 } else { 1 });
        session.handle(input(name, id), later);
        let next = if *next == HERE { state.to_string() } else { (*next).to_owned() };
        assert_eq!(session.state().to_string(), next, "{state} {name}");
        assert_eq!(gist(&outputs(&mut session)), *done, "{state} {name}");
    }
    let names: std::collections::BTreeSet<&str> = TABLE.iter().map(|row| row.1).collect();
    assert_eq!(TABLE.len(), 6 * names.len(), "the table has every input in every state");
}

#[test]
fn a_passive_session_never_dials() {
    let now = beginning();
    let mut session = session(Initiation::Passive);
    session.handle(Input::Start, now);
    assert_eq!(session.state(), State::Active);
    assert_eq!(session.deadline(), None);
    assert_eq!(outputs(&mut session), []);
}

#[test]
fn waits_between_dialings_grow_to_half_a_minute_and_are_jittered() {
    let mut now = beginning();
    let mut session = session(Initiation::Active);
    session.handle(Input::Start, now);
    for round in 0..12 {
        let [Output::Dial(id)] = outputs(&mut session)[..] else { panic!("round {round}") };
        session.handle(Input::Connected(id), now);
        session.handle(Input::Heard(id, Heard::Malformed(Notification::new((1, 1)))), now);
        outputs(&mut session);
        let wait = session.deadline().unwrap() - now;
        let whole = (RETRY * (1 << round.min(8))).min(LONGEST_RETRY);
        assert!(wait >= whole * 3 / 4 && wait <= whole, "round {round}: {wait:?}");
        now += wait;
        session.handle(Input::Timeout, now);
    }
}

#[test]
fn keepalives_are_sent_each_third_of_the_smaller_hold_time() {
    let mut now = beginning();
    let (mut session, id) = in_state(State::OpenSent, now);
    let mut peer = open("10.0.0.9");
    peer.hold_time = HoldTime::new(9).unwrap();
    session.handle(Input::Heard(id, Heard::Open(Box::new(peer))), now);
    session.handle(Input::Heard(id, Heard::Keepalive), now);
    outputs(&mut session);
    let mut sent = 0;
    for _ in 0..100 {
        let due = session.deadline().unwrap();
        assert!(due - now <= Duration::from_secs(3));
        now = due;
        session.handle(Input::Timeout, now);
        session.handle(Input::Heard(id, Heard::Keepalive), now);
        sent += outputs(&mut session).len();
    }
    assert_eq!(sent, 100);
}

#[test]
fn an_unexpected_message_is_answered_with_its_type() {
    let now = beginning();
    for (state, name, subcode, kind) in [
        (State::OpenSent, "KEEPALIVE", 1, 4),
        (State::OpenConfirm, "UPDATE", 2, 2),
        (State::OpenConfirm, "REFRESH", 2, 5),
        (State::Established, "OPEN", 3, 1),
    ] {
        let (mut session, id) = in_state(state, now);
        session.handle(input(name, id), now);
        let said = outputs(&mut session).into_iter().find_map(|output| {
            let Output::Transmit(_, message) = output else { return None };
            Some(message[19..].to_vec())
        });
        assert_eq!(said, Some(vec![5, subcode, kind]), "{name} in {state}");
    }
}

#[test]
fn without_a_hold_time_an_open_that_is_never_confirmed_ends_all_the_same() {
    let now = beginning();
    let (mut session, id) = in_state(State::OpenSent, now);
    let mut peer = open("10.0.0.9");
    peer.hold_time = HoldTime::new(0).unwrap();
    session.handle(Input::Heard(id, Heard::Open(Box::new(peer))), now);
    session.handle(Input::Drained(id), now);
    assert_eq!((session.state(), session.deadline()), (State::OpenConfirm, Some(now + OPEN_WAIT)));
    outputs(&mut session);
    session.handle(Input::Timeout, now + OPEN_WAIT);
    assert_eq!(gist(&outputs(&mut session)), ["NOTIFICATION 4/0", "close", "failed"]);
}

#[test]
fn a_hold_time_of_zero_means_no_timers_at_all() {
    let now = beginning();
    let (mut session, id) = in_state(State::OpenSent, now);
    let mut peer = open("10.0.0.9");
    peer.hold_time = HoldTime::new(0).unwrap();
    session.handle(Input::Heard(id, Heard::Open(Box::new(peer))), now);
    session.handle(Input::Heard(id, Heard::Keepalive), now);
    session.handle(Input::Drained(id), now);
    assert_eq!(session.state(), State::Established);
    assert_eq!(session.deadline(), None);
}

#[test]
fn a_peer_that_takes_nothing_is_cut_off_after_the_send_hold_time() {
    let mut now = beginning();
    let (mut session, id) = in_state(State::Established, now);
    let end = now + SEND_HOLD;
    while now < end {
        assert_eq!(session.state(), State::Established);
        session.handle(Input::Heard(id, Heard::Keepalive), now);
        now += Duration::from_secs(10);
        session.handle(Input::Timeout, now);
    }
    assert_eq!(session.state(), State::Active);
    assert!(gist(&outputs(&mut session)).contains(&"NOTIFICATION 8/0".to_owned()));
}

#[test]
fn a_hard_reset_is_said_only_to_those_who_know_it() {
    let now = beginning();
    for (keeps, expected) in
        [(OnNotification::Keep, "NOTIFICATION 6/9"), (OnNotification::Drop, "NOTIFICATION 6/3")]
    {
        let (mut session, id) = in_state(State::OpenSent, now);
        let mut peer = open("10.0.0.9");
        peer.capabilities.graceful_restart = Some(GracefulRestart { on_notification: keeps, ..restart() });
        session.handle(Input::Heard(id, Heard::Open(Box::new(peer))), now);
        session.handle(Input::Heard(id, Heard::Keepalive), now);
        outputs(&mut session);
        let gone = Notification::new(Notification::PEER_DECONFIGURED).into_hard_reset();
        session.handle(Input::Stop(gone), now);
        assert_eq!(gist(&outputs(&mut session))[0], expected);
    }
}

#[test]
fn a_peer_that_takes_a_little_now_and_then_is_not_cut_off_and_the_time_can_be_set() {
    let mut now = beginning();
    let (mut session, id) = in_state(State::Established, now);
    session.set_send_hold(Some(Duration::from_secs(120)));
    session.waiting_to_send(id, now);
    let mut pass = |session: &mut Session, seconds: u64| {
        for _ in 0..seconds / 10 {
            now += Duration::from_secs(10);
            session.handle(Input::Heard(id, Heard::Keepalive), now);
            session.handle(Input::Timeout, now);
        }
        now
    };
    for _ in 0..10 {
        let now = pass(&mut session, 110);
        session.has_taken(id, now);
    }
    assert_eq!(session.state(), State::Established);
    pass(&mut session, 110);
    assert_eq!(session.state(), State::Established);
    pass(&mut session, 10);
    assert_eq!(session.state(), State::Active);
    assert!(gist(&outputs(&mut session)).contains(&"NOTIFICATION 8/0".to_owned()));
}

#[test]
fn two_speakers_of_one_as_must_have_different_identifiers_and_others_need_not() {
    for (local_as, remote_as, refused) in [(1, 1, true), (1, 2, false)] {
        let ours = terms("10.0.0.5", local_as, remote_as);
        let theirs = terms("10.0.0.5", remote_as, local_as).open();
        let refusal = ours.meet(&theirs).err().map(|notification| notification.kind());
        assert_eq!(refusal, refused.then_some(Notification::BAD_IDENTIFIER));
    }
}

#[test]
fn keepalives_come_as_often_as_is_asked_for_and_at_least_three_in_a_hold_time() {
    // The hold time of both sides is 90 seconds, and each wait takes 75 to 100 percent of the time between two.
    for (wanted, fewest, most) in [(None, 10, 14), (Some(10), 30, 40), (Some(80), 10, 14)] {
        let mut now = beginning();
        let (mut session, id) = in_state(State::Established, now);
        session.set_keepalive(wanted.map(Duration::from_secs));
        // The time that runs already was set before.
        for _ in 0..30 {
            now += Duration::from_secs(1);
            session.handle(Input::Timeout, now);
        }
        outputs(&mut session);
        for _ in 0..300 {
            now += Duration::from_secs(1);
            session.handle(Input::Heard(id, Heard::Keepalive), now);
            session.handle(Input::Timeout, now);
        }
        let sent = gist(&outputs(&mut session)).iter().filter(|output| *output == "KEEPALIVE").count();
        assert!((fewest..=most).contains(&sent), "{wanted:?}: {sent} in 300 s");
    }
}

#[test]
fn roles_are_read_as_rfc_9234_names_them() {
    for (text, role) in [
        ("provider", Role::Provider),
        ("rs", Role::RouteServer),
        ("rs-client", Role::RouteServerClient),
        ("customer", Role::Customer),
        ("peer", Role::Peer),
    ] {
        assert_eq!(text.parse(), Ok(role));
    }
    assert!("Peer".parse::<Role>().is_err() && "".parse::<Role>().is_err());
}
