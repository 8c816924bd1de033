//! How long an answer may be kept by who asked, or by a cache on the way.
//!
//! * What is fixed by the tree (tiles, bundles, blobs, the proof between two sizes) is kept for good. It says nothing of anybody but as ciphertext, so an erasure
//!   holds in a cache as it does in a copy.
//! * What leads to the last checkpoint is kept for as long as that is the last.
//! * An entry is open, and may be erased at any time: a copy of it is asked after whenever it is to be used.
//!
//! A proof of an entry ends in a checkpoint, and no other than the last is kept; who needs one for an earlier size makes it of the tiles.

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderName, header};
use fte_events::hex;

use crate::entry::Entry;

/// What is replaced every half second, and is the same for all.
pub(super) const LAST: (HeaderName, &str) = (header::CACHE_CONTROL, "max-age=1");
/// The same, for who may see the entry.
pub(super) const LAST_FOR_ONE: (HeaderName, &str) = (header::CACHE_CONTROL, "private, max-age=1");
/// What never changes, and is the same for all.
pub(super) const FIXED: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=31536000, immutable");
/// What never changes, for who asked with their key, and for nobody who shares a cache with them.
pub(super) const FIXED_FOR_ONE: (HeaderName, &str) = (header::CACHE_CONTROL, "private, max-age=31536000, immutable");
/// What may be erased.
pub(super) const ASKED_AFTER: (HeaderName, &str) = (header::CACHE_CONTROL, "private, no-cache");

/// Tells an entry as it is shown now from what it may have been: it changes with an erasure, and with a program that shows it differently. It is made of what
/// is stored, as a digest of what can be read would let others guess that.
pub(super) fn tag(entry: &Entry) -> String {
    let state = if entry.bytes.is_some() { "open" } else { "erased" };
    format!("\"{}-{state}-{}\"", &hex(&entry.header.payload_sha256)[..32], env!("CARGO_PKG_VERSION"))
}

/// Whether the caller has it already.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests;
