//! The HTTP client for one agent elsewhere: its secrets, its one origin, its limits.
//!
//! Always true: requests go to the origin of the agent's URL and nowhere else, redirects are not followed; every wait has an end and every body a limit;
//! no secret is shown, not even where the agent repeats it in an error.
//!
//! Hyper's client with rustls on ring, of which all but a thin layer is in the program already. `reqwest` lost: it would cost some 40 seconds of building
//! for redirects, proxies and cookies, all of which have to be off here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fte_bus::json;
use fte_service::agents::Http;
use fte_service::{ConfigError, Env, chain};
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::address::{Origin, origin};
use super::limits::HttpLimits;
use super::trouble::Trouble;
use crate::agents::limits::clip;

/// So much of what an agent says in an error is read, and so much of that quoted.
const DETAIL_BYTES_MAX: usize = 64 << 10;
const QUOTE_BYTES_MAX: usize = 1024;
/// Shorter secrets than this are not looked for in what an agent says: they would be found everywhere.
const SECRET_BYTES_MIN: usize = 4;

/// A client for one agent.
pub(super) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    origin: Option<Origin>,
    headers: HeaderMap,
    pub(super) limits: HttpLimits,
}

/// Counts what an attempt has received.
#[derive(Debug)]
pub(super) struct Meter {
    bytes: AtomicU64,
    bytes_max: u64,
}

/// A request in the making.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON.
    pub(super) body: Option<Vec<u8>>,
    pub(super) accept: &'static str,
    /// Longest wait for the answer to begin.
    pub(super) within: Duration,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// A body, piece by piece.
#[derive(Debug)]
pub(super) struct Body {
    incoming: Incoming,
    idle: Duration,
    meter: Option<Arc<Meter>>,
}

impl Meter {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), bytes_max })
    }

    fn count(&self, bytes: usize) -> Result<(), Trouble> {
        let bytes = bytes as u64;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.bytes_max { Err(Trouble::Flood(self.bytes_max)) } else { Ok(()) }
    }
}

/// The certificate authorities that this machine trusts.
pub(super) fn trusted_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

impl Client {
    /// A client for the agent `name`. Its secrets are read now.
    pub(super) fn new(name: &str, http: &Http, env: &impl Env, limits: &HttpLimits, roots: RootCertStore) -> Result<Self, ConfigError> {
        if http.url.scheme_str() == Some("https") && roots.is_empty() {
            tracing::warn!(agent = name, "no certificate authorities are installed (ca-certificates): no https agent can be reached");
        }
        let mut headers = HeaderMap::new();
        for header in &http.headers {
            let place = format!("agents.{name}.headers, {}", header.name);
            let value = env
                .get(&header.variable)
                .ok_or_else(|| ConfigError::variable(&header.variable, "", format!("a value, for {place} in agents.toml")))?;
            let value = HeaderValue::from_str(&format!("{}{}", header.prefix, value.trim()));
            let mut value = value
                .map_err(|_| ConfigError::variable(&header.variable, "…", format!("what a header can hold, for {place} in agents.toml")))?;
            value.set_sensitive(true);
            headers.append(header.name.clone(), value);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("fte/", env!("CARGO_PKG_VERSION"))));
        Ok(Self { pool: pool(limits, roots), origin: origin(&http.url), headers, limits: limits.clone() })
    }

    /// The same for the same agent at another origin.
    pub(super) fn at(&self, url: &Uri) -> Self {
        Self { pool: self.pool.clone(), origin: origin(url), headers: self.headers.clone(), limits: self.limits.clone() }
    }

    /// Asks, and waits for the answer to begin. Every status but a redirect is an answer.
    pub(super) async fn ask(&self, ask: Ask<'_>, meter: &Arc<Meter>) -> Result<Answer, Trouble> {
        let to = shown(ask.url);
        if self.origin.is_none() || origin(ask.url) != self.origin {
            return Err(Trouble::Elsewhere { what: "an address", to });
        }
        let is_json = ask.body.is_some();
        let mut request = Request::new(Full::new(Bytes::from(ask.body.unwrap_or_default())));
        *request.method_mut() = ask.method;
        *request.uri_mut() = ask.url.clone();
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static(ask.accept));
        if is_json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(ask.headers);
        let answer = match tokio::time::timeout(ask.within, self.pool.request(request)).await {
            Err(_) => return Err(Trouble::NoAnswer { to, within: ask.within }),
            Ok(Err(error)) if error.is_connect() => return Err(Trouble::Unreachable { to, reason: chain(&error) }),
            Ok(Err(error)) => return Err(Trouble::Lost(chain(&error))),
            Ok(Ok(answer)) => answer,
        };
        self.answer(answer, to, meter)
    }

    fn answer(&self, answer: Response<Incoming>, from: String, meter: &Arc<Meter>) -> Result<Answer, Trouble> {
        let (parts, incoming) = answer.into_parts();
        if parts.status.is_redirection() {
            let to = parts.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let to = format!("{} ({} of {from})", clip(to.to_owned(), QUOTE_BYTES_MAX), parts.status.as_u16());
            return Err(Trouble::Elsewhere { what: "a redirect", to });
        }
        let body = Body { incoming, idle: self.limits.idle, meter: Some(Arc::clone(meter)) };
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Takes out what must not be shown.
    pub(super) fn clean(&self, mut text: String) -> String {
        for secret in self.headers.values().filter(|value| value.is_sensitive()) {
            let Ok(whole) = secret.to_str() else { continue };
            // Also without its `Bearer`.
            for secret in [whole, whole.rsplit(' ').next().unwrap_or(whole)] {
                if secret.len() >= SECRET_BYTES_MIN {
                    text = text.replace(secret, "…");
                    // Nor the beginning of it, where a quote was cut.
                    let begins = (SECRET_BYTES_MIN..secret.len()).rev().filter_map(|end| secret.get(..end));
                    for begin in begins.map(|begin| format!("{begin}…")) {
                        if text.contains(&begin) {
                            text = text.replace(&begin, "…");
                        }
                    }
                }
            }
        }
        text
    }
}

