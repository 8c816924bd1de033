//! What the log remembers beside its entries: the last checkpoint it signed, and which process may sign.
//!
//! A checkpoint is durable here before anyone sees it, so a log that lost entries it had signed for does not start. It stands in one of two files of
//! fixed size that are written in turn: a sync of content alone, where putting a new file in place takes two.
//!
//! The lock keeps a second process off on one machine. Where locks do not reach (some network disks), the fencing epoch does: each start raises it, and
//! whoever finds another's there acknowledges and signs nothing more. It is read after each sync of a group, before that is acknowledged: what was
//! synced before the other raised it, the other finds when it opens the log, and what was synced later was not acknowledged. The file is opened anew
//! each time, since network disks look at the server then, and not at each `stat`. On a local disk that is some 10 µs, beside a sync of 200 and more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fte_tlog::{Checkpoint, SignedNote, SignerKey, VerifierKey};

use super::disk::{Disk, Durability, RealDisk, install, make_dir};
use super::fault::Fault;
use super::signers::{Keys, shard_verifier};
use crate::log::LogError;

/// Room for a checkpoint in its file.
const SLOT_BYTES: usize = 4096;

/// A checkpoint of a shard, signed.
#[derive(Clone, Debug)]
pub struct Published {
    pub shard: u16,
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: Arc<str>,
}

/// A signed checkpoint that was read from a file.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) published: Published,
    /// Where the present key has not signed it: the former one that has.
    pub(super) former: Option<VerifierKey>,
}

impl Signed {
    /// Which of two is newer.
    pub(super) fn place(&self) -> (u16, u64) {
        (self.published.shard, self.published.checkpoint.size)
    }

    /// Refuses what only a former key has signed: as the newest checkpoint it is from before this key followed.
    pub(super) fn check_newest(&self) -> Result<(), Fault> {
        let Some(former) = &self.former else { return Ok(()) };
        let Checkpoint { origin, size, .. } = &self.published.checkpoint;
        Err(Fault::Refused(format!(
            "the newest checkpoint, {origin} with {size} entries, was signed by the former key {former} and not by the present one: the log is a copy from before that \
             key was to follow, or the key was changed before both had signed. Restore the newest log; or put the former key back and use `fte audit rotate-key`"
        )))
    }
}

pub(super) struct State {
    directory: PathBuf,
    /// What stands in the file of the epoch while this process writes: the number, and what tells it from another that started at the same moment.
    epoch: String,
    turn: usize,
    _lock: Box<dyn Send>,
}

impl State {
    /// Locks the log for this process and raises the epoch. Gives the last checkpoint that was signed with one of its keys.
    pub(super) fn open(disk: &dyn Disk, directory: &Path, keys: &Keys) -> Result<(Self, Option<Signed>), Fault> {
        let lock = lock(disk, directory)?;
        let path = directory.join("epoch");
        let before = match disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            read => std::str::from_utf8(&read.map_err(Fault::io(&path))?)
                .ok()
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .ok_or_else(|| Fault::Refused(format!("{} is no number: restore it, or write a large one", path.display())))?,
        };
        let mut token = [0; 8];
        getrandom::fill(&mut token).map_err(|error| Fault::Refused(format!("no random number for the writer's epoch: {error}")))?;
        let epoch = format!("{} {}\n", before.saturating_add(1), fte_events::hex(&token));
        install(disk, &directory.join("new"), &path, epoch.as_bytes(), Durability::Synced).map_err(Fault::io(&path))?;
        let mut state = Self { directory: directory.to_owned(), epoch, turn: 0, _lock: lock };
        let mut last: Option<Signed> = None;
        let mut unreadable = None;
        for turn in 0..2 {
            let path = state.slot(turn);
            let bytes = match disk.read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.map_err(Fault::io(&path))?,
            };
            let Some(signed) = read_note(&path, content(&bytes), keys)? else {
                unreadable = Some(path);
                continue;
            };
            if last.as_ref().is_none_or(|last| last.place() <= signed.place()) {
                last = Some(signed);
                state.turn = 1 - turn;
            }
        }
        // They are written in turn, so a crash tears one of them at most. With both lost nothing would hold the log to what it signed.
        match unreadable {
            Some(path) if last.is_none() => Err(Fault::Refused(format!(
                "{} holds no checkpoint of this log, and none is beside it: what was signed last is not known. Restore it from a copy",
                path.display()
            ))),
            _ => Ok((state, last)),
        }
    }

    fn slot(&self, turn: usize) -> PathBuf {
        slot(&self.directory, turn)
    }

    /// Refuses if another process has taken over.
    pub(super) fn check_epoch(&self, disk: &dyn Disk) -> Result<(), Fault> {
        let path = self.directory.join("epoch");
        let epoch = disk.read(&path).map_err(Fault::io(&path))?;
        if epoch == self.epoch.as_bytes() { Ok(()) } else { Err(Fault::Fenced { epoch: path }) }
    }

    /// Remembers a checkpoint durably. Refuses if another process has taken over.
    pub(super) fn save(&mut self, disk: &dyn Disk, note: &str) -> Result<(), Fault> {
        self.check_epoch(disk)?;
        let path = self.slot(self.turn);
        let mut bytes = note.as_bytes().to_vec();
        bytes.resize(bytes.len().max(SLOT_BYTES), 0);
        let write = |path: &Path| {
            let mut file = disk.open(path)?;
            file.write_at(0, &bytes)?;
            file.sync()
        };
        let written = match write(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                install(disk, &self.directory.join("new"), &path, &bytes, Durability::Synced)
            }
            written => written,
        };
        written.map_err(Fault::io(&path))?;
        self.turn = 1 - self.turn;
        Ok(())
    }
}

