//! The pure core of a transparency log, small enough for an auditor to read: hashing, tiles, proofs, signed notes, checkpoints, cosignatures, proof
//! files and trust policies. It reads no file, opens no connection and has no clock.
//!
//! The formats are published ones: RFC 6962 (hashing and proofs) and C2SP's `tlog-tiles`, `signed-note`, `tlog-checkpoint`, `tlog-cosignature`,
//! `tlog-proof` and `tlog-policy`. Where a specification leaves room, the stricter reading is taken: what is accepted here has one spelling only,
//! so that no byte of an accepted text can change and be accepted still with the same meaning.
//!
//! It is our own and not `tlog_tiles` or `ct-merkle`: those check it in the tests, and an oracle must share no code with what it checks.
//!
//! ```
//! use fte_tlog::{Checkpoint, Frontier, KeyAlgorithm, SignedNote, SignerKey, leaf_hash};
//!
//! let mut log = Frontier::default();
//! log.append(leaf_hash(b"first"), |_full_tile| {});
//! let checkpoint = Checkpoint { origin: "log.example/2026".into(), size: log.size(), root: log.root() };
//!
//! let key = SignerKey::new("log.example/2026", KeyAlgorithm::Ed25519, &[7; 32])?;
//! let note = SignedNote::new(checkpoint.to_string())?.with(key.sign(&checkpoint.to_string(), 0));
//!
//! let opened = SignedNote::parse(note.to_string().as_bytes())?;
//! opened.verify(&[key.verifier()])?;
//! assert_eq!(Checkpoint::parse(opened.text())?, checkpoint);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bundle;
mod checkpoint;
mod frontier;
mod hash;
mod key;
mod note;
#[cfg(test)]
mod oracles;
mod policy;
mod proof;
mod proof_file;
mod tile;

pub use bundle::{Bundle, BundleError, LEAF_BYTES_MAX, push_entry};
pub use checkpoint::{Checkpoint, CheckpointError, SIZE_MAX};
pub use frontier::{Frontier, FullTile, RestoreError};
pub use hash::{Hash, HashError, empty_root, leaf_hash, node_hash, perfect_root};
pub use key::{KeyAlgorithm, KeyError, SignerKey, VerifierKey, is_key_name};
pub use note::{NOTE_BYTES_MAX, NoteError, NoteSignature, SIGNATURES_MAX, SignedNote, Verified};
pub use policy::{Group, Judged, LogKey, Policy, PolicyError, Witness, Witnessed};
pub use proof::{
    HashReader, ProofError, TileError, TileHashes, check_consistency, check_inclusion, prove_consistency, prove_inclusion, tree_root,
};
pub use proof_file::{ProofFile, ProofFileError};
pub use tile::{TILE_WIDTH, TileLevel, TilePath, TilePathError, parse_tile, tiles_of_growth, tiles_of_size};

/// A decimal number as the formats want it: digits alone, without a leading zero.
fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}
