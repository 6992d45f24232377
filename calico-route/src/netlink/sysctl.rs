//! Kernel settings, which are files below `/proc/sys`. They are those of the namespace of the thread that opens them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use calico_model::InterfaceName;

use crate::change::Change;
use crate::error::WriteError;
use crate::ownership::Ownership;
use crate::sysctl::Sysctl;

const FOLDER: &str = "/proc/sys";

/// Reads the node's settings, and those of our VXLAN devices and of these workloads' interfaces. What the kernel does not
/// have is passed over.
pub(super) fn read(workloads: &[InterfaceName]) -> io::Result<BTreeMap<Sysctl, String>> {
    let mut found = BTreeMap::new();
    let of_workloads = workloads.iter().flat_map(Sysctl::all_of_workload);
    for sysctl in Sysctl::all_of_node().chain(Sysctl::all_of_tunnels()).chain(of_workloads) {
        match std::fs::read_to_string(Path::new(FOLDER).join(sysctl.path())) {
            Ok(value) => {
                found.insert(sysctl, value.trim_end().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Reads the node's settings, and those of our VXLAN devices and of all workloads' interfaces that there are.
pub(super) fn read_all(ownership: &Ownership) -> io::Result<BTreeMap<Sysctl, String>> {
    let mut workloads = Vec::new();
    for device in std::fs::read_dir(Path::new(FOLDER).join("net/ipv4/conf"))? {
        let name = device?.file_name();
        let name = name.to_str().filter(|name| !["all", "default"].contains(name));
        let device = name.and_then(|name| name.parse().ok());
        workloads.extend(device.filter(|device| ownership.is_workload(device)));
    }
    read(&workloads)
}

/// Writes a setting; any other change is none of its business.
pub(super) fn write(change: &Change) -> Result<(), WriteError> {
    let Change::SetSysctl { sysctl, value } = change else { return Ok(()) };
    std::fs::write(Path::new(FOLDER).join(sysctl.path()), value).map_err(|source| WriteError::Sysctl {
        path: sysctl.path().to_owned(),
        value: value.clone(),
        source,
    })
}
