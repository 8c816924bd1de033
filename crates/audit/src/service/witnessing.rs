//! The service's own asking for witnesses: each new checkpoint is shown to those of a policy, and the last that they signed is kept and served.
//!
//! Always true:
//! * Nothing waits for it: no acknowledgement and no checkpoint. A witness that is away is asked again, and its absence is counted.
//! * What is kept with a quorum gives way only to a later checkpoint with one.
//! * A log that is behind what a witness has signed of it was put back to an older state, or is one of two: it does not start, and one that is found to be so
//!   while it runs stops. A restored copy must not sign a second history.
//!
//! The cosigned checkpoint has a file of its own beside the newest one. To publish none but cosigned ones was the other way: then a witness that is away
//! would keep everybody from checking what was logged since.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fte_service::{ServiceError, chain};
use fte_tlog::{Checkpoint, NoteError, Policy, SignedNote};

use crate::engine::Published;
use crate::files::{WITNESSED as FILE, install};
use crate::log::Log;
use crate::metrics;
use crate::witness::client::{AskError, Witnesses};

/// Between two looks at whether there is a new checkpoint.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why witnesses cannot be asked, or have shown that the log is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error("the policy {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is no policy of witnesses", path.display())]
    Policy { path: PathBuf, source: fte_tlog::PolicyError },
    #[error("the policy {} names no witness with a URL", path.display())]
    NoWitness { path: PathBuf },
    #[error(
        "the witness {witness} has signed {remembered} entries of {origin}, and there are {size} here: the log was put back to an older state, or another \
         instance writes under its key. Bring back the newest copy; if it is lost, begin a log with a new key, and keep this one as evidence"
    )]
    Behind { witness: String, origin: String, remembered: u64, size: u64 },
    #[error("the checkpoint {} cannot be kept", path.display())]
    Keep { path: PathBuf, source: io::Error },
    #[error("a checkpoint of the log cannot be read")]
    Note(#[from] NoteError),
}

/// The last cosigned checkpoint of each shard; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witnessed {
    notes: Arc<RwLock<BTreeMap<u16, Arc<str>>>>,
}

impl Witnessed {
    /// That of a shard, if any witness has signed one.
    pub(crate) fn note(&self, shard: u16) -> Option<Arc<str>> {
        self.notes.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }

    fn set(&self, shard: u16, note: Arc<str>) {
        self.notes.write().unwrap_or_else(PoisonError::into_inner).insert(shard, note);
    }
}

/// Asks the witnesses of a policy, on behalf of the log in a directory.
pub(crate) struct Witnessing {
    directory: PathBuf,
    policy: Policy,
    witnesses: Witnesses,
    kept: Witnessed,
    /// What was asked last, of each shard; what failed is asked again.
    asked: BTreeMap<u16, u64>,
    /// Who did not sign the last time, and why.
    told: BTreeMap<String, String>,
    look_every: Duration,
}

