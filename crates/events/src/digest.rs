//! Digests as text: two hexadecimal digits for each byte, in small letters.
//!
//! Always true: what JSON means decides its digest, not the order in which its members came.

use std::collections::BTreeMap;
use std::io;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Bytes as hexadecimal digits.
pub fn hex(digest: &[u8]) -> String {
    let mut text = String::with_capacity(digest.len() * 2);
    push_hex(digest, &mut text);
    text
}

/// The same, behind a text.
pub fn push_hex(digest: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 64];
    for part in digest.chunks(32) {
        for (pair, byte) in digits.chunks_exact_mut(2).zip(part) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        text.push_str(std::str::from_utf8(&digits[..part.len() * 2]).unwrap_or_default());
    }
}

/// A digest of 32 bytes from its digits.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut digest = [0; 32];
    // Anything above 15 is no digit; that is asked once.
    let mut all = 0;
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (HEX_VALUES[usize::from(pair[0])], HEX_VALUES[usize::from(pair[1])]);
        all |= high | low;
        *byte = high << 4 | low & 15;
    }
    (all < 16).then_some(digest)
}

/// What each byte is worth as a digit of lower-case hex; 255 for what is none.
const HEX_VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// The SHA-256 of bytes, as text.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a value's JSON without spaces and with the members of every object in the order of their names, as text. A value that came back from
/// a store with an order of its own (PostgreSQL's `jsonb`) has the same.
pub fn json_sha256(value: &Value) -> String {
    hashed(&Sorted(value))
}

/// The same, of an object.
pub fn json_object_sha256(members: &Map<String, Value>) -> String {
    hashed(&sorted(members))
}

fn hashed(value: &impl Serialize) -> String {
    struct Hashed(Sha256);
    impl io::Write for Hashed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hashed = Hashed(Sha256::new());
    // A value has no keys that are not text, and hashing cannot fail.
    let _ = serde_json::to_writer(&mut hashed, value);
    hex(&hashed.0.finalize())
}

fn sorted(members: &Map<String, Value>) -> BTreeMap<&str, Sorted<'_>> {
    members.iter().map(|(name, value)| (name.as_str(), Sorted(value))).collect()
}

/// A value that writes its objects sorted.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(members) => serializer.collect_map(sorted(members)),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            plain => plain.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_as_everybody_writes_them() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa0, 0xff]), "000fa0ff");
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn the_order_of_members_is_not_part_of_what_json_means() {
        let of = |text: &str| json_sha256(&serde_json::from_str(text).unwrap());
        let sorted = r#"[{"a":{"b":[1,2.5],"c":null},"d":"\u00fc\n"}]"#;
        let text = "[{\"a\":{\"b\":[1,2.5],\"c\":null},\"d\":\"ü\\n\"}]";
        assert_eq!(of(sorted), sha256_hex(text.as_bytes()));
        assert_eq!(of(r#"[ {"d":"ü\n", "a":{"c":null, "b":[1, 2.5]}} ]"#), of(sorted));
        assert_ne!(of(r#"[{"a":{"b":[2.5,1],"c":null},"d":"ü\n"}]"#), of(sorted));
    }
}
