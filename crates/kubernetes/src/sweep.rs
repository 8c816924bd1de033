//! The sweeper: at the start and every [`Options::sweep_every`](crate::Options::sweep_every) it deletes the claims that nobody holds.
//!
//! Always true: what it deletes is the very object that it judged (its uid and its version), so that a claim that was renewed in between stays. After a
//! conflict it reads and judges again.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Preconditions};
use tokio::time::sleep;

use crate::Shared;
use crate::api::{FTE, HOLDER, MANAGED_BY, SEAT, SandboxClaim};
use crate::calls::spread;
use crate::error::{CallError, Kind};
use crate::held::Held;
use crate::options::Options;

/// How many claims come at once.
const PAGE: u32 = 500;
/// How often one claim is judged in one sweep; the next sweep is soon.
const JUDGED_MAX: usize = 5;

/// Why a claim is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Orphan {
    /// This process has it no more, or never heard that it was made.
    Mine,
    /// Its holder had the seat of this process, and so is dead.
    Predecessor,
    /// Nobody has renewed it.
    Expired,
}

pub(crate) async fn run(shared: std::sync::Arc<Shared>) {
    let every = shared.options.sweep_every;
    loop {
        for namespace in &shared.options.namespaces {
            match sweep(&shared, namespace).await {
                Ok(0) => {}
                Ok(swept) => tracing::info!(namespace, swept, "sandbox claims that nobody held were deleted"),
                Err(error) => tracing::warn!(namespace, %error, "sandbox claims could not be swept; trying again later"),
            }
        }
        sleep(every - spread(every / 4)).await;
    }
}

/// Deletes what is nobody's in one namespace; says how many that were.
async fn sweep(shared: &Shared, namespace: &str) -> Result<usize, CallError> {
    let claims = shared.calls.claims(namespace);
    let mut parameters = ListParams::default().labels(&format!("{MANAGED_BY}={FTE}")).limit(PAGE);
    let mut swept = 0;
    loop {
        let page = shared.calls.once("listing the claims", claims.list(&parameters)).await?;
        for claim in page.items {
            swept += usize::from(delete(shared, namespace, claim).await?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(swept),
        }
    }
}

/// Deletes a claim if it is nobody's; says whether it did.
async fn delete(shared: &Shared, namespace: &str, mut claim: SandboxClaim) -> Result<bool, CallError> {
    let claims = shared.calls.claims(namespace);
    for _ in 0..JUDGED_MAX {
        let name = claim.name_any();
        let Some(orphan) = judge(&claim, &shared.options, &shared.held, shared.clock.now()) else { return Ok(false) };
        let preconditions = Preconditions { uid: claim.uid(), resource_version: claim.resource_version() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match shared.calls.once("deleting a claim that nobody holds", claims.delete(&name, &parameters)).await {
            Ok(_) => {
                tracing::info!(
                    namespace,
                    claim = name,
                    ?orphan,
                    holder = claim.label(HOLDER),
                    "a sandbox claim that nobody holds is deleted"
                );
                return Ok(true);
            }
            Err(error) if error.kind == Kind::NotFound => return Ok(false),
            Err(error) if error.kind == Kind::Conflict => match shared.calls.once("reading the claim", claims.get_opt(&name)).await? {
                Some(found) => claim = found,
                None => return Ok(false),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Why a claim is nobody's, if it is.
fn judge(claim: &SandboxClaim, options: &Options, held: &Held, now: Timestamp) -> Option<Orphan> {
    let namespace = claim.namespace()?;
    if claim.is_being_deleted() || claim.label(MANAGED_BY) != Some(FTE) {
        return None;
    }
    let holder = claim.label(HOLDER)?;
    if holder == options.holder {
        return (!held.holds(&namespace, &claim.name_any())).then_some(Orphan::Mine);
    }
    if options.seat.is_some() && claim.label(SEAT) == options.seat.as_deref() {
        return Some(Orphan::Predecessor);
    }
    let ends_at = claim.ends_at(options.lease)?.checked_add(options.skew_max).ok()?;
    (ends_at < now).then_some(Orphan::Expired)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_what_is_nobodys_is_swept() {
        let mut options = Options::new(BTreeSet::new(), Some("agents/fte-runner-0"));
        options.holder = "me".to_owned();
        options.skew_max = Duration::from_secs(60);
        let seat = options.seat.clone().unwrap();
        let held = Arc::new(Held::default());
        let _entry = held.enter("n", "held").unwrap();
        let now: Timestamp = "2026-08-22T00:10:00Z".parse().unwrap();
        let check = |name: &str, labels: Value, ends: &str, expected| {
            let labels: serde_json::Map<String, Value> =
                labels.as_object().unwrap().iter().map(|(key, value)| (format!("fte/{key}"), value.clone())).collect();
            let mut claim: SandboxClaim = serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "n", "labels": labels},
                "spec": {"warmPoolRef": {"name": "p"}, "lifecycle": {"shutdownTime": format!("2026-08-22T00:{ends}Z")}}
            }))
            .unwrap();
            assert_eq!(judge(&claim, &options, &held, now), None, "{name} is not ours to judge");
            claim.metadata.labels.get_or_insert_default().insert(MANAGED_BY.to_owned(), FTE.to_owned());
            assert_eq!(judge(&claim, &options, &held, now), expected, "{name} {labels:?} {ends}");
            claim.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            assert_eq!(judge(&claim, &options, &held, now), None, "{name} goes already");
        };
        check("held", json!({"holder": "me", "seat": seat}), "00:00", None);
        check("lost", json!({"holder": "me", "seat": seat}), "12:00", Some(Orphan::Mine));
        check("seat", json!({"holder": "before", "seat": seat}), "12:00", Some(Orphan::Predecessor));
        check("other", json!({"holder": "other", "seat": "another"}), "12:00", None);
        check("other", json!({"holder": "other"}), "09:01", None);
        check("other", json!({"holder": "other"}), "08:59", Some(Orphan::Expired));
        check("nobody", json!({}), "00:00", None);
    }
}
