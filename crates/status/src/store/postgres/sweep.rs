//! Removing what is old, step by step, in the writer's transactions.

use fte_events::Status;

use super::apply::{record_of, task_of};
use super::artifacts;
use super::connection::Session;
use crate::store::sweep::{Cutoff, ROWS_MAX, Sweep, Swept, TASKS_MAX};
use crate::store::{StoreError, status_code};

pub(super) async fn step(session: &Session, step: Sweep, cutoff: Cutoff) -> Result<Swept, StoreError> {
    match step {
        Sweep::Tenants { after } => {
            let row = session.query_one("SELECT min(tenant) FROM fte_status.task WHERE tenant > $1", &[&after]).await?;
            let next = row.get::<_, Option<String>>(0).map(|tenant| Sweep::Tasks { tenant, status: 0, after: (i64::MIN, [0; 16]) });
            Ok(Swept::nothing(next.unwrap_or(Sweep::Letters)))
        }
        Sweep::Tasks { tenant, status, after } => tasks(session, cutoff.us, tenant, status, after).await,
        Sweep::Letters => letters(session, cutoff).await,
        Sweep::Strays { after } => strays(session, cutoff.us, after).await,
        Sweep::Finished => Ok(Swept::nothing(Sweep::Finished)),
    }
}

async fn tasks(session: &Session, cutoff_us: i64, tenant: String, status: usize, after: (i64, [u8; 16])) -> Result<Swept, StoreError> {
    let Some(status_now) = Status::ALL.get(status) else {
        return Ok(Swept::nothing(Sweep::Tenants { after: tenant }));
    };
    let next_status = Sweep::Tasks { tenant: tenant.clone(), status: status + 1, after: (i64::MIN, [0; 16]) };
    if !status_now.is_terminal() {
        return Ok(Swept::nothing(next_status));
    }
    let rows = session
        .query(
            "SELECT created, id, record FROM fte_status.task
             WHERE tenant = $1 AND status = $2 AND (created, id) > ($3, $4) AND created < $5 ORDER BY created, id LIMIT $6",
            &[&tenant, &i16::from(status_code(*status_now)), &after.0, &&after.1[..], &cutoff_us, &TASKS_MAX],
        )
        .await?;
    let place = |row: &tokio_postgres::Row| Ok::<_, StoreError>((row.get::<_, i64>(0), *task_of(row.get(1))?.as_bytes()));
    let mut swept = Swept::nothing(next_status);
    if rows.len() as i64 == TASKS_MAX
        && let Some(last) = rows.last()
    {
        swept.next = Sweep::Tasks { tenant: tenant.clone(), status, after: place(last)? };
    }
    let mut looked_at = after;
    for row in &rows {
        let id: &[u8] = row.get(1);
        if record_of(row.get(2))?.updated_us(task_of(id)?) < cutoff_us {
            let left = ROWS_MAX - i64::try_from(swept.events).unwrap_or(ROWS_MAX);
            let removed = session
                .execute(
                    "DELETE FROM fte_status.event
                     WHERE seq IN (SELECT seq FROM fte_status.event WHERE task = $1 AND tenant = $2 ORDER BY seq LIMIT $3)",
                    &[&id, &tenant, &left],
                )
                .await?;
            swept.events += count(removed);
            if count(removed) as i64 == left {
                // The task may have more: the next step begins with it.
                swept.next = Sweep::Tasks { tenant, status, after: looked_at };
                break;
            }
            artifacts::forget(session, id, &tenant).await?;
            swept.tasks += count(session.execute("DELETE FROM fte_status.task WHERE id = $1 AND tenant = $2", &[&id, &tenant]).await?);
        }
        looked_at = place(row)?;
    }
    Ok(swept)
}

async fn letters(session: &Session, cutoff: Cutoff) -> Result<Swept, StoreError> {
    let sql = "DELETE FROM fte_status.letter
               WHERE seq IN (SELECT seq FROM fte_status.letter ORDER BY seq LIMIT $2) AND stored < $1";
    let removed = count(session.execute(sql, &[&(cutoff.us / 1000), &ROWS_MAX]).await?);
    super::erasing::sweep(session, cutoff.marks_ms).await?;
    let next = if removed as i64 == ROWS_MAX { Sweep::Letters } else { Sweep::Strays { after: i64::MIN } };
    Ok(Swept { letters: removed, ..Swept::nothing(next) })
}

async fn strays(session: &Session, cutoff_us: i64, after: i64) -> Result<Swept, StoreError> {
    let sql = "SELECT seq, stored FROM fte_status.event WHERE seq > $1 ORDER BY seq LIMIT $2";
    let rows = session.query(sql, &[&after, &ROWS_MAX]).await?;
    let old = rows.iter().take_while(|row| row.get::<_, i64>(1) < cutoff_us / 1000);
    let old: Vec<i64> = old.map(|row| row.get(0)).collect();
    let Some(last) = old.last().copied() else {
        return Ok(Swept::nothing(Sweep::Finished));
    };
    let removed = session
        .execute(
            "DELETE FROM fte_status.event WHERE seq > $1 AND seq <= $2 AND (task IS NULL OR NOT EXISTS
             (SELECT 1 FROM fte_status.task WHERE task.id = event.task AND task.tenant = event.tenant))",
            &[&after, &last],
        )
        .await?;
    let next = if old.len() as i64 == ROWS_MAX { Sweep::Strays { after: last } } else { Sweep::Finished };
    Ok(Swept { events: count(removed), ..Swept::nothing(next) })
}

fn count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}
