//! The doorbell: a file that writers touch after a commit and watchers listen to with inotify.
//!
//! The write-ahead log itself would ring too early, before the commit can be seen. The bell holds no data: a ring
//! that is lost costs a quarter of a second, and a bell that was deleted is hung up again by whoever notices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::error::Place;

/// How long a lost ring can go unnoticed, in milliseconds.
const BACKSTOP: u16 = 250;

/// The doorbell of one store.
#[derive(Debug)]
pub(super) struct Bell {
    path: PathBuf,
}

impl Bell {
    pub(super) fn of(place: &Place) -> Self {
        let mut path = place.path().as_os_str().to_owned();
        path.push(".bell");
        Self { path: path.into() }
    }

    /// Tells every listener that there is something to read. A failure only makes them slower.
    pub(super) fn ring(&self) {
        // Opened for each ring, so that a bell that was deleted or replaced is found again; 10 µs beside an fsync.
        if let Ok(file) = self.open() {
            let _ = file.write_at(b"!", 0);
        }
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)
    }

    pub(super) fn listen(self) -> Listener {
        let mut listener = Listener { bell: self, ear: Inotify::init(InitFlags::all()).ok(), heard: None };
        listener.hang_up();
        listener
    }
}

/// Somebody waiting at a bell.
pub(super) struct Listener {
    bell: Bell,
    /// Absent when the machine has no inotify instances left; then only the backstop remains.
    ear: Option<Inotify>,
    heard: Option<(File, WatchDescriptor)>,
}

impl Listener {
    /// Waits until the bell rings, or for the backstop's quarter of a second.
    pub(super) fn wait(&mut self) {
        if self.heard.as_ref().is_none_or(|(file, _)| is_unlinked(file)) {
            self.hang_up();
        }
        let Some(ear) = self.ear.as_ref().filter(|_| self.heard.is_some()) else {
            thread::sleep(std::time::Duration::from_millis(BACKSTOP.into()));
            return;
        };
        let mut fds = [PollFd::new(ear.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is only a short one.
        let _ = poll(&mut fds, PollTimeout::from(BACKSTOP));
        // Rings that came together count once; the descriptor does not block, and "nothing to read" is an answer.
        let _ = ear.read_events();
    }

    /// Makes the bell when it is missing and listens to the one that is there.
    fn hang_up(&mut self) {
        let Some(ear) = &self.ear else { return };
        if let Some((_, descriptor)) = self.heard.take() {
            // The kernel may have removed it with the file already.
            let _ = ear.rm_watch(descriptor);
        }
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB;
        self.heard = self.bell.open().ok().zip(ear.add_watch(&self.bell.path, flags).ok());
    }
}

fn is_unlinked(file: &File) -> bool {
    file.metadata().map_or(true, |metadata| metadata.nlink() == 0)
}
