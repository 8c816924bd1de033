//! One HTTP/1.1 connection, and the requests that go over it, encoded once.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::client::Target;
use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A task id as it is held: two words, which pack better than one of 16 bytes.
pub(super) type Id = (u64, u64);

/// Why a call has no answer.
pub(super) type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Every request that is sent, ready but for its copy.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) authority: String,
    pub(super) base: String,
    prefix: String,
    post: Uri,
    body: Bytes,
    post_headers: HeaderMap,
    get_headers: HeaderMap,
}

impl Requests {
    pub(super) fn new(target: &Target, agent: &str, payload_bytes: usize) -> Result<Self, Error> {
        if target.is_https() {
            return Err(Error::usage(
                "`fte bench` measures an instance, not TLS",
                "give it the address behind the gateway, as http://127.0.0.1:8080",
            ));
        }
        let host = HeaderValue::from_str(&target.authority)
            .map_err(|_| Error::usage(format!("{} cannot be sent as Host", target.authority), "use a plain host name"))?;
        let mut get_headers = HeaderMap::new();
        get_headers.insert(HOST, host);
        if let Some(authorization) = &target.authorization {
            get_headers.insert(AUTHORIZATION, authorization.clone());
        }
        let mut post_headers = get_headers.clone();
        post_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::json!({"task": text(payload_bytes), "agent": agent}).to_string().into();
        let prefix = target.prefix.clone();
        let requests = Self {
            authority: target.authority.clone(),
            base: target.base.clone(),
            post: uri(&format!("{prefix}/v1/tasks"))?,
            prefix,
            body,
            post_headers,
            get_headers,
        };
        Ok(requests)
    }

    /// A new task.
    pub(super) fn post(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.post.clone();
        *request.headers_mut() = self.post_headers.clone();
        request
    }

    /// The result of a task, waited for.
    pub(super) fn result(&self, id: Id) -> Result<Request<Full<Bytes>>, Error> {
        self.get(&format!("/v1/tasks/{}/result?wait=30s", Uuid::from_u64_pair(id.0, id.1)))
    }

    /// The event stream, after the event that `last_event_id` names.
    pub(super) fn stream(&self, path: &str, last_event_id: &[u8]) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = self.get(path)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if !last_event_id.is_empty()
            && let Ok(id) = HeaderValue::from_bytes(last_event_id)
        {
            request.headers_mut().insert("last-event-id", id);
        }
        Ok(request)
    }

    fn get(&self, path: &str) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri(&format!("{}{path}", self.prefix))?;
        *request.headers_mut() = self.get_headers.clone();
        Ok(request)
    }
}

fn uri(text: &str) -> Result<Uri, Error> {
    text.parse().map_err(|_| Error::usage(format!("{text:?} is not a path"), "write the URL like http://127.0.0.1:8080"))
}

/// Words of `bytes` letters in all.
fn text(bytes: usize) -> String {
    "measure this task from its request to its result ".chars().cycle().take(bytes).collect()
}

/// An open connection. After an error it is of no more use.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    answer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(authority: &str) -> Result<Self, Broken> {
        let open = async {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // It ends when the sender is dropped or the server hangs up; the next call sees the latter.
            tokio::task::spawn_local(connection);
            Ok::<_, Broken>(Self { sender, answer: Vec::with_capacity(1024) })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, open).await.map_err(|_| "no connection in time")?
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, &[u8]), Broken> {
        self.answer.clear();
        let read = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                if let Some(bytes) = frame?.data_ref() {
                    if self.answer.len() + bytes.len() > ANSWER_BYTES_MAX {
                        return Err("the answer is too large".into());
                    }
                    self.answer.extend_from_slice(bytes);
                }
            }
            Ok::<_, Broken>(status)
        };
        let status = tokio::time::timeout(ANSWER_TIMEOUT, read).await.map_err(|_| "no answer in time")??;
        Ok((status, &self.answer))
    }

    /// Sends a request whose answer goes on.
    pub(super) async fn open_stream(mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Broken> {
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, self.sender.send_request(request)).await;
        Ok(opened.map_err(|_| "no answer in time")??)
    }
}

/// The id that stands in compact JSON behind `"key":"`.
pub(super) fn find_id(json: &[u8], key: &[u8]) -> Option<Id> {
    let from = json.windows(key.len()).position(|window| window == key)? + key.len();
    parse_id(json.get(from..from + 36)?)
}

pub(super) fn parse_id(text: &[u8]) -> Option<Id> {
    Uuid::try_parse_ascii(text).ok().map(|uuid| uuid.as_u64_pair())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_bytes() {
        let json = br#"{"status":"accepted","task_id":"01980000-0000-7000-8000-000000000001","x":1}"#;
        assert_eq!(find_id(json, br#""task_id":""#), Some((0x0198_0000_0000_7000, 0x8000_0000_0000_0001)));
        assert_eq!(find_id(json, br#""subject":""#), None);
        assert_eq!(find_id(br#"{"task_id":"0198"#, br#""task_id":""#), None);
    }

    #[test]
    fn a_task_has_the_length_that_was_asked_for() {
        let target = Target::new("http://127.0.0.1:1", None).unwrap();
        let requests = Requests::new(&target, "echo", 1000).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&requests.body).unwrap();
        assert_eq!(body["task"].as_str().map(str::len), Some(1000));
    }
}
