//! The life of one claim: made, waited for, renewed, given back. Its keeper runs by itself, so that a claim is given back whoever stopped polling what.
//!
//! Always true: a creation is never abandoned while it is under way, since it would be made behind the back of its deletion; only a claim of our own labels
//! is taken for ours, and only its uid is deleted. A creation whose answer was lost and which happens after the look that found nothing is the sweeper's.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fte_runner::agents::{ClaimRequest, SandboxHost};
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Shared;
use crate::api::{AGENT, CLAIM, ClaimSpec, FTE, HOLDER, Lifecycle, MANAGED_BY, PoolRef, SEAT, SandboxClaim, TASK};
use crate::calls::spread;
use crate::error::{CallError, Error, Kind};
use crate::held::{Entry, Seen};
use crate::options::Options;

/// Reasons for which a claim will never be ready as it is, whatever time passes.
const HOPELESS: [&str; 5] =
    ["WarmPoolNotFound", "TemplateNotFound", "InvalidMetadata", "EnvVarsInjectionRejected", "VolumeClaimTemplatesError"];
/// Reasons for which it was ready, or never was, and is over.
const OVER: [&str; 3] = ["ClaimExpired", "SandboxExpired", "SandboxSuspended"];

/// Resolves, again and again, once nobody holds the claim any more.
pub(crate) type Dropped = mpsc::Receiver<Infallible>;

/// A sandbox that can be reached.
pub(crate) struct Ready {
    pub(crate) host: SandboxHost,
    pub(crate) warm: Option<bool>,
}

/// Keeps one claim.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    entry: Entry,
    claims: Api<SandboxClaim>,
    /// As it is made, but for its time.
    wanted: SandboxClaim,
    ready_timeout: Duration,
    /// Its uid, once that is known.
    uid: Option<String>,
    /// It may be in the cluster.
    perhaps: bool,
}

/// Where a claim stands.
enum Standing {
    Ready { sandbox: String, addresses: Vec<IpAddr> },
    Waiting(String),
    Failed(Error),
}

/// What came of a renewal.
enum Renewal {
    Done,
    Failed(CallError),
    Lost(String),
}

impl Keeper {
    /// Who will make and keep the claim, and the port at which its agent listens.
    pub(crate) fn new(shared: Arc<Shared>, request: ClaimRequest) -> Result<(Self, u16), Error> {
        let wanted = wanted(&shared.options, &request);
        let place = request.sandbox;
        let entry = shared.held.enter(&place.namespace, &wanted.name_any()).ok_or(Error::Held)?;
        shared.news.watch(&place.namespace);
        let claims = shared.calls.claims(&place.namespace);
        let keeper = Self { shared, entry, claims, wanted, ready_timeout: place.ready_timeout, uid: None, perhaps: false };
        Ok((keeper, place.port))
    }

