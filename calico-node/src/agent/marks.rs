//! What the agent leaves in files for the CNI plugin: which endpoints' policy is in force, and the workloads' MTU.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use calico_model::{InterfaceName, NodeName, Snapshot};

use crate::paths::Paths;

/// A mark that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(super) struct MarkError {
    path: PathBuf,
    source: io::Error,
}

/// The host interfaces of the node's workloads, whose policy is in force once a pass has put the rules in force.
pub(super) fn settled(snapshot: &Snapshot, node: &NodeName) -> BTreeSet<InterfaceName> {
    let own = snapshot.workloads.values().filter(|workload| workload.spec.node == *node);
    own.filter_map(|workload| workload.spec.interface_name.clone()).collect()
}

/// Makes the folder of marks hold exactly one file for each interface, and the MTU file the MTU.
pub(super) fn write(
    paths: &Paths,
    settled: &BTreeSet<InterfaceName>,
    mtu: Option<u32>,
) -> Result<(), MarkError> {
    let folder = paths.endpoint_status_dir();
    let failed = |path: PathBuf| move |source| MarkError { path, source };
    fs::create_dir_all(&folder).map_err(failed(folder.clone()))?;
    let mut missing: BTreeSet<OsString> = settled.iter().map(|name| name.as_str().into()).collect();
    for entry in fs::read_dir(&folder).map_err(failed(folder.clone()))?.flatten() {
        if !missing.remove(&entry.file_name()) {
            fs::remove_file(entry.path()).map_err(failed(entry.path()))?;
        }
    }
    for name in missing {
        let path = folder.join(name);
        fs::write(&path, "").map_err(failed(path.clone()))?;
    }
    let Some(mtu) = mtu else { return Ok(()) };
    let path = paths.mtu_file();
    if fs::read_to_string(&path).is_ok_and(|text| text == mtu.to_string()) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    fs::create_dir_all(paths.lib_dir()).map_err(failed(paths.lib_dir().to_owned()))?;
    fs::write(&fresh, mtu.to_string()).map_err(failed(fresh.clone()))?;
    fs::rename(&fresh, &path).map_err(failed(path.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_and_go_with_the_endpoints() {
        let root = std::env::temp_dir().join(format!("calico-marks-{}", std::process::id()));
        let text = root.to_str().unwrap().to_owned();
        let paths = Paths::from_vars(|_| Some(text.clone()));
        let names = |names: &[&str]| {
            names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<InterfaceName>>()
        };
        let marked = || {
            let entries = fs::read_dir(paths.endpoint_status_dir()).unwrap().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<BTreeSet<String>>()
        };
        write(&paths, &names(&["cali1", "cali2"]), Some(1450)).unwrap();
        assert_eq!(marked(), ["cali1", "cali2"].map(str::to_owned).into());
        assert_eq!(fs::read_to_string(paths.mtu_file()).unwrap(), "1450");
        write(&paths, &names(&["cali2", "cali3"]), None).unwrap();
        assert_eq!(marked(), ["cali2", "cali3"].map(str::to_owned).into());
        fs::remove_dir_all(root).unwrap();
    }
}
