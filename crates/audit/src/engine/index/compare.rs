//! Whether an index says what the log does: every entry has its rows, and no row is of anything else.
//!
//! The index is a function of the log's headers, so what it should be is made again in a temporary file, by the function that the service itself uses, and both
//! are read side by side in the order of their keys: in memory that grows with neither. An index may end before the log does, since the service takes the
//! rest in when it starts: it is compared as of the entry it says it goes to. It may also go beyond the last signed checkpoint, where the service is
//! running or was killed: then the write-ahead log has the rest.
//!
//! The other way was to sort digests of expected and found rows: quicker, and a second definition of every table.

use std::cmp::Ordering;
use std::path::Path;

use fte_tlog::leaf_hash;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, Rows};

use super::{BLOCK_BITS, Index, Result, pos_of, position_of, schema};
use crate::entry::Position;
use crate::entry::leaf::{self, Header, Kind};

/// Memory for pages of the index that is made, in KiB.
const CACHE_KIB: u32 = 32 * 1024;
/// Most differences that are told.
const STRANGE_MAX: usize = 100;

/// What a table's rows are about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The entry in this column.
    Entry(usize),
    /// The entries of the block in this column.
    Block(usize),
    /// All entries so far.
    Past,
    /// None.
    Nothing,
}

struct Table {
    name: &'static str,
    /// Its columns, the key's first.
    columns: &'static [&'static str],
    key: usize,
    about: About,
}

const TABLES: [Table; 10] = [
    // Whoever changes what the tables are changes what is found in them.
    Table { name: "sqlite_schema", columns: &["type", "name", "tbl_name", "sql"], key: 2, about: About::Nothing },
    Table { name: "identity", columns: &["key", "pos"], key: 1, about: About::Entry(1) },
    Table { name: "task", columns: &["task", "seq", "pos", "mark", "number"], key: 2, about: About::Entry(2) },
    Table { name: "block", columns: &["block", "first_ms"], key: 1, about: About::Block(0) },
    Table { name: "facet", columns: &["field", "value", "block"], key: 3, about: About::Block(2) },
    Table { name: "filled", columns: &["pos", "source", "epoch", "number"], key: 1, about: About::Entry(0) },
    Table { name: "epoch", columns: &["source", "epoch", "highest"], key: 2, about: About::Past },
    Table { name: "gap", columns: &["source", "epoch", "first", "last", "seen_ms", "logged"], key: 3, about: About::Past },
    Table { name: "closing", columns: &["task", "since_ms"], key: 1, about: About::Past },
    Table { name: "place", columns: &["topic", "part", "highest"], key: 2, about: About::Past },
];

/// One thing in which an index is not what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strange {
    /// The entry that a row is about, or the first of several.
    pub(crate) at: Option<Position>,
    pub(crate) what: String,
}

/// What a comparison showed.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Rows that are as they should be.
    pub(crate) rows: u64,
    /// The last entry that the index has.
    pub(crate) last: Option<Position>,
    pub(crate) strange: Vec<Strange>,
}

/// An index, and what it should be as far as the log was read.
pub(crate) struct Comparison {
    found: Connection,
    expected: Index,
    _directory: tempfile::TempDir,
    done: Option<(Position, Vec<u8>)>,
    compared: Compared,
    /// The last entry that was read.
    read: Option<Position>,
    is_done_seen: bool,
}

