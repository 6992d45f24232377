//! The whole loop against a kernel in which somebody else is at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calico_route::reconcile::Settings;

use crate::drift::{Driver, clock, storm};
use crate::kernel::contains;
use crate::namespace::machine;
use crate::watched::{stray_routes, strays};

#[tokio::test]
async fn rel07_ten_thousand_changes_that_nobody_could_tell_are_found_and_undone() {
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 64 << 10).await;
    driver.settle_within(Duration::from_secs(5)).await;
    strays(&machine, &driver.desired).await;
    driver.settle_within(Duration::from_secs(5)).await;
    assert!(driver.watch.overruns() > 0);
}

/// Somebody puts a thousand routes back as soon as they are gone, and so the kernel always has more to tell than there is room
/// for. Without a limit the loop would do nothing but read the kernel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel07_while_more_changes_than_can_be_told_the_kernel_is_read_again_no_more_often_than_the_limit_says()
 {
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 64 << 10).await;
    driver.settle_within(Duration::from_secs(5)).await;
    let (overruns, passes) = (driver.watch.overruns(), driver.passes);
    let mut other = machine.connect();
    let ends = Arc::new(AtomicBool::new(false));
    let storm = tokio::spawn({
        let ends = Arc::clone(&ends);
        async move {
            let strays = stray_routes(1_000);
            let mut written = 0;
            while !ends.load(Ordering::Relaxed) {
                let outcomes = other.apply(&strays).await;
                written += outcomes.iter().filter(|outcome| outcome.result.is_ok()).count();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            written
        }
    });
    let began = clock();
    driver.run_until(began + Duration::from_secs(3)).await;
    let (passes, overruns) = (driver.passes - passes, driver.watch.overruns() - overruns);
    let elapsed = clock() - began;
    ends.store(true, Ordering::Relaxed);
    let written = storm.await.unwrap();
    println!("{written} routes, {overruns} overruns and {passes} passes in {elapsed:?}");
    assert!(overruns > 0 && written > 1_000, "{overruns} overruns of {written} routes");
    let limit = elapsed.as_millis() / Settings::default().min_interval.as_millis() + 2;
    assert!((2..=limit).contains(&passes.into()), "{passes} passes in {elapsed:?}");
    driver.settle_within(Duration::from_secs(5)).await;
    let routes = machine.ip("route show");
    assert!(!routes.contains("blackhole 10."), "{routes}");
    contains(&routes, "192.168.2.0/26 via 192.168.2.0 dev vxlan.calico proto 80");
}

#[tokio::test]
async fn rel06_a_storm_of_drift_is_repaired_and_leaves_what_belongs_to_others() {
    storm(20, Duration::from_secs(4)).await;
}

#[tokio::test]
async fn a_link_that_flaps_has_its_routes_back_within_a_second() {
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 16 << 20).await;
    driver.settle_within(Duration::from_secs(5)).await;
    for device in ["cali1", "eth0"] {
        machine.ip(&format!("link set {device} down"));
        driver.run_until(clock() + Duration::from_millis(150)).await;
        machine.ip(&format!("link set {device} up"));
        if device == "eth0" {
            machine.ip("route add default via 172.16.6.254");
        }
        driver.settle_within(Duration::from_secs(1)).await;
    }
}
