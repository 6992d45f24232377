//! The statements: what each call of the store means in SQL.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::super::{Entry, Key, Listing, Precondition, Prefix, WatchEvent, Write};
use super::History;
use super::error::Trouble;
use crate::revision::Revision;

/// The stretch of revisions that the store can tell about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Changes up to here are forgotten.
    pub(super) horizon: Revision,
    /// The newest commit.
    pub(super) newest: Revision,
}

pub(super) fn span(connection: &mut Connection) -> rusqlite::Result<Span> {
    read_span(connection)
}

/// Returns the span, and the newest commit up to `from`: the position of a watch that has seen all of that, and nothing
/// of a commit after it. A commit takes several numbers, of which only the last is its revision.
pub(super) fn begin(connection: &mut Connection, from: Revision) -> rusqlite::Result<(Span, Revision)> {
    let transaction = connection.transaction()?;
    let span = read_span(&transaction)?;
    let mut statement = transaction.prepare_cached(
        "SELECT revision FROM log WHERE sequence <= ?1 AND revision <= ?1 ORDER BY sequence DESC LIMIT 1",
    )?;
    let found = statement.query_row([number(from.0)], |row| revision(row, 0)).optional()?;
    drop(statement);
    transaction.commit()?;
    Ok((span, found.unwrap_or(span.horizon)))
}

fn read_span(connection: &Connection) -> rusqlite::Result<Span> {
    let mut statement = connection.prepare_cached("SELECT horizon, revision FROM store")?;
    statement.query_row([], |row| Ok(Span { horizon: revision(row, 0)?, newest: revision(row, 1)? }))
}

pub(super) fn get(connection: &mut Connection, key: Key) -> rusqlite::Result<Option<Entry>> {
    let mut statement = connection.prepare_cached("SELECT revision, value FROM entries WHERE key = ?1")?;
    let found =
        statement.query_row([key.as_str()], |row| Ok((revision(row, 0)?, bytes(row, 1)?))).optional()?;
    Ok(found.map(|(revision, value)| Entry { key, value: value.unwrap_or_default(), revision }))
}

pub(super) fn list(connection: &mut Connection, prefix: &Prefix) -> rusqlite::Result<Listing> {
    let transaction = connection.transaction()?;
    let newest = read_span(&transaction)?.newest;
    let mut entries = Vec::new();
    let mut statement = transaction.prepare_cached(
        "SELECT key, revision, value FROM entries WHERE key > ?1 AND key < ?2 ORDER BY key",
    )?;
    let mut rows = statement.query([prefix.as_str(), &end(prefix)])?;
    while let Some(row) = rows.next()? {
        // A key that is none can only have been put there by hand; it must not hide all others.
        if let Some(key) = key(row, 0)? {
            let (revision, value) = (revision(row, 1)?, bytes(row, 2)?.unwrap_or_default());
            entries.push(Entry { key, value, revision });
        }
    }
    drop(rows);
    drop(statement);
    transaction.commit()?;
    Ok(Listing { entries, revision: newest })
}

/// The least text greater than every key of a folder: `/` is followed by `0`.
fn end(prefix: &Prefix) -> String {
    let path = prefix.as_str();
    format!("{}0", path.strip_suffix('/').unwrap_or(path))
}

/// What became of a commit.
#[derive(Debug, Clone)]
pub(super) enum Committed {
    /// It happened.
    At(Revision),
    /// It had nothing to change.
    Nothing(Revision),
    /// A precondition did not hold.
    Conflict { key: Key, actual: Option<Revision> },
}

pub(super) fn commit(
    connection: &mut Connection,
    writes: Vec<Write>,
    history: History,
) -> Result<Committed, Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let committed = change(&transaction, writes, history)?;
    match committed {
        Committed::At(_) => transaction.commit().map_err(Trouble::AtCommit)?,
        Committed::Nothing(_) | Committed::Conflict { .. } => transaction.rollback()?,
    }
    Ok(committed)
}

