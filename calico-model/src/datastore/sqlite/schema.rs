//! Opening and making the file: modes, settings, tables, versions.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::super::StoreError;
use super::error::{Place, Trouble, cannot_open, unusable};

/// The version of the tables below, kept in SQLite's `user_version`.
const VERSION: i64 = 1;

/// "Cali", SQLite's `application_id` of this store.
const APPLICATION: i64 = 0x4361_6c69;

/// How long a connection waits for another process to finish.
const PATIENCE: Duration = Duration::from_secs(10);

// A revision is the sequence number of the last change of its commit, so `sequence > revision` is all that came later.
// Entries are kept in key order in the table itself, because listing a folder is the most frequent large read.
const TABLES: &str = "
    CREATE TABLE store (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        revision INTEGER NOT NULL,
        horizon INTEGER NOT NULL,
        log_bytes INTEGER NOT NULL
    );
    INSERT INTO store VALUES (1, 0, 0, 0);
    CREATE TABLE entries (
        key TEXT PRIMARY KEY NOT NULL,
        revision INTEGER NOT NULL,
        value BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE log (
        sequence INTEGER PRIMARY KEY,
        revision INTEGER NOT NULL,
        key TEXT NOT NULL,
        value BLOB
    );
";

/// Opens the file, making it first when it is missing, and checks that it is a store this program knows.
pub(super) fn open(path: &Path) -> Result<(Place, Connection), StoreError> {
    make(path)?;
    let real = path.canonicalize().map_err(|error| cannot_open(path, &error))?;
    let place = Place::of(real)?;
    let mut connection = connect(&place)?;
    match prepare(&mut connection) {
        Ok(Fitness::Fit) => Ok((place, connection)),
        Ok(Fitness::Newer(version)) => Err(unusable(
            place.path(),
            format!(
                "it was made by a newer version (schema {version}, this program knows {VERSION}): \
                 upgrade this program"
            ),
        )),
        Ok(Fitness::Foreign) => {
            Err(unusable(place.path(), "it is the SQLite database of another program: name another file"))
        }
        Err(error) => Err(place.explain("opening it", error.into())),
    }
}

/// Makes the file and its directory when they are missing.
fn make(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Err(unusable(path, "it is a directory: name a file in it, as /var/lib/calico/calico.db"));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| {
            let parent = parent.display();
            unusable(
                path,
                format!("its directory {parent} cannot be made ({error}): make it, or name another"),
            )
        })?;
    }
    // Made here and not by SQLite, so that it is never readable by others; SQLite gives its side files the same mode.
    // And not by opening it: closing any descriptor of the file would drop the locks that this process has on it.
    match mknod(path, SFlag::S_IFREG, Mode::S_IRUSR | Mode::S_IWUSR, 0) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(cannot_open(path, &errno.into())),
    }
}

/// Opens one more connection to a file that is known to be a store.
pub(super) fn connect(place: &Place) -> Result<Connection, StoreError> {
    configure(place.path()).map_err(|error| place.explain("opening it", Trouble::Sqlite(error)))
}

fn configure(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A burst may grow the write-ahead log; afterwards it is cut back to this.
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    Ok(connection)
}

enum Fitness {
    Fit,
    Newer(i64),
    Foreign,
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<Fitness> {
    // In one transaction, so that all of it is read of one state: another process may be making the tables.
    let consistent = connection.transaction()?;
    if let Some(fitness) = judge(&consistent)? {
        return Ok(fitness);
    }
    drop(consistent);
    write_ahead(connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have made the tables while this one waited for the lock.
    if let Some(fitness) = judge(&transaction)? {
        return Ok(fitness);
    }
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(Fitness::Fit)
}

/// Says what the file is, or `None` when it is still empty.
fn judge(connection: &Connection) -> rusqlite::Result<Option<Fitness>> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let (application, version) = (number("application_id")?, number("user_version")?);
    Ok(match (application, version) {
        (APPLICATION, VERSION) => Some(Fitness::Fit),
        (APPLICATION, newer) => Some(Fitness::Newer(newer)),
        (0, 0) if tables == 0 => None,
        _ => Some(Fitness::Foreign),
    })
}

/// Turns write-ahead logging on, which stays with the file.
///
/// Two processes that do so at once can be told "busy" without the wait they asked for, hence the attempts.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    const PAUSE: Duration = Duration::from_millis(5);
    let mut attempts = PATIENCE.as_millis() / PAUSE.as_millis();
    loop {
        let outcome = connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()));
        match outcome {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && attempts > 0 => {
                attempts -= 1;
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}
