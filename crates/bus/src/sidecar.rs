//! The HTTP connection to one sidecar.
//!
//! HTTP/1.1 keep-alive over loopback; no call is without a time limit and no answer without a size limit. Dapr moved bulk publish
//! (1.17) and jobs (1.18) to stable routes; the stable one is tried first and what the sidecar lacks is remembered. The reported version would not
//! do: a sidecar built from source reports `edge`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::error::Error;

/// Most bytes read of one answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Idle connections kept to the sidecar.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// Where the sidecar is and how to speak to it.
#[derive(Clone, Debug)]
pub struct SidecarConfig {
    /// `http://127.0.0.1:3500`.
    pub base_url: String,
    /// Sent as `dapr-api-token`.
    pub api_token: Option<String>,
    /// Longest wait for one answer, 30 s by default.
    pub call_timeout: Duration,
}

impl SidecarConfig {
    /// The sidecar that listens on `port` of this machine.
    pub fn at_port(port: u16) -> Self {
        Self::at(format!("http://127.0.0.1:{port}"))
    }

    /// The sidecar at a base URL.
    pub fn at(base_url: impl Into<String>) -> Self {
        Self { base_url: base_url.into(), api_token: None, call_timeout: Duration::from_secs(30) }
    }
}

/// A handle to the sidecar; cheap to clone, connections are shared.
#[derive(Clone, Debug)]
pub struct Sidecar {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client<HttpConnector, Full<Bytes>>,
    base: Arc<str>,
    token: Option<HeaderValue>,
    call_timeout: Duration,
    lacks_stable_bulk: AtomicBool,
    lacks_stable_jobs: AtomicBool,
}

/// A group of routes that exists in an alpha and a stable generation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moved {
    /// `publish/bulk/…`, stable from 1.17.
    BulkPublish,
    /// `jobs/…`, stable from 1.18.
    Jobs,
}

