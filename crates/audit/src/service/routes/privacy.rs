//! Administration: erasures and legal holds. Each has an entry in the log; none changes or removes one.

use axum::extract::State;
use axum::http::StatusCode;
use fte_service::extract::{Json, JsonBytes, Path, Query, parse_json};
use fte_service::keys::Caller;
use fte_service::{ApiRoutes, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use crate::service::desk::Desk;
use crate::subjects::holds::{Covers, Hold, HoldError};
use crate::subjects::{EraseError, Erasure, KeyError, Step, Subject};

const REASON_CHARS_MAX: usize = 1000;

pub(crate) fn routes(desk: &Desk) -> ApiRoutes {
    ApiRoutes::<Desk>::new().routes(routes!(erase)).routes(routes!(list, place)).routes(routes!(lift)).with_state(desk.clone())
}

/// An erasure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErasureView {
    /// Its id; the log's entry of kind `key_destroyed` names it.
    pub erasure_id: Uuid,
    /// When the keys were destroyed.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub destroyed_at: Timestamp,
    /// How many keys were destroyed.
    pub keys: u64,
    /// How many tasks they took along.
    pub tasks: u64,
    /// `destroyed`: the keys are gone; `logged`: the log has the entry; `told`: the other services have been told. What is left goes on by itself.
    pub state: &'static str,
}

impl From<Erasure> for ErasureView {
    fn from(erasure: Erasure) -> Self {
        let state = match erasure.step {
            Step::Destroyed => "destroyed",
            Step::Logged => "logged",
            Step::Told => "told",
        };
        let destroyed_at = Timestamp::from_millisecond(erasure.at_ms).unwrap_or_default();
        Self { erasure_id: erasure.id, destroyed_at, keys: erasure.keys, tasks: erasure.tasks, state }
    }
}

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Whose {
    /// The tenant, for who administers several; `default` otherwise.
    tenant: Option<String>,
}

/// The holds in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Holds {
    /// All of them.
    pub items: Vec<Hold>,
}

/// A hold to be placed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewHold {
    /// What it covers.
    #[serde(flatten)]
    pub covers: Covers,
    /// Why: 1 to 1000 characters.
    pub reason: String,
}

/// Erase a person.
///
/// Destroys the keys of the person (`user:ada`) and of all their tasks, or of one task (`task:ID`), or one key (`key:NAME`, as an entry names it), and asks the
/// other services to forget them. To repeat it is safe.
#[utoipa::path(
    post,
    path = "/v1/audit/subjects/{ref}/erasure",
    tag = "audit",
    params(("ref" = String, Path, description = "user:ada, customer:c-17, task:ID or key:NAME"), Whose),
    responses(
        (status = 200, description = "The keys are gone", body = ErasureView),
        (status = 400, description = "It names nobody: `invalid_subject`"),
        (status = 403, description = "Of another tenant, or a key, by who administers one tenant: `tenant_foreign`"),
        (status = 404, description = "There is no such key: `key_unknown`"),
        (status = 409, description = "A legal hold forbids it: `legal_hold`"),
        (status = 503, description = "Not now; try again"),
    )
)]
async fn erase(
    State(desk): State<Desk>,
    caller: Caller,
    Path(reference): Path<String>,
    Query(whose): Query<Whose>,
) -> Result<Json<ErasureView>, Problem> {
    let tenant = tenant(&caller, whose.tenant)?;
    let subject =
        Subject::parse(&tenant, &reference).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "invalid_subject", error.to_string()))?;
    if !subject.is_of_tenant() && caller.only_tenant().is_some() {
        let text = "A key does not say whose it is, so only who administers all tenants may name one; name the person or the task.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "tenant_foreign", text));
    }
    let erasure = desk.erase(subject, by(&caller)).await.map_err(refused)?;
    Ok(Json(erasure.into()))
}

/// The legal holds in force.
#[utoipa::path(get, path = "/v1/audit/holds", tag = "audit", responses((status = 200, description = "All of them", body = Holds)))]
async fn list(State(desk): State<Desk>, caller: Caller) -> Result<Json<Holds>, Problem> {
    let holds = desk.holds().await.map_err(|error| unavailable(&error))?;
    let items = holds.into_iter().filter(|hold| may_see(&caller, hold)).collect();
    Ok(Json(Holds { items }))
}

