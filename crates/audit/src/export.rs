//! Evidence: entries of a log with all that anyone needs to check them, in one directory.
//!
//! Everything is taken from the log's public files, so whoever may read these can make it, and it proves the same whoever made it: each entry has its own
//! proof up to one signed checkpoint. What the log encrypts stays encrypted: proofs cover what is stored.
//!
//! | file | content |
//! |---|---|
//! | `entries.ndjson` | a line for each entry: index, leaf in base64, and its header and payload for readers |
//! | `proofs/<index>.tlog-proof` | C2SP `tlog-proof`, one for each entry |
//! | `checkpoint`, `policy` | the signed root, and the keys that count |
//! | `ocsf.ndjson` | the same entries as OCSF 1.8.0 API Activity |
//! | `report.html` | the same for people |
//! | `manifest` | what was asked for, how many entries, and the SHA-256 of every other file |
//! | `README` | what is proven, what is not, and how to check it |
//!
//! OCSF is written as JSON lines and not as Parquet, which would bring forty crates for what every analysis tool reads as well.

mod check;
mod ocsf;
mod report;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fte_tlog::{Bundle, Checkpoint, Policy, ProofFile, SignedNote, TileError, TileHashes, TileLevel, TilePath, leaf_hash, prove_inclusion};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use self::check::{Checked, check};
pub use self::ocsf::ocsf;
use crate::leaf::{self, Header, hex};
use crate::verify::Source;

/// Most entries of one export.
pub const ENTRIES_MAX: usize = 100_000;

/// Why no evidence was made, or why it proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{file} cannot be read")]
    Read { file: String, source: io::Error },
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is there already: evidence is never written over", path.display())]
    Exists { path: PathBuf },
    #[error("{file} is not in the log")]
    Absent { file: String },
    #[error("entry {index} is not in the log yet, which has {size} in its last checkpoint")]
    NotYet { index: u64, size: u64 },
    #[error("{file}: {what}")]
    Bad { file: String, what: String },
    #[error("{0} entries are asked for, and one export has {ENTRIES_MAX} at most: ask for a shorter time")]
    TooMany(usize),
}

impl ExportError {
    fn bad(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Bad { file: file.into(), what: what.into() }
    }
}

/// An entry, and that it is in the log.
#[derive(Clone, Debug)]
pub struct Proven {
    pub index: u64,
    pub leaf: Vec<u8>,
    pub proof: ProofFile,
}

/// Reads entries and proves them, against one checkpoint that the policy accepts.
pub struct Prover<'s> {
    source: &'s dyn Source,
    note: String,
    checkpoint: Checkpoint,
    bundle: Option<(u64, Vec<u8>)>,
}

impl<'s> Prover<'s> {
    /// Against the log's present checkpoint, whose quorum may still be missing.
    pub fn new(source: &'s dyn Source, policy: &Policy) -> Result<Self, ExportError> {
        let note = read(source, "checkpoint")?;
        let policy = crate::trust::policy_of(policy, &note);
        let judged = policy.judge(&note).map_err(|error| ExportError::bad("checkpoint", fte_service::chain(&error)))?;
        let note = String::from_utf8(note).map_err(|_| ExportError::bad("checkpoint", "no text"))?;
        Ok(Self { source, note, checkpoint: judged.checkpoint, bundle: None })
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed checkpoint.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// An entry and its proof, which is checked.
    pub fn prove(&mut self, index: u64) -> Result<Proven, ExportError> {
        let size = self.checkpoint.size;
        if index >= size {
            return Err(ExportError::NotYet { index, size });
        }
        let source = self.source;
        let read_tile = |path: TilePath| read_tile(source, path);
        let proof = prove_inclusion(&mut TileHashes::new(size, read_tile), index, size).map_err(|error| match error {
            TileError::Read { source, .. } => source,
            other => ExportError::bad("tile", other.to_string()),
        })?;
        let leaf = self.leaf(index)?;
        let proof = ProofFile { extra: None, index, proof, checkpoint: self.note.clone() };
        fte_tlog::check_inclusion(&proof.proof, index, &leaf_hash(&leaf), size, &self.checkpoint.root)
            .map_err(|error| ExportError::bad(format!("entry {index}"), error.to_string()))?;
        Ok(Proven { index, leaf, proof })
    }

    fn leaf(&mut self, index: u64) -> Result<Vec<u8>, ExportError> {
        let (number, size) = (index / 256, self.checkpoint.size);
        let path = TilePath::in_tree(TileLevel::Entries, number, size).ok_or(ExportError::NotYet { index, size })?;
        if self.bundle.as_ref().is_none_or(|(held, _)| *held != number) {
            self.bundle = Some((number, read_tile(self.source, path)?));
        }
        let bytes = self.bundle.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        // The full bundle may stand for a partial one.
        let bundle = Bundle::parse(bytes, path.width).or_else(|_| Bundle::parse(bytes, path.filled().width));
        let bundle = bundle.map_err(|error| ExportError::bad(path.to_string(), error.to_string()))?;
        let leaf = bundle.leaf(usize::try_from(index % 256).unwrap_or(usize::MAX));
        leaf.map(<[u8]>::to_vec).ok_or_else(|| ExportError::bad(path.to_string(), "the bundle ends before the entry"))
    }
}

fn read(source: &dyn Source, name: &str) -> Result<Vec<u8>, ExportError> {
    let read = source.read(name).map_err(|source| ExportError::Read { file: name.to_owned(), source })?;
    read.ok_or_else(|| ExportError::Absent { file: name.to_owned() })
}

fn read_tile(source: &dyn Source, path: TilePath) -> Result<Vec<u8>, ExportError> {
    match read(source, &path.to_string()) {
        Err(ExportError::Absent { .. }) if !path.is_full() => read(source, &path.filled().to_string()),
        read => read,
    }
}

/// What the manifest says. `Display` order of its members is that of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `fte.example/evidence/v1`.
    pub format: String,
    /// What was asked for, in words of the caller.
    pub query: Value,
    pub origin: String,
    pub size: u64,
    pub entries: usize,
    /// Whether the query's answer was whole, as the log's service says; nobody can prove that from these entries alone.
    pub complete: Option<bool>,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// The SHA-256 of every other file, in hex.
    pub files: BTreeMap<String, String>,
}

