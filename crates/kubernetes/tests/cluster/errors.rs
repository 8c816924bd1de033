//! What the API server refuses, delays, loses or doubles.

use std::sync::Arc;
use std::time::Duration;

use fte_kubernetes::Options;
use fte_runner::agents::Claims;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::controller::{self, Outcome};
use crate::server::{Fault, Server};
use crate::support::{claim, client, key, options, request, started};

const SHORT: Duration = Duration::from_millis(1500);

fn ready(server: &Arc<Server>) {
    controller::start(server, true, |_| Outcome::Ready(Duration::ZERO, Some("warm")));
}

#[tokio::test]
async fn a_refusal_is_final_and_says_what_to_do() {
    let refusals = [
        (403, "Forbidden", "sandboxclaims is forbidden: exceeded quota: sandboxes", "raise the namespace's quota"),
        (403, "Forbidden", "user cannot create sandboxclaims", "let the runner's service account"),
        (404, "NotFound", "namespaces \"agents\" not found", "install agent-sandbox"),
        (401, "Unauthorized", "Unauthorized", "credentials"),
        (422, "Invalid", "spec.warmPoolRef: Required value", "v1beta1"),
    ];
    for (code, reason, message, advice) in refusals {
        let (server, client) = started(ready).await;
        server.faults(move |call| (call.verb == "create").then_some(Fault::Refused(code, reason, message, None)));
        let error = client.claim(request(Duration::from_secs(600))).await.err().unwrap();
        let said = error.to_string();
        assert!(!error.retryable && said.contains(message) && said.contains(advice), "{said}");
        client.settled().await;
        assert_eq!((server.asked("create"), server.asked("delete")), (1, 0), "{said}");
    }
}

