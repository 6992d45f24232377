//! Gateways in the node's subnet that are not on its link, and come to be: the loop finds out by itself.

use std::time::Duration;

use crate::cluster::{three_dual_nodes, three_nodes};
use crate::drift::{Driver, clock};
use crate::kernel::{contains, desired};
use crate::namespace::{TestNamespace, machine};

/// A machine whose address has the length of a single host's, as clouds give it, and the loop of its node, which has laid
/// what can be.
async fn alone(family: &str) -> (TestNamespace, Driver) {
    let machine = machine();
    machine.run("sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1");
    let snapshot = if family == "-6" {
        machine.ip("address add 2001:db8::1/128 dev eth0 nodad");
        three_dual_nodes()
    } else {
        machine.ip("address flush dev eth0 scope global");
        machine.ip("address add 172.16.6.1/32 dev eth0");
        three_nodes()
    };
    let mut driver = Driver::start(machine.connect(), 16 << 20).await;
    driver.desired = desired(&snapshot);
    driver.run_until(clock() + Duration::from_millis(500)).await;
    (machine, driver)
}

const FAMILIES: [(&str, &str, &str); 2] = [
    ("-4", "172.16.6.0/24", "192.168.1.0/26 via 172.16.6.2"),
    ("-6", "2001:db8::/64", "fd00::200/122 via 2001:db8::2"),
];

#[tokio::test]
async fn a_route_waits_for_the_address_or_the_route_by_which_its_gateway_is_on_the_link() {
    for (family, subnet, route) in FAMILIES {
        let (machine, mut driver) = alone(family).await;
        let to = route.split(' ').next().unwrap();
        let shown = || machine.ip(&format!("{family} route show {to}"));
        let by_address = subnet.replace("0/", "9/").replace("::/", "::9/");
        for (appears, goes) in [
            (
                format!("{family} route add {subnet} dev eth0"),
                format!("{family} route del {subnet} dev eth0"),
            ),
            (format!("address add {by_address} dev eth0"), format!("address del {by_address} dev eth0")),
        ] {
            machine.ip(&format!("{family} route flush {to}"));
            driver.run_until(clock() + Duration::from_millis(500)).await;
            assert_eq!(shown(), "", "nothing leads to the gateway");
            machine.ip(&appears);
            driver.settle_within(Duration::from_secs(1)).await;
            contains(&shown(), &format!("{route} dev eth0"));
            machine.ip("link set eth0 down");
            driver.run_until(clock() + Duration::from_millis(150)).await;
            assert_eq!(shown(), "");
            machine.ip("link set eth0 up");
            machine.run("sleep 0.1");
            let _ = machine.command(&format!("ip {appears}")).output().unwrap();
            driver.settle_within(Duration::from_secs(1)).await;
            contains(&shown(), &format!("{route} dev eth0"));
            machine.ip(&goes);
        }
    }
}

/// The kernel looks for a gateway in all tables that its rules lead to.
#[tokio::test]
async fn a_route_waits_for_another_tables_route_or_the_rule_that_leads_there() {
    for (family, subnet, route) in FAMILIES {
        let (machine, mut driver) = alone(family).await;
        let to = route.split(' ').next().unwrap();
        let shown = || machine.ip(&format!("{family} route show {to}"));
        assert_eq!(shown(), "");
        let other = format!("{family} route add {subnet} dev eth0 table 100");
        machine.ip(&other);
        driver.run_until(clock() + Duration::from_millis(500)).await;
        assert_eq!(shown(), "", "no rule leads to the table");
        machine.ip(&format!("{family} rule add to {subnet} lookup 100"));
        driver.settle_within(Duration::from_secs(1)).await;
        contains(&shown(), &format!("{route} dev eth0"));
        machine.ip("link set eth0 down");
        driver.run_until(clock() + Duration::from_millis(500)).await;
        assert_eq!(shown(), "");
        machine.ip("link set eth0 up");
        driver.run_until(clock() + Duration::from_millis(500)).await;
        assert_eq!(shown(), "", "the other table's route went with the link");
        machine.ip(&other);
        driver.settle_within(Duration::from_secs(1)).await;
        contains(&shown(), &format!("{route} dev eth0"));
    }
}
