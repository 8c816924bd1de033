//! What the headers of a request ask for, and what those of the answer say. Pure.

use std::fmt::Write as _;
use std::ops::Range;

use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Of(Range<u64>),
    /// Behind its end.
    Beyond,
}

/// Whether the caller has it already.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The part that is asked for. Several ranges, other units and what is no range at all are passed over, as they may be.
pub(super) fn part(headers: &HeaderMap, tag: &str, size: u64) -> Part {
    let text = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let is_of_another = headers.get(IF_RANGE).is_some_and(|of| of.as_bytes() != tag.as_bytes());
    let Some(range) = text.and_then(|text| text.strip_prefix("bytes=")).filter(|_| !is_of_another) else { return Part::Whole };
    let number = |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    let range = match range.trim().split_once('-') {
        Some(("", last)) => number(last).map(|last| (last > 0).then(|| size.saturating_sub(last)..size)),
        Some((first, "")) => number(first).map(|first| Some(first..size)),
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(Some(first..last.saturating_add(1).min(size))),
            _ => None,
        },
        None => None,
    };
    match range {
        None => Part::Whole,
        Some(Some(range)) if range.start < range.end => Part::Of(range),
        Some(_) => Part::Beyond,
    }
}

/// The media type that is said of it, and whether it may be shown instead of saved. What could hold a script is never shown, and is not even called
/// by its name: a page of HTML, an image of SVG, XML.
pub(super) fn shown_as(content_type: &str) -> (&'static str, bool) {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/plain" => ("text/plain; charset=utf-8", true),
        "text/markdown" => ("text/markdown; charset=utf-8", false),
        "text/csv" => ("text/csv; charset=utf-8", false),
        "application/json" => ("application/json", false),
        "application/pdf" => ("application/pdf", false),
        "image/png" => ("image/png", true),
        "image/jpeg" => ("image/jpeg", true),
        "image/gif" => ("image/gif", true),
        "image/webp" => ("image/webp", true),
        _ => ("application/octet-stream", false),
    }
}

/// How it is to be saved, or shown.
pub(super) fn disposition(name: &str, is_harmless: bool) -> String {
    let mut text = format!("{}; filename*=UTF-8''", if is_harmless { "inline" } else { "attachment" });
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_tag_is_known_however_it_is_said() {
        let check = |said: &str, known: bool| assert_eq!(is_known(&with(&[(IF_NONE_MATCH, said)]), "\"abc\""), known, "{said}");
        check("\"abc\"", true);
        check("W/\"abc\"", true);
        check("\"x\", \"abc\"", true);
        check("*", true);
        check("abc", false);
        check("\"abcd\"", false);
        assert!(!is_known(&HeaderMap::new(), "\"abc\""));
    }

    #[test]
    fn one_range_is_given_and_what_is_none_is_passed_over() {
        let check = |said: &str, part: Part| assert_eq!(super::part(&with(&[(RANGE, said)]), "\"t\"", 10), part, "{said}");
        check("bytes=0-3", Part::Of(0..4));
        check("bytes=4-", Part::Of(4..10));
        check("bytes=-3", Part::Of(7..10));
        check("bytes=-30", Part::Of(0..10));
        check("bytes=9-99999999999", Part::Of(9..10));
        check("bytes=0-18446744073709551615", Part::Of(0..10));
        for beyond in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            check(beyond, Part::Beyond);
        }
        for odd in
            ["bytes=3-1", "bytes=0-1,4-5", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2", "pages=1-2", "bytes=99999999999999999999-"]
        {
            check(odd, Part::Whole);
        }
        assert_eq!(super::part(&with(&[(RANGE, "bytes=0-")]), "\"t\"", 0), Part::Beyond);
        assert_eq!(super::part(&with(&[(RANGE, "bytes=0-3"), (IF_RANGE, "\"t\"")]), "\"t\"", 10), Part::Of(0..4));
        assert_eq!(super::part(&with(&[(RANGE, "bytes=0-3"), (IF_RANGE, "\"u\"")]), "\"t\"", 10), Part::Whole);
    }

    #[test]
    fn what_may_hold_a_script_is_saved_and_not_shown() {
        for odd in
            ["text/html", "TEXT/HTML; charset=utf-8", "image/svg+xml", "text/xml", "application/xhtml+xml", "text/javascript", "", "x"]
        {
            assert_eq!(shown_as(odd), ("application/octet-stream", false), "{odd}");
        }
        assert_eq!(shown_as("Text/Plain; charset=x"), ("text/plain; charset=utf-8", true));
        assert_eq!(shown_as("image/png"), ("image/png", true));
        assert_eq!(shown_as("application/json"), ("application/json", false));
    }

    #[test]
    fn a_name_cannot_leave_its_place() {
        assert_eq!(disposition("a b\"\r\nx: y;ü.md", false), "attachment; filename*=UTF-8''a%20b%22%0D%0Ax%3A%20y%3B%C3%BC.md");
        assert_eq!(disposition("a.txt", true), "inline; filename*=UTF-8''a.txt");
    }
}
