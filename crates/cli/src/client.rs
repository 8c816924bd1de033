//! The HTTP client of the commands: one instance, one key, every call bounded in time and size.
//!
//! Instances listen on loopback and speak plain HTTP; one behind a gateway is reached by https.

mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Problem};
use crate::hints::Hints;

const ANSWER_BYTES_MAX: usize = 64 << 20;
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where an instance is, and who asks.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `http://host:port` or `https://host`, without a slash at its end.
    pub(crate) base: String,
    /// `host:port`, for the `Host` header and to connect to; without the port where that is the usual one of https.
    pub(crate) authority: String,
    /// What precedes `/v1`, mostly nothing.
    pub(crate) prefix: String,
    /// `Bearer <key>`.
    pub(crate) authorization: Option<HeaderValue>,
    /// How to name it in a command.
    pub(crate) hints: Hints,
    /// Where it is reached by https: who vouches for it.
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    pub(crate) fn new(url: &str, api_key: Option<&str>) -> Result<Self, Error> {
        let wrong =
            |why: &str| Error::usage(format!("{url:?} is not the URL of an instance: {why}"), "write it like http://127.0.0.1:8080");
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong("it does not parse"))?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it begins neither with http:// nor with https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?;
        let tls = if is_https { Some(Arc::new(tls::config(url)?)) } else { None };
        let authority = match uri.port_u16() {
            // As browsers do: gateways choose by the name alone.
            None if is_https => host.to_owned(),
            port => format!("{host}:{}", port.unwrap_or(80)),
        };
        let authorization = match api_key.filter(|key| !key.is_empty()) {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| Error::usage("the API key has characters that no header can carry", "check FTE_API_KEY"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let base = format!("{}://{authority}{prefix}", if is_https { "https" } else { "http" });
        Ok(Self { base, authority, prefix, authorization, hints: Hints::default(), tls })
    }

    pub(crate) fn with_hints(self, hints: Hints) -> Self {
        Self { hints, ..self }
    }

    pub(crate) fn is_https(&self) -> bool {
        self.tls.is_some()
    }
}

/// A successful answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    url: String,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Foreign { url: self.url.clone(), what: error.to_string() })
    }
}

/// A connection pool to one instance.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    target: Target,
}

impl Client {
    pub(crate) fn new(target: Target) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        let tls = target.tls.as_deref().cloned().unwrap_or_else(tls::none);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        Self { pool: Pool::builder(TokioExecutor::new()).build(connector), target }
    }

    /// The same caller at another address. The key is for the instance that it was given for, and is shown to no other.
    pub(crate) fn at(&self, url: &str) -> Result<Self, Error> {
        let Target { authorization, hints, base, .. } = self.target.clone();
        let there = Target::new(url, None)?;
        let authorization = authorization.filter(|_| there.base == base);
        Ok(Self::new(Target { authorization, ..there.with_hints(hints) }))
    }

    /// The same, which our texts name by its own address.
    pub(crate) fn named(mut self) -> Self {
        self.target.hints = Hints::new(Some(self.target.base.clone()));
        self
    }

    pub(crate) fn has_key(&self) -> bool {
        self.target.authorization.is_some()
    }

    pub(crate) fn base(&self) -> &str {
        &self.target.base
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.target.hints
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.call(Method::GET, path, None::<&()>, &[]).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: Option<&impl Serialize>,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Answer, Error> {
        self.call(Method::POST, path, body, headers).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Answer, Error> {
        self.call(Method::DELETE, path, None::<&()>, &[]).await
    }

    /// Opens an event stream, after the event that `last_event_id` names.
    pub(crate) async fn stream(&self, path: &str, last_event_id: Option<&str>) -> Result<Incoming, Error> {
        let mut headers = vec![(ACCEPT, HeaderValue::from_static("text/event-stream"))];
        if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.push((HeaderName::from_static("last-event-id"), id));
        }
        let url = self.url(path);
        let response = self.send(Method::GET, path, None::<&()>, &headers).await?;
        if !response.status().is_success() {
            return Err(self.finish(url, response).await.err().unwrap_or_else(|| Error::Failed("the stream did not open".to_owned())));
        }
        let is_stream = response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if is_stream { Ok(response.into_body()) } else { Err(Error::Foreign { url, what: "it is not an event stream".to_owned() }) }
    }

    /// A successful answer whose body is still to be read.
    pub(crate) async fn open(&self, path: &str) -> Result<Incoming, Error> {
        let response = self.send(Method::GET, path, None::<&()>, &[]).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        Err(self.finish(self.url(path), response).await.err().unwrap_or_else(|| Error::Failed("the answer makes no sense".to_owned())))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.target.base)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Answer, Error> {
        let response = self.send(method, path, body, headers).await?;
        self.finish(self.url(path), response).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Response<Incoming>, Error> {
        let url = self.url(path);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(authorization) = &self.target.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|error| Error::Failed(format!("JSON cannot be written: {error}")))?.into()
            }
        };
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| Error::usage(format!("{url} is not a URL: {error}"), "check the id that was given"))?;
        let unreachable = |source| Error::Unreachable { url: self.target.base.clone(), source };
        match tokio::time::timeout(CALL_TIMEOUT, self.pool.request(request)).await {
            Err(_) => Err(unreachable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()).into())),
            Ok(Err(error)) => Err(unreachable(error.into())),
            Ok(Ok(response)) => Ok(response),
        }
    }

    async fn finish(&self, url: String, response: Response<Incoming>) -> Result<Answer, Error> {
        let (head, body) = response.into_parts();
        let read = tokio::time::timeout(CALL_TIMEOUT, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let body = match read {
            Err(_) => Err("the answer did not end in time".into()),
            Ok(read) => read.map(http_body_util::Collected::to_bytes),
        }
        .map_err(|source| Error::Unreachable { url: self.target.base.clone(), source })?;
        if head.status.is_success() {
            return Ok(Answer { status: head.status, body, url });
        }
        let retry_after_s = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Error::Refused(Box::new(Problem::read(head.status, &body, retry_after_s))))
    }
}

/// A query string from the parameters that have a value, with the `?`.
pub(crate) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&escaped(value));
    }
    text
}

/// The text as one segment of a path or one value of a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.extend(['%', char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn urls_of_http_and_https_are_taken_and_no_others() {
        let target = Target::new("http://localhost:8080/fte/", None).unwrap();
        assert_eq!((target.base.as_str(), target.prefix.as_str()), ("http://localhost:8080/fte", "/fte"));
        assert_eq!(Target::new("http://[::1]", None).unwrap().authority, "[::1]:80");
        let target = Target::new("https://fte.example.com/", None).unwrap();
        assert_eq!((target.base.as_str(), target.authority.as_str()), ("https://fte.example.com", "fte.example.com"));
        assert_eq!(Target::new("https://host:8443", None).unwrap().base, "https://host:8443");
        for url in ["localhost:8080", "ftp://host", "http://", ""] {
            assert_eq!(Target::new(url, None).unwrap_err().exit(), Exit::Usage, "{url}");
        }
    }

    #[test]
    fn what_a_person_types_stays_one_segment() {
        assert_eq!(escaped("a/b?c ü"), "a%2Fb%3Fc%20%C3%BC");
        assert_eq!(query(&[("a", Some("1")), ("b", None), ("c", Some("x y"))]), "?a=1&c=x%20y");
        assert_eq!(query(&[("a", None)]), "");
    }
}
