//! A runner's side of it: quick intervals, and claims.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fte_events::{ClaimId, TaskId};
use fte_kubernetes::{KubernetesClaims, Options};
use fte_runner::agents::{ClaimError, ClaimRequest, ClaimedSandbox, Claims};
use fte_service::agents::kubernetes::KubernetesSandbox;

use crate::server::{CLIENT, Server};

/// As in production, but faster. The lease is long, so that no slow machine ends what is held.
pub(crate) fn options() -> Options {
    Options {
        lease: Duration::from_secs(60),
        renew_every: Duration::from_millis(200),
        skew_max: Duration::ZERO,
        sweep_every: Duration::from_millis(200),
        call_timeout: Duration::from_secs(5),
        poll_every: Duration::from_millis(100),
        retry_wait: Duration::from_millis(10),
        retry_wait_max: Duration::from_secs(5),
        release_for: Duration::from_secs(30),
        ..Options::new(BTreeSet::from(["agents".to_owned()]), None)
    }
}

/// A client of its own, which names its holder in each call.
pub(crate) fn client(server: &Server, options: Options) -> KubernetesClaims {
    let mut config = kube::Config::new(server.url.parse().unwrap());
    config.headers.push((CLIENT.parse().unwrap(), options.holder.parse().unwrap()));
    KubernetesClaims::with_config(config, options).unwrap()
}

pub(crate) fn request(ready_timeout: Duration) -> ClaimRequest {
    let task_id = TaskId::now();
    let (warm_pool, namespace) = ("research".to_owned(), "agents".to_owned());
    let sandbox = KubernetesSandbox { warm_pool, namespace, port: 8080, ready_timeout };
    ClaimRequest { claim_id: ClaimId::of(task_id, 0, 1), task_id, agent: "writer".to_owned(), sandbox }
}

/// The key of a claim in the fake cluster.
pub(crate) fn key(request: &ClaimRequest) -> String {
    format!("agents/fte-{}", request.claim_id)
}

pub(crate) async fn claim(client: &KubernetesClaims) -> Result<ClaimedSandbox, ClaimError> {
    client.claim(request(Duration::from_secs(30))).await
}

pub(crate) async fn started(server_side: impl FnOnce(&Arc<Server>)) -> (Arc<Server>, KubernetesClaims) {
    let server = Server::start().await;
    server_side(&server);
    let client = client(&server, options());
    (server, client)
}
