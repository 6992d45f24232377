//! What the agent leaves in files for the CNI plugin: which endpoints' policy is in force, and the workloads' MTU.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use calico_model::{InterfaceName, NodeName, Snapshot};

use crate::paths::Paths;

/// A mark that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(super) struct MarkError {
    path: PathBuf,
    source: io::Error,
}

/// The host interfaces of the node's workloads, whose policy is in force once a pass has put the rules in force; each with
/// the revision of the endpoint that was looked at, so that nobody takes the mark for that of a later endpoint.
pub(super) fn settled(snapshot: &Snapshot, node: &NodeName) -> BTreeMap<InterfaceName, String> {
    let own = snapshot.workloads.values().filter(|workload| workload.spec.node == *node);
    let marked = own.filter_map(|workload| {
        let revision = workload.metadata.resource_version.clone().unwrap_or_default();
        Some((workload.spec.interface_name.clone()?, revision))
    });
    marked.collect()
}

/// Makes the folder of marks hold exactly one file for each interface, and the MTU file the MTU.
pub(super) fn write(
    paths: &Paths,
    settled: &BTreeMap<InterfaceName, String>,
    mtu: Option<u32>,
) -> Result<(), MarkError> {
    let folder = paths.endpoint_status_dir();
    let failed = |path: PathBuf| move |source| MarkError { path, source };
    fs::create_dir_all(&folder).map_err(failed(folder.clone()))?;
    let mut missing: BTreeMap<OsString, &str> =
        settled.iter().map(|(name, revision)| (name.as_str().into(), revision.as_str())).collect();
    for entry in fs::read_dir(&folder).map_err(failed(folder.clone()))?.flatten() {
        let wanted = missing.get(&entry.file_name()).copied();
        if wanted.is_none() {
            remove(&entry.path()).map_err(failed(entry.path()))?;
        } else if fs::read_to_string(entry.path()).ok().as_deref() == wanted {
            missing.remove(&entry.file_name());
        }
    }
    for (name, revision) in missing {
        // Whole or not at all: the plugin reads it while we write. A name with a dot is no interface's here.
        let (path, fresh) = (folder.join(&name), paths.run_dir().join("endpoint-status.new"));
        fs::write(&fresh, revision).map_err(failed(fresh.clone()))?;
        fs::rename(&fresh, &path).map_err(failed(path.clone()))?;
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

/// Removes a mark, unless the plugin was first: it removes one with its endpoint.
fn remove(mark: &Path) -> io::Result<()> {
    match fs::remove_file(mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_and_go_with_the_endpoints_and_tell_their_revision() {
        let root = std::env::temp_dir().join(format!("calico-marks-{}", std::process::id()));
        let text = root.to_str().unwrap().to_owned();
        let paths = Paths::from_vars(|_| Some(text.clone()));
        let settled = |pairs: &[(&str, &str)]| {
            let pair = |(name, revision): &(&str, &str)| (name.parse().unwrap(), (*revision).to_owned());
            pairs.iter().map(pair).collect::<BTreeMap<InterfaceName, String>>()
        };
        let marked = || {
            let entries = fs::read_dir(paths.endpoint_status_dir()).unwrap().flatten();
            let pair = |entry: fs::DirEntry| {
                let revision = fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().to_str().unwrap().parse().unwrap(), revision)
            };
            entries.map(pair).collect::<BTreeMap<InterfaceName, String>>()
        };
        let first = settled(&[("cali1", "3"), ("cali2", "4")]);
        write(&paths, &first, Some(1450)).unwrap();
        assert_eq!(marked(), first);
        assert_eq!(fs::read_to_string(paths.mtu_file()).unwrap(), "1450");
        let second = settled(&[("cali2", "7"), ("cali3", "8")]);
        write(&paths, &second, None).unwrap();
        assert_eq!(marked(), second);
        let mark = paths.endpoint_status_dir().join("cali3");
        remove(&mark).unwrap();
        remove(&mark).unwrap();
        fs::remove_dir_all(root).unwrap();
    }
}
