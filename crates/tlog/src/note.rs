//! Signed notes, by C2SP `signed-note`: a text, an empty line, and lines of signatures.
//!
//! Signatures of unknown keys are ignored. A known key whose signature fails makes the whole note bad, also beside good ones: Go's implementation does
//! so, and somebody has touched it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::key::{VerifierKey, is_key_name};

/// Most signatures of a note; the specification wants at least 16.
pub const SIGNATURES_MAX: usize = 64;
/// Most bytes of a note.
pub const NOTE_BYTES_MAX: usize = 1024 * 1024;

/// One line of signature.
#[derive(Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The id of the key.
    pub id: [u8; 4],
    /// What follows the id.
    pub signature: Vec<u8>,
}

impl fmt::Display for NoteSignature {
    /// A whole line, with its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<u8> = self.id.iter().chain(&self.signature).copied().collect();
        writeln!(f, "\u{2014} {} {}", self.name, STANDARD.encode(bytes))
    }
}

impl fmt::Debug for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_string().trim_end())
    }
}

impl NoteSignature {
    /// Reads a line without its end.
    pub fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let bytes = STANDARD.decode(encoded).ok()?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        let sound = is_key_name(name) && !signature.is_empty();
        sound.then(|| Self { name: name.to_owned(), id: *id, signature: signature.to_vec() })
    }
}

/// What is wrong with a note.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("a signed note has {NOTE_BYTES_MAX} bytes at most")]
    TooLarge,
    #[error("a signed note is Unicode without control characters; byte {at} is something else")]
    Characters { at: usize },
    #[error("a signed note is a text, an empty line, and signatures, each on a line that ends; this is not")]
    Form,
    #[error("line {line} of the signed note should be a signature and is none")]
    SignatureLine { line: usize },
    #[error("a signed note has {SIGNATURES_MAX} signatures at most")]
    TooMany,
    #[error("the signature of {name} is wrong: the text, the signature or the key was changed")]
    BadSignature { name: String },
    #[error("no signature is of a key that is known here")]
    NoKnownKey,
}

/// A note that has been read, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A signature that was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'k> {
    pub key: &'k VerifierKey,
    /// When a witness signed, in seconds since 1970; 0 for other keys.
    pub time_s: u64,
}

impl SignedNote {
    /// A note that nobody has signed yet. The text ends in a line feed.
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        characters(text.as_bytes())?;
        if !text.ends_with('\n') {
            return Err(NoteError::Form);
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// With a signature more. One that is there already is not added again.
    #[must_use]
    pub fn with(mut self, signature: NoteSignature) -> Self {
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
        self
    }

    /// Reads a note, exactly: what is written again by `Display` is the same bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        let whole = characters(bytes)?;
        // The text may have empty lines; the last one ends it.
        let split = whole.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, lines) = (&whole[..=split], &whole[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let before = text.lines().count() + 1;
        let mut signatures = Vec::new();
        for (at, line) in lines.split('\n').enumerate() {
            if signatures.len() == SIGNATURES_MAX {
                return Err(NoteError::TooMany);
            }
            signatures.push(NoteSignature::parse(line).ok_or(NoteError::SignatureLine { line: before + at + 1 })?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// What is signed, with its last line feed. Not to be trusted before [`verify`](Self::verify).
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// The signatures of these keys, in the order of the note; at least one. A wrong signature of one of them is an error.
    pub fn verify<'k>(&self, keys: impl IntoIterator<Item = &'k VerifierKey>) -> Result<Vec<Verified<'k>>, NoteError> {
        let keys: Vec<_> = keys.into_iter().collect();
        let mut verified: Vec<Verified<'k>> = Vec::new();
        for signature in &self.signatures {
            for key in keys.iter().filter(|key| key.claims(signature)) {
                let time_s = key.verify(&self.text, &signature.signature);
                let time_s = time_s.ok_or_else(|| NoteError::BadSignature { name: signature.name.clone() })?;
                if verified.iter().all(|before| before.key != *key) {
                    verified.push(Verified { key, time_s });
                }
            }
        }
        if verified.is_empty() { Err(NoteError::NoKnownKey) } else { Ok(verified) }
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

/// The bytes as text without control characters other than line feeds.
fn characters(bytes: &[u8]) -> Result<&str, NoteError> {
    let text = std::str::from_utf8(bytes).map_err(|error| NoteError::Characters { at: error.valid_up_to() })?;
    match bytes.iter().position(|byte| *byte < b' ' && *byte != b'\n') {
        Some(at) => Err(NoteError::Characters { at }),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests;