impl Witnessing {
    /// For the log in `directory`, by the policy in a file.
    ///
    /// # Errors
    /// There is no policy with a witness to ask; what was kept cannot be read.
    pub(crate) fn open(directory: &Path, policy: &Path) -> Result<Self, WitnessError> {
        let path = policy.to_owned();
        let text = fs::read_to_string(policy).map_err(|source| WitnessError::Unreadable { path: path.clone(), source })?;
        let policy: Policy = text.parse().map_err(|source| WitnessError::Policy { path: path.clone(), source })?;
        if policy.witnesses.iter().all(|witness| witness.url.is_none()) {
            return Err(WitnessError::NoWitness { path });
        }
        let kept = Witnessed::default();
        for shard in shards(directory).map_err(|source| WitnessError::Unreadable { path: directory.to_owned(), source })? {
            let path = place(directory, shard);
            match fs::read_to_string(&path) {
                Ok(note) => kept.set(shard, note.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(WitnessError::Unreadable { path, source }),
            }
        }
        let witnesses = Witnesses::new(policy.clone());
        Ok(Self {
            directory: directory.to_owned(),
            policy,
            witnesses,
            kept,
            asked: BTreeMap::new(),
            told: BTreeMap::new(),
            look_every: LOOK_EVERY,
        })
    }

    /// What is kept, for whoever serves it.
    pub(crate) fn witnessed(&self) -> Witnessed {
        self.kept.clone()
    }

    /// Before the log is opened, which may sign: whether a witness knows more of it than there is. A witness that does not answer keeps no log from starting.
    ///
    /// # Errors
    /// [`WitnessError::Behind`], or the disk.
    pub(crate) async fn check_before_start(&mut self) -> Result<(), WitnessError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| WitnessError::Unreadable { path, source }
        };
        for shard in shards(&self.directory).map_err(unreadable(&self.directory))? {
            let path = self.directory.join(shard.to_string()).join("log/checkpoint");
            let note = match fs::read(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                read => read.map_err(unreadable(&path))?,
            };
            // One that cannot be read is for the log itself to refuse.
            let Ok(note) = SignedNote::parse(&note) else { continue };
            let Ok(checkpoint) = Checkpoint::parse(note.text()) else { continue };
            let no_proof = async |_| Err("the log is not open yet".to_owned());
            let asked = self.witnesses.ask(&checkpoint, note, no_proof).await?;
            for (witness, error) in asked.failed {
                if let AskError::Ahead { remembered, size } = error {
                    return Err(WitnessError::Behind { witness, origin: checkpoint.origin, remembered, size });
                }
            }
        }
        Ok(())
    }

    /// Asks for as long as the process lives.
    pub(crate) async fn run(mut self, log: Arc<dyn Log>) -> Result<(), ServiceError> {
        let mut ticks = tokio::time::interval(self.look_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut current = None;
        loop {
            ticks.tick().await;
            let newest = match log.checkpoint(None).await {
                Ok(Some(newest)) => newest,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "no checkpoint to be witnessed");
                    continue;
                }
            };
            // The end of a year is signed, too.
            if let Some(before) = current.filter(|before| *before != newest.shard)
                && let Ok(Some(last)) = log.checkpoint(Some(before)).await
            {
                self.ask(&*log, &last).await?;
            }
            current = Some(newest.shard);
            self.ask(&*log, &newest).await?;
        }
    }

    /// Shows a checkpoint to the witnesses, unless they have all signed it.
    async fn ask(&mut self, log: &dyn Log, published: &Published) -> Result<(), WitnessError> {
        let Published { shard, checkpoint, note } = published;
        if self.asked.get(shard) == Some(&checkpoint.size) {
            return Ok(());
        }
        let prove = async |old| match log.consistency(*shard, old, checkpoint.size).await {
            Ok(Some(proof)) => Ok(proof),
            Ok(None) => Err(format!("the log has not published {} entries", checkpoint.size)),
            Err(error) => Err(chain(&error).to_string()),
        };
        let asked = self.witnesses.ask(checkpoint, SignedNote::parse(note.as_bytes())?, prove).await?;
        let known = self.policy.witnesses.iter().map(|witness| witness.name.as_str());
        metrics::witnessed(known, |name| asked.failed.iter().any(|(failed, _)| failed == name));
        for (witness, error) in &asked.failed {
            if let AskError::Ahead { remembered, .. } = *error {
                // Anybody may show it what we have published meanwhile.
                let now = log.checkpoint(Some(*shard)).await.ok().flatten().map_or(checkpoint.size, |now| now.checkpoint.size);
                if remembered > now {
                    let (witness, origin) = (witness.clone(), checkpoint.origin.clone());
                    return Err(WitnessError::Behind { witness, origin, remembered, size: now });
                }
            }
        }
        self.tell(&asked.failed);
        if asked.failed.is_empty() {
            self.asked.insert(*shard, checkpoint.size);
        }
        if asked.failed.len() < self.policy.witnesses.len() && (asked.quorum_met || !self.is_kept_with_quorum(*shard)) {
            self.keep(*shard, &asked.note.to_string())?;
            metrics::witnessed_size(checkpoint.size);
        }
        Ok(())
    }

    /// Warns of what was not so the last time.
    fn tell(&mut self, failed: &[(String, AskError)]) {
        let now: BTreeMap<String, String> = failed.iter().map(|(witness, error)| (witness.clone(), chain(error).to_string())).collect();
        for (witness, error) in now.iter().filter(|(witness, error)| self.told.get(*witness) != Some(error)) {
            tracing::warn!(witness, error, "checkpoints are not witnessed");
        }
        for witness in self.told.keys().filter(|witness| !now.contains_key(*witness)) {
            tracing::info!(witness, "checkpoints are witnessed again");
        }
        self.told = now;
    }

    fn is_kept_with_quorum(&self, shard: u16) -> bool {
        let note = self.kept.note(shard).and_then(|note| SignedNote::parse(note.as_bytes()).ok());
        note.is_some_and(|note| self.policy.witnessed(&note).is_ok_and(|witnessed| witnessed.quorum_met))
    }

    fn keep(&self, shard: u16, note: &str) -> Result<(), WitnessError> {
        let path = place(&self.directory, shard);
        install(&path, note.as_bytes(), 0o644).map_err(|source| WitnessError::Keep { path: path.clone(), source })?;
        self.kept.set(shard, note.into());
        Ok(())
    }
}

fn place(directory: &Path, shard: u16) -> PathBuf {
    directory.join(shard.to_string()).join(FILE)
}

/// The shards that are there, the oldest first; none where there is no log yet.
fn shards(directory: &Path) -> io::Result<Vec<u16>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut shards = Vec::new();
    for entry in entries {
        shards.extend(entry?.file_name().to_str().filter(|name| name.len() == 4).and_then(|name| name.parse::<u16>().ok()));
    }
    shards.sort_unstable();
    Ok(shards)
}

#[cfg(test)]
mod tests;
