//! Checks evidence: every file is what the manifest says, every entry is in the log, and every event is the one that its entry holds.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fte_bus::json;
use fte_events::hex;
use fte_tlog::{Policy, ProofFile, leaf_hash};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{ExportError, FORMAT, Manifest, signed, unchecked};
use crate::entry::leaf::{self, Header};
use crate::files::{open_file, read_at_most};
use crate::keys::trust::policy_of;
use crate::subjects::{ALG_WITHOUT_DIGEST, nonce_of, sealed_digest};
use crate::verify::{BLOB_BYTES_MAX, Directory, Source};

/// What was checked.
#[derive(Clone, Debug)]
pub struct Checked {
    pub manifest: Manifest,
    /// The policy's witnesses that have signed, and how many there are.
    pub witnesses: (usize, usize),
    pub quorum_met: bool,
    /// Whether the keys came with the evidence.
    pub keys_from_evidence: bool,
    /// Sealed events that are shown by the word of who signed the manifest alone: their entries, of earlier builds, have no digest of them.
    pub undigested: usize,
}

#[derive(Deserialize)]
struct Format {
    format: String,
}

#[derive(Deserialize)]
pub(super) struct Line {
    index: u64,
    leaf_base64: String,
    event: Option<Value>,
    event_base64: Option<String>,
    digest_key: Option<String>,
}

/// Checks a directory, by a policy from elsewhere, or else by the one in it.
pub fn check(directory: &Path, policy: Option<&Policy>) -> Result<Checked, ExportError> {
    let read = |name: &str| read(directory, name);
    let bad = |file: &str, what: &str| ExportError::bad(file, what);
    let manifest_bytes = read("manifest")?;
    let format: Format = serde_json::from_slice(&manifest_bytes).map_err(|error| bad("manifest", &error.to_string()))?;
    if format.format != FORMAT {
        return Err(bad("manifest", "it is of another format"));
    }
    let manifest: Manifest = serde_json::from_slice(&manifest_bytes).map_err(|error| bad("manifest", &error.to_string()))?;
    let mut there = BTreeSet::new();
    let listed = Directory::new(directory).list("", &mut |name| {
        there.insert(name.to_owned());
        Ok(())
    });
    listed.map_err(|source| ExportError::Read { file: ".".to_owned(), source })?;
    there.remove("manifest");
    there.remove("manifest.note");
    for (name, digest) in &manifest.files {
        if !there.remove(name) {
            // Absent is not the same as changed: it can be asked for.
            return Err(ExportError::Read { file: name.clone(), source: std::io::ErrorKind::NotFound.into() });
        }
        if digest_of(directory, name)? != *digest {
            return Err(bad(name, "it is not the file that the manifest names"));
        }
    }
    if let Some(name) = there.first() {
        return Err(bad(name, "the manifest does not name it"));
    }
    let note = read("checkpoint")?;
    let own: Policy = match policy {
        Some(policy) => policy_of(policy, &note),
        None => {
            let text = String::from_utf8(read("policy")?).map_err(|_| bad("policy", "no text"))?;
            text.parse().map_err(|error| bad("policy", &fte_service::chain(&error)))?
        }
    };
    let judged = own.judge(&note).map_err(|error| bad("checkpoint", &fte_service::chain(&error)))?;
    if (judged.checkpoint.origin.as_str(), judged.checkpoint.size) != (manifest.origin.as_str(), manifest.size) {
        return Err(bad("manifest", "its log is not that of the checkpoint"));
    }
    signed::check(&manifest.origin, &manifest_bytes, &read("manifest.note")?, &own)?;
    let mut last = None;
    let (mut count, mut undigested) = (0, 0);
    for line in BufReader::new(open(directory, "entries.ndjson")?).lines() {
        let line = line.map_err(|source| ExportError::Read { file: "entries.ndjson".to_owned(), source })?;
        let line: Line =
            json::from_slice(line.as_bytes(), json::EVENT_DEPTH_MAX + 1).map_err(|error| bad("entries.ndjson", &error.to_string()))?;
        count += 1;
        if last.is_some_and(|last| last >= line.index) {
            return Err(bad("entries.ndjson", "the entries are not in order"));
        }
        last = Some(line.index);
        undigested += usize::from(!check_entry(directory, &line, &own, &judged.checkpoint)?);
    }
    if count != manifest.entries {
        return Err(bad("entries.ndjson", "it has not as many entries as the manifest says"));
    }
    let witnesses = (judged.witnesses.len(), own.witnesses.len());
    Ok(Checked { witnesses, quorum_met: judged.quorum_met, keys_from_evidence: policy.is_none(), undigested, manifest })
}

