//! How an event looks on a stream of server-sent events, and which events a stream carries.
//!
//! `id:` is the CloudEvent's id, `event:` its type, `data:` the CloudEvent on one line.

use fte_events::TaskId;
use fte_service::keys::Scope;

/// Sent when a stream opens: the headers go out at once, and browsers reconnect after a second.
pub(crate) const OPENING: &[u8] = b"retry: 1000\n\n";
/// Sent into a silence.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Appends an event as one frame.
pub(crate) fn write_frame(out: &mut Vec<u8>, id: &impl std::fmt::Display, event_type: &str, body: &[u8]) {
    use std::io::Write as _;
    out.reserve(body.len() + event_type.len() + 64);
    out.extend_from_slice(b"id: ");
    let start = out.len();
    // Writing into a vector cannot fail.
    let _ = write!(out, "{id}");
    one_line(&mut out[start..]);
    if !event_type.is_empty() {
        out.extend_from_slice(b"\nevent: ");
        let start = out.len();
        out.extend_from_slice(event_type.as_bytes());
        one_line(&mut out[start..]);
    }
    out.extend_from_slice(b"\ndata: ");
    let start = out.len();
    out.extend_from_slice(body);
    // Inside JSON strings line breaks are escaped; between tokens a space means the same.
    one_line(&mut out[start..]);
    out.extend_from_slice(b"\n\n");
}

fn one_line(bytes: &mut [u8]) {
    for byte in bytes {
        if matches!(*byte, b'\n' | b'\r' | 0) {
            *byte = b' ';
        }
    }
}

/// Which events a stream of all tasks carries; nothing set means all.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// Only these types, when there are any.
    pub types: Vec<Box<str>>,
    /// Only this task.
    pub task: Option<TaskId>,
    /// Only what its listener may see.
    pub scope: Scope,
}

impl Default for Filter {
    fn default() -> Self {
        Self { types: Vec::new(), task: None, scope: Scope::All }
    }
}

impl Filter {
    /// Whether it lets everything through.
    pub(crate) fn is_open(&self) -> bool {
        self.types.is_empty() && self.task.is_none() && self.scope == Scope::All
    }

    /// Whether it lets an event through.
    pub(crate) fn passes(&self, event_type: &str, task: Option<TaskId>, tenant: &str) -> bool {
        self.scope.sees(tenant)
            && (self.types.is_empty() || self.types.iter().any(|wanted| **wanted == *event_type))
            && (self.task.is_none() || self.task == task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_data_on_one_line_whatever_the_bytes() {
        let mut out = Vec::new();
        write_frame(&mut out, &"a\nb", "t\r\nx", b"{\n  \"id\":\r\"1\"}");
        assert_eq!(String::from_utf8(out).unwrap(), "id: a b\nevent: t  x\ndata: {   \"id\": \"1\"}\n\n");
    }
}
