//! What is wrong with a body or a path, in words for people: what the parser says of it is written for who wrote the parser.
//!
//! The texts of `serde_json` are read here, so a text that is not known goes out as it is.

use axum::extract::path::ErrorKind;
use serde_json::error::Category;

use crate::problem::FieldError;

/// Longest part of a caller's own text that is said back.
const NAMED_CHARS_MAX: usize = 64;
/// Longest text of the parser that is said back, which may have a caller's name in it.
const TEXT_CHARS_MAX: usize = 200;

/// Why bytes are not JSON, and where.
pub(super) fn not_json(bytes: &[u8], error: &serde_json::Error) -> String {
    const SEND: &str = "Send one JSON object, with its names and texts in double quotes; /docs says what is in it.";
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return format!("The body is empty. {SEND}");
    }
    let (text, line, column) = (without_place(error), error.line(), error.column());
    let why = match &*text {
        _ if error.classify() == Category::Eof => "it ends before it is complete",
        "key must be a string" => "a name is not in double quotes",
        "trailing comma" => "a comma has nothing behind it",
        "trailing characters" => "something follows behind its end",
        "expected value" | "expected ident" => "there is no JSON value",
        "expected `:`" => "a name has no colon behind it",
        "expected `,` or `}`" | "expected `,` or `]`" => "a comma or an end is missing",
        "recursion limit exceeded" => "it is nested too deeply",
        other => other,
    };
    format!("The body is not JSON: {why} (line {line}, column {column}). {SEND}")
}

/// Which field does not fit, and why. `path` leads to what was read last, with dots.
pub(super) fn unfit(path: &str, error: &serde_json::Error) -> FieldError {
    let text = without_place(error);
    // The path stops at the object that the field is in, or not.
    let beside = |name: &str| match path {
        "" | "." | "?" => pointer(name),
        _ if path.rsplit('.').next() == Some(name) => pointer(path),
        _ => format!("{}{}", pointer(path), pointer(name)),
    };
    if let Some(name) = quoted(&text, "missing field `") {
        return FieldError { pointer: beside(name), detail: "it is missing".to_owned() };
    }
    if let Some(name) = quoted(&text, "unknown field `") {
        let there = text.split_once("expected ").map_or(String::new(), |(_, known)| format!("; there are: {}", names(known)));
        return FieldError { pointer: beside(name), detail: format!("there is no such field{there}") };
    }
    let detail = if let Some((_, known)) = text.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("expected ")) {
        format!("expected one of: {}", names(known))
    } else if let Some((found, expected)) = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        format!("expected {}, not {}", wanted(expected), given(found))
    } else {
        text
    };
    FieldError { pointer: pointer(path), detail }
}

/// The same for a body that is not an object, or says a thing twice.
pub(super) fn ambiguous(error: &serde_json::Error) -> String {
    let text = without_place(error);
    match text.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
        Some((found, expected)) => format!("expected {expected}, not {}", given(found)),
        None => text.chars().take(TEXT_CHARS_MAX).collect(),
    }
}

/// What does not fit in a path.
pub(super) fn bad_path(kind: &ErrorKind) -> Option<String> {
    let number = |expected: &str| if expected.starts_with(['u', 'i']) { "a whole number" } else { "something else" }.to_owned();
    let (value, expected) = match kind {
        ErrorKind::DeserializeError { message, .. } => return Some(format!("The path does not fit: {message}.")),
        ErrorKind::ParseErrorAtKey { value, expected_type, .. }
        | ErrorKind::ParseErrorAtIndex { value, expected_type, .. }
        | ErrorKind::ParseError { value, expected_type } => (value, number(expected_type)),
        _ => return None,
    };
    Some(format!("The path does not fit: {:?} stands where {expected} is expected.", shortened(value)))
}

/// The text without the place that is added to it.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.split('`').next()
}

/// Names as they are listed, without the quotes and the words around them.
fn names(known: &str) -> String {
    known.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(", ")
}

fn wanted(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a string" => "a text",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        _ if expected == "a map" || expected.starts_with("struct ") => "an object",
        other => other,
    }
}

fn given(found: &str) -> String {
    let inside = |kind: &str| found.strip_prefix(kind).map(|value| shortened(value.trim_matches('`')));
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        _ => inside("string ")
            .map(|text| format!("the text {text}"))
            .or_else(|| inside("integer ").or_else(|| inside("floating point ")).map(|number| format!("the number {number}")))
            .or_else(|| inside("boolean "))
            .unwrap_or_else(|| shortened(found)),
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= NAMED_CHARS_MAX { text.to_owned() } else { text.chars().take(NAMED_CHARS_MAX).chain(['…']).collect() }
}