/// What the sidecar says about itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// The application it serves.
    pub id: String,
    /// Its version; empty when it does not say.
    #[serde(rename = "runtimeVersion", default)]
    pub runtime_version: String,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Sidecar {
    /// Connects lazily: nothing is sent before the first call.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the URL is not `http://host[:port]` or the token cannot be a header.
    pub fn new(config: SidecarConfig) -> Result<Self, Error> {
        let base = config.base_url.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| Error::Invalid(format!("{base:?} is not a URL")))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(Error::Invalid(format!("the sidecar's address must look like http://127.0.0.1:3500, not {base:?}")));
        }
        let token = config
            .api_token
            .as_deref()
            .map(|token| {
                let mut value = HeaderValue::from_str(token)
                    .map_err(|_| Error::Invalid("the sidecar's API token has characters that no header can carry".to_owned()))?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(Duration::from_secs(60))
            .build(connector);
        let inner = Inner {
            client,
            base: base.into(),
            token,
            call_timeout: config.call_timeout,
            lacks_stable_bulk: AtomicBool::new(false),
            lacks_stable_jobs: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.inner.base
    }

    /// Ready for outbound calls (components and API up), whether or not the application is.
    pub async fn outbound_ready(&self) -> Result<(), Error> {
        let answer = self.call("its health", Method::GET, "/v1.0/healthz/outbound", None).await?;
        answer.success().map(drop)
    }

    /// What the sidecar says about itself.
    pub async fn metadata(&self) -> Result<Metadata, Error> {
        let answer = self.call("its metadata", Method::GET, "/v1.0/metadata", None).await?;
        answer.success()?.json("its metadata")
    }

    /// A call to a route that moved: `tail` follows `/v1.0/` or `/v1.0-alpha1/`.
    pub(crate) async fn call_moved(
        &self,
        what: &'static str,
        moved: Moved,
        method: Method,
        tail: &str,
        body: Option<(Bytes, &'static str)>,
    ) -> Result<Answer, Error> {
        let lacks_stable = match moved {
            Moved::BulkPublish => &self.inner.lacks_stable_bulk,
            Moved::Jobs => &self.inner.lacks_stable_jobs,
        };
        if !lacks_stable.load(Ordering::Relaxed) {
            let answer = self.call(what, method.clone(), &format!("/v1.0/{tail}"), body.clone()).await?;
            if !moved.is_absent(&answer) {
                return Ok(answer);
            }
        }
        let answer = self.call(what, method, &format!("/v1.0-alpha1/{tail}"), body).await?;
        // A sidecar that has neither may get the stable one while it is away.
        lacks_stable.store(!moved.is_absent(&answer), Ordering::Relaxed);
        Ok(answer)
    }

    pub(crate) async fn call(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        json: Option<(Bytes, &'static str)>,
    ) -> Result<Answer, Error> {
        self.call_with(what, method, path, json, None).await
    }

    pub(crate) async fn call_with(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<(Bytes, &'static str)>,
        if_match: Option<&str>,
    ) -> Result<Answer, Error> {
        let inner = &*self.inner;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", inner.base));
        if let Some(token) = &inner.token {
            request = request.header("dapr-api-token", token);
        }
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        let body = match body {
            Some((bytes, content_type)) => {
                request = request.header(CONTENT_TYPE, content_type);
                Full::new(bytes)
            }
            None => Full::default(),
        };
        let request = request.body(body).map_err(|error| Error::Invalid(error.to_string()))?;
        let exchange = async {
            let response = inner.client.request(request).await.map_err(|source| self.unreachable(source))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|source| self.unreachable_box(source))?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(inner.call_timeout, exchange).await.unwrap_or_else(|_| {
            let timeout_ms = u64::try_from(inner.call_timeout.as_millis()).unwrap_or(u64::MAX);
            Err(Error::TimedOut { what, timeout_ms })
        })
    }

    fn unreachable(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Unreachable { address: Arc::clone(&self.inner.base), source: Arc::new(source) }
    }

    fn unreachable_box(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::Unreachable { address: Arc::clone(&self.inner.base), source: Arc::from(source) }
    }
}

impl Moved {
    /// Whether the answer says that the stable route does not exist. A sidecar without it takes `bulk` for a component's name,
    /// and an unknown route for a service invocation. One whose configuration allows no service invocation answers in no words of
    /// Dapr's: there is no such page.
    fn is_absent(self, answer: &Answer) -> bool {
        if answer.status != StatusCode::NOT_FOUND {
            return false;
        }
        let Error::Answered { code, message, .. } = answer.error() else {
            return false;
        };
        if code.is_empty() {
            return true;
        }
        match self {
            Self::BulkPublish => code == "ERR_PUBSUB_NOT_FOUND" && message.contains("pubsub bulk "),
            Self::Jobs => code == "ERR_DIRECT_INVOKE",
        }
    }
}

#[derive(Deserialize)]
struct DaprError {
    #[serde(rename = "errorCode", default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Answer {
    pub(crate) fn success(self) -> Result<Self, Error> {
        if self.status.is_success() { Ok(self) } else { Err(self.error()) }
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, what: &'static str) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Malformed { what, reason: error.to_string() })
    }

    pub(crate) fn error(&self) -> Error {
        let status = self.status.as_u16();
        match serde_json::from_slice::<DaprError>(&self.body) {
            Ok(error) => Error::Answered { status, code: error.code, message: error.message },
            Err(_) => {
                let start = &self.body[..self.body.len().min(200)];
                Error::Answered { status, code: String::new(), message: String::from_utf8_lossy(start).into_owned() }
            }
        }
    }
}

/// Percent-encodes one path segment or query value (RFC 3986 unreserved characters stay).
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_route_counts_as_absent() {
        let check = |moved: Moved, body: &'static str, absent| {
            let answer = Answer { status: StatusCode::NOT_FOUND, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) };
            assert_eq!(moved.is_absent(&answer), absent, "{body}");
        };
        check(Moved::BulkPublish, r#"{"errorCode":"ERR_PUBSUB_NOT_FOUND","message":"pubsub bulk is not found"}"#, true);
        check(Moved::BulkPublish, r#"{"errorCode":"ERR_PUBSUB_NOT_FOUND","message":"pubsub orders is not found"}"#, false);
        check(Moved::Jobs, r#"{"errorCode":"ERR_DIRECT_INVOKE","message":"failed getting app id"}"#, true);
        check(Moved::Jobs, r#"{"errorCode":"ERR_JOBS_NOT_FOUND","message":"no such job"}"#, false);
    }

    #[test]
    fn path_segments_are_encoded() {
        assert_eq!(encode("task/1 ü"), "task%2F1%20%C3%BC");
    }
}
