//! One connection on a thread of its own.

use std::sync::{Arc, mpsc};
use std::thread;

use futures_channel::oneshot;
use rusqlite::Connection;

use super::super::StoreError;
use super::error::{Place, Trouble};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The sending side of a connection's thread; the thread ends when it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    place: Arc<Place>,
    jobs: mpsc::Sender<Job>,
}

/// The thread ended before it answered.
#[derive(Debug, thiserror::Error)]
#[error("its connection thread ended")]
pub(super) struct WorkerGone;

impl Worker {
    pub(super) fn start(
        name: &str,
        place: Arc<Place>,
        mut connection: Connection,
    ) -> Result<Self, StoreError> {
        // Unbounded, because each job is the call of a future that waits for its answer: callers are the bound.
        let (jobs, queue) = mpsc::channel::<Job>();
        let serve = move || {
            for job in queue {
                job(&mut connection);
            }
        };
        match thread::Builder::new().name(name.to_owned()).spawn(serve) {
            Ok(_) => Ok(Self { place, jobs }),
            Err(error) => Err(place.unavailable("starting its connection thread", error.into())),
        }
    }

    /// Runs a job on the connection, in the order of the calls. The job runs even when the answer is not awaited.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<Result<T, Trouble>, WorkerGone> {
        let (answer, answered) = oneshot::channel();
        let place = Arc::clone(&self.place);
        let job: Job = Box::new(move |connection| {
            let result = place.check().and_then(|()| job(connection));
            // Nobody may be waiting any more, which is not this thread's concern.
            let _ = answer.send(result);
        });
        self.jobs.send(job).map_err(|_| WorkerGone)?;
        answered.await.map_err(|_| WorkerGone)
    }
}
