//! Dead letters and what was decided about them.

use fte_service::keys::Scope;
use tokio_postgres::Row;

use super::Postgres;
use super::connection::Session;
use crate::store::StoreError;
use crate::store::letters::{LetterRow, LetterState, NewLetter};
use crate::store::reads::{BYTES_MAX, Rows};
use crate::tenant::tenant;

const COLUMNS: &str = "seq, id, state, stored, decided, topic, record, tenant";
/// Letters read at once.
const LETTERS_MAX: usize = 50;

pub(super) async fn record(session: &Session, letters: &[NewLetter]) -> Result<usize, StoreError> {
    let stored_ms = jiff::Timestamp::now().as_millisecond();
    let ids: Vec<&str> = letters.iter().map(|letter| &*letter.id).collect();
    let tenants: Vec<&str> = letters.iter().map(|letter| &*letter.tenant).collect();
    let topics: Vec<&str> = letters.iter().map(|letter| &*letter.topic).collect();
    let records: Vec<&[u8]> = letters.iter().map(|letter| &letter.record[..]).collect();
    let tasks: Vec<Option<Vec<u8>>> = letters.iter().map(|letter| letter.task.map(|task| task.as_bytes().to_vec())).collect();
    let new = session
        .execute(
            "INSERT INTO fte_status.letter (id, tenant, state, stored, topic, record)
             SELECT id, tenant, 0, $1, topic, record
             FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[])
                 WITH ORDINALITY AS new (id, tenant, topic, record, task, place)
             WHERE NOT EXISTS (SELECT 1 FROM fte_status.erased WHERE erased.task = new.task AND erased.tenant = new.tenant)
             ORDER BY place ON CONFLICT (id) DO NOTHING",
            &[&stored_ms, &ids, &tenants, &topics, &records, &tasks],
        )
        .await?;
    Ok(usize::try_from(new).unwrap_or(usize::MAX))
}

pub(super) async fn decide(session: &Session, id: &str, state: LetterState, at_us: i64) -> Result<Option<LetterRow>, StoreError> {
    let sql = "UPDATE fte_status.letter SET state = $2, decided = $3 WHERE id = $1 AND state = 0";
    session.execute(sql, &[&id, &i16::from(state.code()), &at_us]).await?;
    letter(session, id).await
}

async fn letter(session: &Session, id: &str) -> Result<Option<LetterRow>, StoreError> {
    let rows = session.query(&format!("SELECT {COLUMNS} FROM fte_status.letter WHERE id = $1"), &[&id]).await?;
    rows.first().map(row_of).transpose()
}

impl Postgres {
    pub(crate) async fn letter(&self, id: String, scope: Scope) -> Result<Option<LetterRow>, StoreError> {
        if id.contains('\0') {
            return Ok(None);
        }
        Ok(letter(&*self.pool.reader().await?, &id).await?.filter(|letter| scope.sees(&letter.tenant)))
    }

    pub(crate) async fn letters(
        &self,
        scope: Scope,
        state: Option<LetterState>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Rows<LetterRow, i64>, StoreError> {
        let of_state = if state.is_some() { "state = $2" } else { "$2::smallint IS NULL" };
        let of_tenant = if scope.only().is_some() { "tenant = $3" } else { "$3::text IS NULL" };
        let sql =
            format!("SELECT {COLUMNS} FROM fte_status.letter WHERE seq < $1 AND {of_state} AND {of_tenant} ORDER BY seq DESC LIMIT $4");
        let reader = self.pool.reader().await?;
        let state = state.map(|state| i16::from(state.code()));
        let (mut rows, mut bytes, mut before) = (Vec::<LetterRow>::new(), 0, before.unwrap_or(i64::MAX));
        loop {
            // One more than asked for shows whether there are more.
            let some = (limit + 1 - rows.len()).min(LETTERS_MAX) as i64;
            let found = reader.query(&sql, &[&before, &state, &scope.only(), &some]).await?;
            for row in &found {
                if rows.len() == limit || bytes >= BYTES_MAX {
                    let next = rows.last().map(|last| last.row);
                    return Ok(Rows { rows, next });
                }
                let letter = row_of(row)?;
                (bytes, before) = (bytes + letter.record.len(), letter.row);
                rows.push(letter);
            }
            if (found.len() as i64) < some {
                return Ok(Rows { rows, next: None });
            }
        }
    }
}

fn row_of(row: &Row) -> Result<LetterRow, StoreError> {
    Ok(LetterRow {
        row: row.get(0),
        id: row.get(1),
        state: u8::try_from(row.get::<_, i16>(2)).ok().and_then(LetterState::of).ok_or(StoreError::Unreadable)?,
        stored_ms: row.get(3),
        decided_us: row.get(4),
        topic: row.get(5),
        record: row.get(6),
        tenant: tenant(Some(row.get(7))),
    })
}
