//! From SQLite's result codes to sentences that name the file and the remedy.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::super::{Cause, StoreError};

/// What went wrong on a connection.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A statement failed before anything was committed.
    Sqlite(rusqlite::Error),
    /// `COMMIT` itself failed, so that it may or may not be on the disk.
    AtCommit(rusqlite::Error),
    /// The file at the path is no longer the one that is open.
    Replaced,
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sqlite(error)
    }
}

/// Where the store is: its path, and the file that was opened there.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    /// Remembers which file is at the path now; the path must be free of symbolic links.
    pub(super) fn of(path: PathBuf) -> Result<Self, StoreError> {
        match identity(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(cannot_open(&path, &error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Checks that the path still leads to the file that is open.
    ///
    /// Another process that opens the path anew would otherwise share nothing with this one, and both would hand out
    /// the same addresses.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        match identity(&self.path) {
            Ok(file) if file == self.file => Ok(()),
            Ok(_) | Err(_) => Err(Trouble::Replaced),
        }
    }

    pub(super) fn unavailable(&self, action: &str, source: Cause) -> StoreError {
        StoreError::Unavailable { store: self.name(), action: action.to_owned(), source }
    }

    pub(super) fn explain(&self, action: &str, trouble: Trouble) -> StoreError {
        let error = match trouble {
            Trouble::Replaced => {
                return unusable(
                    &self.path,
                    "the file was removed or replaced while it was in use: restart this program",
                );
            }
            Trouble::Sqlite(error) | Trouble::AtCommit(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => {
                unusable(&self.path, "the file is not an SQLite database: move it away, or name another file")
            }
            Some(ErrorCode::DatabaseCorrupt) => unusable(
                &self.path,
                "the file is damaged: stop every program that uses it and restore it from a backup \
                 (`sqlite3 FILE 'PRAGMA integrity_check'` says what is broken)",
            ),
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => unusable(
                &self.path,
                "this user may not write it or its directory: run as its owner, which is usually root",
            ),
            _ => self.unavailable(action, error.into()),
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

pub(super) fn unusable(path: &Path, problem: impl Into<String>) -> StoreError {
    StoreError::Unusable { store: path.display().to_string(), problem: problem.into() }
}

/// Explains why a file could not be opened or made.
pub(super) fn cannot_open(path: &Path, error: &io::Error) -> StoreError {
    let problem = if error.kind() == io::ErrorKind::PermissionDenied {
        "this user may not read and write it: run as its owner, which is usually root".to_owned()
    } else {
        format!("it cannot be opened ({error}): check the path and its file system")
    };
    unusable(path, problem)
}