/// The `format` of a manifest.
pub const FORMAT: &str = "fte evidence v1";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// In the caller's words.
    pub query: Value,
    /// The entries, ascending.
    pub indexes: Vec<u64>,
    pub complete: Option<bool>,
    pub made_at: jiff::Timestamp,
}

/// Writes evidence into a new directory.
pub fn write(directory: &Path, source: &dyn Source, policy: &Policy, query: &Query) -> Result<Manifest, ExportError> {
    if query.indexes.len() > ENTRIES_MAX {
        return Err(ExportError::TooMany(query.indexes.len()));
    }
    if directory.exists() {
        return Err(ExportError::Exists { path: directory.to_owned() });
    }
    let mut prover = Prover::new(source, policy)?;
    let mut out = Out { directory: directory.to_owned(), files: BTreeMap::new() };
    let (mut lines, mut views, mut rows) = (String::new(), String::new(), Vec::new());
    for &index in &query.indexes {
        let Proven { leaf, proof, .. } = prover.prove(index)?;
        out.write(&format!("proofs/{index}.tlog-proof"), proof.to_string().as_bytes())?;
        let (header, payload) = leaf::decode(&leaf).map_err(|error| ExportError::bad(format!("entry {index}"), error.to_string()))?;
        if let Some(blob) = &header.payload_ref {
            let digest = hex(blob);
            let bytes = source.blob(&digest).map_err(|source| ExportError::Read { file: digest.clone(), source })?;
            let name = format!("blobs/{digest}");
            out.write(&name, &bytes.ok_or_else(|| ExportError::Absent { file: name.clone() })?)?;
        }
        lines += &format!("{}\n", entry_line(index, &leaf, &header, payload));
        views += &format!("{}\n", ocsf(index, &header, payload));
        rows.push(report::Row::of(index, &header, payload));
    }
    out.write("entries.ndjson", lines.as_bytes())?;
    out.write("ocsf.ndjson", views.as_bytes())?;
    out.write("checkpoint", prover.note().as_bytes())?;
    let Checkpoint { origin, size, .. } = prover.checkpoint().clone();
    let mut policy = crate::trust::policy_of(policy, prover.note().as_bytes());
    // An installation's key under its own name is no key of this log, and a policy may not have one key twice.
    policy.logs.retain(|log| log.key.name() == origin);
    out.write("policy", policy.to_string().as_bytes())?;
    out.write("report.html", report::page(&origin, size, query, &rows).as_bytes())?;
    out.write("README", report::readme(&origin, size, query.indexes.len()).as_bytes())?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        query: query.query.clone(),
        origin,
        size,
        entries: query.indexes.len(),
        complete: query.complete,
        made_at: query.made_at.to_string(),
        files: std::mem::take(&mut out.files),
    };
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| ExportError::bad("manifest", error.to_string()))?;
    // Last: without it the directory is no evidence.
    out.write("manifest", text.as_bytes())?;
    Ok(manifest)
}

fn entry_line(index: u64, leaf: &[u8], header: &Header<'_>, payload: &[u8]) -> Value {
    let line = leaf.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header_value: Value = serde_json::from_slice(line).unwrap_or(Value::Null);
    let mut entry = json!({"index": index, "leaf_base64": STANDARD.encode(leaf), "header": header_value});
    if header.enc.is_none()
        && let Ok(event) = serde_json::from_slice::<Value>(payload)
    {
        entry["event"] = event;
    }
    entry
}

/// The files of an export that is being written.
struct Out {
    directory: PathBuf,
    files: BTreeMap<String, String>,
}

impl Out {
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let path = self.directory.join(name);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.directory))?;
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        match write() {
            // The same large payload twice.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.files.contains_key(name) => {}
            done => done.map_err(|source| ExportError::Write { path: path.clone(), source })?,
        }
        self.files.insert(name.to_owned(), hex(&Sha256::digest(bytes)));
        Ok(())
    }
}

/// The text of a note without checking who signed it.
fn unchecked(note: &str) -> Option<Checkpoint> {
    Checkpoint::parse(SignedNote::parse(note.as_bytes()).ok()?.text()).ok()
}

#[cfg(test)]
mod tests;
