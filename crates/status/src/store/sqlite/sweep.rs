//! Removing what is old, step by step.

use fte_events::{Status, TaskId};
use rusqlite::{Connection, params};

use super::apply::record_of;
use super::reads::tenant_after;
use super::{Sqlite, artifacts};
use crate::store::sweep::{Cutoff, ROWS_MAX, Sweep, Swept, TASKS_MAX};
use crate::store::{StoreError, status_code};

impl Sqlite {
    /// Takes one step of a sweep of what ended before then.
    pub(crate) async fn sweep(&self, step: Sweep, cutoff: Cutoff) -> Result<Swept, StoreError> {
        self.write(move |connection| match step.clone() {
            Sweep::Tenants { after } => tenants(connection, &after),
            Sweep::Tasks { tenant, status, after } => tasks(connection, cutoff.us, tenant, status, after),
            Sweep::Letters => letters(connection, cutoff),
            Sweep::Strays { after } => strays(connection, cutoff.us, after),
            Sweep::Finished => Ok(Swept::nothing(Sweep::Finished)),
        })
        .await
    }
}

fn tenants(connection: &Connection, after: &str) -> rusqlite::Result<Swept> {
    let next = match tenant_after(connection, after)? {
        Some(tenant) => Sweep::Tasks { tenant, status: 0, after: (i64::MIN, [0; 16]) },
        None => Sweep::Letters,
    };
    Ok(Swept::nothing(next))
}

fn tasks(connection: &Connection, cutoff_us: i64, tenant: String, status: usize, after: (i64, [u8; 16])) -> rusqlite::Result<Swept> {
    let Some(status_now) = Status::ALL.get(status) else {
        return Ok(Swept::nothing(Sweep::Tenants { after: tenant }));
    };
    let next_status = Sweep::Tasks { tenant: tenant.clone(), status: status + 1, after: (i64::MIN, [0; 16]) };
    if !status_now.is_terminal() {
        return Ok(Swept::nothing(next_status));
    }
    let mut statement = connection.prepare_cached(
        "SELECT created, id, record FROM task
         WHERE tenant = ?6 AND status = ?1 AND (created, id) > (?2, ?3) AND created < ?4 ORDER BY created, id LIMIT ?5",
    )?;
    let columns = params![status_code(*status_now), after.0, &after.1[..], cutoff_us, TASKS_MAX, tenant];
    let rows = statement.query_map(columns, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?, record_of(row.get_ref(2)?)?)))?;
    let candidates: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    let mut swept = Swept::nothing(next_status);
    if candidates.len() as i64 == TASKS_MAX {
        swept.next =
            Sweep::Tasks { tenant: tenant.clone(), status, after: candidates.last().map_or(after, |(created, id, _)| (*created, *id)) };
    }
    let mut looked_at = after;
    for (created, id, record) in candidates {
        if record.updated_us(TaskId::from_uuid(uuid::Uuid::from_bytes(id))) < cutoff_us {
            let left = ROWS_MAX - i64::try_from(swept.events).unwrap_or(ROWS_MAX);
            let removed = connection
                .prepare_cached("DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE task = ?1 AND tenant = ?3 LIMIT ?2)")?
                .execute(params![&id[..], left, tenant])?;
            swept.events += removed;
            if removed as i64 == left {
                // The task may have more: the next step begins with it.
                swept.next = Sweep::Tasks { tenant, status, after: looked_at };
                break;
            }
            artifacts::forget(connection, &id[..], &tenant)?;
            swept.tasks +=
                connection.prepare_cached("DELETE FROM task WHERE id = ?1 AND tenant = ?2")?.execute(params![&id[..], tenant])?;
        }
        looked_at = (created, id);
    }
    Ok(swept)
}

fn letters(connection: &Connection, cutoff: Cutoff) -> rusqlite::Result<Swept> {
    let removed = connection
        .prepare_cached("DELETE FROM letter WHERE seq IN (SELECT seq FROM letter ORDER BY seq LIMIT ?2) AND stored < ?1")?
        .execute(params![cutoff.us / 1000, ROWS_MAX])?;
    super::erasing::sweep(connection, cutoff.marks_ms)?;
    let next = if removed as i64 == ROWS_MAX { Sweep::Letters } else { Sweep::Strays { after: i64::MIN } };
    Ok(Swept { next, tasks: 0, events: 0, letters: removed })
}

fn strays(connection: &Connection, cutoff_us: i64, after: i64) -> rusqlite::Result<Swept> {
    let mut statement = connection.prepare_cached("SELECT seq, stored FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let rows = statement.query_map(params![after, ROWS_MAX], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let mut old = Vec::new();
    for row in rows {
        let (row, stored_ms) = row?;
        if stored_ms >= cutoff_us / 1000 {
            break;
        }
        old.push(row);
    }
    let Some(last) = old.last().copied() else {
        return Ok(Swept::nothing(Sweep::Finished));
    };
    let removed = connection
        .prepare_cached(
            "DELETE FROM event WHERE seq > ?1 AND seq <= ?2 AND (task IS NULL OR NOT EXISTS
             (SELECT 1 FROM task WHERE task.id = event.task AND task.tenant = event.tenant))",
        )?
        .execute(params![after, last])?;
    let next = if old.len() as i64 == ROWS_MAX { Sweep::Strays { after: last } } else { Sweep::Finished };
    Ok(Swept { next, tasks: 0, events: removed, letters: 0 })
}
