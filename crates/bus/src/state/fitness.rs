//! Whether a state store can be worked with: tried at the start on a document of its own, before anything rests on it.
//!
//! What a component declares is not enough: stores may declare ETAG and yet take a create-only write for a document that exists, and then each lost race is work
//! that is done twice. So the guards are tried. Whether documents end in their time cannot be tried in a moment: that is what the component declares.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{Connection, ETag, Guard, NO_ETAG, Save, StateStore};
use crate::error::Error;

/// The tried document ends by itself where it cannot be deleted; much later than any trial takes.
const TTL: Duration = Duration::from_secs(3600);

/// Nothing may rest on a state store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state store {store:?} {problem}: {}", problem.advice())]
pub struct Unfit {
    /// The component's name.
    pub store: String,
    /// What it lacks.
    pub problem: Problem,
}

/// What a state store lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The sidecar has none of that name for this application.
    #[error("is not there for this application")]
    Missing,
    /// Documents come without a version.
    #[error("gives no ETags, so that two writers would not notice each other")]
    NoVersions,
    /// A write that was to make a document replaced it.
    #[error("took a write that was only to make a document for one that exists")]
    Replaces,
    /// A write upon a version that is gone was taken.
    #[error("took a write upon a version that had been replaced")]
    Overwrites,
    /// What was just written is not what is there.
    #[error("gave something else than what was just written to it")]
    Forgets,
    /// Documents stay for ever.
    #[error("does not delete documents in their time (it declares no TTL)")]
    NoTimeToLive,
}

impl Problem {
    fn advice(self) -> &'static str {
        match self {
            Self::Missing => "load the component, and name the application in its scopes",
            _ => "take state.redis, state.postgresql of version v2, or state.sqlite",
        }
    }
}

impl StateStore {
    /// Tries whether guards hold on this store, on a document of its own that is gone afterwards. Ten calls. One that is judged unfit may only have begun anew in the
    /// middle of the trial: whoever ends by the verdict asks twice.
    ///
    /// # Errors
    /// The outer error says that it could not be tried now.
    pub async fn fitness(&self) -> Result<Result<(), Unfit>, Error> {
        let key = format!("fitness-{}", Uuid::now_v7());
        let tried = self.connection.try_guards(&key).await;
        let _ = self.connection.delete(&key, None).await;
        let problem = match tried {
            Ok(None) => self.connection.lacks_time_to_live().await?.then_some(Problem::NoTimeToLive),
            Ok(problem) => problem,
            Err(Error::Answered { code, .. }) if code == "ERR_STATE_STORE_NOT_FOUND" || code == "ERR_STATE_STORE_NOT_CONFIGURED" => {
                Some(Problem::Missing)
            }
            Err(Error::Malformed { reason, .. }) if reason == NO_ETAG => Some(Problem::NoVersions),
            Err(error) => return Err(error),
        };
        Ok(problem.map_or(Ok(()), |problem| Err(Unfit { store: self.connection.store.to_string(), problem })))
    }
}

impl Connection {
    /// Makes a document, makes it again, replaces it, and replaces once more the version before: the second and the last must have no effect, whatever the
    /// answer to them is.
    async fn try_guards(&self, key: &str) -> Result<Option<Problem>, Error> {
        self.put(key, "first", Guard::Absent).await?;
        let (writer, first) = self.found(key).await?;
        if writer != "first" {
            return Ok(Some(Problem::Forgets));
        }
        let refused = self.put(key, "again", Guard::Absent).await;
        if self.found(key).await?.0 != "first" {
            return refused.map(|()| Some(Problem::Replaces));
        }
        self.put(key, "second", Guard::Unchanged(first.clone())).await?;
        if self.found(key).await?.0 != "second" {
            return Ok(Some(Problem::Forgets));
        }
        let refused = self.put(key, "late", Guard::Unchanged(first)).await;
        if self.found(key).await?.0 != "second" {
            return refused.map(|()| Some(Problem::Overwrites));
        }
        Ok(None)
    }

    async fn put(&self, key: &str, writer: &str, guard: Guard) -> Result<(), Error> {
        let value = Bytes::from(json!({ "writer": writer }).to_string());
        self.save(std::iter::once(&Save { key: key.to_owned(), value, guard, ttl: Some(TTL) })).await
    }

    /// Who wrote the document last, and its version.
    ///
    /// # Errors
    /// It is gone: the store began anew, or this trial took longer than a document of it lives. That says nothing of the guards.
    async fn found(&self, key: &str) -> Result<(String, ETag), Error> {
        #[derive(Default, Deserialize)]
        struct Tried {
            writer: String,
        }
        let gone = || Error::Malformed { what: "a state read", reason: "a document that was just written is gone".to_owned() };
        let document = self.get_one(key).await?.ok_or_else(gone)?;
        let tried: Tried = serde_json::from_slice(&document.value).unwrap_or_default();
        Ok((tried.writer, document.etag))
    }

    /// Whether the component says what it can do, and ending documents is not among it.
    async fn lacks_time_to_live(&self) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Component {
            name: String,
            #[serde(default)]
            capabilities: Vec<String>,
        }
        let metadata = match self.sidecar.metadata().await {
            Ok(metadata) => metadata,
            // It does not tell everybody.
            Err(error) if !error.is_transient() || matches!(error, Error::Answered { status: 501, .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let components = metadata.rest.get("components").cloned().unwrap_or_default();
        let components: Vec<Component> = serde_json::from_value(components).unwrap_or_default();
        let this = components.into_iter().find(|component| *component.name == *self.store);
        Ok(this.is_some_and(|this| !this.capabilities.is_empty() && !this.capabilities.iter().any(|it| it == "TTL")))
    }
}
