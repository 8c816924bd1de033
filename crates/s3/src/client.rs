//! The HTTP client under the S3 one: the pool that everything else here uses, with TLS by ring. Every call is bounded in time, and so is every wait for
//! more of an answer.
//!
//! Not reqwest, which the S3 client would bring: it adds two minutes of build, and a second TLS provider unless every crate that uses it is told otherwise.
//! What it could more: proxies from the environment.

use std::time::Duration;

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use rustls::{ClientConfig, RootCertStore};

use crate::{OpenError, Place};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// From the request to the head of its answer; a part of an upload is sent in it.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Between two pieces of an answer's body.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const IDLE_MAX: Duration = Duration::from_secs(30);

pub(crate) type Pool = Client<HttpsConnector<Tcp>, HttpRequestBody>;

/// Connections to one store.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pool: Pool,
}

impl Connector {
    pub(crate) fn new(place: &Place) -> Result<Self, OpenError> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_native_certs::load_native_certs().certs {
            // One that cannot be used is no reason not to trust the others.
            drop(roots.add(certificate));
        }
        let needs_tls = place.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https"));
        if roots.is_empty() && needs_tls {
            return Err(OpenError::NoAuthorities);
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = versions.map_err(|_| OpenError::NoAuthorities)?.with_root_certificates(roots).with_no_client_auth();
        let mut tcp = Tcp::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let pool = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_MAX).pool_timer(TokioTimer::new()).build(https);
        Ok(Self { pool })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// Nothing came for too long.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {0:?}")]
struct Silence(Duration);

#[async_trait::async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ANSWER_MAX, self.pool.request(request)).await;
        let answer = answer.map_err(|_| HttpError::new(HttpErrorKind::Timeout, Silence(ANSWER_MAX)))?;
        let answer = answer.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new(kind, error)
        })?;
        Ok(answer.map(|body| HttpResponseBody::new(StreamBody::new(pieces(body)))))
    }
}

fn pieces(body: Incoming) -> impl futures_util::Stream<Item = Result<Frame<bytes::Bytes>, HttpError>> + Send + Sync {
    futures_util::stream::unfold(Some(body), async |body| {
        let mut body = body?;
        match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(None) => None,
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some(body))),
            Ok(Some(Err(error))) => Some((Err(HttpError::new(HttpErrorKind::Interrupted, error)), None)),
            Err(_) => Some((Err(HttpError::new(HttpErrorKind::Timeout, Silence(SILENCE_MAX))), None)),
        }
    })
}
