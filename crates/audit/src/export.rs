//! Evidence: entries of a log with all that anyone needs to check them, in one archive.
//!
//! Each entry has its own proof up to one signed checkpoint, and proofs cover what is stored: what the log encrypts stays encrypted in `leaf_base64`. Beside
//! it stands what the exporter may read, with the key under which the digest in the entry's header is of it: so that it is what was encrypted is proven, too.
//! Which entries the question found is the word of who holds the log; so the manifest is signed.
//!
//! | file | content |
//! |---|---|
//! | `entries.ndjson` | a line for each entry: index, leaf in base64, and for readers its header and the event, or that it was erased; of what is sealed or no JSON also its bytes, `event_base64`, and of what is sealed the `digest_key` |
//! | `proofs/<index>.tlog-proof` | C2SP `tlog-proof`, one for each entry |
//! | `blobs/<sha256>` | payloads that do not fit into their entries |
//! | `checkpoint`, `policy` | the signed root, and the keys that count |
//! | `ocsf.ndjson` | the same entries as OCSF 1.8.0 API Activity |
//! | `report.html` | the same for people |
//! | `manifest` | what was asked for, how many entries, and the SHA-256 of every other file |
//! | `manifest.note` | the SHA-256 of the manifest, as a C2SP `signed-note` of the log's key |
//! | `README` | what is proven, what is not, and how to check it |
//!
//! A log of several years is several trees, and its evidence one such folder for each year.
//!
//! The note's first line is the log's origin and `/export`, which is the name of the key, and its second is [`FORMAT`]. A checkpoint's first line is the origin
//! itself and its second a number, so neither passes for the other, whatever name stands before a signature. The manifest is not the note's text itself:
//! it names each file, and a note has a megabyte at most.
//!
//! OCSF is written as JSON lines and not as Parquet, which would bring forty crates for what every analysis tool reads as well.

mod archive;
mod check;
mod ocsf;
mod report;
mod signed;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fte_bus::json;
use fte_events::hex;
use fte_tlog::{
    Bundle, Checkpoint, Policy, ProofFile, SignedNote, SignerKey, TileError, TileHashes, TileLevel, TilePath, leaf_hash, prove_inclusion,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::archive::{ARCHIVE_BYTES_MAX, Archive, unpack};
use self::archive::{Folder, Spool};
pub use self::check::{Checked, check};
pub use self::ocsf::ocsf;
use crate::entry::leaf::{self, Header};
use crate::entry::reading::Reading;
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
    #[error("one export has {ARCHIVE_BYTES_MAX} bytes at most: ask for a shorter time")]
    TooLarge,
    #[error("the key of the log cannot sign under the name {name}")]
    Name { name: String, source: fte_tlog::KeyError },
    #[error("an event cannot be read")]
    Open(#[from] crate::log::LogError),
    #[error("somebody was erased while it was made")]
    Outdated,
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
        let policy = crate::keys::trust::policy_of(policy, &note);
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
    /// [`FORMAT`].
    pub format: String,
    /// The export that it is of, as the log's entry names it.
    pub export_id: String,
    /// Who made it.
    pub made_by: String,
    /// What was asked for.
    pub query: Value,
    pub origin: String,
    pub size: u64,
    pub entries: usize,
    /// The years of the export; each has evidence of its own.
    pub shards: Vec<u16>,
    /// Years that were retired before it was made, and of which it has nothing therefore; absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<u16>,
    /// Whether a task's history was whole, as the log's service says; nobody can prove that from these entries alone.
    pub complete: Option<bool>,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// The SHA-256 of every other file, in hex.
    pub files: BTreeMap<String, String>,
}

/// The `format` of a manifest.
pub const FORMAT: &str = "fte evidence v2";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Query {
    pub export_id: String,
    pub made_by: String,
    pub query: Value,
    /// The entries, ascending.
    pub indexes: Vec<u64>,
    pub shards: Vec<u16>,
    pub retired: Vec<u16>,
    pub complete: Option<bool>,
    pub made_at: jiff::Timestamp,
}

/// An event as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub event: Vec<u8>,
    /// Of a sealed one: the key under which the digest in its header is of it.
    pub digest_key: Option<[u8; 32]>,
}

/// An event by its header and what is stored of it; `None` where its key was destroyed.
pub type Open<'a> = dyn Fn(&Header<'_>, &[u8]) -> Result<Option<Opened>, ExportError> + 'a;

/// The log that evidence is made from.
pub struct Origin<'a> {
    pub source: &'a dyn Source,
    pub policy: &'a Policy,
    /// The installation's key; it signs under a name of its own.
    pub signer: &'a SignerKey,
    pub open: &'a Open<'a>,
}