/// A JSON Pointer (RFC 6901) of a path with dots.
fn pointer(path: &str) -> String {
    match path {
        "" | "." | "?" => String::new(),
        path => path.split('.').map(|part| format!("/{}", shortened(part).replace('~', "~0").replace('/', "~1"))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::extract::parse_json;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Policy {
        Enqueue,
        Interrupt,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only their types count")]
    struct Body {
        approved: bool,
        question: Option<u32>,
        reason: Option<String>,
        policy: Option<Policy>,
        within: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only their types count")]
    struct Inner {
        name: String,
    }

    #[test]
    fn a_field_that_does_not_fit_is_named_with_what_is_expected() {
        let check = |body: &str, pointer: &str, detail: &str| {
            let problem = parse_json::<Body>(body.as_bytes()).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (422, "invalid_body"), "{body}");
            let errors: Vec<_> = problem.errors.iter().map(|error| (&*error.pointer, &*error.detail)).collect();
            assert_eq!(errors, [(pointer, detail)], "{body}");
            assert!(!problem.detail.contains(" at line "), "{}", problem.detail);
        };
        let there = "there is no such field; there are: approved, question, reason, policy, within";
        check("{}", "/approved", "it is missing");
        check(r#"{"approved":"yes"}"#, "/approved", r#"expected true or false, not the text "yes""#);
        check(r#"{"approved":null}"#, "/approved", "expected true or false, not null");
        check(r#"{"approved":true,"question":"x"}"#, "/question", r#"expected a whole number from 0 on, not the text "x""#);
        check(r#"{"approved":true,"reason":5}"#, "/reason", "expected a text, not the number 5");
        check(r#"{"approved":true,"reason":[1]}"#, "/reason", "expected a text, not a list");
        check(r#"{"approved":true,"colour":1}"#, "/colour", there);
        check(r#"{"approved":true,"policy":"x"}"#, "/policy", "expected one of: enqueue, interrupt");
        check(r#"{"approved":true,"within":{"name":true}}"#, "/within/name", "expected a text, not true");
        check(r#"{"approved":true,"within":{}}"#, "/within/name", "it is missing");
        check(r#"{"approved":true,"within":{"name":"a","x":1}}"#, "/within/x", "there is no such field; there are: name");
    }

    #[test]
    fn what_is_not_json_is_told_why_and_what_to_send() {
        let check = |body: &str, why: &str| {
            let problem = parse_json::<Body>(body.as_bytes()).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_json"), "{body}");
            assert!(problem.detail.contains(why) && problem.detail.contains("Send one JSON object"), "{body}: {}", problem.detail);
        };
        check("", "The body is empty.");
        check(" \n", "The body is empty.");
        check("{", "it ends before it is complete (line 1, column 1)");
        check("{'approved':true}", "a name is not in double quotes (line 1, column 2)");
        check(r#"{"approved":true,}"#, "a comma has nothing behind it");
        check(r#"{"approved" true}"#, "a name has no colon behind it");
        check(r#"{"approved":true "x":1}"#, "a comma or an end is missing");
        check("approved=true", "there is no JSON value");
        check("{} {}", "something follows behind its end");
    }

    #[test]
    fn of_a_caller_s_own_names_a_part_is_said_back() {
        for body in [format!(r#"{{"{0}": 1, "{0}": 2}}"#, "n".repeat(300_000)), format!(r#"{{"{}": 1}}"#, "n".repeat(300_000))] {
            let problem = parse_json::<Strict>(body.as_bytes()).unwrap_err();
            assert!(format!("{problem:?}").len() < 2000);
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is never read")]
    struct Strict {
        known: Option<u8>,
    }

    #[test]
    fn what_is_no_object_is_told_so() {
        let detail = |body: &str| parse_json::<Body>(body.as_bytes()).unwrap_err().detail;
        assert_eq!(detail("[]"), "The body does not fit: expected a JSON object, not a list.");
        assert_eq!(detail("\"x\""), "The body does not fit: expected a JSON object, not the text \"x\".");
        assert_eq!(detail(r#"{"approved":true,"approved":false}"#), "The body does not fit: the field `approved` is there twice.");
    }
}
