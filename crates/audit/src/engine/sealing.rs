//! The seam to who keeps personal data unreadable for whom it is not: what is written of an event, and how it is read again.

use std::borrow::Cow;

use bytes::Bytes;

use crate::canonical::content_digest;
use crate::entry::NewEntry;
use crate::leaf::{Enc, Header};
use crate::log::LogError;

/// What is stored of an event.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub payload: Bytes,
    /// How it is encrypted, if it is.
    pub enc: Option<Enc<'static>>,
    /// Tells a repeated event from a contradiction where the payload does not.
    pub content: Option<String>,
    /// What is found by its actor.
    pub actor: Option<String>,
}

/// Seals what is appended and opens what is read. It blocks, and is called from threads that may.
pub trait Sealing: Send + Sync + 'static {
    /// Seals a group; whatever opening them takes is durable on return.
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<Sealed>, LogError>;

    /// The event as it came; `None` where its key was destroyed.
    fn open(&self, header: &Header<'_>, payload: Vec<u8>) -> Result<Option<Vec<u8>>, LogError>;

    /// Whether a record says the same as the entry of its identity.
    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError>;

    /// The values that an actor's entries are found by.
    fn actor_values(&self, actor: &str) -> Result<Vec<String>, LogError>;
}

/// Everything as it came.
pub struct Plain;

impl Sealing for Plain {
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<Sealed>, LogError> {
        let plain = |entry: &&NewEntry| Sealed {
            payload: entry.bytes.clone(),
            enc: None,
            content: None,
            actor: entry.facets.actor.as_deref().map(str::to_owned),
        };
        Ok(group.iter().map(plain).collect())
    }

    fn open(&self, _: &Header<'_>, payload: Vec<u8>) -> Result<Option<Vec<u8>>, LogError> {
        Ok(Some(payload))
    }

    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError> {
        Ok(header.payload_sha256 == entry.sha256 || content_digest(payload) == content_digest(&entry.bytes))
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
    header.content = sealed.content.as_deref().map(Cow::Borrowed);
    header.actor = sealed.actor.as_deref().map(Cow::Borrowed);
    header
}
