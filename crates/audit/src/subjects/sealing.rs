//! The keys at the log's seam: what the log writes of an event, and how it reads it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fte_events::hex;

use super::{ALG, Context, KeyError, Opened, Sealed, Subjects, Unsealed};
use crate::engine::{self, Sealing};
use crate::entry::NewEntry;
use crate::entry::canonical::is_same_content;
use crate::entry::leaf::{self, Header};
use crate::log::LogError;

impl Sealing for Subjects {
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<engine::Sealed>, LogError> {
        let unsealed: Vec<Unsealed<'_>> = group
            .iter()
            .filter(|entry| entry.kind.is_received())
            .map(|entry| Unsealed {
                about: &entry.about,
                context: Context {
                    tenant: entry.facets.tenant.as_deref().unwrap_or_default(),
                    source: entry.source.as_deref().unwrap_or_default(),
                    id: &entry.id,
                },
                bytes: &entry.bytes,
                sha256: entry.sha256,
            })
            .collect();
        let mut sealed = self.seal(&unsealed).map_err(failed)?.into_iter();
        let stored = |entry: &&NewEntry| match entry.kind.is_received().then(|| sealed.next()).flatten() {
            Some(Sealed { ciphertext, enc, actor }) => engine::Sealed {
                payload: ciphertext.map_or_else(|| entry.bytes.clone(), Into::into),
                enc: enc.map(|enc| leaf::Enc { alg: Cow::Borrowed(enc.alg), key: enc.key.into(), nonce: enc.nonce.into() }),
                actor: actor.map(String::from),
            },
            // The log's own words name nobody.
            None => engine::Sealed { payload: entry.bytes.clone(), enc: None, actor: None },
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

    fn digest_key(&self, header: &Header<'_>) -> Result<Option<[u8; 32]>, LogError> {
        match &header.enc {
            Some(enc) if enc.alg == ALG => self.digest_key(&enc.key, context(header)).map_err(failed),
            _ => Ok(None),
        }
    }

    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError> {
        // Once its key is destroyed the identity alone decides.
        Ok(Sealing::open(self, header, payload.to_vec())?.is_none_or(|stored| is_same_content(&stored, &entry.bytes)))
    }

    fn actor_values(&self, actor: &str) -> Result<Vec<String>, LogError> {
        self.search_values(actor).map_err(failed)
    }

    fn persons(&self, keys: &HashSet<String>, values: &HashSet<String>) -> Result<HashMap<String, String>, LogError> {
        self.persons_of(keys, values).map_err(failed)
    }

    fn forget(&self, keys: &HashSet<String>) -> Result<u64, LogError> {
        self.forget_keys(keys).map_err(failed)
    }

    fn unparsed_id(&self, sha256: &[u8; 32]) -> Result<Option<String>, LogError> {
        Ok(Some(hex(&self.lock().vault.unparsed(sha256))))
    }
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
