//! Reading server-sent events, so that a test can cut the stream anywhere and take it up again.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

/// Longest line of a stream; a CloudEvent is one line.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long [`SseStream::next`] waits. Servers send a comment more often than that.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// Where to resume after it; empty if the server gave none.
    pub id: String,
    /// Its type.
    pub event: String,
    /// Its data.
    pub data: String,
}

impl SseEvent {
    /// The data as JSON. Panics with the data when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in {:?}", self.data))
    }
}

/// An open stream. Dropping it cuts the connection.
#[derive(Debug)]
pub struct SseStream {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<SseEvent>,
}

impl SseStream {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next event; `None` when the server ended the stream or the connection broke. Panics after a minute of silence.
    pub async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("the stream was silent for {SILENCE_MAX:?}"))?.ok()?;
            if let Ok(bytes) = frame.into_data() {
                self.parser.push(&bytes, &mut self.ready);
            }
        }
    }

    /// All events until the server ends the stream.
    pub async fn rest(mut self) -> Vec<SseEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// Lines in, events out: the part of the format that servers use (no byte order mark).
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    /// The last id stays in force for the events after it.
    id: String,
    event: String,
    data: Option<String>,
    after_cr: bool,
}

impl Parser {
    fn push(&mut self, bytes: &[u8], ready: &mut VecDeque<SseEvent>) {
        for &byte in bytes {
            let is_second_half = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            match byte {
                _ if is_second_half => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    self.end_line(&String::from_utf8_lossy(&line), ready);
                }
                _ => self.line.push(byte),
            }
            assert!(self.line.len() <= LINE_BYTES_MAX, "a line of the stream is longer than {LINE_BYTES_MAX} bytes");
        }
    }

    fn end_line(&mut self, line: &str, ready: &mut VecDeque<SseEvent>) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if let Some(data) = self.data.take() {
                ready.push_back(SseEvent { id: self.id.clone(), event, data });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.id),
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Comments keep the connection alive; `retry` is for browsers.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = ": hello\n\nid: 1\nevent: a\ndata: {\"x\":1}\n\nretry: 5\r\ndata:two\r\ndata: lines\r\n\r\nid: 3\n\ndata\n\nid: 4\ndata: unfinished";
        let event = |id: &str, event: &str, data: &str| SseEvent { id: id.into(), event: event.into(), data: data.into() };
        let expected = [event("1", "a", "{\"x\":1}"), event("1", "", "two\nlines"), event("3", "", "")];
        for size in 1..=text.len() {
            let (mut parser, mut ready) = (Parser::default(), VecDeque::new());
            text.as_bytes().chunks(size).for_each(|chunk| parser.push(chunk, &mut ready));
            assert_eq!(Vec::from(ready), expected, "in pieces of {size}");
        }
    }
}
