//! One key, one task: what is remembered about an `Idempotency-Key`, and for how long.
//!
//! The record is one document of the state store, created before anything is published. It holds **the event's own bytes**, so that a repeat
//! publishes the very same event even after an upgrade or a change of the agents file; building it again from the repeated body would not
//! promise that. Once the event is out, the record becomes `sent` and lets go of them. Crash at any line:
//!
//! | before | what a repeat finds | what it does |
//! |---|---|---|
//! | the record is created | nothing | starts afresh; nothing was published |
//! | the event is published | `pending` | publishes the event of the record |
//! | the record is `sent` | `pending` | publishes it again: the same id, which every consumer recognises |
//! | 202 | `sent` | answers with the task of the record |
//!
//! **Nobody else can read a record.** The event in it is sealed (XChaCha20-Poly1305), and the digest of its body is keyed (HMAC-SHA256), with keys made of the
//! caller's own key, which is kept nowhere. So a record tells the store of no person, and nothing has to be found in it when one is to be forgotten; it is
//! gone a day later in any case. (To look for a person's records needs an index of them, a second write for each such request.) A key that can be guessed opens
//! its record to whoever reads the store and guesses it.
//!
//! Creating is create-only: of two requests at the same time one creates, the other finds its record and helps to finish. A create that arrives late
//! finds a record and does nothing.
//!
//! A body is *the same* when its JSON means the same: the digest ([`fte_events::json_object_sha256`]) is over the parsed body with sorted keys and no spaces, so that layout, order
//! and escapes do not count, but every value does (`1` and `1.0`, `null` and absent, a default that is said and one that is not are different). The
//! parsed body and not the task it means, because a later version may read more out of the same body.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use fte_events::{TaskId, hex};
use hmac::{Hmac, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use fte_service::Problem;
use fte_service::extract::idempotency_key;

/// How long a key is remembered after its last write.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// A caller's key: 1 to 200 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// The request's key, if it has one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        Ok(idempotency_key(headers)?.map(Self))
    }

    /// The name of its record, one for each tenant. Hashed: keys may hold anything, names may not, and nobody reads keys out of the store.
    pub(crate) fn record_name(&self, tenant: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(tenant);
        hash.update([0]);
        hash.update(&self.0);
        format!("idem/{}", hex(&hash.finalize()))
    }
}

impl Key {
    /// What the event of its record is sealed with: nobody knows it who does not know the key.
    fn secret(&self, tenant: &str, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(keyed(self.0.as_bytes(), &[purpose.as_bytes(), &[0], tenant.as_bytes()]))
    }

    /// What a body means, for nobody's eyes but who knows the key.
    pub(crate) fn digest(&self, tenant: &str, body_sha256: &str) -> String {
        let digest = keyed(&*self.secret(tenant, "fte intake body"), &[body_sha256.as_bytes()]);
        format!("{KEYED}{}", hex(&digest))
    }

    /// Whether a record is of this body. One of an earlier version has the plain digest.
    pub(crate) fn is_of(&self, tenant: &str, record: &Record, body_sha256: &str) -> bool {
        record.body_sha256 == self.digest(tenant, body_sha256) || record.body_sha256 == body_sha256
    }

    /// Seals an event.
    pub(crate) fn seal(&self, tenant: &str, event: &[u8]) -> Result<String, Unsealable> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Unsealable)?;
        let cipher = XChaCha20Poly1305::new((&*self.secret(tenant, "fte intake event")).into());
        let sealed = cipher.encrypt(&XNonce::from(nonce), event).map_err(|_| Unsealable)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// Opens the event of a record. One of an earlier version is there as it is.
    pub(crate) fn open(&self, tenant: &str, text: &str) -> Result<Vec<u8>, Unsealable> {
        if text.starts_with('{') {
            return Ok(text.as_bytes().to_vec());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unsealable)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(Unsealable)?;
        let cipher = XChaCha20Poly1305::new((&*self.secret(tenant, "fte intake event")).into());
        cipher.decrypt(&XNonce::from(*nonce), sealed).map_err(|_| Unsealable)
    }
}

/// A record whose event cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record's event cannot be sealed or opened with the key that names the record")]
pub(crate) struct Unsealable;

const NONCE_BYTES: usize = 24;
/// What keyed digests begin with.
const KEYED: &str = "k:";

fn keyed(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// What is remembered about a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The task that the key stands for. Every request mints its own, so that no two write the same record.
    pub(crate) task_id: TaskId,
    /// What the body meant, as a keyed digest.
    pub(crate) body_sha256: String,
    /// When the task was submitted.
    pub(crate) accepted_at: Timestamp,
    /// How far it got.
    #[serde(flatten)]
    pub(crate) progress: Progress,
}

/// How far it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "lowercase")]
pub(crate) enum Progress {
    /// The event may or may not be out.
    Pending {
        /// Its exact bytes, sealed, as text: a store may rewrite JSON, but not a string.
        event: String,
    },
    /// The event is out.
    Sent,
}

#[cfg(test)]
mod tests {
    use fte_events::json_object_sha256;

    use super::*;

    fn key(text: &str) -> Key {
        Key(text.to_owned())
    }

    #[test]
    fn a_record_s_name_hides_the_key() {
        let name = key("secret/../x").record_name("default");
        assert!(name.len() == 5 + 64 && name.starts_with("idem/") && !name.contains("secret"));
        assert_ne!(name, key("other").record_name("default"));
        assert_ne!(name, key("secret/../x").record_name("acme"), "each tenant has keys of its own");
    }

    #[test]
    fn the_digest_is_of_the_meaning() {
        let digest = |text: &str| json_object_sha256(&serde_json::from_str(text).unwrap());
        let base = digest(r#"{"task":"caf\u00e9","context":{"a":1,"b":[1,2]}}"#);
        assert_eq!(base, digest("{ \"context\" : {\"b\":[1, 2],\"a\":1},\n \"task\":\"café\" }"));
        for other in [
            r#"{"task":"cafe","context":{"a":1,"b":[1,2]}}"#,
            r#"{"task":"café","context":{"a":1,"b":[2,1]}}"#,
            r#"{"task":"café","context":{"a":1.0,"b":[1,2]}}"#,
            r#"{"task":"café","context":{"a":1,"b":[1,2]},"priority":"P2"}"#,
        ] {
            assert_ne!(base, digest(other), "{other}");
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written_even_by_a_later_version() {
        let record = Record {
            task_id: fte_events::sample::task_id(),
            body_sha256: "ab".to_owned(),
            accepted_at: fte_events::sample::time(0),
            progress: Progress::Pending { event: r#"{"a": 1}"#.to_owned() },
        };
        let mut json = serde_json::to_value(&record).unwrap();
        assert_eq!((&json["progress"], &json["event"]), (&"pending".into(), &r#"{"a": 1}"#.into()));
        json["later"] = 1.into();
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
    }
}
