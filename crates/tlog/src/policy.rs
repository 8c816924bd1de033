//! Trust policies, by C2SP `tlog-policy`: which logs, which witnesses, and how many of these make a checkpoint count.
//!
//! Two restrictions over the specification: names are Unicode, and a key whose type is not supported here is an error rather than a witness that never
//! signs, because a quorum that can never be met should be found when the file is read.

mod parse;

use std::collections::BTreeSet;
use std::fmt;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::key::{KeyError, VerifierKey};
use crate::note::{NoteError, SignedNote};

/// A log whose checkpoints count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    /// Its name is the log's origin.
    pub key: VerifierKey,
    pub url: Option<String>,
}

/// Who countersigns checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its name in this policy.
    pub name: String,
    pub key: VerifierKey,
    /// Where it takes checkpoints: the prefix before `/add-checkpoint`.
    pub url: Option<String>,
}

/// Witnesses or groups, of which so many must have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub threshold: usize,
    pub members: Vec<String>,
}

/// What a checkpoint needs to be accepted. `FromStr` reads the file, `Display` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub logs: Vec<LogKey>,
    pub witnesses: Vec<Witness>,
    /// In an order in which each names only earlier ones.
    pub groups: Vec<Group>,
    /// The witness or group that must have signed; `None` for `quorum none`.
    pub quorum: Option<String>,
}

/// Why a policy cannot be read, or does not accept a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("line {line} of the policy: {what}")]
    Line { line: usize, what: String },
    #[error("line {line} of the policy: its key is not usable")]
    Key { line: usize, source: KeyError },
    #[error("a policy has exactly one quorum line, and this one has none: `quorum none` asks for no witness")]
    NoQuorum,
    #[error("the checkpoint's signatures are not accepted")]
    Note {
        #[from]
        source: NoteError,
    },
    #[error("the signed text is no checkpoint")]
    Checkpoint {
        #[from]
        source: CheckpointError,
    },
    #[error("no log of the policy has the origin {origin}")]
    UnknownLog { origin: String },
    #[error("{signed} of {known} witnesses have signed the checkpoint, which is not the quorum of the policy")]
    Quorum { signed: usize, known: usize },
}

/// A checkpoint whose signatures are right, and who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'p> {
    pub checkpoint: Checkpoint,
    /// The keys of the log that signed; at least one.
    pub logs: Vec<&'p VerifierKey>,
    /// The witnesses that signed, and when, in seconds since 1970.
    pub witnesses: Vec<(&'p Witness, u64)>,
    /// Signatures of keys that the policy does not know.
    pub unknown_signatures: usize,
    /// Whether the witnesses are those that the policy demands.
    pub quorum_met: bool,
}

/// Who has countersigned a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed<'p> {
    /// The witnesses, and when they signed, in seconds since 1970.
    pub witnesses: Vec<(&'p Witness, u64)>,
    /// Whether they are those that the policy demands.
    pub quorum_met: bool,
}

impl Policy {
    /// The policy of who knows a log's keys and no witness.
    pub fn of_logs(keys: impl IntoIterator<Item = VerifierKey>) -> Self {
        let logs = keys.into_iter().map(|key| LogKey { key, url: None }).collect();
        Self { logs, witnesses: Vec::new(), groups: Vec::new(), quorum: None }
    }

    /// Reads a signed checkpoint and checks every signature of a known key. Whether the quorum is met is for the caller to look at.
    pub fn judge(&self, note: &[u8]) -> Result<Judged<'_>, PolicyError> {
        let note = SignedNote::parse(note)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        // Only the keys of this very log: another log of the policy has no say in it.
        let of_origin: Vec<&VerifierKey> = self.logs.iter().map(|log| &log.key).filter(|key| key.name() == checkpoint.origin).collect();
        if of_origin.is_empty() {
            return Err(PolicyError::UnknownLog { origin: checkpoint.origin });
        }
        let logs: Vec<&VerifierKey> = note.verify(of_origin.iter().copied())?.into_iter().map(|verified| verified.key).collect();
        let Witnessed { witnesses, quorum_met } = self.witnessed(&note)?;
        let known: Vec<_> = of_origin.iter().copied().chain(self.witnesses.iter().map(|witness| &witness.key)).collect();
        let unknown_signatures = note.signatures().iter().filter(|signature| !known.iter().any(|key| key.claims(signature))).count();
        Ok(Judged { checkpoint, logs, witnesses, unknown_signatures, quorum_met })
    }

    /// The witnesses that have signed a note. Whose checkpoint it is is not looked at.
    pub fn witnessed(&self, note: &SignedNote) -> Result<Witnessed<'_>, NoteError> {
        let verified = match note.verify(self.witnesses.iter().map(|witness| &witness.key)) {
            Err(NoteError::NoKnownKey) => Vec::new(),
            verified => verified?,
        };
        let witness_of = |key: &VerifierKey| self.witnesses.iter().find(|witness| witness.key == *key);
        let witnesses: Vec<_> = verified.iter().filter_map(|verified| Some((witness_of(verified.key)?, verified.time_s))).collect();
        let quorum_met = self.is_quorum(witnesses.iter().map(|(witness, _)| witness.name.as_str()));
        Ok(Witnessed { witnesses, quorum_met })
    }

    /// Like [`judge`](Self::judge), and a quorum that is not met is an error.
    pub fn accept(&self, note: &[u8]) -> Result<Judged<'_>, PolicyError> {
        let judged = self.judge(note)?;
        if judged.quorum_met {
            Ok(judged)
        } else {
            Err(PolicyError::Quorum { signed: judged.witnesses.len(), known: self.witnesses.len() })
        }
    }

    fn is_quorum<'a>(&'a self, signed: impl Iterator<Item = &'a str>) -> bool {
        let Some(quorum) = &self.quorum else { return true };
        let mut witnessed: BTreeSet<&str> = signed.collect();
        for group in &self.groups {
            if group.members.iter().filter(|member| witnessed.contains(member.as_str())).count() >= group.threshold {
                witnessed.insert(&group.name);
            }
        }
        witnessed.contains(quorum.as_str())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = |url: &Option<String>| url.as_ref().map_or_else(String::new, |url| format!(" {url}"));
        for log in &self.logs {
            writeln!(f, "log {}{}", log.key, url(&log.url))?;
        }
        for witness in &self.witnesses {
            writeln!(f, "witness {} {}{}", witness.name, witness.key, url(&witness.url))?;
        }
        for group in &self.groups {
            writeln!(f, "group {} {} {}", group.name, group.threshold, group.members.join(" "))?;
        }
        writeln!(f, "quorum {}", self.quorum.as_deref().unwrap_or("none"))
    }
}

#[cfg(test)]
mod tests;
