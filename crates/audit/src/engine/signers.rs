//! Who signs the log: its present key, the one that is to follow, and those that came before. One follows another by what the log itself says.
//!
//! * **Announced once.** The successor stands in an entry `key_rotated` of the log's own, in a tree that the present key signs. The entries of a key are numbered, so
//!   what the log says last of a key is found by its identity, in an index that is made from the log: no crash, restart or lost index makes it say it twice, and no
//!   event of a publisher can say it.
//! * **Both sign** every checkpoint that has this entry in it, for as long as the present key is the present one. A checkpoint with both signatures is therefore
//!   what shows that the successor may take over.
//! * **The newest checkpoint is the present key's**, alone or with another: a key that the log has not announced signs nothing on, nor does one that was followed.
//!   Shards that ended earlier may be of a former key, if the log named that one's successor; where that entry is retired with its year, if the next shard names
//!   this very checkpoint.

use std::sync::Arc;

use fte_tlog::{Checkpoint, KeyAlgorithm, NoteSignature, SignedNote, SignerKey, VerifierKey};
use serde::Deserialize;

use super::core::Core;
use super::fault::Fault;
use super::own::{OwnEntry, SOURCE, key_rotated_id};
use super::state::shard_key;
use crate::entry::leaf::{self, Header, Kind};
use crate::entry::{Key, Position};

/// The keys that a log is opened with.
#[derive(Clone)]
pub(super) struct Keys {
    /// Its name is the host's part of the origin.
    pub(super) present: Arc<SignerKey>,
    /// What is to sign next, once the log has said so.
    pub(super) next: Option<Arc<SignerKey>>,
    /// What signed before.
    pub(super) former: Arc<[VerifierKey]>,
}

/// What the log says last of who follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The how manieth such entry of the key it is: one whose successor was lost gets another.
    number: u64,
    successor: [u8; 32],
}

#[derive(Deserialize)]
struct KeyRotated {
    key: String,
}

#[derive(Deserialize)]
struct ShardOpen {
    previous: Previous,
}

#[derive(Deserialize)]
struct Previous {
    checkpoint: String,
}

impl Keys {
    /// A key that is to follow itself has followed: who names it has not been told yet.
    pub(super) fn new(present: &Arc<SignerKey>, next: Option<&Arc<SignerKey>>, former: &[VerifierKey]) -> Self {
        let is_present = |key: &SignerKey| key.verifier().public_bytes() == present.verifier().public_bytes();
        Self { present: Arc::clone(present), next: next.filter(|next| !is_present(next)).cloned(), former: former.into() }
    }

    /// Refuses keys that cannot follow each other.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let Some(next) = &self.next else { return Ok(()) };
        if next.name() != self.present.name() {
            let (next, present) = (next.name(), self.present.name());
            return Err(Fault::Refused(format!(
                "the key that is to follow is named {next}, and the log's is {present}: make it with `fte audit rotate-key`"
            )));
        }
        if self.former.iter().any(|key| key.public_bytes() == next.verifier().public_bytes()) {
            return Err(Fault::Refused(
                "the key that is to follow has signed this log before: make another with `fte audit rotate-key`".to_owned(),
            ));
        }
        Ok(())
    }

    /// The signatures of a checkpoint of a shard: with that of the key that follows, once it is announced.
    pub(super) fn sign(&self, shard: u16, text: &str, announced: Option<Announced>) -> Result<Vec<NoteSignature>, Fault> {
        let mut signatures = vec![shard_key(&self.present, shard)?.sign(text, 0)];
        if let Some(next) = self.next.as_ref().filter(|next| announced.is_some_and(|announced| announced.is_of(next))) {
            signatures.push(shard_key(next, shard)?.sign(text, 0));
        }
        Ok(signatures)
    }
}

impl Announced {
    fn is_of(&self, key: &SignerKey) -> bool {
        self.successor == *key.verifier().public_bytes()
    }
}

