//! Dead letters and what was decided about them.

use std::sync::Arc;

use fte_service::keys::Scope;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use crate::store::StoreError;
use crate::store::letters::{LetterRow, LetterState, NewLetter};
use crate::store::reads::{BYTES_MAX, Rows};
use crate::tenant::tenant;

const COLUMNS: &str = "seq, id, state, stored, decided, topic, record, tenant";

impl Sqlite {
    /// Stores letters, each once; `Ok` once that is durable. Gives back how many were new.
    pub(crate) async fn record_letters(&self, letters: Arc<Vec<NewLetter>>) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let stored_ms = jiff::Timestamp::now().as_millisecond();
            let mut statement = connection.prepare_cached(
                "INSERT INTO letter (id, state, stored, topic, record, tenant) SELECT ?1, 0, ?2, ?3, ?4, ?5
                 WHERE NOT EXISTS (SELECT 1 FROM erased WHERE erased.task = ?6 AND erased.tenant = ?5) ON CONFLICT (id) DO NOTHING",
            )?;
            let mut new = 0;
            for letter in letters.iter() {
                new += statement.execute(params![
                    letter.id,
                    stored_ms,
                    letter.topic,
                    &letter.record[..],
                    letter.tenant,
                    letter.task.as_ref().map(|task| &task.as_bytes()[..])
                ])?;
            }
            Ok(new)
        })
        .await
    }

    /// A letter, if its tenant is in scope.
    pub(crate) async fn letter(&self, id: String, scope: Scope) -> Result<Option<LetterRow>, StoreError> {
        self.read(move |connection| Ok(letter(connection, &id)?.filter(|letter| scope.sees(&letter.tenant)))).await
    }

    /// Letters, newest first: those before a row of an earlier page, in one state or in any; at most `limit`, and about 1 MiB.
    pub(crate) async fn letters(
        &self,
        scope: Scope,
        state: Option<LetterState>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Rows<LetterRow, i64>, StoreError> {
        self.read(move |connection| {
            let only = scope.only();
            let of_state = if state.is_some() { "state = ?1" } else { "?1 IS NULL" };
            let of_tenant = if only.is_some() { "tenant = ?4" } else { "?4 IS NULL" };
            let sql = format!("SELECT {COLUMNS} FROM letter WHERE {of_state} AND {of_tenant} AND seq < ?2 ORDER BY seq DESC LIMIT ?3");
            let mut statement = connection.prepare_cached(&sql)?;
            let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
            let found = statement.query_map(params![state.map(LetterState::code), before.unwrap_or(i64::MAX), one_more, only], row_of)?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            for letter in found {
                if rows.len() == limit || bytes >= BYTES_MAX {
                    let next = rows.last().map(|last: &LetterRow| last.row);
                    return Ok(Rows { rows, next });
                }
                let letter = letter?;
                bytes += letter.record.len();
                rows.push(letter);
            }
            Ok(Rows { rows, next: None })
        })
        .await
    }

    /// Decides an open letter, and gives it back as it is then; one that was decided before stays as it was.
    pub(crate) async fn decide(&self, id: String, state: LetterState, at_us: i64) -> Result<Option<LetterRow>, StoreError> {
        self.write(move |connection| {
            connection.prepare_cached("UPDATE letter SET state = ?2, decided = ?3 WHERE id = ?1 AND state = 0")?.execute(params![
                id,
                state.code(),
                at_us
            ])?;
            letter(connection, &id)
        })
        .await
    }
}

fn letter(connection: &Connection, id: &str) -> rusqlite::Result<Option<LetterRow>> {
    connection.prepare_cached(&format!("SELECT {COLUMNS} FROM letter WHERE id = ?1"))?.query_row([id], row_of).optional()
}

fn row_of(row: &Row<'_>) -> rusqlite::Result<LetterRow> {
    Ok(LetterRow {
        row: row.get(0)?,
        id: row.get(1)?,
        state: row.get(2).and_then(|code| LetterState::of(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(2, code.into())))?,
        stored_ms: row.get(3)?,
        decided_us: row.get(4)?,
        topic: row.get(5)?,
        record: row.get(6)?,
        tenant: tenant(Some(row.get_ref(7)?.as_str()?)),
    })
}
