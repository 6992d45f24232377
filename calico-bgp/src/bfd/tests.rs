//! The state table as data, the rules of reception, and two ends on a wire with a hand-moved clock.

use proptest::prelude::*;

use super::packet::{Discarded, Mode, Poll};
use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
fn beginning() -> Instant {
    Instant::now()
}

fn name(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn heard(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: Poll::No,
        mode: Mode::Asynchronous,
        multiplier: NonZeroU8::MIN.saturating_add(2),
        my_discriminator: name(9),
        your_discriminator: Some(name(1)),
        desired_min_tx: 300 * MS,
        required_min_rx: 300 * MS,
    }
}

/// A session brought into a state.
fn in_state(state: State, now: Instant) -> Session {
    let mut session = Session::new(BfdConfig::default(), name(1), 7, now);
    if state >= State::Init {
        session.receive(&heard(State::Down), now);
    }
    if state == State::Up {
        session.receive(&heard(State::Init), now);
    }
    assert_eq!(session.state(), state);
    session
}

#[test]
fn every_state_meets_every_state_as_rfc_5880_says() {
    use State::*;
    let down = Some(Change::Down(Diagnostic::NeighborDown));
    let table = [
        (Down, AdminDown, Down, None),
        (Down, Down, Init, None),
        (Down, Init, Up, Some(Change::Up)),
        (Down, Up, Down, None),
        (Init, AdminDown, Down, None),
        (Init, Down, Init, None),
        (Init, Init, Up, Some(Change::Up)),
        (Init, Up, Up, Some(Change::Up)),
        (Up, AdminDown, Down, Some(Change::HeldDown)),
        (Up, Down, Down, down),
        (Up, Init, Up, None),
        (Up, Up, Up, None),
    ];
    for (ours, theirs, next, change) in table {
        let now = beginning();
        let mut session = in_state(ours, now);
        assert_eq!(session.receive(&heard(theirs), now), change, "{ours:?} hears {theirs:?}");
        assert_eq!(session.state(), next, "{ours:?} hears {theirs:?}");
    }
    for (ours, change) in
        [(Down, None), (Init, None), (Up, Some(Change::Down(Diagnostic::DetectionTimeExpired)))]
    {
        let now = beginning();
        let mut session = in_state(ours, now);
        assert_eq!(session.timeout(now + 899 * MS), None, "{ours:?}: not yet");
        assert_eq!(session.timeout(now + 900 * MS), change, "{ours:?}: nothing heard");
        assert_eq!(session.state(), Down);
    }
}

#[test]
fn each_bad_packet_is_passed_over_with_its_reason() {
    let good = heard(State::Up).encode();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = good.to_vec();
        change(&mut octets);
        Packet::decode(&octets).unwrap_err()
    };
    assert_eq!(with(&|p| p.truncate(23)), Discarded::Short);
    assert_eq!(with(&|p| p[0] = 2 << 5), Discarded::Version(2));
    assert_eq!(with(&|p| p[3] = 23), Discarded::Short);
    assert_eq!(with(&|p| p[3] = 25), Discarded::Short);
    assert_eq!(with(&|p| p[2] = 0), Discarded::Multiplier);
    assert_eq!(with(&|p| p[1] |= 1), Discarded::Multipoint);
    assert_eq!(with(&|p| p[4..8].fill(0)), Discarded::Discriminator);
    assert_eq!(with(&|p| p[8..12].fill(0)), Discarded::Stranger(State::Up));
    assert_eq!(with(&|p| p[1] |= 0x30), Discarded::PollAndFinal);
    assert_eq!(
        with(&|p| {
            p[1] |= 4;
            p[3] = 26;
            p.extend([1, 2]);
        }),
        Discarded::Authenticated
    );
    assert!(
        Packet::decode(&[&good[..], &[0; 9]].concat()).is_ok(),
        "what follows the packet is not looked at"
    );
}

/// Two ends and the wire between them.
struct Pair {
    now: Instant,
    ends: [Watcher; 2],
    cut: bool,
    changes: Vec<(usize, Change)>,
    sent: usize,
}

