//! The keys at the log's seam: what the log writes of an event, and how it reads it.

use std::borrow::Cow;
use std::sync::Arc;

use super::{About, Context, KeyError, Likeness, Opened, Sealed, Subjects, Unsealed};
use crate::canonical::content_digest;
use crate::engine::{self, Sealing};
use crate::entry::NewEntry;
use crate::leaf::{self, Header, hex, unhex};
use crate::log::LogError;
use crate::reading::Reading;

impl Sealing for Subjects {
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<engine::Sealed>, LogError> {
        let headers: Vec<Header<'_>> = group.iter().map(|entry| entry.header(0)).collect();
        let abouts: Vec<About> = group.iter().zip(&headers).map(|(entry, header)| about(entry, header)).collect();
        let received = |(entry, _): &(&&NewEntry, &Header<'_>)| entry.kind.is_received();
        let unsealed: Vec<Unsealed<'_>> = group
            .iter()
            .zip(&headers)
            .zip(&abouts)
            .filter(|(both, _)| received(both))
            .map(|((entry, header), about)| Unsealed {
                about,
                context: context(header),
                bytes: &entry.bytes,
                content: content_digest(&entry.bytes),
            })
            .collect();
        let mut sealed = self.seal(&unsealed).map_err(failed)?.into_iter();
        let stored = |entry: &&NewEntry| match entry.kind.is_received().then(|| sealed.next()).flatten() {
            Some(Sealed { ciphertext, enc, content, actor }) => engine::Sealed {
                payload: ciphertext.map_or_else(|| entry.bytes.clone(), Into::into),
                content: enc.as_ref().map(|_| hex(&content)),
                enc: enc.map(|enc| leaf::Enc { alg: Cow::Borrowed(enc.alg), key: enc.key.into(), nonce: enc.nonce.into() }),
                actor: actor.map(String::from),
            },
            // The log's own words name nobody.
            None => engine::Sealed { payload: entry.bytes.clone(), enc: None, content: None, actor: None },
        };
        Ok(group.iter().map(stored).collect())
    }

    fn open(&self, header: &Header<'_>, payload: Vec<u8>) -> Result<Option<Vec<u8>>, LogError> {
        let Some(enc) = &header.enc else { return Ok(Some(payload)) };
        match self.open_payload((&enc.alg, &enc.key, &enc.nonce), context(header), &payload).map_err(failed)? {
            Opened::Bytes(bytes) => Ok(Some(bytes)),
            Opened::Erased => Ok(None),
        }
    }

    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError> {
        let digest = content_digest(&entry.bytes);
        let (Some(enc), Some(content)) = (&header.enc, header.content.as_deref().and_then(unhex)) else {
            return Ok(header.payload_sha256 == entry.sha256 || content_digest(payload) == digest);
        };
        Ok(self.compare(&enc.key, &content, &digest).map_err(failed)? != Likeness::Other)
    }

    fn actor_values(&self, actor: &str) -> Result<Vec<String>, LogError> {
        self.search_values(actor).map_err(failed)
    }
}

fn about(entry: &NewEntry, header: &Header<'_>) -> About {
    Reading::of(&entry.bytes).map_or_else(About::unreadable, |reading| About::of(&reading, header.topic.as_deref().unwrap_or_default()))
}

fn context<'a>(header: &'a Header<'_>) -> Context<'a> {
    Context {
        tenant: header.tenant.as_deref().unwrap_or_default(),
        source: header.source.as_deref().unwrap_or_default(),
        id: header.id.as_deref().unwrap_or_default(),
    }
}

fn failed(error: KeyError) -> LogError {
    LogError::Storage { what: "the keys of the audit log".to_owned(), source: Arc::new(error) }
}
