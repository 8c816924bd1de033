//! Sealing, and the keys that are made of a unit's key.
//!
//! XChaCha20-Poly1305, whose nonce of 192 bits is a keyed digest of what is sealed: HMAC-SHA256 under a key of this one entry, made of the unit's key and
//! the entry's identity. So no counter has to survive a crash, a restored copy of the keys, or two processes, and two nonces of one key are the same only for
//! the same event. The signed entry says by it what was sealed: a ciphertext alone would not, as whoever makes one can make it open to two texts by two
//! keys. And who is given the entry's digest key can check with HMAC alone that a text is what was logged ([`UnitKey::digest_key`]).
//!
//! (Random nonces would tell nothing of all this. Nonces of the content alone would tell that two events are the same: these differ with the identity.)
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

/// The name of the algorithm in an entry's header: XChaCha20-Poly1305 whose nonce is the digest of what was sealed.
pub const ALG: &str = "XC20PD";
/// The same with a random nonce, as earlier builds have sealed: it is opened, and says nothing of what was sealed.
pub const ALG_WITHOUT_DIGEST: &str = "XC20P";

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
    digest: Key,
    search: Key,
}

impl UnitKey {
    pub(crate) fn of(root: &Key) -> Self {
        let derived = |purpose: &str| Zeroizing::new(mac(root, &[purpose.as_bytes()]));
        Self { sealing: derived("fte audit seal"), digest: derived("fte audit digest"), search: derived("fte audit search") }
    }

    pub(crate) fn seal(&self, context: Context<'_>, bytes: &[u8]) -> (Nonce, Vec<u8>) {
        let nonce = sealed_digest(&self.digest_key(context), bytes);
        (nonce, seal(&self.sealing, &nonce, &context.bytes(), bytes))
    }

    /// What was sealed by an algorithm of ours, if the nonce is its digest where that is to be.
    pub(crate) fn open(&self, alg: &str, nonce: &Nonce, context: Context<'_>, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let has_digest = match alg {
            ALG => true,
            ALG_WITHOUT_DIGEST => false,
            _ => return None,
        };
        let bytes = open(&self.sealing, nonce, &context.bytes(), ciphertext)?;
        (!has_digest || sealed_digest(&self.digest_key(context), &bytes) == *nonce).then_some(bytes)
    }

    /// The key of one entry's digest. It opens nothing, and says nothing of any other entry.
    pub(crate) fn digest_key(&self, context: Context<'_>) -> Key {
        Zeroizing::new(mac(&self.digest, &[context.tenant.as_bytes(), context.source.as_bytes(), context.id.as_bytes()]))
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
    let mut mac = keyed(key);
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[expect(clippy::expect_used, reason = "a key of 32 bytes is a key of HMAC, which takes keys of any length")]
fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes any key")
}

/// The digest of what is sealed, which is its nonce: the first 24 bytes of HMAC-SHA256 over the event to the byte.
pub(crate) fn sealed_digest(digest_key: &[u8; 32], event: &[u8]) -> Nonce {
    let mut mac = keyed(digest_key);
    mac.update(event);
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&mac.finalize().into_bytes()[..NONCE_BYTES]);
    nonce
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

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Context<'_> = Context { tenant: "default", source: "/fte/intake", id: "1" };

    #[test]
    fn an_entry_opens_to_the_one_event_that_it_has_the_digest_of() {
        let key = UnitKey::of(&Zeroizing::new([1; 32]));
        let (nonce, ciphertext) = key.seal(HERE, b"pay 100");
        assert_eq!(key.open(ALG, &nonce, HERE, &ciphertext).as_deref(), Some(&b"pay 100"[..]));
        // Who has the keys can make a ciphertext of other words that decrypts, under any nonce.
        let forged = seal(&key.sealing, &nonce, &HERE.bytes(), b"pay 900");
        assert_eq!(key.open(ALG, &nonce, HERE, &forged), None);
        // What was sealed before nonces said anything still opens.
        assert_eq!(key.open(ALG_WITHOUT_DIGEST, &nonce, HERE, &forged).as_deref(), Some(&b"pay 900"[..]));
        assert_eq!(key.open("none", &nonce, HERE, &ciphertext), None);
    }

    #[test]
    fn two_entries_do_not_tell_that_they_say_the_same() {
        let key = UnitKey::of(&Zeroizing::new([1; 32]));
        let elsewhere =
            [Context { id: "2", ..HERE }, Context { source: "/fte/intak", id: "e1", ..HERE }, Context { tenant: "acme", ..HERE }];
        let (nonce, ciphertext) = key.seal(HERE, b"yes");
        for context in elsewhere {
            let (other, sealed) = key.seal(context, b"yes");
            assert!(other != nonce && sealed != ciphertext && *key.digest_key(context) != *key.digest_key(HERE));
        }
        let others = UnitKey::of(&Zeroizing::new([2; 32]));
        assert_ne!(others.seal(HERE, b"yes").0, nonce);
        assert_ne!(key.seal(HERE, b"no").0, nonce);
    }
}
