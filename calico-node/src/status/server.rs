//! The agent's side of the local socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use calico_bgp::net::{Gone, Handle};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::{NodeStatus, Question, bgp};

/// A question is one short line; what is longer is none.
const LONGEST_QUESTION: u64 = 4096;
/// How long one asker may take, so that none keeps a task for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// A local socket that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another agent serves this node.
    #[error("another calico-node already runs on this host (it listens on {}): stop it first", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot make the local socket {}", path.display())]
    Unmakeable {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// The local socket of a running agent; the file is removed when this is dropped.
#[derive(Debug)]
pub struct StatusServer {
    listener: UnixListener,
    path: PathBuf,
}

impl StatusServer {
    /// Makes the socket, readable and writable by its owner alone, and the folder it is in. A socket that a killed agent
    /// left behind is replaced.
    ///
    /// # Errors
    /// When another agent listens there, or the file system refuses.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let unmakeable = |source| ListenError::Unmakeable { path: path.to_owned(), source };
        if BlockingStream::connect(path).is_ok() {
            return Err(ListenError::Taken { path: path.to_owned() });
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(unmakeable)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unmakeable(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(unmakeable)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(unmakeable)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers every question with the newest status, for as long as the agent runs.
    pub async fn serve(self, status: watch::Receiver<NodeStatus>, speaker: watch::Receiver<Option<Handle>>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (status, speaker) = (status.clone(), speaker.clone());
                    tokio::spawn(async move {
                        let exchange = answer(stream, &status, &speaker);
                        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, exchange).await {
                            tracing::debug!(%error, "a question on the local socket was not answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the local socket failed to accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        // A file that is already gone needs no removing, and nothing else can be done about one that stays.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(
    stream: UnixStream,
    status: &watch::Receiver<NodeStatus>,
    speaker: &watch::Receiver<Option<Handle>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LONGEST_QUESTION).read_line(&mut line).await?;
    let mut reply = match serde_json::from_str::<Question>(&line)? {
        Question::Status => serde_json::to_string(&*status.borrow())?,
        Question::BgpPeers => {
            let speaker = speaker.borrow().clone();
            serde_json::to_string(&of(speaker, async |speaker| bgp::peers(&speaker).await).await)?
        }
        Question::BgpRoutes(prefix) => {
            let speaker = speaker.borrow().clone();
            serde_json::to_string(&of(speaker, async |speaker| bgp::routes(&speaker, prefix).await).await)?
        }
    };
    reply.push('\n');
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

/// Asks a speaker; nothing where none runs.
async fn of<T>(speaker: Option<Handle>, ask: impl AsyncFnOnce(Handle) -> Result<T, Gone>) -> Option<T> {
    ask(speaker?).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{AskError, ask};

    fn status() -> NodeStatus {
        NodeStatus {
            node: "n1".to_owned(),
            pid: 1,
            version: "0".to_owned(),
            started: 0,
            datastore: "memory".to_owned(),
            in_sync: true,
            programmed: false,
            kernel_overruns: 0,
            problems: vec!["one".to_owned()],
            bgp: None,
        }
    }

    fn socket(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("calico-{test}-{}", std::process::id())).join("calico-node.sock")
    }

    #[tokio::test]
    async fn a_status_is_told_over_a_socket_of_its_owner_alone() {
        let path = socket("told");
        let server = StatusServer::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_sender, receiver) = watch::channel(status());
        let (_handles, speaker) = watch::channel(None);
        let serving = tokio::spawn(server.serve(receiver, speaker));
        let off: Option<Vec<bgp::BgpPeer>> = ask(&path, Question::BgpPeers).await.unwrap();
        assert_eq!(off, None, "no speaker runs");
        assert_eq!(ask::<NodeStatus>(&path, Question::Status).await.unwrap(), status());
        assert!(matches!(StatusServer::listen(&path), Err(ListenError::Taken { .. })));
        serving.abort();
        let _ = serving.await;
        assert!(matches!(ask::<NodeStatus>(&path, Question::Status).await, Err(AskError::NotRunning { .. })));
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_socket_left_behind_by_a_killed_agent_is_replaced() {
        let path = socket("stale");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(StatusServer::listen(&path).unwrap());
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }
}
