//! Calling the IPAM plugin, as the specification says: the same standard input, the same environment.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{AddResult, CniError};

/// Where the IPAM plugin is told which process calls it.
const CALLER: &str = "CALICO_CNI_CALLER";

/// Binds this process to the life of the plugin that called it, if one says so. Who is killed is not waited for: a DEL that
/// comes next must not meet an ADD that still goes on.
///
/// # Errors
/// When the caller is gone already, or the kernel refuses.
pub(super) fn die_with_caller(var: &dyn Fn(&str) -> Option<String>) -> std::io::Result<()> {
    let Some(caller) = var(CALLER) else { return Ok(()) };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before that.
    if nix::unistd::getppid().to_string() == caller {
        return Ok(());
    }
    Err(std::io::Error::other("the plugin that called this one is gone"))
}

/// The IPAM plugin of a request.
#[derive(Debug, Clone)]
pub struct Delegate<'a> {
    plugin: &'a str,
    path: PathBuf,
    input: &'a [u8],
}

impl<'a> Delegate<'a> {
    /// Finds the plugin in the folders of `CNI_PATH`. `input` is the network configuration as it came.
    ///
    /// # Errors
    /// When the configuration names none, or it is in none of the folders.
    pub fn find(plugin: &'a str, folders: Option<&str>, input: &'a [u8]) -> Result<Self, CniError> {
        let missing = |problem: String| CniError::NoPlugin { plugin: format!("{plugin:?}"), problem };
        if plugin.is_empty() {
            let problem = "is missing: it names the IPAM plugin, such as \"calico-ipam\"".to_owned();
            return Err(CniError::Config { key: "ipam.type", problem });
        }
        if plugin.contains('/') {
            return Err(missing("a plugin is named, not its path".to_owned()));
        }
        let folders = folders.filter(|folders| !folders.is_empty());
        let folders = folders.ok_or_else(|| missing("CNI_PATH is not set".to_owned()))?;
        let candidates = std::env::split_paths(folders).map(|folder| folder.join(plugin));
        let path = candidates.into_iter().find(|path| is_executable(path));
        let path =
            path.ok_or_else(|| missing(format!("it is in none of the folders of CNI_PATH ({folders})")))?;
        Ok(Self { plugin, path, input })
    }

    /// Asks for addresses.
    ///
    /// # Errors
    /// In the plugin's own words when it fails, or when its answer cannot be understood.
    pub async fn add(&self) -> Result<AddResult, CniError> {
        let answer = self.call("ADD").await?;
        AddResult::parse(&answer).map_err(|error| self.broken(error.to_string()))
    }

    /// Calls a command that answers with nothing: `DEL`, `CHECK`, `STATUS` or `GC`.
    ///
    /// # Errors
    /// In the plugin's own words when it fails.
    pub async fn command(&self, command: &str) -> Result<(), CniError> {
        self.call(command).await.map(drop)
    }

    async fn call(&self, command: &str) -> Result<Value, CniError> {
        let failed = |error: std::io::Error| self.broken(error.to_string());
        let mut child = Command::new(&self.path)
            .env("CNI_COMMAND", command)
            .env(CALLER, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let input = async {
            if let Some(mut stdin) = stdin {
                // A plugin that does not read to the end is judged by what it answers.
                let _unread = stdin.write_all(self.input).await;
            }
        };
        let ((), output) = tokio::join!(input, child.wait_with_output());
        let output = output.map_err(failed)?;
        if output.stdout.trim_ascii().is_empty() && output.status.success() {
            return Ok(Value::Null);
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match (output.status.success(), answer.is_object()) {
            (true, true) => Ok(answer),
            (false, true) => Err(CniError::Plugin {
                plugin: self.plugin.to_owned(),
                code: answer.get("code").and_then(Value::as_u64).unwrap_or(101),
                msg: text("msg"),
                details: text("details"),
            }),
            (_, false) => {
                let said: String = String::from_utf8_lossy(&output.stdout).chars().take(200).collect();
                Err(self.broken(format!("it ended with {} and answered {said:?}", output.status)))
            }
        }
    }

    fn broken(&self, problem: String) -> CniError {
        CniError::NoPlugin { plugin: self.path.display().to_string(), problem }
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
