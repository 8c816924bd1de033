//! The content of an event, as a digest that only its meaning decides.
//!
//! A sidecar may repeat a publish with other transport attributes, another order of members and numbers written otherwise, so two events of one
//! identity are compared by `id`, `source`, `type`, `subject`, `datacontenttype`, `data` and `data_base64` alone, in the canonical form of RFC 8785
//! (JCS). Numbers are IEEE doubles there, as they are to the sidecar. It is worked out only when an identity comes again with other bytes: of what is sealed, too, which is opened for that. (A keyed digest in each entry was the other way. It cost
//! every entry the canonical form of its event, a sixth of what logging one takes, and a tenth of its room.)

use std::fmt::Write;

use fte_bus::json;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The members that are content; all others may change on the way.
const CONTENT: [&str; 7] = ["id", "source", "type", "subject", "datacontenttype", "data", "data_base64"];

/// The digest of an event's content. Of what has no canonical form (no JSON object, or text that is no Unicode), the digest of the bytes.
pub(crate) fn content_digest(event: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    match canonical_content(event) {
        Some(text) => hash.update(text),
        None => hash.update(event),
    }
    hash.finalize().into()
}

/// Whether two events say the same. Bytes that are equal need no digest.
pub(crate) fn is_same_content(one: &[u8], other: &[u8]) -> bool {
    one == other || content_digest(one) == content_digest(other)
}

fn canonical_content(event: &[u8]) -> Option<String> {
    let members: Members<'_> = serde_json::from_slice(event).ok()?;
    let mut content = Map::new();
    for (name, value) in members.0 {
        if CONTENT.contains(&name.as_str()) {
            let value: Value = json::from_slice(value.get().as_bytes(), json::EVENT_DEPTH_MAX).ok()?;
            // An attribute that is null is absent; data that is null is data.
            if value.is_null() && name != "data" {
                content.remove(&name);
            } else {
                content.insert(name, value);
            }
        }
    }
    Some(canonical(&Value::Object(content)))
}

/// The members of an object in order, their values unread: what is not content need not have a canonical form.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A value in the form of RFC 8785.
pub(crate) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    text
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        // A number that is no double does not come out of a parser.
        Value::Number(number) => write_number(number.as_f64().unwrap_or(f64::NAN), text),
        Value::String(value) => write_string(value, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_string(name, text);
                text.push(':');
                write_value(value, text);
            }
            text.push('}');
        }
    }
}

pub(crate) fn write_string(value: &str, text: &mut String) {
    text.push('"');
    let mut rest = value;
    // All that is escaped is ASCII, so what lies between is copied as a whole: hardly any text has something to escape.
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        text.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            8 => text.push_str("\\b"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            12 => text.push_str("\\f"),
            b'\r' => text.push_str("\\r"),
            control => {
                let _ = write!(text, "\\u{control:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
    text.push('"');
}

/// A number as ECMAScript writes it: the shortest digits that give the same double, in its layout.
fn write_number(number: f64, text: &mut String) {
    if number == 0.0 {
        text.push('0');
        return;
    }
    // serde_json has the shortest digits, and of two equally near ones the even, as ECMAScript wants; only its layout differs.
    let written = Value::from(number.abs()).to_string();
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let digits = significant.trim_end_matches('0');
    // The decimal point stands after this many digits.
    let leading = all.len() - significant.len();
    let point = exponent.parse().unwrap_or(0) + i32::try_from(whole.len()).unwrap_or(0) - i32::try_from(leading).unwrap_or(0);
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if number < 0.0 {
        text.push('-');
    }
    if (1..=21).contains(&point) {
        if point >= count {
            text.push_str(digits);
            text.extend(std::iter::repeat_n('0', usize::try_from(point - count).unwrap_or(0)));
        } else {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            let _ = write!(text, "{whole}.{fraction}");
        }
    } else if (-5..=0).contains(&point) {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', usize::try_from(-point).unwrap_or(0)));
        text.push_str(digits);
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let exponent = point - 1;
        let _ = write!(text, "{first}{dot}{rest}e{exponent:+}");
    }
}

#[cfg(test)]
mod tests;
