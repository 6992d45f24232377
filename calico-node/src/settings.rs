//! What the user wrote in the agent's environment, turned into what the agent needs.
//!
//! The names are those that Calico users know. A variable that is present and empty counts as unset.

use std::net::IpAddr;
use std::str::FromStr;

use calico_bgp::peers::hashed_id;
use calico_model::resource::EncapMode;
use calico_model::{AsNumber, Cidr, InterfaceAddr, NodeName, ParseError, RouterId, Selector};

pub use detect::{Detection, HostAddr, SKIPPED_BY_DEFAULT, host_addrs};

mod detect;

/// A setting whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is {value:?}, but must be {expected}", place(name))]
pub struct SettingError {
    /// The variable, or [`NODENAME_FILE`] or [`HOST_NAME`].
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub expected: String,
}

/// What an error names when the node's name came from the file that an earlier start left.
pub const NODENAME_FILE: &str = "the node name in the file nodename";
/// What an error names when the node's name came from the machine.
pub const HOST_NAME: &str = "this host's name";

fn place(name: &str) -> String {
    match name {
        NODENAME_FILE => NODENAME_FILE.to_owned(),
        HOST_NAME => format!("{HOST_NAME}, which names the node when NODENAME is unset,"),
        variable => format!("the environment variable {variable}"),
    }
}

/// How a node's address of one family is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAddress {
    /// It is detected, unless the node has one already.
    Keep,
    /// It is detected at every start.
    Autodetect,
    /// The stored one stays, and none is detected.
    None,
    /// It is this.
    Given {
        /// The address; its prefix length counts only when `has_prefix`.
        addr: InterfaceAddr,
        /// Whether a prefix length was given; otherwise it is taken from the interface that has the address.
        has_prefix: bool,
    },
}

/// The pool that is made when there is none of its family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultPool {
    /// The network; `None` makes no pool.
    pub cidr: Option<Cidr>,
    /// The prefix length of a block; `None` is the family's default.
    pub block_size: Option<u8>,
    /// When IP-in-IP is used.
    pub ipip_mode: EncapMode,
    /// When VXLAN is used.
    pub vxlan_mode: EncapMode,
    /// Whether packets that leave all pools get the node's own address.
    pub nat_outgoing: bool,
    /// Whether the pool's blocks are kept from BGP peers.
    pub disable_bgp_export: bool,
    /// Which nodes may use the pool.
    pub node_selector: Selector,
}

/// Which part of the work BGP does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The speaker runs: `CALICO_NETWORKING_BACKEND` is unset or `bird`.
    Bgp,
    /// No speaker runs; routes come from the datastore alone: `none` or `vxlan`.
    None,
}

/// What the agent was told by its environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The node's name.
    pub node: NodeName,
    /// The node's IPv4 address (`IP`).
    pub ipv4: NodeAddress,
    /// The node's IPv6 address (`IP6`); `None` enables no IPv6.
    pub ipv6: Option<NodeAddress>,
    /// How an IPv4 address is detected (`IP_AUTODETECTION_METHOD`).
    pub ipv4_detection: Detection,
    /// How an IPv6 address is detected (`IP6_AUTODETECTION_METHOD`).
    pub ipv6_detection: Detection,
    /// The node's AS number (`AS`); `None` leaves it to the cluster's.
    pub as_number: Option<AsNumber>,
    /// The node's BGP identifier (`CALICO_ROUTER_ID`, where `hash` makes it of the node's name); `None` is its IPv4 address.
    pub router_id: Option<RouterId>,
    /// The default IPv4 pool (`CALICO_IPV4POOL_...`); `None` makes none (`NO_DEFAULT_POOLS`).
    pub ipv4_pool: Option<DefaultPool>,
    /// The default IPv6 pool (`CALICO_IPV6POOL_...`); `None` makes none.
    pub ipv6_pool: Option<DefaultPool>,
    /// What runs beside the route programmer (`CALICO_NETWORKING_BACKEND`).
    pub backend: Backend,
    /// Whether another node's use of our address is let be (`DISABLE_NODE_IP_CHECK`).
    pub skip_address_check: bool,
    /// Whether a datastore that does not answer at the start is waited for (`WAIT_FOR_DATASTORE`).
    pub wait_for_datastore: bool,
}

