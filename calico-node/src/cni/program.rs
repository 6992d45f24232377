//! What the two programs do from their first to their last line.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::plugin::Plugin;
use super::{AddResult, CniError, Config, Request, SpecVersion, add, check, config, del, gc, ipam, log};

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
    let answer = match std::io::stdin().read_to_end(&mut input) {
        Ok(_) => run(program, &var, &input),
        Err(error) => Err(CniError::Input(error)),
    };
    let (text, code) = match answer {
        Ok(Value::Null) => return ExitCode::SUCCESS,
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!("{error}");
            let said = serde_json::from_slice(&input).unwrap_or_default();
            let version = config::version(&said).unwrap_or(SpecVersion::NEWEST);
            (error.to_json(version), ExitCode::FAILURE)
        }
    };
    // A runtime that no longer listens has given up on us.
    let _unheard = writeln!(std::io::stdout(), "{text:#}");
    code
}

fn run(program: Program, var: &dyn Fn(&str) -> Option<String>, input: &[u8]) -> Result<Value, CniError> {
    let request = Request::from_vars(var)?;
    if request == Request::Version {
        return Ok(versions(input));
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
    let answer = runtime.block_on(answer(program, &plugin, &request))?;
    Ok(answer.map_or(Value::Null, |result| result.to_json(config.version)))
}

async fn answer(
    program: Program,
    plugin: &Plugin<'_>,
    request: &Request,
) -> Result<Option<AddResult>, CniError> {
    #[expect(clippy::disallowed_methods, reason = "a plugin runs once, and this is when")]
    let now = SystemTime::now();
    match (program, request) {
        (Program::Calico, Request::Add(container, netns)) => {
            add::add(plugin, container, netns).await.map(Some)
        }
        (Program::Calico, Request::Del(container, netns)) => {
            del::del(plugin, container, netns.as_deref()).await.map(|()| None)
        }
        (Program::Calico, Request::Check(container, netns)) => {
            check::check(plugin, container, netns).await.map(|()| None)
        }
        (Program::Calico, Request::Status) => check::status(plugin).await.map(|()| None),
        (Program::Ipam, Request::Add(container, _)) => ipam::add(plugin, container, now).await.map(Some),
        (Program::Ipam, Request::Del(container, _)) => ipam::del(plugin, container, now).await.map(|()| None),
        (Program::Ipam, Request::Check(container, _)) => {
            ipam::check(plugin, container, now).await.map(|()| None)
        }
        (Program::Ipam, Request::Status) => ipam::status(plugin).await.map(|()| None),
        (Program::Calico, Request::Gc) => gc::calico(plugin, now).await.map(|()| None),
        (Program::Ipam, Request::Gc) => gc::calico_ipam(plugin, now).await.map(|()| None),
        (_, Request::Version) => Ok(None),
    }
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
