//! One gRPC call over plain HTTP/2, by curl: what anybody on the machine could send to a sidecar's gRPC ports. Nothing of ours speaks gRPC.

use std::io::Write;
use std::process::{Command, Stdio};

/// gRPC's own names for what a call ended as.
pub(crate) const OK: u32 = 0;
pub(crate) const FAILED_PRECONDITION: u32 = 9;
pub(crate) const UNIMPLEMENTED: u32 = 12;
pub(crate) const UNAUTHENTICATED: u32 = 16;

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u32,
    /// Headers and trailers, with gRPC's own message among them.
    pub(crate) said: String,
}

/// Calls a method, as `dapr.proto.runtime.v1.Dapr/Shutdown`, with one message.
pub(crate) fn call(port: u16, method: &str, token: Option<&str>, message: &[u8]) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "20", "--dump-header", "-", "--output", "/dev/null"]);
    curl.args(["--header", "content-type: application/grpc", "--header", "te: trailers", "--data-binary", "@-"]);
    if let Some(token) = token {
        curl.args(["--header", &format!("dapr-api-token: {token}")]);
    }
    curl.arg(format!("http://127.0.0.1:{port}/{method}"));
    let mut running = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A frame: not compressed, its length, the message.
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    running.stdin.take().unwrap().write_all(&[&[0], &length[..], message].concat()).unwrap();
    let done = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let status = said.lines().find_map(|line| line.strip_prefix("grpc-status: ")?.trim().parse().ok());
    let failed = || panic!("{method}: {said}{}", String::from_utf8_lossy(&done.stderr));
    Answer { status: status.unwrap_or_else(failed), said }
}

/// A field of a message that has a length: a text, bytes, or a message within.
pub(crate) fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut length = value.len();
    while length > 0x7f {
        encoded.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    encoded.push(u8::try_from(length).unwrap());
    encoded.extend(value);
    encoded
}
