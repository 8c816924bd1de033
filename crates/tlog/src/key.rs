//! The keys of signed notes, by C2SP `signed-note` and `tlog-cosignature`: Ed25519, for logs (type 0x01) and for witnesses (type 0x04, with a time).
//!
//! Weak public keys (of small order) are refused when a key is read, and signatures are verified strictly, so that a signature has one form.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::decimal;
use crate::note::NoteSignature;

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// Signs the text itself: a log, or anybody.
    Ed25519,
    /// Signs a checkpoint and the time, in seconds since 1970: a witness.
    CosignatureV1,
}

impl KeyAlgorithm {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::CosignatureV1 => 4,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Ed25519),
            4 => Some(Self::CosignatureV1),
            _ => None,
        }
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key is written as name+id+base64, which this is not")]
    Form,
    #[error("the name of a key must not be empty, and have neither spaces, control characters nor a plus sign")]
    Name,
    #[error("a key of type {0:#04x} is not supported: this is one of an Ed25519 log (0x01) or witness (0x04)")]
    Type(u8),
    #[error("the id before the key is not that of the name and the key behind it: one of the three was changed")]
    Id,
    #[error("the public key is no usable Ed25519 key")]
    Point,
}

/// Whether a text can be the name of a key: not empty, no space of any kind, no control character, no plus sign.
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

fn key_id(name: &str, typed: &[u8]) -> [u8; 4] {
    let digest: [u8; 32] = Sha256::new().chain_update(name).chain_update(b"\n").chain_update(typed).finalize().into();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// A public key and its name: `name+hex(id)+base64(type ‖ key)`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    algorithm: KeyAlgorithm,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A key from its 32 bytes.
    pub fn new(name: impl Into<String>, algorithm: KeyAlgorithm, public: &[u8; 32]) -> Result<Self, KeyError> {
        let name = name.into();
        if !is_key_name(&name) {
            return Err(KeyError::Name);
        }
        let key = VerifyingKey::from_bytes(public).ok().filter(|key| !key.is_weak()).ok_or(KeyError::Point)?;
        let mut typed = [algorithm.byte(); 33];
        typed[1..].copy_from_slice(public);
        Ok(Self { id: key_id(&name, &typed), name, algorithm, key })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first bytes of a digest of name, type and key; stands before each signature.
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    pub fn public_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Whether a signature claims to be of this key.
    pub fn claims(&self, signature: &NoteSignature) -> bool {
        signature.name == self.name && signature.id == self.id
    }

    /// Whether the signature (without its id) is right for the text. The time of a cosignature in seconds, 0 for other keys.
    pub fn verify(&self, text: &str, signature: &[u8]) -> Option<u64> {
        let (time, signature) = match self.algorithm {
            KeyAlgorithm::Ed25519 => (0, signature),
            KeyAlgorithm::CosignatureV1 => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                (u64::from_be_bytes(*time), signature)
            }
        };
        // A time beyond this is none, by the specification.
        i64::try_from(time).ok()?;
        let signature = Signature::from_slice(signature).ok()?;
        self.key.verify_strict(message(self.algorithm, text, time).as_bytes(), &signature).ok().map(|()| time)
    }
}

/// What is signed.
fn message(algorithm: KeyAlgorithm, text: &str, time: u64) -> String {
    match algorithm {
        KeyAlgorithm::Ed25519 => text.to_owned(),
        KeyAlgorithm::CosignatureV1 => format!("cosignature/v1\ntime {time}\n{text}"),
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![self.algorithm.byte()];
        typed.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), STANDARD.encode(typed))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, typed) = parts(text)?;
        let (algorithm, public) = typed.split_first().ok_or(KeyError::Form)?;
        let algorithm = KeyAlgorithm::of(*algorithm).ok_or(KeyError::Type(*algorithm))?;
        let key = Self::new(name, algorithm, public.try_into().map_err(|_| KeyError::Point)?)?;
        if key.id == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

/// Name, id and what is behind them.
fn parts(text: &str) -> Result<(&str, [u8; 4], Vec<u8>), KeyError> {
    // The base64 may contain a plus sign, the others cannot.
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(typed)) = (parts.next(), parts.next(), parts.next()) else { return Err(KeyError::Form) };
    let lower_hex = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = u32::from_str_radix(id, 16).ok().filter(|_| lower_hex).ok_or(KeyError::Form)?;
    Ok((name, id.to_be_bytes(), STANDARD.decode(typed).map_err(|_| KeyError::Form)?))
}

