//! What the writer keeps and for how long: positions of groups, records by age and by the cap, state by its expiry.
//!
//! Deleting goes in bounded steps with other commands between them. A record goes only when the durable position of every
//! known group is past it, so that no crash can bring a group back to what is gone.

use std::sync::atomic::Ordering;

use super::{Writer, now_ms};
use crate::store::command::Command;
use crate::store::{log, state};

/// Rows deleted in one go.
const SWEEP_ROWS: usize = 128;
/// Such steps before a publication is refused.
const ROOM_STEPS: usize = 32;
/// A group that is in use says so at least this often.
pub(super) const SEEN_EVERY_MS: i64 = 3_600_000;

impl Writer {
    /// Makes positions durable that moved. A failure leaves them to the next time.
    pub(super) fn flush(&mut self, all: bool) {
        let now_ms = now_ms();
        let mut moved = Vec::new();
        for (index, group) in self.groups.iter_mut().enumerate() {
            // Whom nobody uses has its time, however often the sidecar stops. Nobody was seen in the future, but by a clock that was ahead.
            let is_news = group.cell.users.load(Ordering::Acquire) > 0 && (now_ms - group.seen_ms).abs() > SEEN_EVERY_MS;
            if all || is_news {
                group.cell.mark();
            }
            if let Some(positions) = group.cell.take_dirty()
                && (positions != group.durable || is_news)
            {
                moved.push((index, positions));
            }
        }
        if moved.is_empty() {
            return;
        }
        let written = (|| -> rusqlite::Result<()> {
            let tx = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for (index, positions) in &moved {
                let cell = &self.groups[*index].cell;
                log::put_cursors(&tx, &cell.app, cell.topic, now_ms, positions)?;
            }
            tx.commit()
        })();
        match written {
            Ok(()) => {
                for (index, positions) in moved {
                    self.groups[index].durable = positions;
                    self.groups[index].seen_ms = now_ms;
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "positions of consumers were not written; tried again before long");
                for (index, _) in moved {
                    self.groups[index].cell.mark();
                }
            }
        }
    }

    /// Deletes a bounded piece of what is too old or too much, and asks for another turn if there is more.
    pub(super) fn sweep(&mut self) {
        self.flush(false);
        match self.sweep_step(0) {
            Ok(true) => {
                if let Some(queue) = self.queue.upgrade() {
                    let _ = queue.try_send(Command::Sweep);
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %error, "retention could not delete; tried again before long"),
        }
    }

    /// Deletes what every group has read, before a publication is refused for want of room.
    pub(super) fn make_room(&mut self, incoming: u64) {
        self.flush(false);
        for _ in 0..ROOM_STEPS {
            match self.sweep_step(incoming) {
                Ok(true) if self.log_bytes + incoming > self.limits.log_bytes_max => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(error = %error, "room in the event log could not be made");
                    return;
                }
            }
        }
    }

    /// One bounded step; `incoming` bytes want room. Returns whether there is more to delete.
    fn sweep_step(&mut self, incoming: u64) -> rusqlite::Result<bool> {
        let now_ms = self.clock.now_ms();
        self.forget_groups(now_ms)?;
        let mut more = state::expire(&self.db, now_ms, SWEEP_ROWS)? == SWEEP_ROWS;
        // From 95 % of the cap down to 90 %, so that it is not done for every publication.
        let wanted = self.log_bytes + incoming;
        let cap = self.limits.log_bytes_max;
        let mut over = if wanted > cap / 20 * 19 { wanted.saturating_sub(cap / 10 * 9) } else { 0 };
        let mut by_age: Vec<u32> = self.topics.keys().copied().collect();
        by_age.sort_by_key(|id| self.topics[id].ends.first_at_ms);
        for id in by_age {
            let floor = self
                .groups
                .iter()
                .filter(|group| group.cell.topic == id)
                .flat_map(|group| group.durable.iter().map(|cursor| cursor.hint))
                .min()
                .unwrap_or(u64::MAX);
            let Some(log) = self.topics.get_mut(&id) else {
                continue;
            };
            let too_old = now_ms.saturating_sub(log.retention_ms);
            // The last batch stays: it knows the heads.
            let floor = floor.min(log.ends.last_seq.saturating_sub(1));
            if floor < log.ends.first_seq || (over == 0 && log.ends.first_at_ms >= too_old) {
                continue;
            }
            // One row more than is deleted in a step: there is always one that stays and becomes the oldest.
            let mut last = None;
            let mut base = log.ends.base;
            for (index, log::Oldest { seq, at_ms, total, lows }) in log::oldest(&self.db, id, SWEEP_ROWS + 1)?.into_iter().enumerate() {
                if index < SWEEP_ROWS && seq <= floor && (at_ms < too_old || over > 0) {
                    over = over.saturating_sub(total - base);
                    base = total;
                    last = Some(seq);
                    continue;
                }
                more |= index == SWEEP_ROWS;
                let Some(last) = last else {
                    break;
                };
                log::delete_up_to(&self.db, id, last)?;
                self.log_bytes -= base - log.ends.base;
                log.ends.base = base;
                log.ends.first_seq = seq;
                log.ends.first_at_ms = at_ms;
                log.ends.lows = lows;
                break;
            }
        }
        Ok(more)
    }

    /// Forgets groups that nobody has used for long: they would keep records for ever.
    fn forget_groups(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        let expiry = self.limits.group_expiry_ms;
        let mut index = 0;
        while index < self.groups.len() {
            let group = &self.groups[index];
            let unused = group.cell.users.load(Ordering::Acquire) == 0;
            if unused && now_ms - group.seen_ms > expiry {
                tracing::warn!(app = %group.cell.app, topic = group.cell.topic, "consumer group was not used for long and is forgotten");
                log::delete_cursors(&self.db, &group.cell.app, group.cell.topic)?;
                self.groups.swap_remove(index);
            } else {
                index += 1;
            }
        }
        Ok(())
    }
}