impl Core {
    /// Checks the keys against what the log says of them. `relied` are shards that former keys alone have signed, and were believed.
    pub(super) fn check_succession(&mut self, relied: &[(u16, VerifierKey)]) -> Result<(), Fault> {
        let keys = self.means.keys.clone();
        for (shard, former) in relied {
            let successor = self.announced_by(former)?.map(|announced| announced.successor);
            let present = keys.present.verifier();
            let is_known = |key: &VerifierKey| successor == Some(*key.public_bytes());
            if !keys.former.iter().chain([&present]).any(is_known) && !self.is_chained(*shard, former)? {
                return Err(Fault::Refused(format!(
                    "a shard was signed by {former}, and the log does not say that a key which is known here follows that one: restore keys/former.pub and the shard's \
                     checkpoint from a copy"
                )));
            }
        }
        self.announced = self.announced_by(&keys.present.verifier())?;
        match (&self.announced, &keys.next) {
            (Some(_), None) => Err(Fault::Refused(
                "the log has announced the key that follows its present one, and this is not there: restore keys/log.next.key (or what FTE_AUDIT_NEXT_KEY_FILE or \
                 FTE_AUDIT_NEXT_KEY_SECRET names). Where the new key has taken over already, restore that one as keys/log.key. If it is lost, `fte audit rotate-key` makes another"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Whether the log has yet to say which key follows.
    pub(super) fn must_announce(&self) -> bool {
        self.means.keys.next.as_ref().is_some_and(|next| self.announced.is_none_or(|announced| !announced.is_of(next)))
    }

    /// The entry that names the key which follows, and what the log says once it is written.
    pub(super) fn announcement(&self, shard: u16) -> Result<Option<(OwnEntry, Announced)>, Fault> {
        let Some(next) = self.means.keys.next.as_ref().filter(|_| self.must_announce()) else { return Ok(None) };
        let number = self.announced.map_or(0, |announced| announced.number + 1);
        let (present, next) = (shard_key(&self.means.keys.present, shard)?.verifier(), shard_key(next, shard)?.verifier());
        let announced = Announced { number, successor: *next.public_bytes() };
        Ok(Some((OwnEntry::key_rotated(&present, &next, number), announced)))
    }

    /// Whether the next shard says that this one ended with a checkpoint of this key. So it is where the entry that announced the key's successor is retired:
    /// each tree names how the one before ended, up to that which the present key has signed.
    fn is_chained(&self, shard: u16, former: &VerifierKey) -> Result<bool, Fault> {
        let next = {
            let view = self.files.shared.view();
            view.shards.range(shard + 1..).next().map(|(next, _)| *next).filter(|_| !view.retired.is_empty())
        };
        let Some(at) = next.map(|shard| Position { shard, index: 0 }) else { return Ok(false) };
        let leaf = self.files.leaves().leaf(at)?.ok_or(Fault::Astray(at))?;
        let (header, payload) = leaf::decode(&leaf)?;
        let opened = serde_json::from_slice::<ShardOpen>(payload).ok().filter(|_| header.kind == Kind::ShardOpen);
        let Some(note) = opened.and_then(|opened| SignedNote::parse(opened.previous.checkpoint.as_bytes()).ok()) else { return Ok(false) };
        let there = self.files.checkpoint(Some(shard))?.map(|published| published.checkpoint);
        let is_it = there.is_some() && Checkpoint::parse(note.text()).ok() == there;
        Ok(is_it && note.verify([&shard_verifier(former, shard)?]).is_ok())
    }

    /// The shard in which a key that is to follow the present one was announced first: another may have been since, in the place of one that was lost, and they are
    /// counted from the first.
    pub(super) fn announced_in(&self) -> Result<Option<u16>, Fault> {
        if self.announced.is_none() {
            return Ok(None);
        }
        let identity = identity(&self.means.keys.present.verifier(), 0);
        let at = identity.and_then(|identity| self.index.find(&identity).transpose()).transpose()?;
        Ok(at.map(|at| at.shard))
    }

    /// What the log says last of who follows a key.
    fn announced_by(&self, key: &VerifierKey) -> Result<Option<Announced>, Fault> {
        let mut last: Option<(u64, Position)> = None;
        for number in 0.. {
            let Some(at) = identity(key, number).and_then(|identity| self.index.find(&identity).transpose()).transpose()? else { break };
            last = Some((number, at));
        }
        let Some((number, at)) = last else { return Ok(None) };
        let leaf = self.files.leaves().leaf(at)?.ok_or(Fault::Astray(at))?;
        let (header, payload) = leaf::decode(&leaf)?;
        let successor = serde_json::from_slice::<KeyRotated>(payload).ok().and_then(|said| said.key.parse::<VerifierKey>().ok());
        match successor.filter(|_| header.kind == Kind::KeyRotated && header.id.as_deref() == Some(&*key_rotated_id(key, number))) {
            Some(successor) => Ok(Some(Announced { number, successor: *successor.public_bytes() })),
            None => Err(Fault::Astray(at)),
        }
    }
}

/// What an entry that names a key's successor is recognised by.
fn identity(key: &VerifierKey, number: u64) -> Option<Key> {
    let id = key_rotated_id(key, number);
    Key::of_header(&Header { source: Some(SOURCE.into()), id: Some(id.into()), ..Header::of_digest(Kind::KeyRotated, 0, 0, [0; 32]) })
}

/// A key under the name of a shard.
pub(super) fn shard_verifier(key: &VerifierKey, shard: u16) -> Result<VerifierKey, Fault> {
    let name = format!("{}/{shard}", key.name());
    VerifierKey::new(&*name, KeyAlgorithm::Ed25519, key.public_bytes())
        .map_err(|error| Fault::Refused(format!("{key} cannot be the key of {name}: {error}")))
}
