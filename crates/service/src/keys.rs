//! API keys: who calls, what they may do, for which tenant, and how often.
//!
//! Keys are in a file, as digests: whoever reads it cannot call. It is read again when it changes, so that a key can be given and taken back
//! without a restart; a file that cannot be read leaves the keys in force as they were, and says so. A key is 256 random bits, so a plain SHA-256 of
//! it is as good as a slow hash is for passwords.
//!
//! Always true where keys are in force: no handler runs for a caller without a valid key that has the role of the route; a route that has no rule
//! takes an administrator; nothing of a key is ever logged.

mod caller;
mod file;
mod rights;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

pub use self::caller::{Caller, Scope};
pub use self::file::{KeyEntry, NewKey, check_file};
pub use self::rights::Role;
pub(crate) use self::rights::{Access, access};
use crate::env::ConfigError;
use crate::problem::Problem;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After so long it is recorded again that a key is in use.
const NEWS_EVERY: Duration = Duration::from_secs(3600);
/// The most requests with a wrong key that are answered in a second, whoever sends them.
const WRONG_PER_SECOND: u32 = 50;

type Digest = [u8; 32];

/// The keys in force; cheap to clone.
#[derive(Clone)]
pub struct Keys {
    path: Arc<PathBuf>,
    inner: Arc<RwLock<InForce>>,
    wrong: Arc<crate::Throttle>,
    /// When the use of each key was last news, by its name.
    told: Arc<Mutex<HashMap<String, Instant>>>,
}

struct InForce {
    keys: HashMap<Digest, Arc<Key>>,
    modified: Option<SystemTime>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.path).finish()
    }
}

struct Key {
    name: String,
    caller: Caller,
    roles: Vec<Role>,
    expires: Option<Timestamp>,
    limiter: Option<DefaultDirectRateLimiter>,
}

impl Key {
    /// An administrator may do everything.
    fn has(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::Admin)
    }
}

impl Keys {
    /// Reads the file that the variable `name` names.
    ///
    /// # Errors
    /// The file cannot be read, or has no usable key: an API whose keys are all wrong would be one that nobody can call.
    pub fn read(name: &str, path: &Path) -> Result<Self, ConfigError> {
        let modified = modified(path);
        let keys = in_force(file::read(name, path)?);
        let inner = Arc::new(RwLock::new(InForce { keys, modified }));
        Ok(Self { path: Arc::new(path.to_owned()), inner, wrong: Arc::new(crate::Throttle::new(WRONG_PER_SECOND)), told: Arc::default() })
    }

    /// Reads the file again whenever it has changed.
    pub(crate) async fn keep(self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    fn look(&self) {
        let modified = modified(&self.path);
        if modified == self.inner.read().unwrap_or_else(PoisonError::into_inner).modified {
            return;
        }
        let read = file::read("the file of API keys", &self.path);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.modified = modified;
        match read {
            Ok(entries) => {
                inner.keys = in_force(entries);
                tracing::info!(keys = inner.keys.len(), "the API keys have changed");
            }
            Err(error) => tracing::error!(error = %crate::chain(&error), "the file of API keys cannot be used; the keys are as they were"),
        }
    }

    /// Who calls, if they may call this route now.
    pub(crate) fn admit(&self, method: &Method, route: Option<&str>, headers: &HeaderMap) -> Result<Caller, Problem> {
        let needed = match access(method, route, headers) {
            Access::Open => return Ok(Caller::anonymous()),
            Access::Any => None,
            Access::Needs(role) => Some(role),
        };
        let key = self.key(headers)?;
        if let Some(role) = needed
            && !key.has(role)
        {
            let detail = format!("This takes a key with the role {role}; the key of {} does not have it.", key.name);
            return Err(Problem::new(StatusCode::FORBIDDEN, "role_missing", detail).with("role", role.as_str()));
        }
        if let Some(limiter) = &key.limiter
            && let Err(early) = limiter.check()
        {
            let wait = early.wait_time_from(DefaultClock::default().now());
            let detail = format!("The key of {} has sent as many requests as it may for now.", key.name);
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(wait).as_denial());
        }
        Ok(key.caller.clone())
    }

    /// Whose key a request has, whatever it may do and until when it counts: who was refused. Nobody known without one.
    pub(crate) fn owner(&self, headers: &HeaderMap) -> Caller {
        headers.get(AUTHORIZATION).and_then(|header| self.known(header)).map_or_else(Caller::anonymous, |key| key.caller.clone())
    }

    /// Whether it is news that this key is in use: it is the first time here, or the first since an hour.
    pub(crate) fn is_news(&self, name: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(name) {
            Some(last) if last.elapsed() < NEWS_EVERY => false,
            Some(last) => {
                *last = Instant::now();
                true
            }
            None => {
                told.insert(name.to_owned(), Instant::now());
                true
            }
        }
    }

    fn known(&self, header: &HeaderValue) -> Option<Arc<Key>> {
        let digest = file::digest(bearer(header)?);
        self.inner.read().unwrap_or_else(PoisonError::into_inner).keys.get(&digest).cloned()
    }

    fn key(&self, headers: &HeaderMap) -> Result<Arc<Key>, Problem> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Err(unauthorized("key_missing", "This API takes a key: send it with the header \"authorization: Bearer KEY\"."));
        };
        match self.known(header) {
            Some(key) if key.expires.is_none_or(|expires| Timestamp::now() < expires) => Ok(key),
            // Guessing is hopeless; it must not be a burden either.
            None if !self.wrong.admit() => {
                let detail = "Too many requests with wrong keys arrive; try again shortly.";
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_keys", detail);
                Err(problem.retry_after(Duration::from_secs(1)).as_denial())
            }
            Some(_) => Err(unauthorized("key_expired", "This key has expired: ask for a new one.")),
            None => Err(unauthorized("key_unknown", "This key is not known here: it is misspelt, or was taken back.")),
        }
    }
}

fn unauthorized(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, detail)
}

/// RFC 6750, 2.1.
fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, key) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn in_force(entries: Vec<KeyEntry>) -> HashMap<Digest, Arc<Key>> {
    let key = |entry: KeyEntry| {
        let limiter = entry.rate.map(|per_second| DefaultDirectRateLimiter::direct(Quota::per_second(per_second)));
        let caller = Caller::of_key(entry.name.clone(), entry.tenant);
        (entry.digest, Arc::new(Key { name: entry.name, caller, roles: entry.roles, expires: entry.expires, limiter }))
    };
    entries.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests;
