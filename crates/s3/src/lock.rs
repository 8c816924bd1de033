//! Objects that nobody can change or remove before their time: S3 Object Lock.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>: the lock goes with the object as headers, which only a bucket that was made for it
//! takes. A store that does not know them may take the object without a lock, so it is asked afterwards.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request};
use jiff::Timestamp;
use object_store::aws::AmazonS3;
use object_store::client::{HttpRequestBody, HttpService as _};
use object_store::path::Path;
use object_store::signer::Signer as _;

use crate::Bucket;

const MODE: HeaderName = HeaderName::from_static("x-amz-object-lock-mode");
const UNTIL: HeaderName = HeaderName::from_static("x-amz-object-lock-retain-until-date");
/// How long a question about a lock is good for.
const SIGNED_FOR: Duration = Duration::from_secs(60);

/// Who may lift a lock before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody, not even the owner of the account.
    Compliance,
    /// Who has the right `s3:BypassGovernanceRetention`.
    Governance,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Compliance => "COMPLIANCE",
            Self::Governance => "GOVERNANCE",
        }
    }
}

/// How an object is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub mode: Mode,
    pub until: Timestamp,
}

impl Lock {
    pub(crate) fn headers(self) -> [(HeaderName, HeaderValue); 2] {
        // To the second: not all stores take more.
        let until = HeaderValue::try_from(format!("{:.0}", self.until)).unwrap_or_else(|_| HeaderValue::from_static(""));
        [(MODE, HeaderValue::from_static(self.mode.as_str())), (UNTIL, until)]
    }
}

/// A store that does not say that an object is locked as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be asked.
    #[error("the store cannot be asked for the lock")]
    Asked(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers something else.
    #[error("the store was asked for the lock and answered {0}")]
    Answered(http::StatusCode),
    /// It has none, or one that ends before.
    #[error("the store says {said} of its lock: the bucket needs Object Lock, and the key the right s3:GetObjectRetention")]
    Loose {
        /// What it says.
        said: String,
    },
}

impl Bucket {
    /// Makes sure that the store itself says that an object is locked at least like this.
    ///
    /// # Errors
    /// It does not say so, or nothing.
    pub async fn check_lock(&self, client: &AmazonS3, path: &Path, lock: Lock) -> Result<(), LockError> {
        let asked = |error: Box<dyn std::error::Error + Send + Sync>| LockError::Asked(error);
        let url = client.signed_url(Method::HEAD, path, SIGNED_FOR).await.map_err(|error| asked(error.into()))?;
        let request = Request::head(url.as_str()).body(HttpRequestBody::from(Vec::new())).map_err(|error| asked(error.into()))?;
        let answer = self.connector.call(request).await.map_err(|error| asked(error.into()))?;
        if !answer.status().is_success() {
            return Err(LockError::Answered(answer.status()));
        }
        let said = |name| answer.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let (mode, until) = (said(MODE), said(UNTIL));
        let holds_until = until.and_then(|until| until.parse::<Timestamp>().ok());
        // To the second.
        let is_long_enough = holds_until.is_some_and(|holds| holds.as_second() >= lock.until.as_second());
        // One that is stricter than was asked for is a lock all the same.
        let is_strict_enough = mode == Some(Mode::Compliance.as_str()) || mode == Some(lock.mode.as_str());
        if is_long_enough && is_strict_enough {
            return Ok(());
        }
        Err(LockError::Loose {
            said: match (mode, until) {
                (None, None) => "nothing".to_owned(),
                (mode, until) => format!("{} until {}", mode.unwrap_or("no mode"), until.unwrap_or("no time")),
            },
        })
    }
}
