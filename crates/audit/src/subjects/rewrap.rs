//! Another master key: all keys are wrapped anew, and the old one opens nothing any more. See [`super::master`] for what a crash leaves.

use rusqlite::{TransactionBehavior, params};

use super::keys::{DESTROYED, Fault, Keys, NAMING, Result, wrap, wrapped_for};
use super::{KeyError, SubjectsOptions, master, schema};

/// Makes a new master key and wraps all keys with it. Gives how many. No service may work with the keys meanwhile, which is checked.
///
/// # Errors
/// The keys are in use; the master key is missing or wrong; the disk. To repeat it is safe.
pub fn rewrap(options: SubjectsOptions) -> Result<usize, KeyError> {
    let mut keys = Keys::open(options)?;
    let path = schema::path_in(&keys.options.directory);
    let next = master::make(&master::next_path(&keys.options.master_key))?;
    let count = keys.rewrap(&next).map_err(|fault| fault.explained(&path))?;
    keys.unscrubbed = true;
    keys.scrub()?;
    master::promote(&keys.options.master_key)?;
    Ok(count)
}

impl Keys {
    pub(super) fn rewrap(&mut self, next: &super::cipher::Key) -> Result<usize, Fault> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut count = 0;
        {
            let mut select =
                transaction.prepare("SELECT n, life, wrapped FROM key WHERE n > ?1 AND wrapped <> ?2 ORDER BY n LIMIT 1000")?;
            let mut update = transaction.prepare("UPDATE key SET wrapped = ?2 WHERE n = ?1")?;
            let mut after = 0;
            loop {
                let rows = select.query_map(params![after, DESTROYED], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                let rows: Vec<(i64, u32, Vec<u8>)> = rows.collect::<rusqlite::Result<_>>()?;
                let Some((last, ..)) = rows.last() else { break };
                after = *last;
                for (n, life, wrapped) in &rows {
                    let Some(root) = self.vault.unwrap(*n, *life, wrapped)? else { continue };
                    update.execute(params![n, wrap(next, &wrapped_for(*n, *life), &root)?])?;
                    count += 1;
                }
            }
        }
        let naming = wrap(next, NAMING.as_bytes(), &self.vault.naming)?;
        transaction.execute("UPDATE meta SET value = ?2 WHERE name = ?1", params![NAMING, naming])?;
        transaction.commit()?;
        Ok(count)
    }
}