/// Place a legal hold: what it covers is neither erased nor retired until it is lifted.
#[utoipa::path(
    post,
    path = "/v1/audit/holds",
    tag = "audit",
    request_body = NewHold,
    responses(
        (status = 201, description = "It is in force", body = Hold),
        (status = 409, description = "There are too many: `too_many_holds`"),
        (status = 422, description = "No hold: `invalid_hold`"),
    )
)]
async fn place(State(desk): State<Desk>, caller: Caller, JsonBytes(body): JsonBytes) -> Result<(StatusCode, Json<Hold>), Problem> {
    let invalid = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_hold", detail);
    let unfit = |problem: Problem| if problem.code == "invalid_body" { Problem { code: "invalid_hold", ..problem } } else { problem };
    let new: NewHold = parse_json(&body).map_err(unfit)?;
    if !(1..=REASON_CHARS_MAX).contains(&new.reason.chars().count()) {
        return Err(invalid(format!("reason: expected 1 to {REASON_CHARS_MAX} characters.")));
    }
    if let Covers::Subject { tenant, subject } = &new.covers {
        let held = Subject::parse(tenant, subject).map_err(|error| invalid(error.to_string()))?;
        if !held.is_person() {
            return Err(invalid(format!("subject: {subject:?} is no person. A task is held by `covers: \"task\"` with its `task_id`.")));
        }
    }
    let hold = Hold {
        id: Uuid::now_v7(),
        covers: new.covers,
        reason: new.reason,
        placed_by: by(&caller).to_owned(),
        placed_ms: Timestamp::now().as_millisecond(),
    };
    if !may_see(&caller, &hold) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "tenant_foreign", "It covers more than the tenant of this key."));
    }
    desk.place(hold.clone()).await.map_err(|error| match error {
        HoldError::TooMany => Problem::new(StatusCode::CONFLICT, "too_many_holds", format!("{error}.")),
        HoldError::Key(_) | HoldError::Interrupted => unavailable(&error),
    })?;
    Ok((StatusCode::CREATED, Json(hold)))
}

/// Lift a legal hold.
#[utoipa::path(
    delete,
    path = "/v1/audit/holds/{id}",
    tag = "audit",
    params(("id" = Uuid, Path, description = "The hold")),
    responses(
        (status = 204, description = "It is lifted"),
        (status = 404, description = "There is none: `hold_unknown`"),
    )
)]
async fn lift(State(desk): State<Desk>, caller: Caller, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "hold_unknown", "There is no such hold in force.");
    if caller.only_tenant().is_some() {
        let holds = desk.holds().await.map_err(|error| unavailable(&error))?;
        if !holds.iter().any(|hold| hold.id == id && may_see(&caller, hold)) {
            return Err(unknown());
        }
    }
    match desk.lift(id, by(&caller)).await.map_err(|error| unavailable(&error))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown()),
    }
}

fn by(caller: &Caller) -> &str {
    caller.name().unwrap_or("unknown")
}

/// A task or a span of time may be of several tenants, so those are for who administers all.
fn may_see(caller: &Caller, hold: &Hold) -> bool {
    match &hold.covers {
        Covers::Tenant { tenant } | Covers::Subject { tenant, .. } => caller.sees(tenant),
        Covers::Task { .. } | Covers::Range { .. } => caller.only_tenant().is_none(),
    }
}

fn tenant(caller: &Caller, asked: Option<String>) -> Result<String, Problem> {
    match asked {
        None => Ok(caller.tenant().to_owned()),
        Some(tenant) if caller.sees(&tenant) => Ok(tenant),
        Some(_) => Err(Problem::new(StatusCode::FORBIDDEN, "tenant_foreign", "The key is not of that tenant.")),
    }
}

fn refused(error: EraseError) -> Problem {
    match &error {
        EraseError::Held(blocked) => {
            let id = blocked.0.id.to_string();
            let detail = format!("{error}. Nothing was erased; lift the hold first.");
            Problem::new(StatusCode::CONFLICT, "legal_hold", detail).with("hold", id).as_denial()
        }
        EraseError::PersonsKey(_) => Problem::new(StatusCode::BAD_REQUEST, "invalid_subject", format!("{error}.")),
        EraseError::Key(KeyError::Unknown { .. }) => {
            Problem::new(StatusCode::NOT_FOUND, "key_unknown", format!("{error}. Nothing was erased."))
        }
        EraseError::Key(_) | EraseError::Interrupted => unavailable(&error),
    }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "keys_unavailable", "The keys cannot be worked on now; try again, which is safe.")
        .retry_after(std::time::Duration::from_secs(1))
        .caused_by(error)
}

#[cfg(test)]
mod tests;