#[tokio::test]
async fn an_outage_that_lasts_may_be_tried_again_later() {
    for fault in [
        Fault::Refused(429, "TooManyRequests", "slow down", None),
        Fault::Refused(500, "InternalError", "etcd", None),
        Fault::Refused(503, "ServiceUnavailable", "starting", None),
        Fault::Cut,
    ] {
        let (server, client) = started(ready).await;
        let always = fault.clone();
        server.faults(move |call| (call.verb == "create").then(|| always.clone()));
        let error = client.claim(request(SHORT)).await.err().unwrap();
        assert!(error.retryable && error.reason.contains("creating the claim failed"), "{fault:?}: {error}");
        assert!(server.asked("create") > 2, "{fault:?}");
        client.settled().await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for_without_end() {
    let server = Server::start().await;
    let client = client(&server, Options { call_timeout: Duration::from_millis(100), ..options() });
    server.faults(|call| (call.verb == "create").then_some(Fault::Hung));
    let error = client.claim(request(SHORT)).await.err().unwrap();
    assert!(error.retryable && error.reason.contains("no answer within 0.1 s"), "{error}");
}

#[tokio::test]
async fn the_wait_that_a_server_asks_for_is_kept() {
    let (server, client) = started(ready).await;
    server
        .faults(|call| (call.verb == "create" && call.before == 0).then_some(Fault::Refused(429, "TooManyRequests", "slow down", Some(1))));
    let began = std::time::Instant::now();
    let claimed = claim(&client).await.unwrap();
    let made = server.deeds("create")[0].at;
    assert!(made - began >= Duration::from_secs(1), "after {:?}", made - began);
    drop(claimed);
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_found_and_made_once() {
    for fault in [Fault::Lost, Fault::Behind(Duration::from_millis(50))] {
        let (server, client) = started(ready).await;
        let first = fault.clone();
        server.faults(move |call| (call.verb == "create" && call.before == 0).then(|| first.clone()));
        let wanted = request(Duration::from_secs(30));
        let claimed = client.claim(wanted.clone()).await.unwrap();
        assert!(server.world().claims.contains_key(&key(&wanted)));
        let made = server.deeds("create").iter().filter(|deed| deed.status == 201).count();
        assert_eq!(made, 1, "{fault:?}");
        drop(claimed);
        client.settled().await;
        server.until("nothing is left", |world| world.claims.is_empty()).await;
    }
}

/// Its creation happens when nobody thinks of it any more: the sweeper does.
#[tokio::test]
async fn a_creation_that_happens_after_its_deletion_is_swept() {
    let (server, client) = started(|_| {}).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    server.faults(move |call| (call.verb == "create").then(|| Fault::Held(Arc::clone(&held))));
    let error = client.claim(request(Duration::from_millis(20))).await.err().unwrap();
    assert!(error.retryable, "{error}");
    client.settled().await;
    assert!(server.world().claims.is_empty());
    gate.close();
    server
        .until("it is made and swept", |world| {
            let done = |verb: &str| world.deeds.iter().any(|deed| deed.call.verb == verb && deed.status < 300);
            done("create") && done("delete") && world.claims.is_empty()
        })
        .await;
}

#[tokio::test]
async fn another_ones_claim_of_our_name_is_neither_used_nor_deleted() {
    let (server, client) = started(ready).await;
    let wanted = request(Duration::from_secs(30));
    let name = key(&wanted).replace("agents/", "");
    let labels = [("app.kubernetes.io/managed-by", "fte"), ("fte/holder", "another"), ("fte/claim", "x")];
    server.change(|world| world.plant(&name, &labels, Duration::from_secs(600)));
    let error = client.claim(wanted.clone()).await.err().unwrap();
    assert!(error.retryable && error.reason.contains("another process's"), "{error}");
    client.settled().await;
    assert!(server.world().claims.contains_key(&key(&wanted)) && server.asked("delete") == 0);
}

#[tokio::test]
async fn a_deletion_is_tried_until_it_is_done() {
    let faults: [fn(usize) -> Option<Fault>; 5] = [
        |before| (before < 3).then_some(Fault::Refused(500, "InternalError", "etcd", None)),
        |before| (before < 3).then_some(Fault::Refused(409, "Conflict", "the object has been modified", None)),
        |before| (before < 2).then_some(Fault::Refused(429, "TooManyRequests", "slow down", None)),
        |before| (before < 2).then_some(Fault::Cut),
        |before| (before < 1).then_some(Fault::Lost),
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        let (server, client) = started(ready).await;
        let claimed = claim(&client).await.unwrap();
        server.faults(move |call| if call.verb == "delete" { fault(call.before) } else { None });
        drop(claimed);
        client.settled().await;
        assert!(server.world().claims.is_empty(), "case {at}");
        let gone = server.deeds("delete").iter().filter(|deed| deed.deleted.is_some()).count();
        assert_eq!(gone, 1, "case {at}");
    }
}

#[tokio::test]
async fn a_claim_that_somebody_else_deleted_and_made_anew_is_not_deleted() {
    let (server, client) = started(ready).await;
    let wanted = request(Duration::from_secs(30));
    let claimed = client.claim(wanted.clone()).await.unwrap();
    let name = key(&wanted).replace("agents/", "");
    // No renewal or look is told of it before the release.
    server.faults(|call| (call.verb != "delete").then_some(Fault::Cut));
    server.change(|world| {
        world.silent = true;
        world.remove(&key(&wanted));
        world.plant(&name, &[("fte/holder", "another")], Duration::from_secs(600));
    });
    server.faults(|call| matches!(call.verb, "patch" | "watch").then_some(Fault::Cut));
    drop(claimed);
    client.settled().await;
    assert!(server.world().claims.contains_key(&key(&wanted)));
    assert!(server.deeds("delete").iter().all(|deed| deed.status == 409));
}

#[tokio::test]
async fn a_deletion_that_nobody_takes_is_left_to_the_sweeper() {
    let server = Server::start().await;
    ready(&server);
    let client = client(&server, Options { release_for: Duration::from_millis(100), ..options() });
    let claimed = claim(&client).await.unwrap();
    server.faults(|call| (call.verb == "delete" && call.before < 8).then_some(Fault::Refused(500, "InternalError", "etcd", None)));
    drop(claimed);
    client.settled().await;
    server.until("it is swept", |world| world.claims.is_empty()).await;
}

#[tokio::test]
async fn renewals_go_on_through_conflicts_and_outages() {
    let (server, client) = started(ready).await;
    let wanted = request(Duration::from_secs(30));
    let mut claimed = client.claim(wanted.clone()).await.unwrap();
    let ends = |server: &Server| -> Timestamp {
        server.world().claims[&key(&wanted)]["spec"]["lifecycle"]["shutdownTime"].as_str().unwrap().parse().unwrap()
    };
    let first = ends(&server);
    let before = server.asked("patch");
    server.faults(move |call| {
        let nth = call.before.checked_sub(before).filter(|_| call.verb == "patch")?;
        match nth {
            0 => Some(Fault::Refused(409, "Conflict", "the object has been modified", None)),
            1 => Some(Fault::Refused(500, "InternalError", "etcd", None)),
            2 => Some(Fault::Cut),
            _ => None,
        }
    });
    server
        .until("it is renewed", |world| {
            world.counts.get("patch").is_some_and(|count| *count > before + 3)
                && world
                    .claims
                    .values()
                    .any(|claim| claim["spec"]["lifecycle"]["shutdownTime"].as_str().unwrap().parse::<Timestamp>().unwrap() > first)
        })
        .await;
    assert!(claimed.lost.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty));
}
