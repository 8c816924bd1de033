//! W3C trace context: taken over from the caller, or minted here, so that every request, log line and event of one piece of work shares an id.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;

/// `00-<trace id>-<parent id>-<flags>`: 55 lower-case ASCII characters, never an all-zero id.
///
/// As an extractor it is the request's: the caller's trace id with a parent id of this request's own, or both new.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent([u8; 55]);

impl TraceParent {
    /// A new trace.
    pub fn mint() -> Self {
        Self::build(fastrand::u128(1..), fastrand::u64(1..), 0)
    }

    /// The same trace, seen from a new parent id.
    pub fn child(&self) -> Self {
        let mut child = *self;
        hex(u128::from(fastrand::u64(1..)), &mut child.0[36..52]);
        child
    }

    /// The caller's trace if it sent a sound `traceparent`, else a new one.
    pub fn continue_or_mint(headers: &HeaderMap) -> Self {
        let given = headers.get("traceparent").and_then(|value| Self::parse(value.as_bytes()));
        given.map_or_else(Self::mint, |caller| caller.child())
    }

    /// Reads a header. Versions from the future are read as version 00, as the standard asks.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let hex_digits = |range: std::ops::Range<usize>| text[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let shaped = text.len() >= 55
            && (text.len() == 55 || (text[55] == b'-' && &text[..2] != b"00"))
            && [2, 35, 52].iter().all(|at| text[*at] == b'-')
            && hex_digits(0..2)
            && hex_digits(3..35)
            && hex_digits(36..52)
            && hex_digits(53..55)
            && &text[..2] != b"ff"
            && text[3..35].iter().any(|byte| *byte != b'0')
            && text[36..52].iter().any(|byte| *byte != b'0');
        if !shaped {
            return None;
        }
        let mut bytes = [0; 55];
        bytes.copy_from_slice(&text[..55]);
        bytes[..2].copy_from_slice(b"00");
        Some(Self(bytes))
    }

    fn build(trace: u128, parent: u64, flags: u8) -> Self {
        let mut bytes = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(trace, &mut bytes[3..35]);
        hex(u128::from(parent), &mut bytes[36..52]);
        hex(u128::from(flags), &mut bytes[53..55]);
        Self(bytes)
    }

    /// The header's text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The trace's id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.as_str()[3..35]
    }
}

/// Writes the lowest digits of `value`, as many as `out` is long.
fn hex(mut value: u128, out: &mut [u8]) {
    for slot in out.iter_mut().rev() {
        *slot = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<S: Sync> FromRequestParts<S> for TraceParent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_else(|| Self::continue_or_mint(&parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_caller_s_trace_goes_on_under_a_new_parent() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", GIVEN.parse().unwrap());
        let trace = TraceParent::continue_or_mint(&headers);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(trace.as_str(), GIVEN);
        assert!(trace.as_str().ends_with("-01"));
        assert!(TraceParent::parse(trace.as_str().as_bytes()).is_some());
    }

    #[test]
    fn what_is_no_trace_is_replaced() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        for bad in ["", "x", zero_trace, zero_parent, &GIVEN.to_uppercase(), &format!("{GIVEN}-x"), &GIVEN.replacen("00", "ff", 1)] {
            assert!(TraceParent::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        let minted = TraceParent::mint();
        assert!(TraceParent::parse(minted.as_str().as_bytes()).is_some());
        assert_ne!(minted, TraceParent::mint());
    }

    #[test]
    fn a_future_version_is_read_as_ours() {
        let future = format!("{}-more", GIVEN.replacen("00", "cc", 1));
        assert_eq!(TraceParent::parse(future.as_bytes()).unwrap().as_str(), GIVEN);
    }
}
