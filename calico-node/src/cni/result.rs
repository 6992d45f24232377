//! What an ADD gives back, in the shape of any version of the specification.

use std::net::IpAddr;

use calico_model::{Family, InterfaceAddr, Mac};
use serde_json::{Map, Value, json};

use super::{CniError, SpecVersion};

/// The result of an ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// The interfaces.
    pub interfaces: Vec<ResultInterface>,
    /// The addresses.
    pub ips: Vec<ResultIp>,
}

/// An interface of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultInterface {
    /// The name.
    pub name: String,
    /// The MAC address.
    pub mac: Option<Mac>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// The path of the network namespace it is in; `None` is the node's.
    pub sandbox: Option<String>,
}

/// An address of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultIp {
    /// The address and the length of its prefix.
    pub addr: InterfaceAddr,
    /// Which interface has it, counting from 0.
    pub interface: Option<usize>,
}

impl AddResult {
    /// Makes a result of addresses alone, as an IPAM plugin does.
    #[must_use]
    pub fn of_addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let host = |addr: IpAddr| InterfaceAddr::new(addr, Family::of(addr).bits());
        let ips = addresses.into_iter().filter_map(host).map(|addr| ResultIp { addr, interface: None });
        Self { interfaces: Vec::new(), ips: ips.collect() }
    }

    /// Reads a result, in the shape of any version.
    ///
    /// # Errors
    /// When an address or MAC address in it cannot be used.
    pub fn parse(value: &Value) -> Result<Self, CniError> {
        let fault = |problem: String| CniError::Config { key: "prevResult", problem };
        let mut result = Self::default();
        for interface in value.get("interfaces").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| interface.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            let mac = text("mac").map(str::parse).transpose();
            result.interfaces.push(ResultInterface {
                name: text("name").unwrap_or_default().to_owned(),
                mac: mac.map_err(|error: calico_model::ParseError| fault(format!("has a mac: {error}")))?,
                mtu: interface.get("mtu").and_then(Value::as_u64).and_then(|mtu| u32::try_from(mtu).ok()),
                sandbox: text("sandbox").map(str::to_owned),
            });
        }
        // Up to 0.2.0 each family has one address with a key of its own.
        let old = ["ip4", "ip6"].iter().filter_map(|key| value.get(key)).map(|ip| (ip.get("ip"), None));
        let ips = value.get("ips").and_then(Value::as_array).into_iter().flatten();
        let new = ips.map(|ip| (ip.get("address"), ip.get("interface").and_then(Value::as_u64)));
        for (address, interface) in old.chain(new) {
            let text = address.and_then(Value::as_str).unwrap_or_default();
            let addr = text.parse().map_err(|error| fault(format!("has an address: {error}")))?;
            result
                .ips
                .push(ResultIp { addr, interface: interface.and_then(|index| usize::try_from(index).ok()) });
        }
        Ok(result)
    }

    /// Writes the result in the shape of `version`.
    #[must_use]
    pub fn to_json(&self, version: SpecVersion) -> Value {
        let mut body = Map::new();
        body.insert("cniVersion".to_owned(), version.as_str().into());
        if version < SpecVersion::V0_3_0 {
            for (key, family) in [("ip4", Family::V4), ("ip6", Family::V6)] {
                let of_family = |ip: &&ResultIp| Family::of(ip.addr.addr()) == family;
                if let Some(ip) = self.ips.iter().find(of_family) {
                    body.insert(key.to_owned(), json!({ "ip": ip.addr.to_string() }));
                }
            }
        } else {
            if !self.interfaces.is_empty() {
                let interfaces = self.interfaces.iter().map(|interface| interface.to_json(version));
                body.insert("interfaces".to_owned(), interfaces.collect());
            }
            body.insert("ips".to_owned(), self.ips.iter().map(|ip| ip.to_json(version)).collect());
        }
        body.insert("dns".to_owned(), json!({}));
        Value::Object(body)
    }
}

impl ResultInterface {
    fn to_json(&self, version: SpecVersion) -> Value {
        let mut body = json!({ "name": self.name });
        if let Some(mac) = self.mac {
            body["mac"] = mac.to_string().into();
        }
        if let Some(mtu) = self.mtu.filter(|_| version >= SpecVersion::V1_1_0) {
            body["mtu"] = mtu.into();
        }
        if let Some(sandbox) = &self.sandbox {
            body["sandbox"] = sandbox.as_str().into();
        }
        body
    }
}

impl ResultIp {
    fn to_json(self, version: SpecVersion) -> Value {
        let mut body = json!({ "address": self.addr.to_string() });
        if version < SpecVersion::V1_0_0 {
            body["version"] = Family::of(self.addr.addr()).version().to_string().into();
        }
        if let Some(interface) = self.interface {
            body["interface"] = interface.into();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> AddResult {
        let interface = |name: &str, sandbox: Option<&str>| ResultInterface {
            name: name.to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: sandbox.map(|_| 1410),
            sandbox: sandbox.map(str::to_owned),
        };
        let ip = |text: &str| ResultIp { addr: text.parse().unwrap(), interface: Some(1) };
        AddResult {
            interfaces: vec![interface("cali0", None), interface("eth0", Some("/run/netns/x"))],
            ips: vec![ip("10.0.0.1/32"), ip("fd00::1/128")],
        }
    }

    #[test]
    fn every_version_has_its_shape() {
        let old = json!({ "cniVersion": "0.1.0", "ip4": { "ip": "10.0.0.1/32" }, "ip6": { "ip": "fd00::1/128" }, "dns": {} });
        assert_eq!(result().to_json(SpecVersion::V0_1_0), old);
        let middle = result().to_json(SpecVersion::V0_4_0);
        assert_eq!(middle["ips"][0], json!({ "version": "4", "address": "10.0.0.1/32", "interface": 1 }));
        assert_eq!(
            middle["interfaces"][1],
            json!({ "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x" })
        );
        let new = result().to_json(SpecVersion::V1_0_0);
        assert_eq!(new["ips"][1], json!({ "address": "fd00::1/128", "interface": 1 }));
        assert_eq!(result().to_json(SpecVersion::V1_1_0)["interfaces"][1]["mtu"], 1410);
    }

    #[test]
    fn a_result_is_read_back_from_any_version() {
        for version in SpecVersion::ALL {
            let read = AddResult::parse(&result().to_json(version)).unwrap();
            let addresses = |result: &AddResult| result.ips.iter().map(|ip| ip.addr).collect::<Vec<_>>();
            assert_eq!(addresses(&read), addresses(&result()), "{version}");
        }
        assert_eq!(AddResult::parse(&result().to_json(SpecVersion::NEWEST)).unwrap(), result());
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let error = AddResult::parse(&json!({ "ips": [{ "address": "x" }] })).unwrap_err();
        assert!(error.to_string().contains("\"x\" is not an address"), "{error}");
    }
}