fn change(
    transaction: &Transaction<'_>,
    writes: Vec<Write>,
    history: History,
) -> rusqlite::Result<Committed> {
    let mut find = transaction.prepare_cached("SELECT revision FROM entries WHERE key = ?1")?;
    let mut changes = Vec::new();
    for write in writes {
        let actual = find.query_row([write.key.as_str()], |row| revision(row, 0)).optional()?;
        let holds = match write.precondition {
            Precondition::Any => true,
            Precondition::Absent => actual.is_none(),
            Precondition::At(revision) => actual == Some(revision),
        };
        if !holds {
            return Ok(Committed::Conflict { key: write.key, actual });
        }
        if write.value.is_some() || actual.is_some() {
            changes.push(write);
        }
    }
    let newest = read_span(transaction)?.newest;
    if changes.is_empty() {
        return Ok(Committed::Nothing(newest));
    }

    let revision = Revision(newest.0 + changes.len() as u64);
    let mut put = transaction
        .prepare_cached("INSERT OR REPLACE INTO entries (key, revision, value) VALUES (?1, ?2, ?3)")?;
    let mut delete = transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
    let mut log = transaction
        .prepare_cached("INSERT INTO log (sequence, revision, key, value) VALUES (?1, ?2, ?3, ?4)")?;
    let mut added = 0;
    for (sequence, Write { key, value, precondition: _ }) in (newest.0 + 1..).zip(&changes) {
        match value {
            Some(value) => put.execute(params![key.as_str(), number(revision.0), value])?,
            None => delete.execute([key.as_str()])?,
        };
        log.execute(params![number(sequence), number(revision.0), key.as_str(), value])?;
        added += value.as_ref().map_or(0, Vec::len);
    }
    let (horizon, bytes): (i64, i64) = transaction
        .prepare_cached(
            "UPDATE store SET revision = ?1, log_bytes = log_bytes + ?2 RETURNING horizon, log_bytes",
        )?
        .query_row([number(revision.0), number(added as u64)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if number(revision.0) - horizon > number(history.changes) || bytes > number(history.bytes) {
        prune(transaction, changes.len() as u64, history)?;
    }
    Ok(Committed::At(revision))
}

/// Forgets the oldest changes while there is too much history, at most twice as many as were just added.
///
/// So no single commit pays for the past of others, and the log shrinks faster than it grows.
fn prune(transaction: &Transaction<'_>, added: u64, history: History) -> rusqlite::Result<()> {
    let (horizon, newest, mut bytes): (i64, i64, i64) = transaction
        .prepare_cached("SELECT horizon, revision, log_bytes FROM store")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut last = None;
    let mut oldest = transaction
        .prepare_cached("SELECT sequence, revision, length(value) FROM log ORDER BY sequence LIMIT ?1")?;
    let mut rows = oldest.query([number(added * 2)])?;
    while newest - last.map_or(horizon, |(sequence, _)| sequence) > number(history.changes)
        || bytes > number(history.bytes)
    {
        let Some(row) = rows.next()? else { break };
        let (sequence, revision): (i64, i64) = (row.get(0)?, row.get(1)?);
        if revision == newest {
            break;
        }
        bytes -= row.get::<_, Option<i64>>(2)?.unwrap_or(0);
        last = Some((sequence, revision));
    }
    drop(rows);
    let Some((sequence, horizon)) = last else { return Ok(()) };
    transaction.prepare_cached("DELETE FROM log WHERE sequence <= ?1")?.execute([sequence])?;
    transaction.prepare_cached("UPDATE store SET horizon = ?1, log_bytes = ?2")?.execute([horizon, bytes])?;
    Ok(())
}

pub(super) fn compact(connection: &mut Connection, revision: Revision) -> Result<(), Trouble> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let horizon = number(revision.0);
    // The horizon is the revision of a commit: from anything between two a watch begins after the first.
    transaction.execute(
        "UPDATE store SET horizon = coalesce((SELECT max(revision) FROM log WHERE revision <= ?1), horizon)",
        [horizon],
    )?;
    transaction.execute("DELETE FROM log WHERE revision <= ?1", [horizon])?;
    transaction
        .execute("UPDATE store SET log_bytes = (SELECT coalesce(sum(length(value)), 0) FROM log)", [])?;
    transaction.commit().map_err(Trouble::AtCommit)
}

/// A stretch of changes of one folder.
#[derive(Debug)]
pub(super) enum Changes {
    /// The events, and the position up to which they are complete.
    Read { events: Vec<WatchEvent>, position: u64 },
    /// The log no longer goes back so far.
    Forgotten,
}

/// Reads the changes of a folder after a position, as many as make a sensible portion.
pub(super) fn changes(
    connection: &mut Connection,
    prefix: &Prefix,
    position: u64,
) -> rusqlite::Result<Changes> {
    const MAX_EVENTS: usize = 512;
    const MAX_BYTES: usize = 2 * 1024 * 1024;
    let transaction = connection.transaction()?;
    let span = read_span(&transaction)?;
    if position < span.horizon.0 {
        return Ok(Changes::Forgotten);
    }
    let mut events = Vec::new();
    let mut size = 0;
    let mut reached = span.newest.0;
    let mut statement = transaction.prepare_cached(
        "SELECT sequence, revision, key, value FROM log
         WHERE sequence > ?1 AND key > ?2 AND key < ?3 ORDER BY sequence",
    )?;
    let mut rows = statement.query(params![number(position), prefix.as_str(), end(prefix)])?;
    while let Some(row) = rows.next()? {
        let Some(key) = key(row, 2)? else { continue };
        let at = revision(row, 1)?;
        events.push(match bytes(row, 3)? {
            Some(value) => {
                size += value.len();
                WatchEvent::Put(Entry { key, value, revision: at })
            }
            None => WatchEvent::Deleted { key, revision: at },
        });
        if events.len() >= MAX_EVENTS || size >= MAX_BYTES {
            reached = row.get::<_, i64>(0)?.cast_unsigned();
            break;
        }
    }
    drop(rows);
    drop(statement);
    transaction.commit()?;
    Ok(Changes::Read { events, position: reached })
}

/// SQLite's integers are signed; no store lives long enough for its revisions to notice.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    Ok(Revision(row.get::<_, i64>(column)?.cast_unsigned()))
}

fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Key>> {
    Ok(row.get_ref(column)?.as_str().ok().and_then(|text| text.parse().ok()))
}

/// Reads a value as bytes, whether SQLite keeps it as a blob or, written by hand, as text.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<u8>>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
    })
}