impl Settings {
    /// Reads the settings through `var`. `hostname` names the node when no variable and no file does; `stored_name` is
    /// what the nodename file holds, where empty counts as absent.
    ///
    /// # Errors
    /// When a variable's value cannot be used, or two contradict one another; the first is named.
    pub fn read(
        var: impl Fn(&str) -> Option<String>,
        stored_name: Option<&str>,
        hostname: &str,
    ) -> Result<Self, SettingError> {
        let vars = Vars { var: &|name| var(name).filter(|value| !value.is_empty()) };
        let node = match vars.text("NODENAME") {
            Some(name) => parse("NODENAME", &name)?,
            None => match (stored_name.filter(|name| !name.is_empty()), vars.text("HOSTNAME")) {
                (Some(stored), _) => parse(NODENAME_FILE, stored)?,
                (None, Some(name)) => parse("HOSTNAME", &name.to_lowercase())?,
                (None, None) => parse(HOST_NAME, &hostname.to_lowercase())?,
            },
        };
        let no_pools = vars.text("NO_DEFAULT_POOLS").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if no_pools {
            for name in ["CALICO_IPV4POOL_CIDR", "CALICO_IPV6POOL_CIDR"] {
                if let Some(value) = vars.text(name) {
                    let expected = "unset when NO_DEFAULT_POOLS is true".to_owned();
                    return Err(SettingError { name, value, expected });
                }
            }
        }
        let ipv6 = vars.text("IP6").map(|_| node_address(&vars, "IP6")).transpose()?;
        let router_id = match vars.text("CALICO_ROUTER_ID").as_deref() {
            Some("hash") => Some(hashed_id(&node)),
            Some(id) => Some(parse("CALICO_ROUTER_ID", id)?),
            None => None,
        };
        Ok(Self {
            node,
            router_id,
            ipv4: node_address(&vars, "IP")?,
            ipv4_detection: vars.parsed("IP_AUTODETECTION_METHOD")?.unwrap_or(Detection::FirstFound),
            ipv6_detection: vars.parsed("IP6_AUTODETECTION_METHOD")?.unwrap_or(Detection::FirstFound),
            as_number: vars.parsed("AS")?,
            ipv4_pool: if no_pools { None } else { Some(DefaultPool::ipv4(&vars)?) },
            ipv6_pool: if no_pools || ipv6.is_none() { None } else { Some(DefaultPool::ipv6(&vars)?) },
            ipv6,
            backend: backend(&vars)?,
            skip_address_check: vars.text("DISABLE_NODE_IP_CHECK").as_deref() == Some("true"),
            wait_for_datastore: vars.text("WAIT_FOR_DATASTORE").as_deref() == Some("true"),
        })
    }
}

struct Vars<'a> {
    var: &'a dyn Fn(&str) -> Option<String>,
}

impl Vars<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.var)(name)
    }

    fn parsed<T: FromStr<Err = ParseError>>(&self, name: &'static str) -> Result<Option<T>, SettingError> {
        self.text(name).map(|value| parse(name, &value)).transpose()
    }

    /// `false`, `0`, `no`, `n` and `f` are false, anything else is true.
    fn flag(&self, name: &str, unset: bool) -> bool {
        let falsy = ["false", "0", "no", "n", "f"];
        self.text(name).map_or(unset, |value| !falsy.contains(&value.to_lowercase().as_str()))
    }
}

fn parse<T: FromStr<Err = ParseError>>(name: &'static str, value: &str) -> Result<T, SettingError> {
    value.parse().map_err(|error: ParseError| SettingError {
        name,
        value: value.to_owned(),
        expected: error.expected.to_owned(),
    })
}