impl Pair {
    fn new() -> Self {
        let now = beginning();
        let mut pair = Self {
            now,
            ends: [Watcher::new(1), Watcher::new(100)],
            cut: false,
            changes: Vec::new(),
            sent: 0,
        };
        pair.ends[0].watch(B, A, BfdConfig::default(), now);
        pair.ends[1].watch(A, B, BfdConfig::default(), now);
        pair
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.ends.iter().filter_map(Watcher::deadline).min().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.ends.iter_mut().for_each(|watcher| watcher.timeout(next));
            self.exchange();
        }
        self.now = end;
    }

    fn exchange(&mut self) {
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for here in [0, 1] {
                while let Some(output) = self.ends[here].poll() {
                    quiet = false;
                    match output {
                        Output::Send { local, packet, .. } => {
                            self.sent += 1;
                            if !self.cut {
                                self.ends[1 - here].receive(local, 255, &packet, self.now);
                            }
                        }
                        Output::Changed(_, change) => self.changes.push((here, change)),
                        Output::Ended(_) => {}
                    }
                }
            }
        }
    }
}

#[test]
fn two_ends_come_up_and_a_cut_wire_is_noticed_within_the_detection_time() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(5));
    assert_eq!(
        pair.changes.iter().filter(|(_, change)| *change == Change::Up).count(),
        2,
        "{:?}",
        pair.changes
    );
    pair.sent = 0;
    pair.run(Duration::from_secs(60));
    assert!((400..=550).contains(&pair.sent), "each 225 to 300 ms from both sides: {}", pair.sent);
    pair.changes.clear();
    pair.cut = true;
    pair.run(Duration::from_millis(900));
    let down = Change::Down(Diagnostic::DetectionTimeExpired);
    assert_eq!(pair.changes.len(), 2, "{:?}", pair.changes);
    assert!(pair.changes.iter().all(|(_, change)| *change == down));
    pair.sent = 0;
    pair.run(Duration::from_secs(60));
    assert!(pair.sent <= 2 * 81, "slowly while it is down: {}", pair.sent);
    pair.cut = false;
    pair.run(Duration::from_secs(5));
    assert!(pair.ends[0].state(B) == Some(State::Up) && pair.ends[1].state(A) == Some(State::Up));
}

#[test]
fn slower_sending_is_agreed_on_first_so_that_nobody_takes_it_for_a_failure() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(5));
    pair.changes.clear();
    let slow = BfdConfig { min_tx: Duration::from_secs(2), ..BfdConfig::default() };
    let now = pair.now;
    pair.ends[0].watch(B, A, slow, now);
    pair.run(Duration::from_secs(60));
    let quick = BfdConfig { min_tx: 50 * MS, min_rx: 50 * MS, ..BfdConfig::default() };
    let now = pair.now;
    pair.ends[0].watch(B, A, quick, now);
    pair.ends[1].watch(A, B, quick, now);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.changes, []);
    pair.cut = true;
    pair.run(150 * MS);
    assert_eq!(pair.changes.len(), 2, "and now it is noticed sooner: {:?}", pair.changes);
}

#[test]
fn an_end_that_watches_no_longer_says_so_and_the_other_does_not_take_it_for_a_failure() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(5));
    pair.changes.clear();
    let now = pair.now;
    pair.ends[0].unwatch(B, now);
    pair.exchange();
    assert_eq!(pair.changes, [(1, Change::HeldDown)]);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.changes, [(1, Change::HeldDown)]);
    assert_eq!((pair.ends[0].state(B), pair.ends[0].deadline()), (None, None), "nothing is left of it");
    let now = pair.now;
    pair.ends[0].watch(B, A, BfdConfig::default(), now);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.ends[0].state(B), Some(State::Up));
}

#[test]
fn an_end_that_watches_no_longer_is_heard_although_its_first_packets_are_lost() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(5));
    pair.changes.clear();
    pair.cut = true;
    let now = pair.now;
    pair.ends[0].unwatch(B, now);
    pair.run(400 * MS);
    pair.cut = false;
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.changes, [(1, Change::HeldDown)]);
}