/// Why an index cannot be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error("a temporary file")]
    Temporary(#[source] std::io::Error),
    #[error("the index that should be cannot be made")]
    Expected(#[source] rusqlite::Error),
    #[error("the write-ahead log cannot be read")]
    Unsigned(#[source] std::io::Error),
    #[error("an entry that was verified cannot be read again")]
    Again(#[source] std::io::Error),
    #[error("it is of another version of this program, which makes it again when it starts")]
    Version,
    #[error("it cannot be read")]
    Found(#[from] rusqlite::Error),
}

impl CompareError {
    /// Whether the index's own bytes are at fault.
    pub(crate) fn is_damage(&self) -> bool {
        let Self::Found(error) = self else { return false };
        // What SQLite makes of tables that are not those it should find is an error of its own.
        !matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::CannotOpen
                    | ErrorCode::PermissionDenied
                    | ErrorCode::ReadOnly
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::OutOfMemory
            )
        )
    }
}

impl Comparison {
    /// Opens the index in a file, as it is at this moment.
    pub(crate) fn open(path: &Path) -> std::result::Result<Self, CompareError> {
        let directory = tempfile::tempdir().map_err(CompareError::Temporary)?;
        let mut expected = Index::scratch(&directory.path().join("index.sqlite"), CACHE_KIB).map_err(CompareError::Expected)?;
        expected.begin().map_err(CompareError::Expected)?;
        let found = schema::reading(path)?;
        found.execute_batch("BEGIN")?;
        if found.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0))? != schema::VERSION {
            return Err(CompareError::Version);
        }
        let done = {
            let mut statement = found.prepare("SELECT pos, hash FROM done")?;
            let mut rows = statement.query([])?;
            match rows.next()? {
                Some(row) => Some((position_of(row.get(0)?), row.get(1)?)),
                None => None,
            }
        };
        let compared = Compared { last: done.as_ref().map(|(at, _)| *at), ..Compared::default() };
        Ok(Self { found, expected, _directory: directory, done, compared, read: None, is_done_seen: false })
    }

    /// Takes the log's next entry in.
    pub(crate) fn take(&mut self, at: Position, leaf: &[u8], header: &Header<'_>) -> std::result::Result<(), CompareError> {
        if self.read.replace(at).is_none()
            && let Some(before) = continued(header, leaf)
        {
            self.expected.begin_behind(at.shard, before);
        }
        let Some((last, hash)) = &self.done else { return Ok(()) };
        if at == *last {
            self.is_done_seen = true;
            if leaf_hash(leaf).0[..] != hash[..] {
                let what = "`done` names this entry as the last it has, by the hash of another".to_owned();
                self.compared.strange.push(Strange { at: Some(at), what });
            }
        }
        if at <= *last {
            self.expected.apply(header, at).map_err(CompareError::Expected)?;
        }
        Ok(())
    }

    /// The last entry that was read.
    pub(crate) const fn read(&self) -> Option<Position> {
        self.read
    }

    /// The last entry that the index has, if the log was not read so far.
    pub(crate) fn ahead(&self) -> Option<Position> {
        let last = self.done.as_ref().map(|(at, _)| *at)?;
        Some(last).filter(|last| self.read.is_none_or(|read| read < *last))
    }

    /// Compares, once all entries were taken in. A log that has grown meanwhile may have what the index has more.
    pub(crate) fn finish(mut self, has_grown: bool) -> std::result::Result<Compared, CompareError> {
        let end = self.read.map_or(-1, pos_of);
        let last = self.done.as_ref().map(|(at, _)| *at);
        let is_ahead = has_grown && self.ahead().is_some();
        if let Some(last) = last.filter(|_| !self.is_done_seen && !is_ahead) {
            let what = "`done` names this entry as the last it has, and it is not in the log".to_owned();
            self.compared.strange.push(Strange { at: Some(last), what });
        }
        let odd: i64 = self.found.query_row("SELECT count(*) FROM done WHERE one <> 0", [], |row| row.get(0))?;
        if odd > 0 {
            self.compared.strange.push(Strange { at: last, what: "`done` has a row that it should not have".to_owned() });
        }
        // What is written once for each group is there after that.
        self.expected.commit(None).map_err(CompareError::Expected)?;
        let limit = Limit { end, is_ahead };
        for table in &TABLES {
            if !(is_ahead && table.about == About::Past) {
                compare(table, &self.found, &self.expected.connection, &limit, &mut self.compared)?;
            }
        }
        // The one index that has rows of its own.
        let well: String = self.found.query_row("PRAGMA integrity_check(closing)", [], |row| row.get(0))?;
        if well != "ok" {
            self.compared.strange.push(Strange { at: None, what: format!("`closing_since` does not agree with `closing`: {well}") });
        }
        self.compared.strange.sort_by_key(|strange| strange.at.map_or(i64::MAX, pos_of));
        Ok(self.compared)
    }
}

/// The shard that the first entry that is there says was before its own.
fn continued(header: &Header<'_>, leaf: &[u8]) -> Option<u16> {
    let (_, payload) = leaf::read(leaf).ok().filter(|_| header.kind == Kind::ShardOpen)?;
    let opened: serde_json::Value = serde_json::from_slice(payload).ok()?;
    opened["previous"]["shard"].as_u64()?.try_into().ok()
}

