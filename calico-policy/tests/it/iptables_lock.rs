//! The lock of iptables, which the legacy variant takes and others may hold.

use std::fs::File;
use std::num::NonZeroU16;
use std::thread;
use std::time::Duration;

use calico_policy::compile;
use calico_policy::iptables::{ApplyError, Iptables, Options, Variant, lower, plan};

use crate::iptables::{database, many_workloads, node, saved};
use crate::netns::Namespace;

/// Takes the lock of iptables, which is the whole machine's.
fn lock() -> File {
    let lock = File::options().create(true).truncate(false).write(true).open("/run/xtables.lock").unwrap();
    lock.lock().unwrap();
    lock
}

#[test]
fn rel16_a_lock_that_somebody_else_holds_for_less_than_the_wait_is_waited_for() {
    let namespace = Namespace::new("lock");
    let ruleset = database();
    namespace.within(|| {
        let held = lock();
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                namespace.enter();
                Iptables::new(Variant::Legacy).sync(&ruleset, &Options::default()).map(drop)
            });
            thread::sleep(Duration::from_millis(400));
            assert!(!writing.is_finished());
            held.unlock().unwrap();
            writing.join().unwrap().unwrap();
        });
        assert!(
            Iptables::new(Variant::Legacy).missing(&lower(&ruleset, &Options::default())).unwrap().is_empty()
        );
    });
}

#[test]
fn rel16_a_lock_that_is_held_for_longer_is_an_error_that_leaves_the_rules_as_they_were() {
    let namespace = Namespace::new("locked");
    let (before, after) = (database(), compile(&many_workloads(20), &node()));
    let options = Options::default();
    namespace.within(|| {
        Iptables::new(Variant::Legacy).sync(&before, &options).unwrap();
        let rules = || {
            let saved = saved(&namespace);
            saved
                .lines()
                .filter(|line| !line.starts_with("create ") && !line.starts_with("add "))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let was = rules();
        let mut impatient = Iptables::new(Variant::Legacy).waiting_for_the_lock(NonZeroU16::MIN);
        let held = lock();
        let error = impatient.sync(&after, &options).unwrap_err();
        assert!(matches!(error, ApplyError::Locked { seconds: 1, .. }), "{error}");
        assert!(error.to_string().contains("fuser /run/xtables.lock"), "{error}");
        assert_eq!(rules(), was, "nothing is half written");
        assert!(plan(&lower(&before, &options), &impatient.read().unwrap()).tables.is_empty());
        held.unlock().unwrap();
        // Tests beside this one may hold it by now.
        let mut patient = impatient.waiting_for_the_lock(NonZeroU16::new(30).unwrap());
        assert_eq!(patient.sync(&after, &options).unwrap().refused, []);
        assert!(patient.missing(&lower(&after, &options)).unwrap().is_empty());
    });
}
