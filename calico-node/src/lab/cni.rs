//! Workloads are attached as an orchestrator does it: by calling the CNI programs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::agents::program;
use super::command::Answer;
use super::error::LabError;
use super::state::{HostState, WorkloadState};
use super::{Lab, LabOptions, command, netns};

/// A verb of the CNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CniVerb {
    /// Attach.
    Add,
    /// Is it as it was attached?
    Check,
    /// Detach.
    Del,
}

impl Lab {
    /// Calls the CNI program `calico` on the workload's host, and returns its result.
    ///
    /// # Errors
    /// When there is no such workload, or the program fails.
    pub fn cni(&self, verb: CniVerb, workload: &str) -> Result<Value, LabError> {
        let workload = self.state.workload(workload)?;
        call(&self.options, &self.state.name, verb, workload, self.state.host(&workload.host)?)
    }

    /// Attaches a workload that was detached.
    ///
    /// # Errors
    /// When there is no such workload, or it cannot be attached.
    pub fn attach(&mut self, workload: &str) -> Result<IpAddr, LabError> {
        let result = self.cni(CniVerb::Add, workload)?;
        let attached = address(&result)?;
        self.change_workload(workload, |planned| {
            planned.address = Some(attached);
            planned.attachment = Some(result);
        })?;
        Ok(attached)
    }

    /// Detaches a workload; its namespace and what answers in it stay.
    ///
    /// # Errors
    /// When there is no such workload, or it cannot be detached.
    pub fn detach(&mut self, workload: &str) -> Result<(), LabError> {
        self.cni(CniVerb::Del, workload)?;
        self.change_workload(workload, |planned| planned.address = None)
    }

    /// Attaches workloads, all at once.
    pub(super) fn attach_all(&mut self) -> Result<(), LabError> {
        let (options, state) = (&self.options, &self.state);
        let results: Vec<_> = std::thread::scope(|scope| {
            let calls = state.workloads.iter().map(|workload| {
                scope.spawn(move || {
                    let host = state.host(&workload.host)?;
                    let result = call(options, &state.name, CniVerb::Add, workload, host)?;
                    address(&result).map(|address| (address, result))
                })
            });
            let calls: Vec<_> = calls.collect();
            calls.into_iter().map(|call| call.join().unwrap_or(Err(LabError::Interrupted))).collect()
        });
        let results = results.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.change(|state| {
            for (workload, (address, result)) in state.workloads.iter_mut().zip(results) {
                workload.address = Some(address);
                workload.attachment = Some(result);
            }
        })
    }
}

fn call(
    options: &LabOptions,
    lab: &str,
    verb: CniVerb,
    workload: &WorkloadState,
    host: &HostState,
) -> Result<Value, LabError> {
    let folder = options.programs.folder().unwrap_or("".as_ref());
    let mut environment: BTreeMap<String, String> = host.environment.clone();
    let verb = match verb {
        CniVerb::Add => "ADD",
        CniVerb::Check => "CHECK",
        CniVerb::Del => "DEL",
    };
    let pairs = [
        ("CNI_COMMAND", verb.to_owned()),
        ("CNI_CONTAINERID", format!("{lab}-{}", workload.name)),
        ("CNI_NETNS", netns::path(&workload.netns).display().to_string()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", folder.display().to_string()),
    ];
    environment.extend(pairs.map(|(name, value)| (name.to_owned(), value)));
    environment
        .extend(workload.wanted_address.map(|address| ("CNI_ARGS".to_owned(), format!("IP={address}"))));
    let mut configuration = json!({
        "cniVersion": "1.0.0",
        "name": "calico-lab",
        "type": "calico",
        "nodename": host.name,
        "datastore_type": "sqlite",
        "datastore_path": host.environment.get("CALICO_DATASTORE_PATH"),
        "labels": workload.labels,
        "ipam": {"type": "calico-ipam", "assign_ipv6": host.environment.contains_key("IP6").to_string()},
    });
    if verb != "ADD" {
        configuration["prevResult"] = workload.attachment.clone().unwrap_or_default();
    }
    let mut program = program(folder, "calico", &environment);
    let answer =
        command::run(Some(&host.netns), &mut program, &configuration.to_string(), &options.interrupt)?;
    let name = format!("calico ({verb} {} on {})", workload.name, host.name);
    let stdout = command::succeeded(&name, plain(answer))?;
    if stdout.trim().is_empty() {
        return Ok(Value::Null);
    }
    let reason = |error: serde_json::Error| error.to_string();
    serde_json::from_str(&stdout).map_err(|error| LabError::Answer {
        program: name,
        reason: reason(error),
        answer: stdout,
    })
}

/// Puts the sentence of a CNI error in place of its JSON and of the log beside it.
fn plain(mut answer: Answer) -> Answer {
    let error: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
    if let Some(message) = error.get("msg").and_then(Value::as_str)
        && answer.code != Some(0)
    {
        let details = error.get("details").and_then(Value::as_str).unwrap_or_default();
        answer.stderr = format!("{message} {details}");
    }
    answer
}

/// The addresses that a result of the CNI names, in its order.
pub(super) fn addresses(result: &Value) -> impl Iterator<Item = IpAddr> {
    let listed = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
}

fn address(result: &Value) -> Result<IpAddr, LabError> {
    addresses(result).next().ok_or_else(|| LabError::Answer {
        program: "calico (ADD)".to_owned(),
        reason: "it names no address".to_owned(),
        answer: result.to_string(),
    })
}