fn open(directory: &Path, name: &str) -> Result<File, ExportError> {
    open_file(&directory.join(name)).map_err(|source| ExportError::Read { file: name.to_owned(), source })
}

/// A whole file, of those that are held in memory.
fn read(directory: &Path, name: &str) -> Result<Vec<u8>, ExportError> {
    read_at_most(&directory.join(name), BLOB_BYTES_MAX).map_err(|source| ExportError::Read { file: name.to_owned(), source })
}

/// The SHA-256 of a file, in hex. Some are as large as an export may be, and not to be had in memory.
fn digest_of(directory: &Path, name: &str) -> Result<String, ExportError> {
    let (mut file, mut hash, mut piece) = (open(directory, name)?, Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece).map_err(|source| ExportError::Read { file: name.to_owned(), source })? {
            0 => break,
            length => hash.update(&piece[..length]),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Whether what is shown for an entry is proven, and not told alone.
fn check_entry(directory: &Path, line: &Line, policy: &Policy, checkpoint: &fte_tlog::Checkpoint) -> Result<bool, ExportError> {
    let name = format!("proofs/{}.tlog-proof", line.index);
    let bad = |what: String| ExportError::bad(&*name, what);
    let text = String::from_utf8(read(directory, &name)?).map_err(|error| bad(error.to_string()))?;
    let proof = ProofFile::parse(&text).map_err(|error| bad(error.to_string()))?;
    let bytes = STANDARD.decode(&line.leaf_base64).map_err(|_| ExportError::bad("entries.ndjson", "a leaf is no base64"))?;
    if proof.index != line.index || unchecked(&proof.checkpoint).as_ref() != Some(checkpoint) {
        return Err(bad("it is of another entry or another checkpoint".to_owned()));
    }
    // A quorum that is not met is told once, for the checkpoint.
    let no_quorum = Policy { quorum: None, ..policy.clone() };
    proof.verify(&leaf_hash(&bytes), &no_quorum).map_err(|error| bad(fte_service::chain(&error)))?;
    let (header, payload) = leaf::decode(&bytes).map_err(|error| bad(fte_service::chain(&error)))?;
    let stored = match &header.payload_ref {
        None => Cow::Borrowed(payload),
        Some(blob) => {
            let file = format!("blobs/{}", hex(blob));
            Cow::Owned(read(directory, &file)?)
        }
    };
    leaf::check_payload(&header, &stored).map_err(|error| bad(error.to_string()))?;
    check_shown(line, &header, &stored).map_err(|what| ExportError::bad("entries.ndjson", format!("entry {}: {what}", line.index)))
}

/// Whether the event that is shown is proven to be the one that the entry holds. An error if it is another.
pub(super) fn check_shown(line: &Line, header: &Header<'_>, stored: &[u8]) -> Result<bool, &'static str> {
    if line.event.is_none() && line.event_base64.is_none() {
        // It was erased.
        return Ok(true);
    }
    let is_undigested = header.enc.as_ref().is_some_and(|enc| enc.alg == ALG_WITHOUT_DIGEST);
    let bytes = line.event_base64.as_ref().map(|bytes| STANDARD.decode(bytes)).transpose().map_err(|_| "the event is no base64")?;
    let event = match (&header.enc, bytes) {
        (Some(_), None) if is_undigested => return Ok(false),
        (Some(_), Some(bytes)) if is_undigested => Cow::Owned(bytes),
        (None, None) => Cow::Borrowed(stored),
        (None, Some(bytes)) if bytes == stored => Cow::Owned(bytes),
        (None, Some(_)) => return Err("the event is not what the entry holds"),
        (Some(enc), Some(bytes)) => {
            let key = line.digest_key.as_ref().and_then(|key| STANDARD.decode(key).ok()?.try_into().ok());
            let key = key.ok_or("nothing shows that the event is what the entry holds: its digest key is not there")?;
            if nonce_of(&enc.nonce) != Some(sealed_digest(&key, &bytes)) {
                return Err("the event is not the one whose digest the entry holds");
            }
            Cow::Owned(bytes)
        }
        (Some(_), None) => return Err("nothing shows that the event is what the entry holds: its bytes are not there"),
    };
    match &line.event {
        Some(shown) if as_shown(&event).as_ref() != Some(shown) => Err("the event is shown in other words than the entry holds"),
        _ => Ok(!is_undigested),
    }
}

/// An event as a line of the evidence says it: read, written and read again, which may round its numbers.
fn as_shown(event: &[u8]) -> Option<Value> {
    let read = |bytes: &[u8]| json::from_slice::<Value>(bytes, json::EVENT_DEPTH_MAX).ok();
    read(&serde_json::to_vec(&read(event)?).ok()?)
}
