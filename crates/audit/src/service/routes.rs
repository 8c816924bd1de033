//! The public routes:
//!
//! | route | meaning |
//! |---|---|
//! | `GET /v1/audit/entries` | entries in log order, by filters |
//! | `GET /v1/audit/entries/{shard}/{index}` | one entry |
//! | `GET /v1/audit/entries/{shard}/{index}/proof` | that it is in the log |
//! | `GET /v1/audit/tasks/{id}` | a task's history, and what it lacks |
//! | `GET /v1/audit/gaps` | actions that have not arrived |
//! | `GET /v1/audit/consistency` | that the log only grew between two sizes |
//! | `GET /v1/audit/log/{shard}/…` | checkpoint, tiles and bundles, as C2SP `tlog-tiles` has them |
//! | `GET /v1/audit/log/{shard}/retired` | which entry says that the year was retired; its entries and tiles are answered with 410 |
//! | `GET /v1/audit/log/{shard}/witnessed` | the last checkpoint that witnesses have signed |
//! | `POST /v1/audit/exports`, `GET /v1/audit/exports/{id}` | makes evidence, which is an entry itself, and hands it out |
//! | `POST /v1/audit/subjects/{ref}/erasure` | destroys the keys of a person, and has them forgotten |
//! | `GET`, `POST /v1/audit/holds`, `DELETE /v1/audit/holds/{id}` | legal holds |
//!
//! There is no route that changes or removes an entry; every other method is answered with 405.

mod caching;
mod entries;
mod exports;
mod gaps;
mod privacy;
mod tasks;
mod tree;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use axum::http::StatusCode;
use fte_service::{ApiRoutes, Problem};
use utoipa_axum::routes;

use crate::entry::Position;
use crate::log::{Log, LogError};
use crate::service::desk::Desk;
use crate::service::exports::Exports;
use crate::service::reads::Reads;
use crate::service::witnessing::Witnessed;

/// What most handlers work with.
pub(crate) type App = Arc<dyn Log>;

/// What those work with that open what is sealed.
#[derive(Clone)]
struct Reading {
    log: App,
    reads: Reads,
}

impl FromRef<Reading> for App {
    fn from_ref(reading: &Reading) -> Self {
        Self::clone(&reading.log)
    }
}

/// The routes over a log.
pub(crate) fn routes(log: &App, reads: Reads, desk: &Desk, witnessed: &Witnessed, made: &Exports) -> ApiRoutes {
    reading(log, reads).merge(witnesses(witnessed)).merge(privacy::routes(desk)).merge(exports::routes(made))
}

fn witnesses(witnessed: &Witnessed) -> ApiRoutes {
    ApiRoutes::<Witnessed>::new().routes(routes!(tree::witnessed)).with_state(witnessed.clone())
}

fn reading(log: &App, reads: Reads) -> ApiRoutes {
    ApiRoutes::<Reading>::new()
        .routes(routes!(entries::list))
        .routes(routes!(entries::one))
        .routes(routes!(entries::proof))
        .routes(routes!(gaps::list))
        .routes(routes!(tree::consistency))
        .routes(routes!(tree::file))
        .routes(routes!(tasks::history))
        .with_state(Reading { log: Arc::clone(log), reads })
}

/// A log that cannot be read now: the caller may try again, and the operator sees why.
fn unreadable(error: &LogError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", "The audit log cannot be read now; try again.")
        .retry_after(Duration::from_secs(1))
        .caused_by(error)
}

/// The entries of a shard are gone, by the log's own policy; says since when.
fn still_there(app: &App, shard: u16) -> Result<(), Problem> {
    let Some(retired) = app.retired().into_iter().find(|retired| retired.shard == shard) else { return Ok(()) };
    let since = fte_bus::time::text(jiff::Timestamp::from_millisecond(retired.since_ms).unwrap_or_default());
    let text =
        format!("The shard {shard} was retired on {since}, as the entry {} says: only its final checkpoint is kept.", retired.record);
    Err(Problem::new(StatusCode::GONE, "shard_retired", text))
}

/// The place that `after` names.
fn position(after: Option<&str>) -> Result<Option<Position>, Problem> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "invalid_cursor", format!("{error}: take next_cursor as it is.")))
    };
    after.filter(|text| !text.is_empty()).map(parse).transpose()
}

/// A number of items to answer with.
fn limit(asked: Option<usize>, default: usize, max: usize) -> Result<usize, Problem> {
    match asked.unwrap_or(default) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_query", format!("limit: expected a whole number from 1 to {max}."))),
    }
}

#[cfg(test)]
mod tests;
