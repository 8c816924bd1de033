//! The life of a claim in a cluster that does its part.

use std::time::Duration;

use fte_kubernetes::Options;
use fte_runner::agents::{Claims, SandboxHost};
use fte_testkit::in_time;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::Value;

use crate::controller::{self, Outcome, finish};
use crate::server::{Fault, World};
use crate::support::{claim, client, key, options, request, started};

const AT_ONCE: Duration = Duration::ZERO;

fn is_empty(world: &World) -> bool {
    world.claims.is_empty()
}

#[tokio::test]
async fn a_claim_becomes_a_sandbox_and_is_deleted_when_it_is_dropped() {
    let (server, client) =
        started(|server| controller::start(server, true, |_| Outcome::Ready(Duration::from_millis(50), Some("warm")))).await;
    let wanted = request(Duration::from_secs(30));
    let claimed = client.claim(wanted.clone()).await.unwrap();
    assert_eq!((claimed.authority().as_str(), claimed.warm), ("10.0.0.7:8080", Some(true)));
    assert_eq!(format!("agents/{}", claimed.name.strip_prefix("agents/").unwrap()), key(&wanted));
    let made = server.world().claims[&key(&wanted)].clone();
    let labels = made["metadata"]["labels"].clone();
    for (label, value) in [
        ("app.kubernetes.io/managed-by", "fte".to_owned()),
        ("fte/task", wanted.task_id.to_string()),
        ("fte/claim", wanted.claim_id.to_string()),
        ("fte/agent", "writer".to_owned()),
    ] {
        assert_eq!(labels[label], value, "{labels}");
    }
    assert_eq!(
        (&made["spec"]["warmPoolRef"]["name"], &made["spec"]["lifecycle"]["shutdownPolicy"]),
        (&"research".into(), &"Delete".into())
    );
    assert!(client.settled().now_or_never().is_none());
    drop(claimed);
    client.settled().await;
    assert!(is_empty(&server.world()));
    assert_eq!(server.deeds("delete").len(), 1);
}

#[tokio::test]
async fn a_sandbox_says_what_it_can_of_its_start_and_its_address() {
    let outcomes = [
        (Outcome::Ready(AT_ONCE, Some("cold")), Some(false), "10.0.0.7:8080"),
        (Outcome::Ready(AT_ONCE, None), None, "10.0.0.7:8080"),
        (Outcome::Named, None, "svc.cluster.local:8080"),
    ];
    for (outcome, warm, authority) in outcomes {
        let (_server, client) = started(|server| controller::start(server, true, move |_| outcome.clone())).await;
        let claimed = claim(&client).await.unwrap();
        assert_eq!(claimed.warm, warm);
        assert!(claimed.authority().ends_with(authority), "{}", claimed.authority());
        assert_eq!(matches!(claimed.host, SandboxHost::Name(_)), authority.contains("svc"));
    }
}

#[tokio::test]
async fn a_runner_that_may_not_read_sandboxes_still_reaches_them() {
    let (server, client) = started(|server| controller::start(server, true, |_| Outcome::Ready(AT_ONCE, Some("warm")))).await;
    server.faults(|call| (call.verb == "sandbox").then_some(Fault::Refused(403, "Forbidden", "no", None)));
    let claimed = claim(&client).await.unwrap();
    assert_eq!((claimed.authority().as_str(), claimed.warm), ("10.0.0.7:8080", None));
}

/// Also under an expiry that nobody forgives: the controller ends each claim at its time.
#[tokio::test]
async fn a_held_claim_is_renewed_and_a_claim_of_a_frozen_holder_ends() {
    let server = crate::server::Server::start().await;
    controller::start(&server, true, |_| Outcome::Ready(AT_ONCE, Some("warm")));
    let held = client(&server, options());
    let wanted = request(Duration::from_secs(30));
    let _claimed = held.claim(wanted.clone()).await.unwrap();
    let ends = |world: &World| -> Timestamp {
        world.claims[&key(&wanted)]["spec"]["lifecycle"]["shutdownTime"].as_str().unwrap().parse().unwrap()
    };
    let first = ends(&server.world());
    server.until("it is renewed", |world| ends(world) > first).await;
    // This one never renews.
    let mut claimed = in_time(Duration::from_secs(1), async |lease| {
        let frozen = client(&server, Options { lease, renew_every: Duration::from_secs(600), ..options() });
        // It may be over before it is ready.
        claim(&frozen).await
    })
    .await;
    let why = (&mut claimed.lost).await.unwrap();
    assert!(why.contains("deleted"), "{why}");
    assert!(server.world().claims.contains_key(&key(&wanted)));
}

