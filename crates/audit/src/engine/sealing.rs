//! The seam to who keeps personal data unreadable for whom it is not: what is written of an event, and how it is read again.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::entry::NewEntry;
use crate::entry::canonical::is_same_content;
use crate::entry::leaf::{Enc, Header, Kind};
use crate::log::LogError;

/// What is stored of an event.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub payload: Bytes,
    /// How it is encrypted, if it is.
    pub enc: Option<Enc<'static>>,
    /// What is found by its actor.
    pub actor: Option<String>,
}

/// Seals what is appended and opens what is read. It blocks, and is called from threads that may.
pub trait Sealing: Send + Sync + 'static {
    /// Seals a group; whatever opening them takes is durable on return.
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<Sealed>, LogError>;

    /// The event as it came; `None` where its key was destroyed.
    fn open(&self, header: &Header<'_>, payload: Vec<u8>) -> Result<Option<Vec<u8>>, LogError>;

    /// The key by which an event that is shown can be checked against the digest in its header; `None` where it is stored as it is, or its key was destroyed.
    fn digest_key(&self, _header: &Header<'_>) -> Result<Option<[u8; 32]>, LogError> {
        Ok(None)
    }

    /// Whether a record says the same as the entry of its identity.
    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError>;

    /// The values that an actor's entries are found by.
    fn actor_values(&self, actor: &str) -> Result<Vec<String>, LogError>;

    /// What a record that is no event is recognised by, made of the digest of its bytes: the same for the same bytes, also after a restart. `None` where it is
    /// that digest itself.
    fn unparsed_id(&self, _sha256: &[u8; 32]) -> Result<Option<String>, LogError> {
        Ok(None)
    }

    /// The values that persons are found by, each with the name of the person's key: of those whose key is among these, and of those who are found by
    /// one of these values.
    fn persons(&self, _keys: &HashSet<String>, _values: &HashSet<String>) -> Result<HashMap<String, String>, LogError> {
        Ok(HashMap::new())
    }

    /// Forgets keys that no entry needs any more. To repeat it is safe.
    fn forget(&self, _keys: &HashSet<String>) -> Result<u64, LogError> {
        Ok(0)
    }
}

/// The records of a group as the log recognises them.
pub(super) fn identified<'a>(sealing: &dyn Sealing, calls: &'a [Vec<NewEntry>]) -> Result<Cow<'a, [Vec<NewEntry>]>, LogError> {
    let is_unparsed = |entry: &NewEntry| entry.kind == Kind::Unparsed;
    if !calls.iter().flatten().any(is_unparsed) {
        return Ok(Cow::Borrowed(calls));
    }
    let mut calls = calls.to_vec();
    for entry in calls.iter_mut().flatten().filter(|entry| is_unparsed(entry)) {
        if let Some(id) = sealing.unparsed_id(&entry.sha256)? {
            entry.identify_as(&id);
        }
    }
    Ok(Cow::Owned(calls))
}

/// Everything as it came.
pub struct Plain;

impl Sealing for Plain {
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<Sealed>, LogError> {
        let plain =
            |entry: &&NewEntry| Sealed { payload: entry.bytes.clone(), enc: None, actor: entry.facets.actor.as_deref().map(str::to_owned) };
        Ok(group.iter().map(plain).collect())
    }

    fn open(&self, _: &Header<'_>, payload: Vec<u8>) -> Result<Option<Vec<u8>>, LogError> {
        Ok(Some(payload))
    }

    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError> {
        Ok(header.payload_sha256 == entry.sha256 || is_same_content(payload, &entry.bytes))
    }

    fn actor_values(&self, actor: &str) -> Result<Vec<String>, LogError> {
        Ok(vec![actor.to_owned()])
    }
}

/// A header with what sealing changed in it.
pub(super) fn sealed_header<'a>(entry: &'a NewEntry, sealed: &'a Sealed, logged_time: i64) -> Header<'a> {
    let mut header = entry.header(logged_time);
    if sealed.payload != entry.bytes {
        let Header { payload_len, payload_sha256, .. } = Header::new(entry.kind, logged_time, &sealed.payload);
        (header.payload_len, header.payload_sha256) = (payload_len, payload_sha256);
    }
    header.enc.clone_from(&sealed.enc);
    header.actor = sealed.actor.as_deref().map(Cow::Borrowed);
    header
}
