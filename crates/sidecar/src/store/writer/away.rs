//! What an absence does not count for. Whoever was off for long finds at the start what nobody had read, and may be given once more what was read shortly before
//! a crash. So no group is forgotten for the time in which nobody could read, and what an app remembered (what it has done, so that it does not do it again) is still
//! there when things come again. Left to the clock, a crash and nine days lost every unread record and did again what was done before.

use rusqlite::{Connection, TransactionBehavior, params};

/// Groups in use say so every hour: an absence that is shorter cannot be told from none.
const SHORTEST_MS: i64 = super::retention::SEEN_EVERY_MS * 2;
/// How much longer than an absence state lives that had its time meanwhile.
const GRACE_MAX_MS: i64 = 24 * 3_600_000;

/// When somebody read last, or published: where nobody reads, what is published shows that the sidecar was there, and groups have their time.
fn last_sign_of_life(db: &Connection) -> rusqlite::Result<Option<i64>> {
    let newest = "SELECT at_ms FROM batches WHERE id >= topics.id << 40 AND id < (topics.id + 1) << 40 ORDER BY id DESC LIMIT 1";
    let both = format!("SELECT max(at_ms) FROM (SELECT seen_ms AS at_ms FROM cursors UNION ALL SELECT ({newest}) FROM topics)");
    // Without a group nothing can come again, and nobody is to be forgotten.
    let has_groups: bool = db.query_row("SELECT EXISTS (SELECT 1 FROM cursors)", [], |row| row.get(0))?;
    if has_groups { db.query_row(&both, [], |row| row.get(0)) } else { Ok(None) }
}

/// Takes the time since the last sign of life out of the account. Done at the start, before anything is deleted. Whatever cuts it
/// off, it is done whole or not at all; done twice it errs on the side of keeping.
pub(super) fn leave_out(db: &mut Connection, now_ms: i64) -> rusqlite::Result<()> {
    let Some(away_ms) = last_sign_of_life(db)?.map(|last_ms| now_ms - last_ms).filter(|away_ms| *away_ms > SHORTEST_MS) else {
        return Ok(());
    };
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("UPDATE cursors SET seen_ms = seen_ms + ?1", [away_ms])?;
    let until_ms = now_ms + away_ms.min(GRACE_MAX_MS);
    let kept =
        tx.execute("UPDATE state SET expires_ms = ?1 WHERE expires_ms > ?2 AND expires_ms < ?1", params![until_ms, now_ms - away_ms])?;
    tx.commit()?;
    tracing::info!(
        away_s = away_ms / 1000,
        kept,
        "off for long: what was not read is kept, and what would have expired meanwhile for a while"
    );
    Ok(())
}
