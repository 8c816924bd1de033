//! What agents send as parts of messages and artifacts: as words, as a JSON value, as files that are kept.

use std::io::{self, Read};
use std::sync::Arc;

use a2a::{Part, PartContent};
use bytes::Bytes;
use fte_events::Artifact;
use http::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::address::follow;
use super::client::{Ask, Body};
use super::trouble::Trouble;
use super::{Break, Call};
use crate::agents::artifacts::ArtifactError;
use crate::agents::session::error;

/// Longest name of a file.
const FILE_NAME_BYTES_MAX: usize = 255;
/// Pieces of a file that wait for the disk.
const PIECES: usize = 8;

/// The text of all text parts.
pub(super) fn text(parts: &[Part]) -> String {
    let texts: Vec<&str> = parts.iter().filter_map(Part::as_text).collect();
    texts.join("\n")
}

/// Text and data as one JSON value: text alone as text, one piece of data as such, anything else as a list. Nothing where there is neither.
pub(super) fn value<'a>(parts: impl Iterator<Item = &'a Part>) -> Option<Value> {
    let mut values: Vec<Value> = Vec::new();
    for part in parts {
        match (&part.content, values.last_mut()) {
            (PartContent::Text(text), Some(Value::String(before))) => {
                before.push('\n');
                before.push_str(text);
            }
            (PartContent::Text(text), _) => values.push(Value::String(text.clone())),
            (PartContent::Data(data), _) => values.push(data.clone()),
            (PartContent::Raw(_) | PartContent::Url(_), _) => {}
        }
    }
    if values.len() > 1 { Some(Value::Array(values)) } else { values.pop() }
}

/// A name that is one of a file.
pub(super) fn file_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    match plain.get(..plain.floor_char_boundary(FILE_NAME_BYTES_MAX)).unwrap_or_default() {
        "" | "." | ".." => "artifact".to_owned(),
        name => name.to_owned(),
    }
}

/// Keeps one part of an artifact as a file.
pub(super) async fn keep(call: &mut Call, part: Part, name: String) -> Result<Artifact, Break> {
    let media = part
        .media_type
        .filter(|text| text.len() <= FILE_NAME_BYTES_MAX && text.contains('/') && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    let (bytes, usual) = match part.content {
        PartContent::Text(text) => (text.into_bytes(), "text/plain"),
        PartContent::Data(data) => (data.to_string().into_bytes(), "application/json"),
        PartContent::Raw(bytes) => (bytes, "application/octet-stream"),
        PartContent::Url(url) => return fetch(call, &url, name, media).await,
    };
    let media = media.unwrap_or_else(|| usual.to_owned());
    let shared = Arc::clone(&call.shared);
    kept(call.ears.unless(shared.artifacts.keep(&name, &media, io::Cursor::new(bytes))).await?)
}

/// Keeps what is at the address, which is read as it is written.
async fn fetch(call: &mut Call, url: &str, name: String, media: Option<String>) -> Result<Artifact, Break> {
    let refused = |trouble: Trouble| Trouble::Said(Box::new(error("artifact_refused", trouble.to_string(), false)));
    let url = follow(&call.agent.http.url, url, "the address of an artifact").map_err(refused)?;
    let agent = Arc::clone(&call.agent);
    let meter = Arc::clone(&call.meter);
    let ask = Ask { method: Method::GET, url: &url, headers: Vec::new(), body: None, accept: "*/*", within: agent.client.limits.answer };
    let answer = call.ears.unless(agent.client.ask(ask, &meter)).await??;
    if !answer.status.is_success() {
        return Err(call.ears.unless(answer.refusal()).await?.into());
    }
    let media = media.or_else(|| Some(answer.media()).filter(|media| media.contains('/')));
    let media = media.unwrap_or_else(|| "application/octet-stream".to_owned());
    let (write, read) = mpsc::channel(PIECES);
    let shared = Arc::clone(&call.shared);
    let keeping = shared.artifacts.keep(&name, &media, Pieces { read, held: Some(Bytes::new()) });
    let sending = send(answer.body.uncounted(), write);
    let (sent, keeping) = call.ears.unless(futures_util::future::join(sending, keeping)).await?;
    sent?;
    kept(keeping)
}

fn kept(keeping: Result<Artifact, ArtifactError>) -> Result<Artifact, Break> {
    keeping.map_err(|error| Trouble::Said(Box::new(error.said())).into())
}

/// Passes the body on, and says where it ends: what is cut off is not kept.
async fn send(mut body: Body, write: mpsc::Sender<Option<Bytes>>) -> Result<(), Trouble> {
    loop {
        let piece = body.chunk().await?;
        let end = piece.is_none();
        // Who keeps it has had enough, and says why.
        if write.send(piece).await.is_err() || end {
            return Ok(());
        }
    }
}

/// Reads what comes through a channel.
struct Pieces {
    read: mpsc::Receiver<Option<Bytes>>,
    /// What is not read yet; nothing after the end.
    held: Option<Bytes>,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(held) = &mut self.held else { return Ok(0) };
            if !held.is_empty() {
                let piece = held.split_to(held.len().min(into.len()));
                into[..piece.len()].copy_from_slice(&piece);
                return Ok(piece.len());
            }
            self.held = self.read.blocking_recv().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_one_value() {
        let check = |parts: &[Part], expected: Option<Value>| assert_eq!(value(parts.iter()), expected, "{parts:?}");
        check(&[], None);
        check(&[Part::text("a"), Part::text("b")], Some(json!("a\nb")));
        check(&[Part::data(json!({"a": 1}))], Some(json!({"a": 1})));
        check(&[Part::text("a"), Part::data(json!(1)), Part::text("b")], Some(json!(["a", 1, "b"])));
        check(&[Part::raw(vec![1]), Part::url("https://x")], None);
    }

    #[test]
    fn names_are_those_of_files() {
        assert_eq!(file_name("../a\n/b.txt"), ".._a__b.txt");
        assert_eq!(file_name(".."), "artifact");
        assert_eq!(file_name(""), "artifact");
        assert_eq!(file_name(&"ü".repeat(200)).len(), 254);
    }
}
