//! Who must have signed what: each side of a change of keys is checked against its own key.
//!
//! The log names each key that follows in a tree that the key before has signed. So who knows the old key learns the new one from the log, and a checkpoint with that
//! entry in it counts only with the new key's signature: the old one alone, which somebody may have stolen, proves nothing any more. And who knows the
//! new key alone learns from its tree who signed before: what a later shard says of how the one before ended is as good as a signature of it.

use std::collections::BTreeSet;
use std::ops::Range;

use fte_tlog::{Checkpoint, KeyAlgorithm, NoteError, NoteSignature, Policy, PolicyError, SignedNote, VerifierKey};

use super::report::Anchor;

/// A signed checkpoint, and who of those that are known has signed it.
pub(super) struct Judged {
    pub(super) checkpoint: Checkpoint,
    pub(super) witnesses: u64,
    pub(super) quorum_met: bool,
    pub(super) unknown_signatures: usize,
    /// Why it does not count by itself: no key that is known has signed it. What the log says of its keys may still tell whose it is.
    pub(super) refused: Option<String>,
}

/// Reads a checkpoint and checks the signatures of keys that are known.
pub(super) fn judge(policy: &Policy, note: &[u8]) -> Result<Judged, PolicyError> {
    match policy.judge(note) {
        Ok(judged) => Ok(Judged {
            witnesses: judged.witnesses.len() as u64,
            quorum_met: judged.quorum_met,
            unknown_signatures: judged.unknown_signatures,
            checkpoint: judged.checkpoint,
            refused: None,
        }),
        Err(error @ PolicyError::Note { source: NoteError::NoKnownKey }) => {
            let note = SignedNote::parse(note)?;
            let checkpoint = Checkpoint::parse(note.text())?;
            let witnessed = policy.witnessed(&note)?;
            let of_witnesses = |claimed: &NoteSignature| policy.witnesses.iter().any(|witness| witness.key.claims(claimed));
            Ok(Judged {
                checkpoint,
                witnesses: witnessed.witnesses.len() as u64,
                quorum_met: witnessed.quorum_met,
                unknown_signatures: note.signatures().iter().filter(|signature| !of_witnesses(signature)).count(),
                refused: Some(fte_service::chain(&error).to_string()),
            })
        }
        Err(error) => Err(error),
    }
}

/// An entry that names a key which follows.
#[derive(Clone, Debug)]
struct Rotation {
    index: u64,
    key: VerifierKey,
    previous: Option<VerifierKey>,
}

/// A checkpoint that is looked at once all that a shard says of keys is known.
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) note: Vec<u8>,
    /// What it excludes that the log was put back to an earlier state.
    pub(super) anchor: Option<Anchor>,
    /// Why it does not count by itself.
    pub(super) refused: Option<String>,
}

/// What became of a checkpoint.
pub(super) struct Outcome<'s> {
    pub(super) seen: &'s Seen,
    /// What is wrong with it.
    pub(super) bad: Option<String>,
    /// The key of its time, by what the log itself says.
    pub(super) key: Option<VerifierKey>,
}

/// What a shard says of its keys, and the checkpoints that are known of it.
#[derive(Default)]
pub(super) struct Signers {
    /// The key that an earlier shard has named last.
    before: Option<[u8; 32]>,
    rotations: Vec<Rotation>,
    seen: Vec<Seen>,
}

impl Signers {
    /// A shard behind those that have named this key last.
    pub(super) fn after(before: Option<[u8; 32]>) -> Self {
        Self { before, ..Self::default() }
    }

    /// The key that was named last.
    pub(super) fn last(&self) -> Option<[u8; 32]> {
        self.rotations.last().map(|rotation| *rotation.key.public_bytes()).or(self.before)
    }

    /// Keeps a checkpoint for later.
    pub(super) fn see(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    /// Takes in what an entry says; what is wrong with it in words.
    pub(super) fn rotate(&mut self, origin: &str, index: u64, key: &VerifierKey, previous: Option<&VerifierKey>) -> Option<String> {
        if key.name() != origin || previous.is_some_and(|previous| previous.name() != origin) {
            return Some("the new key is that of another log".to_owned());
        }
        // A successor that was lost before it took over gets another, of the same key.
        let mut in_force: BTreeSet<[u8; 32]> = self.before.into_iter().collect();
        if let Some(last) = self.rotations.last() {
            in_force = [Some(&last.key), last.previous.as_ref()].into_iter().flatten().map(|key| *key.public_bytes()).collect();
        }
        if let Some(previous) = previous.filter(|previous| !in_force.is_empty() && !in_force.contains(previous.public_bytes())) {
            return Some(format!("it says that a key follows {previous}, which was not the log's"));
        }
        self.rotations.push(Rotation { index, key: key.clone(), previous: previous.cloned() });
        None
    }

    /// Checks every checkpoint against the key of its time, as far as that shows in the entries that were read. `vouched` says that a later shard answers for
    /// this one.
    pub(super) fn check(&self, origin: &str, vouched: bool, read: &Range<u64>) -> Vec<Outcome<'_>> {
        self.seen.iter().map(|seen| self.check_one(seen, origin, vouched, read)).collect()
    }

    fn check_one<'s>(&self, seen: &'s Seen, origin: &str, vouched: bool, read: &Range<u64>) -> Outcome<'s> {
        let by = self.rotations.iter().rev().find(|rotation| rotation.index < seen.size);
        let until = self.rotations.first().filter(|_| by.is_none());
        let before = || VerifierKey::new(origin, KeyAlgorithm::Ed25519, &self.before?).ok();
        let key = match (by, until) {
            // Who else follows in the rest of it is not known.
            _ if seen.size > read.end || (read.start > 0 && seen.size <= read.start) => None,
            (Some(by), _) => Some(by.key.clone()),
            (None, Some(until)) => until.previous.clone().or_else(before),
            (None, None) => before(),
        };
        let has_signed = |key: &VerifierKey| SignedNote::parse(&seen.note).is_ok_and(|note| note.verify([key]).is_ok());
        let bad = match &key {
            Some(key) if has_signed(key) => None,
            Some(_) if until.is_some() => {
                Some("it is from before the log changed its key, and is not signed with the key of that time".to_owned())
            }
            Some(_) => Some("the log says that it signs with another key now, and the checkpoint is not signed with that".to_owned()),
            // What a later shard says of this one's end covers what it was earlier, too.
            None => seen.refused.clone().filter(|_| !vouched),
        };
        Outcome { seen, bad, key }
    }

    /// Whether a note is of a key that the log says it had before, whatever shard it is of.
    pub(super) fn is_of_former(&self, note: &[u8]) -> bool {
        let Ok(note) = SignedNote::parse(note) else { return false };
        let origin = note.text().lines().next().unwrap_or_default();
        let former = self.rotations.iter().filter_map(|rotation| rotation.previous.as_ref());
        let mut of_shard = former.filter_map(|key| VerifierKey::new(origin, KeyAlgorithm::Ed25519, key.public_bytes()).ok());
        of_shard.any(|key| note.verify([&key]).is_ok())
    }
}