/// Writes the evidence of one shard into a folder of an archive, and gives the digest of its manifest in hex. What grows with the entries is kept on the disk
/// until it is complete, in the directory.
pub fn write<W: Write>(
    archive: &mut Archive<W>,
    folder: &str,
    directory: &Path,
    from: &Origin<'_>,
    query: &Query,
) -> Result<(Manifest, String), ExportError> {
    let mut prover = Prover::new(from.source, from.policy)?;
    let Checkpoint { origin, size, .. } = prover.checkpoint().clone();
    let mut out = Folder::new(archive, folder);
    let (mut lines, mut views, mut page) = (Spool::new(directory)?, Spool::new(directory)?, Spool::new(directory)?);
    page.push(&report::head(&origin, size, query))?;
    for &index in &query.indexes {
        let Proven { leaf, proof, .. } = prover.prove(index)?;
        out.write(&format!("proofs/{index}.tlog-proof"), proof.to_string().as_bytes())?;
        let (header, payload) = leaf::decode(&leaf).map_err(|error| ExportError::bad(format!("entry {index}"), error.to_string()))?;
        let mut stored = Cow::Borrowed(payload);
        if let Some(blob) = &header.payload_ref {
            let digest = hex(blob);
            let bytes = from.source.blob(&digest).map_err(|source| ExportError::Read { file: digest.clone(), source })?;
            let name = format!("blobs/{digest}");
            let bytes = bytes.ok_or_else(|| ExportError::Absent { file: name.clone() })?;
            out.write(&name, &bytes)?;
            stored = Cow::Owned(bytes);
        }
        let opened = (from.open)(&header, &stored)?;
        lines.push(&format!("{}\n", entry_line(index, &leaf, opened.as_ref())))?;
        let event = opened.map(|opened| opened.event);
        let shown = shown(&header, event.as_deref());
        views.push(&format!("{}\n", ocsf(index, &shown, event.as_deref().unwrap_or_default())))?;
        page.push(&report::row(index, &shown, event.as_deref()))?;
    }
    page.push(report::FOOT)?;
    out.write_spooled("entries.ndjson", lines)?;
    out.write_spooled("ocsf.ndjson", views)?;
    out.write_spooled("report.html", page)?;
    out.write("checkpoint", prover.note().as_bytes())?;
    let mut policy = crate::keys::trust::policy_of(from.policy, prover.note().as_bytes());
    // An installation's key under its own name is no key of this log, and a policy may not have one key twice.
    policy.logs.retain(|log| log.key.name() == origin);
    out.write("policy", policy.to_string().as_bytes())?;
    out.write("README", report::readme(&origin, size, query.indexes.len()).as_bytes())?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        export_id: query.export_id.clone(),
        made_by: query.made_by.clone(),
        query: query.query.clone(),
        origin,
        size,
        entries: query.indexes.len(),
        shards: query.shards.clone(),
        retired: query.retired.clone(),
        complete: query.complete,
        made_at: query.made_at.to_string(),
        files: std::mem::take(&mut out.files),
    };
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| ExportError::bad("manifest", error.to_string()))?;
    out.write("manifest", text.as_bytes())?;
    let (note, digest) = signed::sign(&manifest.origin, text.as_bytes(), from.signer)?;
    out.write("manifest.note", note.as_bytes())?;
    Ok((manifest, digest))
}

/// The header as readers see it: of a sealed event that is open to them, as if it had never been sealed.
fn shown<'a>(header: &'a Header<'a>, event: Option<&[u8]>) -> Cow<'a, Header<'a>> {
    let Some(event) = event.filter(|_| header.enc.is_some()) else { return Cow::Borrowed(header) };
    let actor = Reading::of(event).and_then(|reading| Some(Cow::Owned(reading.actor()?.to_owned())));
    Cow::Owned(Header { enc: None, actor, ..header.clone() })
}

fn entry_line(index: u64, leaf: &[u8], opened: Option<&Opened>) -> Value {
    let line = leaf.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header: Value = serde_json::from_slice(line).unwrap_or(Value::Null);
    let mut entry = json!({"index": index, "leaf_base64": STANDARD.encode(leaf), "header": header});
    let Some(Opened { event, digest_key }) = opened else {
        entry["erased"] = true.into();
        return entry;
    };
    let parsed = json::from_slice::<Value>(event, json::EVENT_DEPTH_MAX).ok();
    if parsed.is_none() || digest_key.is_some() {
        entry["event_base64"] = STANDARD.encode(event).into();
    }
    if let Some(digest_key) = digest_key {
        entry["digest_key"] = STANDARD.encode(digest_key).into();
    }
    if let Some(event) = parsed {
        entry["event"] = event;
    }
    entry
}

/// The text of a note without checking who signed it.
fn unchecked(note: &str) -> Option<Checkpoint> {
    Checkpoint::parse(SignedNote::parse(note.as_bytes()).ok()?.text()).ok()
}

#[cfg(test)]
mod tests;
