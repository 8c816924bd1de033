//! A witness, by C2SP `tlog-witness`: it remembers the last checkpoint it signed of each log, and signs only what continues it.
//!
//! Always true:
//! * What was signed is on the disk before the signature leaves: no crash makes it forget.
//! * Comparing with what is remembered and remembering the new are one step, for one request at a time: of two with the same old size one is signed.
//! * One process uses a state directory; a second does not start.
//!
//! One lock for all logs is held while a file is synced. A lock for each log was the other way, for hundreds of logs that publish at once; two installations
//! that witness each other are not that.

pub mod client;
mod request;
pub mod server;
mod store;

use std::sync::{Arc, Mutex, PoisonError};

use fte_tlog::{
    Checkpoint, CheckpointError, Hash, KeyAlgorithm, NoteError, Policy, SignedNote, SignerKey, VerifierKey, check_consistency, empty_root,
};

pub use self::request::{Request, RequestError};
use self::store::Store;
pub use self::store::StoreError;
use crate::keys::trust::policy_of;

/// A clock in seconds since 1970.
pub type ClockS = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a witness answers to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 200, with the line of the cosignature.
    Signed(String),
    /// 400: no request as it should be.
    Malformed(String),
    /// 403: no signature of a key that is trusted for this log, or a wrong one.
    Untrusted,
    /// 404: a log that this witness does not know.
    UnknownLog,
    /// 409: the size that the witness remembers.
    Conflict(u64),
    /// 422: it does not continue what is remembered.
    Inconsistent,
}

/// Signs checkpoints of the logs it knows.
pub struct Witness {
    key: SignerKey,
    logs: Policy,
    store: Mutex<Store>,
    clock: ClockS,
}

impl Witness {
    /// A witness for the logs of a policy. `key` is one of a witness ([`KeyAlgorithm::CosignatureV1`]).
    pub fn open(key: SignerKey, policy: &Policy, directory: &std::path::Path, clock: ClockS) -> Result<Self, StoreError> {
        if key.verifier().algorithm() != KeyAlgorithm::CosignatureV1 {
            return Err(StoreError::Key);
        }
        let logs = Policy::of_logs(policy.logs.iter().map(|log| log.key.clone()));
        Ok(Self { key, logs, store: Mutex::new(Store::open(directory)?), clock })
    }

    /// The key that its signatures are checked with.
    pub fn verifier(&self) -> VerifierKey {
        self.key.verifier()
    }

    /// Judges a request's body. Blocks while the disk syncs. An error means that nothing was signed.
    pub fn add_checkpoint(&self, body: &[u8]) -> Result<Verdict, StoreError> {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(error) => return Ok(Verdict::Malformed(error.to_string())),
        };
        let note = match SignedNote::parse(request.checkpoint.as_bytes()) {
            Ok(note) => note,
            Err(error) => return Ok(Verdict::Malformed(error.to_string())),
        };
        let origin = note.text().lines().next().unwrap_or_default().to_owned();
        let policy = policy_of(&self.logs, request.checkpoint.as_bytes());
        let keys: Vec<_> = policy.logs.iter().map(|log| &log.key).filter(|key| key.name() == origin).collect();
        if keys.is_empty() {
            return Ok(Verdict::UnknownLog);
        }
        match note.verify(keys) {
            Ok(_) => {}
            Err(NoteError::NoKnownKey | NoteError::BadSignature { .. }) => return Ok(Verdict::Untrusted),
            Err(error) => return Ok(Verdict::Malformed(error.to_string())),
        }
        let checkpoint = match Checkpoint::parse(note.text()) {
            Ok(checkpoint) => checkpoint,
            // Signed, and no tree has it.
            Err(CheckpointError::NotEmpty) => return Ok(Verdict::Inconsistent),
            Err(error) => return Ok(Verdict::Malformed(error.to_string())),
        };
        if request.old > checkpoint.size {
            return Ok(Verdict::Malformed(format!("the old size {} is above the checkpoint's, {}", request.old, checkpoint.size)));
        }
        self.compare_and_store(&request, &note, &checkpoint)
    }

    /// The one step in which a checkpoint takes the place of the one before.
    fn compare_and_store(&self, request: &Request, note: &SignedNote, checkpoint: &Checkpoint) -> Result<Verdict, StoreError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let (size, root) = store.latest(&checkpoint.origin).map_or_else(|| (0, empty_root()), |latest| (latest.size, latest.root));
        if request.old != size {
            return Ok(Verdict::Conflict(size));
        }
        if !continues(size, &root, checkpoint, &request.proof) {
            tracing::warn!(origin = %checkpoint.origin, old = size, new = checkpoint.size, "a log asks to sign what does not continue what it was");
            return Ok(Verdict::Inconsistent);
        }
        let signature = self.key.sign(&checkpoint.to_string(), (self.clock)());
        let line = signature.to_string();
        store.store(checkpoint, &note.clone().with(signature).to_string())?;
        Ok(Verdict::Signed(line))
    }

    /// The last checkpoint that was signed of the log with this digest of its origin, for monitors.
    pub fn latest(&self, origin_sha256: &str) -> Option<String> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).note(origin_sha256)
    }
}

fn continues(size: u64, root: &Hash, checkpoint: &Checkpoint, proof: &[Hash]) -> bool {
    check_consistency(proof, size, root, checkpoint.size, &checkpoint.root).is_ok()
}

#[cfg(test)]
mod tests;