fn node_address(vars: &Vars<'_>, name: &'static str) -> Result<NodeAddress, SettingError> {
    match vars.text(name).as_deref() {
        None => Ok(NodeAddress::Keep),
        Some("autodetect") => Ok(NodeAddress::Autodetect),
        Some("none") => Ok(NodeAddress::None),
        Some(text) => {
            let wanted = if name == "IP" { "an IPv4" } else { "an IPv6" };
            let addr = text.parse::<InterfaceAddr>().ok().filter(|addr| match addr.addr() {
                IpAddr::V4(_) => name == "IP",
                IpAddr::V6(_) => name == "IP6",
            });
            let addr = addr.ok_or_else(|| SettingError {
                name,
                value: text.to_owned(),
                expected: format!("{wanted} address with an optional prefix length, `autodetect` or `none`"),
            })?;
            Ok(NodeAddress::Given { addr, has_prefix: text.contains('/') })
        }
    }
}

fn encap(vars: &Vars<'_>, name: &'static str) -> Result<EncapMode, SettingError> {
    let value = vars.text(name).unwrap_or_default();
    match value.to_lowercase().as_str() {
        "" | "off" | "never" => Ok(EncapMode::Never),
        "always" => Ok(EncapMode::Always),
        "crosssubnet" | "cross-subnet" => Ok(EncapMode::CrossSubnet),
        _ => Err(SettingError { name, value, expected: "Never, Always or CrossSubnet".to_owned() }),
    }
}

fn backend(vars: &Vars<'_>) -> Result<Backend, SettingError> {
    if vars.text("CALICO_NETWORKING").as_deref() == Some("false") {
        return Ok(Backend::None);
    }
    match vars.text("CALICO_NETWORKING_BACKEND").as_deref() {
        None | Some("bird" | "bgp") => Ok(Backend::Bgp),
        Some("none" | "vxlan") => Ok(Backend::None),
        Some(value) => Err(SettingError {
            name: "CALICO_NETWORKING_BACKEND",
            value: value.to_owned(),
            expected: "bird, vxlan or none".to_owned(),
        }),
    }
}

impl DefaultPool {
    fn ipv4(vars: &Vars<'_>) -> Result<Self, SettingError> {
        let default = || "192.168.0.0/16".parse().expect("a constant network");
        Ok(Self {
            cidr: pool_cidr(vars, "CALICO_IPV4POOL_CIDR")?.unwrap_or_else(|| Some(default())),
            block_size: number(vars, "CALICO_IPV4POOL_BLOCK_SIZE")?,
            ipip_mode: encap(vars, "CALICO_IPV4POOL_IPIP")?,
            vxlan_mode: encap(vars, "CALICO_IPV4POOL_VXLAN")?,
            nat_outgoing: vars.flag("CALICO_IPV4POOL_NAT_OUTGOING", true),
            disable_bgp_export: vars.flag("CALICO_IPV4POOL_DISABLE_BGP_EXPORT", false),
            node_selector: selector(vars, "CALICO_IPV4POOL_NODE_SELECTOR")?,
        })
    }

    fn ipv6(vars: &Vars<'_>) -> Result<Self, SettingError> {
        Ok(Self {
            cidr: pool_cidr(vars, "CALICO_IPV6POOL_CIDR")?.flatten(),
            block_size: number(vars, "CALICO_IPV6POOL_BLOCK_SIZE")?,
            ipip_mode: EncapMode::Never,
            vxlan_mode: encap(vars, "CALICO_IPV6POOL_VXLAN")?,
            nat_outgoing: vars.flag("CALICO_IPV6POOL_NAT_OUTGOING", false),
            disable_bgp_export: vars.flag("CALICO_IPV6POOL_DISABLE_BGP_EXPORT", false),
            node_selector: selector(vars, "CALICO_IPV6POOL_NODE_SELECTOR")?,
        })
    }
}

/// `None` when unset, `Some(None)` for the word `none`.
fn pool_cidr(vars: &Vars<'_>, name: &'static str) -> Result<Option<Option<Cidr>>, SettingError> {
    match vars.text(name) {
        Some(value) if value == "none" => Ok(Some(None)),
        Some(value) => parse(name, &value).map(|cidr| Some(Some(cidr))),
        None => Ok(None),
    }
}