/// A private key and its name. Its text is `PRIVATE+KEY+name+hex(id)+base64(type ‖ seed)`, as Go's `note` package writes it. Not shown by `Debug`.
#[derive(Clone)]
pub struct SignerKey {
    public: VerifierKey,
    key: SigningKey,
}

impl SignerKey {
    /// A key from the 32 bytes of its seed, which must come from a good source of chance.
    pub fn new(name: impl Into<String>, algorithm: KeyAlgorithm, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = SigningKey::from_bytes(seed);
        Ok(Self { public: VerifierKey::new(name, algorithm, key.verifying_key().as_bytes())?, key })
    }

    pub fn name(&self) -> &str {
        &self.public.name
    }

    /// The public half.
    pub fn verifier(&self) -> VerifierKey {
        self.public.clone()
    }

    /// The same key for another purpose or under another name.
    pub fn renamed(&self, name: impl Into<String>, algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        Self::new(name, algorithm, self.key.as_bytes())
    }

    /// Signs the text. `time_s` (seconds since 1970) counts for a witness's key alone.
    pub fn sign(&self, text: &str, time_s: u64) -> NoteSignature {
        let signature = self.key.sign(message(self.public.algorithm, text, time_s).as_bytes()).to_bytes();
        let mut bytes = Vec::with_capacity(72);
        if self.public.algorithm == KeyAlgorithm::CosignatureV1 {
            bytes.extend_from_slice(&time_s.to_be_bytes());
        }
        bytes.extend_from_slice(&signature);
        NoteSignature { name: self.public.name.clone(), id: self.public.id, signature: bytes }
    }

    /// The text to keep it as. Whoever has it can sign.
    pub fn private_text(&self) -> String {
        let mut typed = vec![self.public.algorithm.byte()];
        typed.extend_from_slice(self.key.as_bytes());
        format!("PRIVATE+KEY+{}+{:08x}+{}", self.public.name, u32::from_be_bytes(self.public.id), STANDARD.encode(typed))
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({})", self.public)
    }
}

impl FromStr for SignerKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, typed) = parts(text.strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Form)?)?;
        let (algorithm, seed) = typed.split_first().ok_or(KeyError::Form)?;
        let algorithm = KeyAlgorithm::of(*algorithm).ok_or(KeyError::Type(*algorithm))?;
        let key = Self::new(name, algorithm, seed.try_into().map_err(|_| KeyError::Point)?)?;
        if key.public.id == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

/// The size on a line `old 17`, an index on a line `index 17`: a word, a space, a decimal.
pub(crate) fn number_after(line: &str, word: &str) -> Option<u64> {
    decimal(line.strip_prefix(word)?.strip_prefix(' ')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_the_specification_and_go_write_them() {
        let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert_eq!(text.parse::<VerifierKey>().unwrap().to_string(), text);
        // The example of golang.org/x/mod/sumdb/note.
        let private = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: SignerKey = private.parse().unwrap();
        assert_eq!((key.private_text().as_str(), key.verifier().to_string().as_str()), (private, public));
        assert_eq!((key.name(), key.verifier().name()), ("PeterNeumann", "PeterNeumann"));
        assert!(!format!("{key:?}").contains("AYEKFALV"));
    }

    #[test]
    fn a_key_that_was_touched_is_refused() {
        let check = |text: &str, error| assert_eq!(text.parse::<VerifierKey>().unwrap_err(), error, "{text}");
        check("example.com/foo+530d903a", KeyError::Form);
        check("example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Form);
        check("+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Name);
        check("example.com/ foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Name);
        check("example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id);
        check("example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id);
        check("example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Type(2));
        check("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2", KeyError::Form);
        assert_eq!(VerifierKey::new("weak", KeyAlgorithm::Ed25519, &[0; 32]).unwrap_err(), KeyError::Point);
    }

    #[test]
    fn a_cosignature_covers_its_time() {
        let key = SignerKey::new("witness.example", KeyAlgorithm::CosignatureV1, &[1; 32]).unwrap();
        let mut signature = key.sign("text\n", 1_679_315_147).signature;
        assert_eq!((signature.len(), key.verifier().verify("text\n", &signature)), (72, Some(1_679_315_147)));
        signature[7] ^= 1;
        assert_eq!(key.verifier().verify("text\n", &signature), None);
        let beyond = key.sign("text\n", 1 << 63).signature;
        assert_eq!(key.verifier().verify("text\n", &beyond), None);
        // The same bytes say nothing as another kind of signature.
        let log = key.renamed("witness.example", KeyAlgorithm::Ed25519).unwrap();
        assert_eq!(log.verifier().verify("text\n", &log.sign("text\n", 5).signature), Some(0));
        assert_ne!(log.verifier().id(), key.verifier().id());
    }
}
