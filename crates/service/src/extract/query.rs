//! The query string as a struct, with a clear word about what does not fit it.

use std::error::Error as _;

use axum::extract::Query;
use http::{StatusCode, Uri};
use serde::Deserializer;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Error as _, Visitor};

use crate::problem::Problem;

/// Longest part of a caller's own text that is said back.
const NAMED_CHARS_MAX: usize = 64;

pub(super) fn parse<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    if let Some(known) = field_names::<T>() {
        let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| unfit(&error))?;
        if let Some((unknown, _)) = given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            let unknown: String = unknown.chars().take(NAMED_CHARS_MAX).collect();
            let known = known.join(", ");
            return Err(invalid(format!("There is no parameter {unknown:?} here; there are: {known}.")));
        }
    }
    Query::try_from_uri(uri).map(|Query(query)| query).map_err(|error| unfit(&error))
}

fn invalid(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail)
}

/// The rejection's source says which parameter, and why; the rejection itself repeats it.
fn unfit(error: &axum::extract::rejection::QueryRejection) -> Problem {
    let why = error.source().map_or_else(|| error.body_text(), ToString::to_string);
    invalid(format!("The query does not fit: {why}."))
}

/// The names of a struct's fields as its `Deserialize` asks for them; none for what is no struct.
fn field_names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut names = None;
    // It fails always: only the question counts.
    drop(T::deserialize(Asked(&mut names)));
    names
}

struct Asked<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        *self.0 = Some(fields);
        Err(Error::custom("only asked"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("only asked"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Filters {
        #[serde(rename = "type")]
        kind: Option<String>,
        limit: Option<usize>,
    }

    fn detail(query: &str) -> String {
        let problem = parse::<Filters>(&format!("/x?{query}").parse().unwrap()).unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_query"));
        problem.detail
    }

    #[test]
    fn known_parameters_are_read() {
        for (query, expected) in [("", (None, None)), ("?", (None, None)), ("?type=a%20b&limit=3", (Some("a b".to_owned()), Some(3)))] {
            let Filters { kind, limit } = parse(&format!("/x{query}").parse().unwrap()).unwrap();
            assert_eq!((kind, limit), expected);
        }
    }

    #[test]
    fn an_unknown_parameter_is_named_with_those_there_are() {
        assert_eq!(detail("limit=3&colour=red"), "There is no parameter \"colour\" here; there are: type, limit.");
        assert_eq!(detail("kind=x"), "There is no parameter \"kind\" here; there are: type, limit.");
        assert!(detail(&"x".repeat(500)).len() < 150);
    }

    #[test]
    fn what_is_wrong_is_said_once() {
        assert_eq!(detail("limit=x"), "The query does not fit: limit: invalid digit found in string.");
        assert_eq!(detail("limit=1&limit=2"), "The query does not fit: duplicate field `limit`.");
    }
}
