//! Sealing, and the keys that are made of a unit's key.
//!
//! XChaCha20-Poly1305 with random nonces of 192 bits: after 2^48 seals under one key the chance that two nonces were the same is below 2^-96, and
//! a key seals some thousand events at most, or some million for a person. So no counter has to survive a crash, a restored copy of the keys, or two
//! processes. (AES-GCM's 96 bits would do for tasks, but need a counter for persons. Nonces made of the content would tell that two events are the same.)
//!
//! The unit's key itself is used for nothing but making others, each for one purpose.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::KeyError;

/// The name of the algorithm in an entry's header: XChaCha20-Poly1305.
pub const ALG: &str = "XC20P";

pub(crate) const NONCE_BYTES: usize = 24;
pub(crate) const TAG_BYTES: usize = 16;

pub(crate) type Key = Zeroizing<[u8; 32]>;
pub(crate) type Nonce = [u8; NONCE_BYTES];

/// What a ciphertext is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    pub tenant: &'a str,
    pub source: &'a str,
    pub id: &'a str,
}

impl Context<'_> {
    /// The associated data. Lengths keep (`a`, `bc`) apart from (`ab`, `c`).
    fn bytes(&self) -> Vec<u8> {
        let parts = [self.tenant, self.source, self.id];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// The keys that a unit's key is used by.
#[derive(Clone)]
pub(crate) struct UnitKey {
    sealing: Key,
    search: Key,
}

impl UnitKey {
    pub(crate) fn of(root: &Key) -> Self {
        let derived = |purpose: &str| Zeroizing::new(mac(root, &[purpose.as_bytes()]));
        Self { sealing: derived("fte audit seal"), search: derived("fte audit search") }
    }

    pub(crate) fn seal(&self, nonce: &Nonce, context: Context<'_>, bytes: &[u8]) -> Vec<u8> {
        seal(&self.sealing, nonce, &context.bytes(), bytes)
    }

    pub(crate) fn open(&self, nonce: &Nonce, context: Context<'_>, ciphertext: &[u8]) -> Option<Vec<u8>> {
        open(&self.sealing, nonce, &context.bytes(), ciphertext)
    }

    /// What a person is found by.
    pub(crate) fn search(&self) -> String {
        let hash = mac(&self.search, &[]);
        format!("{SEARCH_PREFIX}{}", URL_SAFE_NO_PAD.encode(&hash[..16]))
    }
}

/// What keyed hashes of actors begin with, so that none is taken for a name.
const SEARCH_PREFIX: &str = "~";

/// HMAC-SHA256 over parts, each with its length.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length.
    #[expect(clippy::expect_used, reason = "a key of 32 bytes is a key of HMAC")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

pub(crate) fn seal(key: &Key, nonce: &Nonce, aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let sealed = XChaCha20Poly1305::new((&**key).into()).encrypt(&XNonce::from(*nonce), Payload { msg, aad });
    // It fails past 256 GiB, and the bodies that come are bounded far below.
    #[expect(clippy::expect_used, reason = "no body is that long")]
    sealed.expect("a body below 256 GiB")
}

pub(crate) fn open(key: &Key, nonce: &Nonce, aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
    XChaCha20Poly1305::new((&**key).into()).decrypt(&XNonce::from(*nonce), Payload { msg, aad }).ok()
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(KeyError::Random)
}

pub(crate) fn random_key() -> Result<Key, KeyError> {
    let mut key = Zeroizing::new([0; 32]);
    random(&mut *key)?;
    Ok(key)
}

pub(crate) fn nonce_text(nonce: &Nonce) -> String {
    URL_SAFE_NO_PAD.encode(nonce)
}

pub(crate) fn nonce_of(text: &str) -> Option<Nonce> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}