fn pool(limits: &HttpLimits, roots: RootCertStore) -> Pool<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.expect("ring speaks TLS 1.2 and 1.3").with_root_certificates(roots).with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limits.connect));
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(16).build(connector)
}

impl Answer {
    /// The first words of its media type, in lower case.
    pub(super) fn media(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// How long the agent asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let due = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
        Duration::try_from(due.duration_since(jiff::Timestamp::now())).ok()
    }

    /// What the agent says against the request.
    pub(super) async fn refusal(self) -> Trouble {
        let (status, retry_after) = (self.status, self.retry_after());
        let text = self.body.beginning(DETAIL_BYTES_MAX).await;
        Trouble::Status { status, detail: detail(&text), retry_after }
    }
}

/// The words of a problem (RFC 9457), or of whatever else stands in its place.
fn detail(body: &[u8]) -> String {
    let problem: Option<Value> = json::from_slice(body, json::DEPTH_MAX).ok();
    let named = problem.as_ref().and_then(|problem| {
        let say = |key: &str| problem.get(key).and_then(Value::as_str);
        say("detail")
            .or_else(|| say("title"))
            .or_else(|| say("message"))
            .or_else(|| say("error"))
            .or_else(|| problem["error"]["message"].as_str())
    });
    let text = named.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    if text.is_empty() { text } else { format!(": {}", clip(text, QUOTE_BYTES_MAX)) }
}

impl Body {
    /// Its bytes are not counted: what it holds has a limit of its own.
    pub(super) fn uncounted(mut self) -> Self {
        self.meter = None;
        self
    }

    /// The next piece; nothing at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.incoming.frame()).await;
            let frame = frame.map_err(|_| Trouble::Lost(format!("nothing came for {} s", self.idle.as_secs_f64())))?;
            let Some(frame) = frame else { return Ok(None) };
            // Trailers say nothing here.
            if let Ok(data) = frame.map_err(|error| Trouble::Lost(chain(&error)))?.into_data() {
                if let Some(meter) = &self.meter {
                    meter.count(data.len())?;
                }
                return Ok(Some(data));
            }
        }
    }

    /// Its beginning, as much of it as comes.
    async fn beginning(mut self, bytes_max: usize) -> Vec<u8> {
        let mut beginning = Vec::new();
        while beginning.len() < bytes_max
            && let Ok(Some(chunk)) = self.chunk().await
        {
            beginning.extend_from_slice(&chunk[..chunk.len().min(bytes_max - beginning.len())]);
        }
        beginning
    }

    /// All of it.
    pub(super) async fn whole(mut self, bytes_max: usize) -> Result<Vec<u8>, Trouble> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > bytes_max {
                return Err(Trouble::AnswerTooLarge(bytes_max));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }
}

/// The address without what stands after its path.
fn shown(url: &Uri) -> String {
    clip(url.to_string().split('?').next().unwrap_or_default().to_owned(), QUOTE_BYTES_MAX)
}

#[cfg(test)]
mod tests;