#[tokio::test]
async fn a_sandbox_that_is_gone_while_it_is_held_is_said_to_be_lost() {
    let (server, client) = started(|server| controller::start(server, true, |_| Outcome::Ready(AT_ONCE, None))).await;
    let wanted = request(Duration::from_secs(30));
    let mut claimed = client.claim(wanted.clone()).await.unwrap();
    assert!((&mut claimed.lost).now_or_never().is_none());
    finish(&server, &key(&wanted));
    assert_eq!((&mut claimed.lost).await.unwrap(), "PodFailed: out of memory");
    drop(claimed);
    client.settled().await;
    assert!(is_empty(&server.world()));
    let wanted = request(Duration::from_secs(30));
    let mut claimed = client.claim(wanted.clone()).await.unwrap();
    server.change(|world| drop(world.remove(&key(&wanted))));
    assert!((&mut claimed.lost).await.unwrap().contains("deleted"));
    drop(claimed);
    client.settled().await;
}

#[tokio::test]
async fn what_is_not_ready_in_time_is_said_with_its_last_state_and_deleted() {
    let (server, client) = started(|server| {
        controller::start(server, true, |_| Outcome::Waits("DependenciesNotReady", "pod is Pending: Unschedulable"));
    })
    .await;
    let error = client.claim(request(Duration::from_secs(2))).await.err().unwrap();
    assert!(error.retryable && error.reason.contains("within 2 s") && error.reason.contains("Unschedulable"), "{error}");
    client.settled().await;
    let (ignored, client) = started(|server| controller::start(server, true, |_| Outcome::Ignored)).await;
    let error = client.claim(request(Duration::from_millis(300))).await.err().unwrap();
    assert!(error.retryable && error.reason.contains("no controller has looked at it"), "{error}");
    client.settled().await;
    assert!(is_empty(&server.world()) && is_empty(&ignored.world()));
}

#[tokio::test]
async fn what_can_never_be_ready_fails_at_once_with_what_to_do() {
    for (reason, advice) in [("WarmPoolNotFound", "make the SandboxWarmPool"), ("TemplateNotFound", "make the SandboxTemplate")] {
        let (server, client) = started(|server| controller::start(server, true, move |_| Outcome::Waits(reason, "no such thing"))).await;
        let error = client.claim(request(Duration::from_secs(600))).await.err().unwrap();
        assert!(!error.retryable && error.reason.contains(reason) && error.to_string().contains(advice), "{error}");
        client.settled().await;
        assert!(is_empty(&server.world()));
    }
}

#[tokio::test]
async fn a_claim_that_is_dropped_before_it_is_ready_is_deleted() {
    let (server, client) = started(|server| controller::start(server, true, |_| Outcome::Ignored)).await;
    let wanted = request(Duration::from_secs(600));
    let mut waiting = client.claim(wanted.clone());
    assert!((&mut waiting).now_or_never().is_none());
    server.until("it is made", |world| world.claims.contains_key(&key(&wanted))).await;
    drop(waiting);
    client.settled().await;
    assert!(is_empty(&server.world()));
    // Dropped while its creation is under way: it is made, and deleted.
    server.faults(|call| (call.verb == "create").then_some(Fault::Late(Duration::from_millis(300))));
    let mut waiting = client.claim(request(Duration::from_secs(600)));
    assert!((&mut waiting).now_or_never().is_none());
    server.until("it is asked for", |world| world.counts["create"] == 2).await;
    drop(waiting);
    client.settled().await;
    assert!(is_empty(&server.world()));
    assert_eq!(server.deeds("create").len(), server.deeds("delete").len());
}

#[tokio::test]
async fn a_deletion_that_waits_for_finalizers_is_not_waited_for() {
    let (server, client) = started(|server| server.world().finalizers = true).await;
    controller::start(&server, true, |_| Outcome::Ready(AT_ONCE, None));
    let claimed = claim(&client).await.unwrap();
    drop(claimed);
    client.settled().await;
    server.until("the finalizer is gone", is_empty).await;
    assert!(server.deeds("delete").iter().all(|deed| deed.status == 200));
}

#[tokio::test]
async fn a_claim_is_not_claimed_twice_at_a_time() {
    let (server, client) = started(|server| controller::start(server, true, |_| Outcome::Ready(AT_ONCE, None))).await;
    let wanted = request(Duration::from_secs(30));
    let claimed = client.claim(wanted.clone()).await.unwrap();
    let error = client.claim(wanted.clone()).await.err().unwrap();
    assert!(error.retryable && error.reason.contains("held here already"), "{error}");
    assert!(server.world().claims.contains_key(&key(&wanted)));
    drop(claimed);
    client.settled().await;
    let labels = |world: &World| -> Vec<Value> { world.claims.values().map(|claim| claim["metadata"]["labels"].clone()).collect() };
    assert_eq!(labels(&server.world()), Vec::<Value>::new());
}