/// How far rows can be compared.
struct Limit {
    /// The last entry of the log.
    end: i64,
    /// Whether the index has more.
    is_ahead: bool,
}

impl Limit {
    /// Whether a row that only the index has may be of an entry behind the log's end.
    fn is_beyond(&self, table: &Table, row: &[Value]) -> bool {
        let number = |column: usize| if let Some(Value::Integer(number)) = row.get(column) { *number } else { i64::MIN };
        self.is_ahead
            && match table.about {
                About::Entry(column) => number(column) > self.end,
                About::Block(column) => number(column) >= self.end >> BLOCK_BITS,
                About::Past | About::Nothing => false,
            }
    }
}

fn compare(table: &Table, found: &Connection, expected: &Connection, limit: &Limit, compared: &mut Compared) -> Result<()> {
    let (columns, key) = (table.columns.join(", "), table.columns[..table.key].join(", "));
    let sql = format!("SELECT {columns} FROM {} ORDER BY {key}", table.name);
    let (mut found, mut expected) = (found.prepare(&sql)?, expected.prepare(&sql)?);
    let (mut found, mut expected) = (found.query([])?, expected.query([])?);
    let (mut left, mut right) = (next(table, &mut found)?, next(table, &mut expected)?);
    while compared.strange.len() < STRANGE_MAX {
        let order = match (&left, &right) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => order(&left[..table.key], &right[..table.key]),
        };
        let at = |row: &Option<Vec<Value>>| row.as_deref().and_then(|row| entry(table, row));
        match order {
            Ordering::Less => {
                if left.as_deref().is_some_and(|row| !limit.is_beyond(table, row)) {
                    let what = format!("`{}` has a row that no entry made", table.name);
                    compared.strange.push(Strange { at: at(&left), what });
                }
            }
            Ordering::Greater => {
                compared.strange.push(Strange { at: at(&right), what: format!("`{}` lacks its row", table.name) });
            }
            Ordering::Equal if left == right => compared.rows += 1,
            Ordering::Equal => {
                let (left, right) = (left.as_deref().unwrap_or_default(), right.as_deref().unwrap_or_default());
                let differ = |(column, name): (usize, &&str)| (left.get(column) != right.get(column)).then(|| format!("`{name}`"));
                let names: Vec<String> = table.columns.iter().enumerate().filter_map(differ).collect();
                let mut what = format!("in its row of `{}` {} is not what the log says", table.name, names.join(" and "));
                if let (Some(to), Some(from)) = (entry(table, left), entry(table, right))
                    && to != from
                {
                    what = format!("{what}: it points to entry {to}");
                }
                compared.strange.push(Strange { at: entry(table, right), what });
            }
        }
        if order != Ordering::Greater {
            left = next(table, &mut found)?;
        }
        if order != Ordering::Less {
            right = next(table, &mut expected)?;
        }
    }
    Ok(())
}

fn next(table: &Table, rows: &mut Rows<'_>) -> Result<Option<Vec<Value>>> {
    let Some(row) = rows.next()? else { return Ok(None) };
    (0..table.columns.len()).map(|column| row.get(column)).collect::<Result<_>>().map(Some)
}

/// The entry that a row is about, or the first of its block.
fn entry(table: &Table, row: &[Value]) -> Option<Position> {
    let number = |column: usize| if let Some(Value::Integer(number)) = row.get(column) { Some(*number) } else { None };
    match table.about {
        About::Entry(column) => number(column).map(position_of),
        About::Block(column) => number(column).map(|block| position_of(block << BLOCK_BITS)),
        About::Past | About::Nothing => None,
    }
}

/// The order that SQLite has keys in.
fn order(left: &[Value], right: &[Value]) -> Ordering {
    left.iter().zip(right).map(|(left, right)| order_of(left, right)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn order_of(left: &Value, right: &Value) -> Ordering {
    let kind = |value: &Value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    };
    match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Blob(left), Value::Blob(right)) => left.cmp(right),
        // The tables have no floating-point numbers; one stands before all whole ones.
        (Value::Real(_), Value::Integer(_)) => Ordering::Less,
        (Value::Integer(_), Value::Real(_)) => Ordering::Greater,
        (left, right) => kind(left).cmp(&kind(right)),
    }
}
