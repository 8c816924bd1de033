//! A JSON client for one base URL: every call has a time limit, every answer a size limit.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::sse::SseStream;

const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens, or the connection broke.
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    TimedOut,
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(_) => f.write_str("the server could not be reached"),
            Self::TimedOut => write!(f, "no answer within {CALL_TIMEOUT:?}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(source) => Some(source.as_ref()),
            Self::TimedOut => None,
        }
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Response {
    /// The body as JSON. Panics with the body when it is none.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in the body of {}: {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer itself, if it has this status. Panics with the body otherwise.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "the body is: {}", self.text());
        self
    }

    /// The `code` of a problem body. Panics when it is none.
    #[track_caller]
    pub fn problem_code(&self) -> String {
        let content_type = self.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
        assert_eq!(content_type, Some(&b"application/problem+json"[..]), "{}: {}", self.status, self.text());
        self.json::<Value>()["code"].as_str().unwrap_or_else(|| panic!("a problem without a code: {}", self.text())).to_owned()
    }
}

/// Calls one server. Cheap to clone; connections are shared.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    headers: HeaderMap,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of `base`, as `http://127.0.0.1:8080`.
    pub fn new(base: impl Into<String>) -> Self {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { base: base.into().trim_end_matches('/').to_owned(), headers: HeaderMap::new(), http }
    }

    /// The same client with one more header on every call: a token, an idempotency key.
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().expect("a header value"));
        self
    }

    /// Where it calls.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Method::DELETE, path, HeaderMap::new(), Bytes::new()).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Response, ClientError> {
        self.post_as(path, "application/json", body).await
    }

    /// `POST` of JSON under another content type, as `application/cloudevents+json`.
    pub async fn post_as(&self, path: &str, content_type: &'static str, body: &impl Serialize) -> Result<Response, ClientError> {
        let body = serde_json::to_vec(body).expect("a test's body is JSON");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type))]);
        self.send(Method::POST, path, headers, body.into()).await
    }

    /// Any call.
    pub async fn send(&self, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> Result<Response, ClientError> {
        let call = async {
            let response = self.http.request(self.request(method, path, headers, body)).await.map_err(unreachable)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(ClientError::Unreachable)?.to_bytes();
            Ok(Response { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(ClientError::TimedOut))
    }

    /// Opens a stream of server-sent events, from the beginning or after `last_event_id`. Panics unless the answer is such a stream.
    pub async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<SseStream, ClientError> {
        let mut headers = HeaderMap::from_iter([(header::ACCEPT, http::HeaderValue::from_static("text/event-stream"))]);
        if let Some(id) = last_event_id {
            headers.insert("last-event-id", id.parse().expect("a header value"));
        }
        let call = self.http.request(self.request(Method::GET, path, headers, Bytes::new()));
        let response = tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| ClientError::TimedOut)?.map_err(unreachable)?;
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(
            response.status() == StatusCode::OK && content_type.starts_with("text/event-stream"),
            "GET {path} answered {} with {content_type:?} instead of events",
            response.status()
        );
        Ok(SseStream::new(response.into_body()))
    }

    fn request(&self, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base).parse().expect("a URL");
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().extend(headers);
        request
    }
}

fn unreachable(error: hyper_util::client::legacy::Error) -> ClientError {
    ClientError::Unreachable(Box::new(error))
}
