//! Rows of jobs. What a job says is kept as it was given; the columns are what the scheduler needs.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// A stored job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobRow {
    pub(crate) app: String,
    pub(crate) name: String,
    /// New with each creation, so that the end of an old call does not touch a newer job of the same name.
    pub(crate) version: i64,
    /// When it is to be called next, retries included.
    pub(crate) next_ms: i64,
    /// The regular time that call belongs to.
    pub(crate) due_ms: i64,
    /// Calls of the schedule that are over, well or not.
    pub(crate) fired: u32,
    /// Failed calls for the present time.
    pub(crate) failed: u32,
    /// No call is due after this.
    pub(crate) expires_ms: Option<i64>,
    /// The request's JSON.
    pub(crate) spec: Vec<u8>,
}

/// What becomes of a job after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Over,
    Next { next_ms: i64, due_ms: i64, fired: u32, failed: u32 },
}

const COLUMNS: &str = "app, name, version, next_ms, due_ms, fired, failed, expires_ms, spec";

fn read(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        app: row.get(0)?,
        name: row.get(1)?,
        version: row.get(2)?,
        next_ms: row.get(3)?,
        due_ms: row.get(4)?,
        fired: row.get(5)?,
        failed: row.get(6)?,
        expires_ms: row.get(7)?,
        spec: row.get(8)?,
    })
}

pub(crate) fn count(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

pub(crate) fn get(db: &Connection, app: &str, name: &str) -> rusqlite::Result<Option<JobRow>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE app = ?1 AND name = ?2"))?.query_row(params![app, name], read).optional()
}

/// Writes a job. Without `overwrite` an existing one stays, and the answer is 0.
pub(crate) fn put(db: &Connection, job: &JobRow, overwrite: bool) -> rusqlite::Result<usize> {
    let tail = if overwrite {
        "UPDATE SET version = excluded.version, next_ms = excluded.next_ms, due_ms = excluded.due_ms,
           fired = excluded.fired, failed = excluded.failed, expires_ms = excluded.expires_ms, spec = excluded.spec"
    } else {
        "NOTHING"
    };
    db.prepare_cached(&format!("INSERT INTO jobs({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT(app, name) DO {tail}"))?
        .execute(params![job.app, job.name, job.version, job.next_ms, job.due_ms, job.fired, job.failed, job.expires_ms, job.spec])
}

pub(crate) fn delete(db: &Connection, app: &str, name: &str) -> rusqlite::Result<usize> {
    db.prepare_cached("DELETE FROM jobs WHERE app = ?1 AND name = ?2")?.execute(params![app, name])
}

/// Records the end of a call, unless the job was replaced meanwhile.
pub(crate) fn finish(db: &Connection, app: &str, name: &str, version: i64, after: After) -> rusqlite::Result<usize> {
    match after {
        After::Over => {
            db.prepare_cached("DELETE FROM jobs WHERE app = ?1 AND name = ?2 AND version = ?3")?.execute(params![app, name, version])
        }
        After::Next { next_ms, due_ms, fired, failed } => db
            .prepare_cached(
                "UPDATE jobs SET next_ms = ?4, due_ms = ?5, fired = ?6, failed = ?7
                 WHERE app = ?1 AND name = ?2 AND version = ?3",
            )?
            .execute(params![app, name, version, next_ms, due_ms, fired, failed]),
    }
}

/// Jobs of `apps` whose time has come, oldest first, and when the next one after `now_ms` is due.
pub(crate) fn due(db: &Connection, apps: &[String], now_ms: i64, rows_max: usize) -> rusqlite::Result<(Vec<JobRow>, Option<i64>)> {
    let mut rows = Vec::new();
    let mut next_ms: Option<i64> = None;
    let mut due = db.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE app = ?1 AND next_ms <= ?2 ORDER BY next_ms LIMIT ?3"))?;
    let mut next = db.prepare_cached("SELECT min(next_ms) FROM jobs WHERE app = ?1 AND next_ms > ?2")?;
    for app in apps {
        for row in due.query_map(params![app, now_ms, rows_max as i64], read)? {
            rows.push(row?);
        }
        let after: Option<i64> = next.query_row(params![app, now_ms], |row| row.get(0))?;
        next_ms = next_ms.into_iter().chain(after).min();
    }
    rows.sort_by_key(|job| job.next_ms);
    rows.truncate(rows_max);
    Ok((rows, next_ms))
}
