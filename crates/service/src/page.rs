//! Lists: `{items, next_cursor}`, with a cursor that callers cannot read meaning into.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// Longest cursor that is read.
const CURSOR_BYTES_MAX: usize = 1024;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A position in a list as an opaque text.
pub fn encode_cursor<T: Serialize>(position: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// The position that a caller gives back.
///
/// # Errors
/// 400 `invalid_cursor` for anything that [`encode_cursor`] did not make.
pub fn decode_cursor<T: DeserializeOwned>(cursor: &str) -> Result<T, Problem> {
    let decoded = if cursor.len() <= CURSOR_BYTES_MAX { URL_SAFE_NO_PAD.decode(cursor).ok() } else { None };
    decoded.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(|| {
        let detail = "The cursor is not one that this list gave out; take next_cursor as it is, or start without one.";
        Problem::new(StatusCode::BAD_REQUEST, "invalid_cursor", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_the_position_and_nothing_else_does() {
        let cursor = encode_cursor(&(7_u64, "a/b"));
        assert_eq!(decode_cursor::<(u64, String)>(&cursor).unwrap(), (7, "a/b".to_owned()));
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        for bad in ["", "zzz", "eyJ4IjoxfQ", &"a".repeat(5000)] {
            assert_eq!(decode_cursor::<(u64, String)>(bad).unwrap_err().code, "invalid_cursor", "{bad}");
        }
    }
}