/// A log that nobody writes for as long as this is there.
pub struct Stopped {
    directory: PathBuf,
    _lock: Box<dyn Send>,
}

impl Stopped {
    /// Keeps every process of this machine from writing the log in a directory.
    ///
    /// # Errors
    /// When one writes it now.
    pub fn lock(directory: &Path) -> Result<Self, LogError> {
        let lock = lock(&RealDisk, &directory.join("state")).map_err(|fault| fault.explained(directory))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// The last checkpoint that the log remembers to have signed. By whom it is signed is for the caller to look at.
    pub fn last_signed(&self) -> Result<Option<SignedNote>, LogError> {
        last_signed(&RealDisk, &self.directory.join("state")).map_err(|fault| fault.explained(&self.directory))
    }
}

/// The newest whole checkpoint that is remembered, whoever signed it.
pub(super) fn last_signed(disk: &dyn Disk, state: &Path) -> Result<Option<SignedNote>, Fault> {
    let mut last: Option<((u16, u64), SignedNote)> = None;
    for turn in 0..2 {
        let path = slot(state, turn);
        let bytes = match disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.map_err(Fault::io(&path))?,
        };
        let Ok(note) = SignedNote::parse(content(&bytes)) else { continue };
        let Ok(checkpoint) = Checkpoint::parse(note.text()) else { continue };
        let Some(shard) = shard_of(&checkpoint) else { continue };
        let place = (shard, checkpoint.size);
        if last.as_ref().is_none_or(|(before, _)| *before <= place) {
            last = Some((place, note));
        }
    }
    Ok(last.map(|(_, note)| note))
}

/// The file of a turn.
fn slot(state: &Path, turn: usize) -> PathBuf {
    state.join(format!("checkpoint-{turn}"))
}

/// What a file of fixed size holds.
fn content(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

fn shard_of(checkpoint: &Checkpoint) -> Option<u16> {
    checkpoint.origin.rsplit_once('/').and_then(|(_, shard)| shard.parse().ok())
}

/// Keeps every other process of this machine from writing the log.
pub(super) fn lock(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn Send>, Fault> {
    make_dir(disk, directory).map_err(Fault::io(directory))?;
    let path = directory.join("lock");
    disk.lock(&path).map_err(Fault::io(&path))?.ok_or(Fault::Locked { lock: path })
}

/// The signed checkpoint in a file. `None` if it is not whole, as after a crash; refused if it is whole and another key's: whoever signed on with this one
/// would give the log a second history that nothing ties to the first. (A crash cannot make the one look like the other: a line of signature that is
/// put together of two is none.) Whether a former key's counts is for the caller to say.
pub(super) fn read_note(path: &Path, note: &[u8], keys: &Keys) -> Result<Option<Signed>, Fault> {
    let Ok(signed) = SignedNote::parse(note) else { return Ok(None) };
    let Ok(checkpoint) = Checkpoint::parse(signed.text()) else { return Ok(None) };
    let Some(shard) = shard_of(&checkpoint) else { return Ok(None) };
    let key = shard_key(&keys.present, shard)?;
    let mut known = vec![key.verifier()];
    for former in &*keys.former {
        known.push(shard_verifier(former, shard)?);
    }
    let claims = |signature| known.iter().any(|key| key.claims(signature));
    if key.name() != checkpoint.origin || !signed.signatures().iter().any(claims) {
        let signers: Vec<String> =
            signed.signatures().iter().map(|signature| format!("{}+{}", signature.name, fte_events::hex(&signature.id))).collect();
        return Err(Fault::Refused(format!(
            "{} was signed by another key, {}, and this one is {}+{}: restore that key (keys/log.key, or what FTE_AUDIT_KEY_FILE or \
             FTE_AUDIT_KEY_SECRET names), or keys/former.pub if this key followed it, or give this one a log of its own in another directory",
            path.display(),
            signers.join(", "),
            key.name(),
            fte_events::hex(&key.verifier().id()),
        )));
    }
    let (Ok(text), Ok(signers)) = (std::str::from_utf8(note), signed.verify(&known)) else { return Ok(None) };
    let is_present = signers.iter().any(|signer| *signer.key == known[0]);
    // Under the log's own name again, as it stands among the former keys.
    let signer = signers.first().and_then(|signer| keys.former.iter().find(|key| key.public_bytes() == signer.key.public_bytes()));
    let former = signer.filter(|_| !is_present).cloned();
    Ok(Some(Signed { published: Published { shard, checkpoint, note: text.into() }, former }))
}

/// The key under the name of a shard, which is its origin.
pub(super) fn shard_key(key: &SignerKey, shard: u16) -> Result<SignerKey, Fault> {
    let name = format!("{}/{shard}", key.name());
    key.renamed(&name, fte_tlog::KeyAlgorithm::Ed25519)
        .map_err(|error| Fault::Refused(format!("the log's key cannot sign as {name}: {error}")))
}