    /// The claim's name, for people.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.entry.namespace(), self.entry.name())
    }

    /// Makes the claim, says when it is ready, keeps it until it is dropped, and gives it back.
    pub(crate) async fn run(mut self, tell: oneshot::Sender<Result<Ready, Error>>, lose: oneshot::Sender<String>, mut dropped: Dropped) {
        let began = Instant::now();
        match self.obtain(began + self.ready_timeout, &mut dropped).await {
            Ok(ready) => {
                tracing::info!(claim = self.name(), warm = ready.warm, waited = ?began.elapsed(), "a sandbox is ready");
                if tell.send(Ok(ready)).is_ok() {
                    self.hold(lose, &mut dropped).await;
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        }
        self.release().await;
    }

    async fn obtain(&mut self, deadline: Instant, dropped: &mut Dropped) -> Result<Ready, Error> {
        let claim = self.create(deadline, dropped).await?;
        tokio::select! {
            biased;
            _ = dropped.recv() => Err(Error::Stopped),
            ready = self.wait(claim, deadline) => ready,
        }
    }

    /// Creates the claim, or finds that it was created before.
    async fn create(&mut self, deadline: Instant, dropped: &mut Dropped) -> Result<SandboxClaim, Error> {
        let mut waits = self.shared.calls.waits();
        loop {
            let claim = until(&self.wanted, self.lease_from_now());
            let made = self.shared.calls.once("creating the claim", self.claims.create(&PostParams::default(), &claim)).await;
            let made = match made {
                Err(error) if error.kind == Kind::Exists => self.found().await,
                made => made.map(Some).map_err(|source| {
                    self.perhaps |= source.may_have_happened();
                    Error::Create { source }
                }),
            };
            let error = match made {
                Ok(Some(made)) => {
                    self.uid.clone_from(&made.metadata.uid);
                    return Ok(made);
                }
                Ok(None) => None,
                Err(Error::Create { source }) if source.is_transient() => Some(source),
                Err(error) => return Err(error),
            };
            let wait = waits.next();
            if Instant::now() + wait >= deadline {
                return Err(match error {
                    Some(source) => Error::Create { source },
                    None => Error::NotReady { after: self.ready_timeout, last: "its name was taken".to_owned() },
                });
            }
            tokio::select! {
                biased;
                _ = dropped.recv() => return Err(Error::Stopped),
                () = sleep(wait) => {}
            }
        }
    }

    /// The claim that has our name: ours, if the answer to an earlier creation was lost. Nothing where it is gone again.
    async fn found(&mut self) -> Result<Option<SandboxClaim>, Error> {
        let found = self.shared.calls.once("reading the claim", self.claims.get_opt(self.entry.name())).await;
        match found.map_err(|source| Error::Create { source })? {
            Some(found) if !self.is_ours(&found) => Err(Error::Foreign { name: self.name() }),
            Some(found) if found.is_being_deleted() => Err(Error::Gone { why: "it is being deleted".to_owned() }),
            found => Ok(found),
        }
    }

    fn is_ours(&self, claim: &SandboxClaim) -> bool {
        [HOLDER, CLAIM].iter().all(|key| claim.label(key).is_some() && claim.label(key) == self.wanted.label(key))
    }

    /// Waits until it is ready.
    async fn wait(&mut self, mut claim: SandboxClaim, deadline: Instant) -> Result<Ready, Error> {
        loop {
            let last = match standing(&claim) {
                Standing::Ready { sandbox, addresses } => match self.reach(&sandbox, &addresses).await {
                    Some(ready) => return Ok(ready),
                    None => "ready, but without an address".to_owned(),
                },
                Standing::Failed(error) => return Err(error),
                Standing::Waiting(last) => last,
            };
            let seen = tokio::select! {
                seen = self.entry.next() => seen,
                () = sleep(self.shared.options.poll_every) => Seen::Perhaps,
                () = sleep_until(deadline) => return Err(Error::NotReady { after: self.ready_timeout, last }),
            };
            let look = match seen {
                Seen::Claim(seen) if seen.metadata.uid == self.uid => {
                    claim = *seen;
                    false
                }
                Seen::Gone { uid } if uid == self.uid => return Err(Error::Gone { why: "its claim was deleted".to_owned() }),
                Seen::Claim(_) | Seen::Gone { .. } | Seen::Perhaps | Seen::Nothing => true,
            };
            if look {
                match self.shared.calls.once("reading the claim", self.claims.get_opt(self.entry.name())).await {
                    Ok(Some(seen)) if seen.metadata.uid == self.uid => claim = seen,
                    Ok(_) => return Err(Error::Gone { why: "its claim was deleted".to_owned() }),
                    Err(error) => {
                        tracing::debug!(claim = self.name(), %error, "a claim that is waited for could not be read; trying again")
                    }
                }
            }
        }
    }

    /// How the sandbox is reached, and whether it was warm. By address where that is known: a name may not be resolved yet.
    async fn reach(&self, sandbox: &str, addresses: &[IpAddr]) -> Option<Ready> {
        let sandboxes = self.shared.calls.sandboxes(self.entry.namespace());
        let found = self.shared.calls.once("reading the sandbox", sandboxes.get_opt(sandbox)).await;
        let found = found.unwrap_or_else(|error| {
            tracing::debug!(claim = self.name(), %error, "a sandbox could not be read");
            None
        });
        let warm = found.as_ref().and_then(crate::api::Sandbox::warm);
        let status = found.and_then(|found| found.status).unwrap_or_default();
        let address = addresses.first().copied().or_else(|| parsed(&status.pod_ips).first().copied());
        let name = || Some(status.service_fqdn).filter(|name| !name.is_empty());
        let host = address.map(SandboxHost::Address).or_else(|| name().map(SandboxHost::Name))?;
        Some(Ready { host, warm })
    }

    /// Renews it until it is dropped; says once that it is lost.
    async fn hold(&mut self, lose: oneshot::Sender<String>, dropped: &mut Dropped) {
        let mut waits = self.shared.calls.waits();
        let renew_every = self.shared.options.renew_every;
        let mut renew_at = Instant::now() + renew_every - spread(renew_every / 4);
        let why = loop {
            let seen = tokio::select! {
                biased;
                _ = dropped.recv() => return,
                seen = self.entry.next() => seen,
                () = sleep_until(renew_at) => Seen::Perhaps,
            };
            match seen {
                Seen::Claim(claim) if claim.metadata.uid == self.uid => match over(&claim) {
                    Some(why) => break why,
                    None => continue,
                },
                Seen::Gone { uid } if uid == self.uid => break "its claim was deleted".to_owned(),
                Seen::Claim(_) | Seen::Gone { .. } | Seen::Perhaps | Seen::Nothing => {}
            }
            // Renewing is looking, too.
            let renewal = tokio::select! {
                biased;
                _ = dropped.recv() => return,
                renewal = self.renew() => renewal,
            };
            renew_at = Instant::now()
                + match renewal {
                    Renewal::Done => {
                        waits = self.shared.calls.waits();
                        renew_every - spread(renew_every / 4)
                    }
                    Renewal::Failed(error) => {
                        tracing::warn!(claim = self.name(), %error, "a sandbox claim was not renewed; trying again");
                        waits.next()
                    }
                    Renewal::Lost(why) => break why,
                };
        };
        tracing::warn!(claim = self.name(), why, "a sandbox is gone while it was held");
        drop(lose.send(why));
        dropped.recv().await;
    }

    async fn renew(&self) -> Renewal {
        // With the uid, another one of this name is a conflict.
        let patch = json!({"metadata": {"uid": self.uid}, "spec": {"lifecycle": {"shutdownTime": self.lease_from_now()}}});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        match self.shared.calls.once("renewing the claim", self.claims.patch(self.entry.name(), &parameters, &patch)).await {
            Ok(claim) => over(&claim).map_or(Renewal::Done, Renewal::Lost),
            Err(error) if error.kind == Kind::NotFound => Renewal::Lost("its claim was deleted".to_owned()),
            Err(error) if error.kind == Kind::Conflict => {
                match self.shared.calls.once("reading the claim", self.claims.get_opt(self.entry.name())).await {
                    Ok(Some(found)) if found.metadata.uid == self.uid => Renewal::Failed(error),
                    Ok(_) => Renewal::Lost("its claim was deleted".to_owned()),
                    Err(error) => Renewal::Failed(error),
                }
            }
            Err(error) => Renewal::Failed(error),
        }
    }

    fn lease_from_now(&self) -> Timestamp {
        let time = Timestamp::now() + self.shared.options.lease;
        // Kubernetes keeps whole seconds; never shorter than what was meant.
        Timestamp::from_second(time.as_second() + 1).unwrap_or(time)
    }

    /// Deletes it, as often as that takes; past a while that is the sweeper's.
    async fn release(mut self) {
        let until = Instant::now() + self.shared.options.release_for;
        let mut waits = self.shared.calls.waits();
        while let Err(error) = self.try_release().await {
            if Instant::now() >= until {
                tracing::warn!(claim = self.name(), %error, "a sandbox claim could not be deleted; it is left to the sweeper");
                return;
            }
            tracing::debug!(claim = self.name(), %error, "a sandbox claim was not deleted; trying again");
            sleep(waits.next()).await;
        }
    }

    async fn try_release(&mut self) -> Result<(), CallError> {
        let name = self.entry.name();
        if self.uid.is_none() && self.perhaps {
            let found = self.shared.calls.once("reading the claim", self.claims.get_opt(name)).await?;
            self.uid = found.filter(|found| self.is_ours(found)).and_then(|found| found.metadata.uid);
        }
        let Some(uid) = self.uid.clone() else { return Ok(()) };
        let preconditions = Preconditions { uid: Some(uid), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.shared.calls.once("deleting the claim", self.claims.delete(name, &parameters)).await {
            Ok(_) => Ok(()),
            // A conflict is another one of this name: ours is gone.
            Err(error) if matches!(error.kind, Kind::NotFound) => Ok(()),
            Err(error) if error.kind == Kind::Conflict => {
                let found = self.shared.calls.once("reading the claim", self.claims.get_opt(name)).await?;
                let there = found.is_some_and(|found| found.metadata.uid == self.uid && !found.is_being_deleted());
                if there { Err(error) } else { Ok(()) }
            }
            Err(error) => Err(error),
        }
    }
}

/// The claim as it is made, but for its time.
fn wanted(options: &Options, request: &ClaimRequest) -> SandboxClaim {
    let warm_pool_ref = PoolRef { name: request.sandbox.warm_pool.clone() };
    let mut claim = SandboxClaim::new(&format!("fte-{}", request.claim_id), ClaimSpec { warm_pool_ref, lifecycle: None });
    let labels = [
        (MANAGED_BY, FTE.to_owned()),
        (HOLDER, options.holder.clone()),
        (CLAIM, request.claim_id.to_string()),
        (TASK, request.task_id.to_string()),
        (AGENT, request.agent.clone()),
    ];
    let seat = options.seat.iter().map(|seat| (SEAT, seat.clone()));
    claim.metadata.labels = Some(labels.into_iter().chain(seat).map(|(key, value)| (key.to_owned(), value)).collect());
    claim
}

/// The claim with its time.
fn until(claim: &SandboxClaim, time: Timestamp) -> SandboxClaim {
    let mut claim = claim.clone();
    claim.spec.lifecycle = Some(Lifecycle { shutdown_time: Some(time), shutdown_policy: Some("Delete".to_owned()) });
    claim
}

fn parsed(addresses: &[String]) -> Vec<IpAddr> {
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

fn standing(claim: &SandboxClaim) -> Standing {
    if let Some(why) = over(claim) {
        return Standing::Failed(Error::Gone { why });
    }
    let Some(ready) = claim.condition("Ready") else { return Standing::Waiting("no controller has looked at it".to_owned()) };
    if HOPELESS.contains(&ready.reason.as_str()) {
        return Standing::Failed(Error::Unusable { reason: ready.reason.clone(), message: ready.message.clone() });
    }
    let bound = claim.status.as_ref().map(|status| &status.sandbox).filter(|sandbox| !sandbox.name.is_empty());
    match bound {
        Some(sandbox) if ready.status == "True" => Standing::Ready { sandbox: sandbox.name.clone(), addresses: parsed(&sandbox.pod_ips) },
        _ => Standing::Waiting(format!("{}: {}", ready.reason, ready.message)),
    }
}

/// Why it is over, if it is.
fn over(claim: &SandboxClaim) -> Option<String> {
    if claim.is_being_deleted() {
        return Some("its claim is being deleted".to_owned());
    }
    let finished = claim.condition("Finished").filter(|finished| finished.status == "True");
    let ended = claim.condition("Ready").filter(|ready| OVER.contains(&ready.reason.as_str()));
    finished.or(ended).map(|condition| format!("{}: {}", condition.reason, condition.message))
}

#[cfg(test)]
mod tests {
    use fte_service::agents::kubernetes::KubernetesSandbox;
    use serde_json::Value;

    use super::*;

    /// The file is held against the schema of agent-sandbox by the tests of the deployment.
    #[test]
    fn a_claim_says_nothing_that_is_not_used() {
        let mut options = Options::new([].into(), Some("fte/fte-runner-0"));
        options.holder = "0123456789abcdef0123456789abcdef".to_owned();
        let (warm_pool, namespace) = ("research".to_owned(), "agents".to_owned());
        let request = ClaimRequest {
            claim_id: "01980000-0000-8000-8000-000000000001".parse().unwrap(),
            task_id: "01980000-0000-7000-8000-000000000001".parse().unwrap(),
            agent: "research".to_owned(),
            sandbox: KubernetesSandbox { warm_pool, namespace, port: 8080, ready_timeout: Duration::from_secs(60) },
        };
        let claim = until(&wanted(&options, &request), "2026-08-22T00:03:00Z".parse().unwrap());
        let expected: Value = serde_json::from_str(include_str!("../tests/claim.json")).unwrap();
        assert_eq!(serde_json::to_value(&claim).unwrap(), expected);
    }
}
