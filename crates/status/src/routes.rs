//! The public routes of the read model.
//!
//! | route | |
//! |---|---|
//! | `GET /v1/tasks` | tasks, newest first |
//! | `GET /v1/tasks/{id}` | one task |
//! | `GET /v1/tasks/{id}/events` | its events, as a list or as a stream |
//! | `GET /v1/tasks/{id}/tree` | it and what it handed off |
//! | `GET /v1/tasks/{id}/result` | its result, waited for |
//! | `GET /v1/tasks/{id}/artifacts` | what it made |
//! | `GET /v1/tasks/{id}/artifacts/{artifact}` | the bytes of it |
//! | `GET /v1/events` | the events of all tasks as they happen |
//! | `GET /v1/dead-letters`, `/{id}` | what services gave up on, and why |
//! | `POST /v1/dead-letters/{id}/replay`, `/discard` | decide about it |

mod artifacts;
mod dead_letters;
mod events;
mod live;
mod query;
mod result;
mod tasks;
mod tree;

use std::time::Duration;

use fte_events::TaskId;
use fte_service::keys::Scope;
use fte_service::pools::Standings;
use fte_service::{ApiRoutes, Arrival, Problem};
use http::StatusCode;
use utoipa_axum::routes;

use crate::desk::Desk;
use crate::downloads::Downloads;
use crate::store::{Store, StoreError, TaskRow};
use crate::streams::Stopping;
use crate::wake::{TooMany, Waiter};

/// Items in a list, and the most that may be asked for.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;

/// What handlers need.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) store: Store,
    pub(crate) desk: Desk,
    pub(crate) downloads: Downloads,
    pub(crate) stopping: Stopping,
    pub(crate) standings: Standings,
}

/// The routes with their state.
pub(crate) fn router(state: AppState) -> ApiRoutes {
    ApiRoutes::new()
        .routes(routes!(tasks::list))
        .routes(routes!(tasks::get))
        .routes(routes!(tree::get))
        .routes(routes!(events::list_or_stream))
        .routes(routes!(result::get))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::get))
        .routes(routes!(live::stream))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::discard))
        .with_state(state)
}

impl AppState {
    fn wait_for(&self, task: TaskId) -> Result<Waiter, Problem> {
        self.store.waiters().wait_for(task).map_err(|error| too_many(&error))
    }

    /// The task, if its tenant is in scope. One that may be on its way is waited for.
    async fn known(&self, task: TaskId, scope: &Scope) -> Result<TaskRow, Problem> {
        match self.store.task(task, scope.clone()).await.map_err(|error| unavailable(&error))? {
            Some(row) => Ok(row),
            None => self.arrived(task, scope, &mut self.wait_for(task)?).await,
        }
    }

    /// The task. One that may be on its way is waited for; what happens after `waiter` began is not missed.
    async fn arrived(&self, task: TaskId, scope: &Scope, waiter: &mut Waiter) -> Result<TaskRow, Problem> {
        let arrival = Arrival::of(Some(task));
        loop {
            if let Some(row) = self.store.task(task, scope.clone()).await.map_err(|error| unavailable(&error))? {
                return Ok(row);
            }
            if !arrival.wait(waiter.news()).await {
                return Err(not_found(task));
            }
        }
    }
}

fn not_found(task: TaskId) -> Problem {
    let detail = format!("There is no task {task} here: it was never accepted, or it ended so long ago that it is no longer kept.");
    Problem::new(StatusCode::NOT_FOUND, "task_not_found", detail)
}

fn too_many(error: &TooMany) -> Problem {
    let detail = format!("Too many wait already: the limit is {}. Try again, or ask without waiting.", error.0);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_waiters", detail).retry_after(Duration::from_secs(1))
}

fn unavailable(error: &StoreError) -> Problem {
    let detail = "The status database cannot be used now. Nothing was changed; send the same request again.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "status_unavailable", detail).retry_after(Duration::from_secs(1)).caused_by(error)
}

#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
#[cfg(feature = "postgres")]
#[path = "routes/tests.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests on another store")]
mod on_postgres;
#[cfg(test)]
mod tests;
