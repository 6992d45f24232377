//! What the two programs do from their first to their last line.

use std::io::{Read, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::plugin::Plugin;
use super::{CniError, Config, Request, SpecVersion, add, check, config, del, delegate, gc, ipam, log};
use crate::clock;

/// Which of the two plugins a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `calico`, which attaches containers.
    Calico,
    /// `calico-ipam`, which assigns their addresses.
    Ipam,
}

/// Runs a plugin: the request from the environment and standard input, the answer to standard output.
#[must_use]
pub fn main(program: Program) -> ExitCode {
    if std::env::args().nth(1).is_some_and(|arg| matches!(arg.as_str(), "-v" | "--version")) {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let var = |name: &str| std::env::var(name).ok();
    let mut input = Vec::new();
    let Err(error) = run(program, &var, &mut input) else { return ExitCode::SUCCESS };
    let details = Some(error.details()).filter(|details| !details.is_empty());
    tracing::error!(details, "{error}");
    let said = serde_json::from_slice(&input).unwrap_or_default();
    let version = config::version(&said).unwrap_or(SpecVersion::NEWEST);
    // A runtime that does not listen has given up on us, and the exit code says the same.
    let _unheard = say(&error.to_json(version));
    ExitCode::FAILURE
}

fn run(program: Program, var: &dyn Fn(&str) -> Option<String>, input: &mut Vec<u8>) -> Result<(), CniError> {
    if program == Program::Ipam {
        delegate::die_with_caller(var).map_err(CniError::Unheard)?;
    }
    // Before anything is read: who tries the program at a terminal is told at once what it wants.
    let request = Request::from_vars(var)?;
    std::io::stdin().read_to_end(input).map_err(CniError::Input)?;
    if request == Request::Version {
        return say(&versions(input)).map_err(CniError::Unheard);
    }
    let config = Config::parse(input)?;
    let since = match request {
        Request::Check(..) => SpecVersion::V0_4_0,
        Request::Gc | Request::Status => SpecVersion::V1_1_0,
        Request::Add(..) | Request::Del(..) | Request::Version => SpecVersion::V0_1_0,
    };
    if config.version < since {
        return Err(CniError::TooOld { version: config.version, command: request.command(), since });
    }
    log::begin(&config);
    tracing::debug!(command = request.command(), network = config.network, "called");
    let plugin = Plugin::new(&config, input, var);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CniError::Input)?;
    runtime.block_on(async {
        match program {
            Program::Calico => calico(&plugin, &request).await,
            Program::Ipam => calico_ipam(&plugin, &request).await,
        }
    })
}

async fn calico(plugin: &Plugin<'_>, request: &Request) -> Result<(), CniError> {
    match request {
        Request::Add(container, netns) => {
            let result = add::add(plugin, container, netns).await?;
            say(&result.to_json(plugin.config.version)).map_err(CniError::Unheard)
        }
        Request::Del(container, netns) => del::del(plugin, container, netns.as_deref()).await,
        Request::Check(container, netns) => check::check(plugin, container, netns).await,
        Request::Gc => gc::calico(plugin, clock::wall()).await,
        Request::Status => check::status(plugin).await,
        Request::Version => Ok(()),
    }
}

async fn calico_ipam(plugin: &Plugin<'_>, request: &Request) -> Result<(), CniError> {
    match request {
        Request::Add(container, _) => {
            let given = ipam::add(plugin, container, clock::wall()).await?;
            match say(&given.result().to_json(plugin.config.version)) {
                Ok(()) => Ok(()),
                // Whoever asked was killed, and a DEL may have come and gone: nobody would ever release these.
                Err(error) => {
                    let released = given.take_back(clock::wall()).await.err();
                    let errors = [CniError::Unheard(error)].into_iter().chain(released).collect();
                    CniError::joined(errors).map_or(Ok(()), Err)
                }
            }
        }
        Request::Del(container, _) => ipam::del(plugin, container, clock::wall()).await,
        Request::Check(container, _) => ipam::check(plugin, container, clock::wall()).await,
        Request::Gc => gc::calico_ipam(plugin, clock::wall()).await,
        Request::Status => ipam::status(plugin).await,
        Request::Version => Ok(()),
    }
}

fn say(answer: &Value) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{answer:#}")?;
    stdout.flush()
}

/// Answers VERSION, for which the runtime need not say more than its own version.
fn versions(input: &[u8]) -> Value {
    let said = serde_json::from_slice(input).unwrap_or_default();
    let version = config::version(&said).unwrap_or(SpecVersion::NEWEST);
    json!({
        "cniVersion": version.as_str(),
        "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str),
    })
}
