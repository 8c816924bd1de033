//! The header `Idempotency-Key`, by which a caller says that a request is an earlier one sent again.

use http::{HeaderMap, StatusCode};

use crate::problem::Problem;

/// Its name.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest key.
const KEY_CHARS_MAX: usize = 200;

/// The request's key, if it has one: 1 to 200 visible ASCII characters.
///
/// # Errors
/// It is none, or there are several.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = given.next() else { return Ok(None) };
    let sound = (1..=KEY_CHARS_MAX).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if sound && given.next().is_none() => Ok(Some(key.to_owned())),
        _ => {
            let detail = "The Idempotency-Key must be one text of 1 to 200 visible ASCII characters without spaces, such as a UUID.";
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn key(text: &str) -> Result<Option<String>, Problem> {
        let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
        idempotency_key(&HeaderMap::from_iter([(HeaderName::from_static(IDEMPOTENCY_KEY), value)]))
    }

    #[test]
    fn a_key_is_1_to_200_visible_characters() {
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        for good in ["a", "\"quoted\"", "0198-…".trim_end_matches('…'), &"k".repeat(200)] {
            assert_eq!(key(good).unwrap().as_deref(), Some(good));
        }
        for bad in ["", "two words", "ü", "tab\tbed", &"k".repeat(201)] {
            assert_eq!(key(bad).unwrap_err().code, "invalid_idempotency_key", "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, "a".parse().unwrap());
        twice.append(IDEMPOTENCY_KEY, "a".parse().unwrap());
        assert_eq!(idempotency_key(&twice).unwrap_err().code, "invalid_idempotency_key");
    }
}