/// How long a goodbye takes is the other side's word, up to half a minute.
#[test]
fn a_goodbye_is_as_long_as_the_other_side_would_wait_but_never_holds_a_place_for_hours() {
    let mut patient = heard(State::Up);
    patient.required_min_rx = Duration::from_secs(4000);
    let mut demanding = heard(State::Up);
    demanding.mode = Mode::Demand;
    for (last, least) in [(heard(State::Up), 900 * MS), (patient, 30_000 * MS), (demanding, 900 * MS)] {
        let now = beginning();
        let mut session = in_state(State::Up, now);
        session.receive(&last, now);
        session.disable(now);
        assert!(!session.is_over(now + least - MS), "{last:?}");
        assert!(session.is_over(now + least), "{last:?}");
    }
}

#[test]
fn a_peer_that_is_watched_anew_while_it_hears_that_it_is_not_comes_up_again() {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(5));
    pair.changes.clear();
    let now = pair.now;
    pair.ends[0].unwatch(B, now);
    pair.run(100 * MS);
    let now = pair.now;
    pair.ends[0].watch(B, A, BfdConfig::default(), now);
    pair.run(Duration::from_secs(8));
    assert_eq!(pair.changes[0], (1, Change::HeldDown));
    assert_eq!((pair.ends[0].state(B), pair.ends[1].state(A)), (Some(State::Up), Some(State::Up)));
}

#[test]
fn what_came_through_a_router_or_from_a_stranger_is_passed_over() {
    let now = beginning();
    let mut watcher = Watcher::new(1);
    watcher.watch(B, A, BfdConfig::default(), now);
    let packet = Packet { your_discriminator: None, ..heard(State::Down) }.encode();
    watcher.receive(B, 254, &packet, now);
    watcher.receive(A, 255, &packet, now);
    watcher.receive(A, 255, &heard(State::Init).encode(), now);
    assert_eq!(watcher.state(B), Some(State::Down));
    watcher.receive(B, 255, &packet, now);
    assert_eq!(watcher.state(B), Some(State::Init));
}

proptest! {
    #[test]
    fn packets_come_back_as_they_were(
        (state, poll) in (
            prop_oneof![Just(State::AdminDown), Just(State::Down), Just(State::Init), Just(State::Up)],
            prop_oneof![Just(Poll::No), Just(Poll::Poll), Just(Poll::Final)],
        ),
        (code, mine, yours) in (0..32u8, 1..u32::MAX, 1..u32::MAX),
        (tx, rx, multiplier) in any::<(u32, u32, NonZeroU8)>(),
    ) {
        let mut octets = Packet {
            poll,
            state,
            multiplier,
            my_discriminator: name(mine),
            your_discriminator: Some(name(yours)),
            desired_min_tx: Duration::from_micros(tx.into()),
            required_min_rx: Duration::from_micros(rx.into()),
            ..heard(State::Up)
        }
        .encode();
        octets[0] |= code;
        prop_assert_eq!(Packet::decode(&octets).unwrap().encode(), octets);
    }

    #[test]
    fn whatever_is_heard_the_session_goes_on_sending_or_was_asked_not_to(
        steps in proptest::collection::vec((any::<[u8; 24]>(), 0..2000u32), 0..60),
    ) {
        let mut now = beginning();
        let mut session = Session::new(BfdConfig::default(), name(1), 7, now);
        for (mut octets, later) in steps {
            octets[0] = 1 << 5 | octets[0] & 0x1f;
            octets[1] &= 0xfa;
            octets[3] = 24;
            if let Ok(packet) = Packet::decode(&octets) {
                session.receive(&packet, now);
                let wants_none = packet.required_min_rx.is_zero() || packet.mode == Mode::Demand;
                prop_assert!(session.deadline().is_some() || wants_none);
            }
            while session.packet(now).is_some() {}
            now += later * MS;
            session.timeout(now);
            while session.packet(now).is_some() {}
        }
    }
}
