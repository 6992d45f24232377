//! The whole loop against a kernel in which somebody else is at work.

use std::time::Duration;

use crate::drift::{Driver, clock, storm};
use crate::namespace::machine;
use crate::watched::strays;

#[tokio::test]
async fn rel07_ten_thousand_changes_that_nobody_could_tell_are_found_and_undone() {
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 64 << 10).await;
    driver.settle_within(Duration::from_secs(5)).await;
    strays(&machine, &driver.desired).await;
    driver.settle_within(Duration::from_secs(5)).await;
    assert!(driver.watch.overruns() > 0);
    assert!(driver.passes < 20, "{} passes", driver.passes);
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
