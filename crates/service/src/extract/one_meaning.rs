//! A JSON body that everybody reads alike: an object, and no name twice in any object.
//!
//! Of two members of one name a reader takes the first, the last or none (RFC 8259, section 4), so what is checked here and what is used there could
//! differ. And serde takes an array for a struct, its items for the fields by their order, which no caller of this API can mean.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deserializes from any such object, and keeps nothing of it.
pub(super) struct OneMeaning;

impl<'de> Deserialize<'de> for OneMeaning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(|()| Self)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(Name(name)) = map.next_key()? {
            map.next_value_seed(AnyValue)?;
            if let Some(Name(twice)) = names.replace(Name(name)) {
                return Err(Error::custom(format_args!("the field `{twice}` is there twice")));
            }
        }
        Ok(())
    }
}

/// Any JSON value, with the same demand on the objects in it.
struct AnyValue;

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        ObjectVisitor.visit_map(map)
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(PartialEq, Eq, Hash)]
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(name)))
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use crate::extract::parse_json;

    #[derive(Debug, serde::Deserialize)]
    struct Decision {
        approved: bool,
        reason: Option<String>,
    }

    fn refused(body: &str) -> (u16, String) {
        let problem = parse_json::<serde_json::Value>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.code, if problem.status.as_u16() == 422 { "invalid_body" } else { "invalid_json" });
        (problem.status.as_u16(), problem.detail)
    }

    #[test]
    fn an_object_is_taken_as_it_is() {
        let taken: Decision = parse_json(br#" {"approved":true,"reason":"a\u0062"} "#).unwrap();
        assert_eq!((taken.approved, taken.reason.as_deref()), (true, Some("ab")));
        parse_json::<serde_json::Value>(br#"{"a":{"x":1},"b":{"x":[{"x":-1},{"x":1.5,"y":null,"z":true}]}}"#).unwrap();
    }

    #[test]
    fn what_is_no_object_is_no_body() {
        assert!(parse_json::<Decision>(br#"[true,"yes"]"#).is_err());
        for body in [r#"[true,null,"me"]"#, "[]", "null", "true", "1", "\"text\""] {
            let (status, detail) = refused(body);
            assert_eq!(status, 422, "{body}");
            assert!(detail.contains("expected a JSON object"), "{detail}");
        }
        for body in ["", "{", "{]", "{} {}", "\u{feff}{}"] {
            assert_eq!(refused(body).0, 400, "{body}");
        }
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_wherever_it_stands() {
        for body in [
            r#"{"task":"a","task":"b"}"#,
            r#"{"task":"a","t\u0061sk":"b"}"#,
            r#"{"x":{"task":1,"task":1}}"#,
            r#"{"x":[[{"task":1,"task":1}]]}"#,
        ] {
            let (status, detail) = refused(body);
            assert_eq!(status, 422, "{body}");
            assert!(detail.contains("the field `task` is there twice"), "{detail}");
        }
    }
}
