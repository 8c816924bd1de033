//! What the log remembers beside its entries: the last checkpoint it signed, and which process may sign.
//!
//! A checkpoint is durable here before anyone sees it, so a log that lost entries it had signed for does not start. It stands in one of two files of
//! fixed size that are written in turn: a sync of content alone, where putting a new file in place takes two.
//!
//! The lock keeps a second process off on one machine. Where locks do not reach (some network disks), the fencing epoch does: each start raises it, and
//! whoever finds another's number there signs nothing more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fte_tlog::{Checkpoint, SignedNote, SignerKey};

use super::disk::{Disk, Durability, install, make_dir};
use super::fault::Fault;

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

pub(super) struct State {
    directory: PathBuf,
    epoch: u64,
    turn: usize,
    _lock: Box<dyn Send>,
}

impl State {
    /// Locks the log for this process and raises the epoch. Gives the last checkpoint that was signed with `key`.
    pub(super) fn open(disk: &dyn Disk, directory: &Path, key: &SignerKey) -> Result<(Self, Option<Published>), Fault> {
        make_dir(disk, directory).map_err(Fault::io(directory))?;
        let path = directory.join("lock");
        let Some(lock) = disk.lock(&path).map_err(Fault::io(&path))? else {
            return Err(Fault::Refused(format!(
                "another process has {} locked: only one may write the log; stop it first",
                path.display()
            )));
        };
        let path = directory.join("epoch");
        let before = match disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            read => std::str::from_utf8(&read.map_err(Fault::io(&path))?)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| Fault::Refused(format!("{} is no number: restore it, or write a large one", path.display())))?,
        };
        let epoch: u64 = before + 1;
        install(disk, &directory.join("new"), &path, format!("{epoch}\n").as_bytes(), Durability::Synced).map_err(Fault::io(&path))?;
        let mut state = Self { directory: directory.to_owned(), epoch, turn: 0, _lock: lock };
        let mut last: Option<Published> = None;
        for turn in 0..2 {
            let path = state.slot(turn);
            let Some(published) = disk.read(&path).ok().and_then(|bytes| read_slot(&bytes, key)) else { continue };
            let place = |published: &Published| (published.shard, published.checkpoint.size);
            if last.as_ref().is_none_or(|last| place(last) <= place(&published)) {
                last = Some(published);
                state.turn = 1 - turn;
            }
        }
        Ok((state, last))
    }

    fn slot(&self, turn: usize) -> PathBuf {
        self.directory.join(format!("checkpoint-{turn}"))
    }

    /// Remembers a checkpoint durably. Refuses if another process has taken over.
    pub(super) fn save(&mut self, disk: &dyn Disk, note: &str) -> Result<(), Fault> {
        let path = self.directory.join("epoch");
        let epoch = disk.read(&path).map_err(Fault::io(&path))?;
        if epoch != format!("{}\n", self.epoch).as_bytes() {
            return Err(Fault::Fenced { epoch: path });
        }
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

/// The checkpoint in a file, if it is whole and ours.
fn read_slot(bytes: &[u8], key: &SignerKey) -> Option<Published> {
    let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    read_note(&bytes[..end], key)
}

/// A signed checkpoint of one of the log's shards.
pub(super) fn read_note(note: &[u8], key: &SignerKey) -> Option<Published> {
    let signed = SignedNote::parse(note).ok()?;
    let checkpoint = Checkpoint::parse(signed.text()).ok()?;
    let shard = checkpoint.origin.rsplit_once('/')?.1.parse().ok()?;
    let key = shard_key(key, shard).ok()?;
    if key.name() != checkpoint.origin {
        return None;
    }
    signed.verify(&[key.verifier()]).ok().filter(|verified| !verified.is_empty())?;
    Some(Published { shard, checkpoint, note: std::str::from_utf8(note).ok()?.into() })
}

/// The key under the name of a shard, which is its origin.
pub(super) fn shard_key(key: &SignerKey, shard: u16) -> Result<SignerKey, Fault> {
    let name = format!("{}/{shard}", key.name());
    key.renamed(&name, fte_tlog::KeyAlgorithm::Ed25519)
        .map_err(|error| Fault::Refused(format!("the log's key cannot sign as {name}: {error}")))
}
