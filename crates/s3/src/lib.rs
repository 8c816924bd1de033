//! The way to a bucket of an S3-compatible store: where it is, who we are, and a client that is bounded in time.
//!
//! What is kept there, and under which names, is the business of who keeps it.

mod client;
mod lock;
mod place;

use std::time::Duration;

use http::HeaderMap;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use crate::client::Connector;
pub use crate::lock::{Lock, LockError, Mode};
pub use crate::place::{EXPECTED, Place, Variables};

/// No call is repeated for longer.
const RETRIES_MAX: Duration = Duration::from_secs(60);

/// A store that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The client refuses what it was given.
    #[error("the S3 client cannot be set up")]
    Client(#[source] object_store::Error),
    /// There is nobody to trust.
    #[error("S3 needs TLS, and this system has no CA certificates: install ca-certificates, or set SSL_CERT_FILE")]
    NoAuthorities,
}

/// A bucket. Cheap to clone; its connections are shared.
#[derive(Clone, Debug)]
pub struct Bucket {
    place: Place,
    connector: Connector,
}

impl Bucket {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// There is no certificate to trust.
    pub fn new(place: &Place) -> Result<Self, OpenError> {
        Ok(Self { place: place.clone(), connector: Connector::new(place)? })
    }

    /// Its client, which repeats a call that failed so many times.
    ///
    /// # Errors
    /// A variable that says who we are has no meaning.
    pub fn client(&self, retries: usize) -> Result<AmazonS3, OpenError> {
        self.build(retries, ClientOptions::new(), None)
    }

    /// A client for objects that are to stay: nobody can change or remove them before their time, if there is a lock. Each goes with its SHA-256, as stores ask
    /// for with a lock, which may also be the bucket's own.
    ///
    /// # Errors
    /// As for [`Bucket::client`].
    pub fn keeping_client(&self, retries: usize, lock: Option<Lock>) -> Result<AmazonS3, OpenError> {
        let headers: HeaderMap = lock.into_iter().flat_map(Lock::headers).collect();
        self.build(retries, ClientOptions::new().with_default_headers(headers), Some(Checksum::SHA256))
    }

    fn build(&self, max_retries: usize, options: ClientOptions, checksum: Option<Checksum>) -> Result<AmazonS3, OpenError> {
        let place = &self.place;
        let retry = RetryConfig {
            max_retries,
            retry_timeout: RETRIES_MAX,
            backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 },
        };
        // What is `http://` was asked for, or is where a machine's role is found.
        let options = options.with_allow_http(true);
        let mut builder = AmazonS3Builder::new()
            .with_client_options(options)
            .with_bucket_name(&place.bucket)
            .with_region(&place.region)
            .with_virtual_hosted_style_request(!place.path_style)
            // Not every store knows the call that removes many.
            .with_disable_bulk_delete(true)
            .with_http_connector(self.connector.clone())
            .with_retry(retry);
        if let Some(checksum) = checksum {
            builder = builder.with_checksum_algorithm(checksum);
        }
        if let Some(endpoint) = &place.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        for (name, value) in &place.identity {
            let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(OpenError::Client)?;
            builder = builder.with_config(key, value.expose());
        }
        builder.build().map_err(OpenError::Client)
    }
}