fn number(vars: &Vars<'_>, name: &'static str) -> Result<Option<u8>, SettingError> {
    let wrong = |value: String| SettingError { name, value, expected: "a prefix length".to_owned() };
    vars.text(name).map(|value| value.parse().map_err(|_| wrong(value))).transpose()
}

fn selector(vars: &Vars<'_>, name: &'static str) -> Result<Selector, SettingError> {
    let Some(value) = vars.text(name) else { return Ok(Selector::all()) };
    value.parse().map_err(|error: calico_model::SelectorError| SettingError {
        name,
        value: value.clone(),
        expected: format!("a selector ({error})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Settings::read(find, None, "Host-1")
    }

    #[test]
    fn with_nothing_set_the_host_names_the_node_and_the_default_pool_is_calicos() {
        let settings = read(&[("IP", ""), ("AS", "")]).unwrap();
        assert_eq!(settings.node.as_str(), "host-1");
        assert_eq!(settings.ipv4, NodeAddress::Keep);
        assert_eq!(settings.ipv6, None);
        let pool = settings.ipv4_pool.unwrap();
        assert_eq!(pool.cidr.unwrap().to_string(), "192.168.0.0/16");
        assert!(pool.nat_outgoing);
    }

    #[test]
    fn an_empty_nodename_file_is_as_good_as_none() {
        let of = |stored| Settings::read(|_| None, Some(stored), "Host-1").unwrap().node.to_string();
        assert_eq!([of("stored"), of("")], ["stored", "host-1"]);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_must_be() {
        for (name, value) in [
            ("NODENAME", "Node_1"),
            ("IP", "fd00::1"),
            ("AS", "0"),
            ("CALICO_ROUTER_ID", "0.0.0.0"),
            ("CALICO_IPV4POOL_CIDR", "10.0.0.1/8"),
            ("CALICO_IPV4POOL_VXLAN", "sometimes"),
            ("CALICO_IPV4POOL_NODE_SELECTOR", "a ="),
            ("CALICO_NETWORKING_BACKEND", "gobgp"),
            ("IP_AUTODETECTION_METHOD", "guess"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn a_router_id_is_given_or_made_of_the_nodes_name() {
        let of = |vars: &[(&str, &str)]| read(vars).unwrap().router_id.map(|id| id.to_string());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("CALICO_ROUTER_ID", "10.9.8.7")]).as_deref(), Some("10.9.8.7"));
        let hashed = |name: &str| of(&[("CALICO_ROUTER_ID", "hash"), ("NODENAME", name)]).unwrap();
        assert_eq!(hashed("node1"), hashed("node1"));
        assert_ne!(hashed("node1"), hashed("node2"));
    }

    #[test]
    fn no_default_pools_contradicts_a_pool() {
        assert_eq!(read(&[("NO_DEFAULT_POOLS", "true")]).unwrap().ipv4_pool, None);
        assert!(read(&[("NO_DEFAULT_POOLS", "true"), ("CALICO_IPV4POOL_CIDR", "10.0.0.0/16")]).is_err());
        assert!(read(&[("NO_DEFAULT_POOLS", ""), ("CALICO_IPV4POOL_CIDR", "10.0.0.0/16")]).is_ok());
    }

    #[test]
    fn an_address_keeps_or_seeks_its_prefix_length() {
        let given = |text| match read(&[("IP", text)]).unwrap().ipv4 {
            NodeAddress::Given { addr, has_prefix } => (addr.to_string(), has_prefix),
            other @ (NodeAddress::Keep | NodeAddress::Autodetect | NodeAddress::None) => panic!("{other:?}"),
        };
        assert_eq!(given("172.16.6.47/24"), ("172.16.6.47/24".to_owned(), true));
        assert_eq!(given("172.16.6.47"), ("172.16.6.47/32".to_owned(), false));
    }
}
