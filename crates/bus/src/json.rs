//! JSON of others, which must not make its reader stumble: nesting has an end, and no name means something to the parser itself.
//!
//! `serde_json` reads an object whose first name is `$serde_json::private::RawValue` as the JSON in the text behind it, and begins to count levels anew there.
//! So a few thousand bytes can overflow the stack, which ends the process, and what was once stored would end it at every start. And what is nested almost as
//! deeply as the parser allows cannot be read any more once it stands within a document. Whatever becomes a [`serde_json::Value`] and is not our own goes through
//! here: bodies of requests, events, and what agents say.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Levels of what people and agents send. What it becomes part of adds some, and still is within what the parser allows, which is 127.
pub const DEPTH_MAX: usize = 64;
/// Levels of an event's data, which may have such a value in it.
pub const DATA_DEPTH_MAX: usize = 72;
/// Levels of an event, which may tell of one that was.
pub const EVENT_DEPTH_MAX: usize = 100;

/// Names that mean something to the parser begin so.
const RESERVED: &str = "$serde_json::private::";

/// JSON that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too many levels.
    #[error("it is nested deeper than {0} levels")]
    Deep(usize),
    /// A name that is not for others.
    #[error("a name in it begins with {RESERVED}, which is reserved")]
    Reserved,
}

/// Looks whether JSON can be read without harm. What is no JSON at all passes: its parser says so.
pub fn check(json: &[u8], depth_max: usize) -> Result<(), Unfit> {
    let (mut depth, mut at, mut has_escapes) = (0_usize, 0, false);
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return Err(Unfit::Deep(depth_max));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                // To the end of the text.
                while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                    at += found + 1;
                    if json[at - 1] == b'"' {
                        break;
                    }
                    has_escapes |= json.get(at) == Some(&b'u');
                    at += 1;
                }
            }
            _ => {}
        }
    }
    // A name may be written in escapes, and a text that is no name may say what it likes.
    if (has_escapes || memchr::memmem::find(json, RESERVED.as_bytes()).is_some())
        && serde_json::from_slice::<Names>(json).is_err_and(|error| error.to_string().contains(RESERVED))
    {
        return Err(Unfit::Reserved);
    }
    Ok(())
}

/// Reads JSON of others.
///
/// # Errors
/// It is none, none of this shape, or [`Unfit`].
pub fn from_slice<T: DeserializeOwned>(json: &[u8], depth_max: usize) -> serde_json::Result<T> {
    check(json, depth_max).map_err(serde_json::Error::custom)?;
    serde_json::from_slice(json)
}

/// Any JSON, of which nothing is kept: its names are looked at as they are meant.
struct Names;

struct Name;

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_key::<Name>()?.is_some() {
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self, E> {
        if name.starts_with(RESERVED) { Err(E::custom(RESERVED)) } else { Ok(self) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        [vec![b'['; levels], vec![b']'; levels]].concat()
    }

    #[test]
    fn nesting_has_an_end_and_brackets_in_texts_are_none() {
        assert_eq!(check(&nested(64), 64), Ok(()));
        assert_eq!(check(&nested(65), 64), Err(Unfit::Deep(64)));
        assert_eq!(check(&nested(1_000_000), 64), Err(Unfit::Deep(64)));
        let text = format!(r#"{{"a\"[[[": "{}\\", "b": []}}"#, "[".repeat(200));
        assert_eq!(check(text.as_bytes(), 2), Ok(()));
        assert!(from_slice::<Value>(text.as_bytes(), 2).is_ok());
        // One after the other they are not nested.
        assert_eq!(check(format!("[{}]", vec!["[]"; 500].join(",")).as_bytes(), 2), Ok(()));
    }

    #[test]
    fn a_name_that_means_something_to_the_parser_is_refused_however_it_is_written() {
        for name in ["$serde_json::private::RawValue", r"\u0024serde_json::private::RawValue", r"$serde_json\u003a:private::Number"] {
            for json in [format!(r#"{{"{name}": "[1]"}}"#), format!(r#"[1, {{"a": {{"{name}": "[1]"}}}}]"#)] {
                assert_eq!(check(json.as_bytes(), 64), Err(Unfit::Reserved), "{json}");
                assert!(from_slice::<Value>(json.as_bytes(), 64).is_err());
            }
        }
        // That the parser would have read it so is why.
        assert_eq!(serde_json::from_str::<Value>(r#"{"$serde_json::private::RawValue": "[1]"}"#).unwrap(), serde_json::json!([1]));
        // As a text it is a text.
        for json in
            [r#"{"task": "what is $serde_json::private::RawValue?"}"#, r#"["\u0024serde_json::private::RawValue", null, 1.5, true, -1]"#]
        {
            assert_eq!(check(json.as_bytes(), 64), Ok(()), "{json}");
        }
    }

    #[test]
    fn what_is_no_json_is_for_the_parser_to_say() {
        for bytes in [&b""[..], b"{", b"\"", b"\"\\", b"\"\\u", b"]]]", b"\xff\xfe", b"{\"a\\u0024\": nonsense"] {
            assert_eq!(check(bytes, 64), Ok(()), "{bytes:?}");
        }
    }
}
