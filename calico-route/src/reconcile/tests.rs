use super::*;
use crate::route::Installed;

#[expect(clippy::disallowed_methods, reason = "some instant to count from; nothing waits for it")]
fn start() -> Instant {
    Instant::now()
}

fn at(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

fn departure(device: &str) -> Change {
    let form = Form::Device(device.parse().unwrap());
    let key = RouteKey::main("192.168.0.1/32".parse().unwrap(), 0);
    Change::RemoveRoute { key, route: Installed { protocol: 3, form } }
}

fn plan<const N: usize>(changes: [Change; N]) -> Plan {
    Plan { changes: changes.into(), ..Plan::default() }
}

fn host_with(device: &str) -> Host {
    let mut kernel = crate::fake::FakeKernel::default();
    kernel.add_link(&device.parse().unwrap(), &[]);
    kernel.read(&Ownership::default()).host
}

#[test]
fn nothing_is_done_before_the_datastore_is_in_sync() {
    let now = start();
    let mut reconciler = Reconciler::new(Settings::default());
    reconciler.desired_changed(now);
    reconciler.kernel_changed(now);
    assert_eq!(reconciler.next(at(now, 1_000_000)), Next::Idle);
    reconciler.in_sync(now);
    assert_eq!(reconciler.next(now), Next::Pass);
}

#[test]
fn a_clean_pass_is_followed_by_the_resync_deadline() {
    let now = start();
    let mut reconciler = Reconciler::new(Settings::default());
    reconciler.in_sync(now);
    assert_eq!(reconciler.next(now), Next::Pass);
    reconciler.finished(End::Clean, now);
    assert_eq!(reconciler.next(now), Next::Wait(at(now, 30_000)));
    assert_eq!(reconciler.next(at(now, 30_000)), Next::Pass);
}

#[test]
fn failures_back_off_whatever_else_is_wanted_meanwhile() {
    let now = start();
    let mut reconciler = Reconciler::new(Settings::default());
    reconciler.in_sync(now);
    for pause in [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000] {
        assert_eq!(reconciler.next(at(now, 30_000)), Next::Pass);
        reconciler.finished(End::Failed, now);
        assert_eq!(reconciler.next(now), Next::Wait(at(now, pause)));
    }
    for millis in 1..50 {
        reconciler.desired_changed(at(now, millis));
    }
    assert_eq!(reconciler.next(at(now, 50)), Next::Wait(at(now, 100)));
    assert_eq!(reconciler.next(at(now, 100)), Next::Pass);
    reconciler.finished(End::Failed, at(now, 100));
    assert_eq!(reconciler.next(at(now, 100)), Next::Wait(at(now, 30_100)));
    reconciler.desired_changed(at(now, 1000));
    assert_eq!(reconciler.next(at(now, 1000)), Next::Pass);
    reconciler.finished(End::Clean, at(now, 1000));
    reconciler.desired_changed(at(now, 1001));
    assert_eq!(reconciler.next(at(now, 1001)), Next::Pass);
}

#[test]
fn a_storm_of_kernel_events_does_not_make_a_storm_of_passes() {
    let now = start();
    let mut reconciler = Reconciler::new(Settings::default());
    reconciler.in_sync(now);
    assert_eq!(reconciler.next(now), Next::Pass);
    reconciler.finished(End::Clean, now);
    for millis in 1..50 {
        reconciler.kernel_changed(at(now, millis));
    }
    assert_eq!(reconciler.next(at(now, 50)), Next::Wait(at(now, 100)));
    assert_eq!(reconciler.next(at(now, 100)), Next::Pass);
}

#[test]
fn routes_over_a_new_interface_are_left_alone_for_a_while() {
    let now = start();
    let mut reconciler = Reconciler::new(Settings::default());
    reconciler.in_sync(now);
    let host = host_with("cali1");
    let ours = Ownership::default();
    assert_eq!(reconciler.next(now), Next::Pass);
    assert_eq!(reconciler.admit(&plan([departure("cali1")]), &host, &ours, now), []);
    reconciler.finished(End::Clean, at(now, 1));
    assert_eq!(reconciler.next(at(now, 1)), Next::Wait(at(now, 10_000)));
    let later = at(now, 10_000);
    let admitted = reconciler.admit(&plan([departure("cali1")]), &host, &ours, later);
    assert_eq!(admitted, [departure("cali1")]);
    assert_eq!(reconciler.admit(&plan([departure("cali1")]), &Host::default(), &ours, later).len(), 1);
}

#[test]
fn only_removals_are_held_back() {
    let now = start();
    let mut reconciler = Reconciler::new(Settings::default());
    let host = host_with("cali1");
    let form = Form::Device("cali1".parse().unwrap());
    let add = Change::AddRoute { key: RouteKey::main("192.168.0.1/32".parse().unwrap(), 0), form };
    assert_eq!(reconciler.admit(&plan([add.clone()]), &host, &Ownership::default(), now), [add]);
}

#[test]
fn what_changes_during_a_pass_asks_for_another() {
    let now = start();
    let mut reconciler = Reconciler::new(Settings::default());
    reconciler.in_sync(now);
    assert_eq!(reconciler.next(now), Next::Pass);
    reconciler.desired_changed(at(now, 5));
    reconciler.finished(End::Clean, at(now, 10));
    assert_eq!(reconciler.next(at(now, 10)), Next::Pass);
}
