//! Where sandboxes are claimed that are not of this machine: the one place that knows whether this program can speak to a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use fte_runner::agents::Claims;
use fte_service::Settings;

use crate::error::Error;

/// Who claims sandboxes for the configured agents; nobody where none of them needs it. `seat` is what no two processes hold at the same time, as far as a
/// cluster can tell.
pub(crate) async fn of(settings: &Settings, seat: Option<&str>) -> Result<Option<Arc<dyn Claims>>, Error> {
    let agents = settings.agents.agents.values();
    let namespaces: BTreeSet<String> = agents.filter_map(|agent| agent.kubernetes.as_ref()).map(|place| place.namespace.clone()).collect();
    if namespaces.is_empty() { Ok(None) } else { claims(namespaces, seat).await.map(Some) }
}

#[cfg(feature = "kubernetes")]
async fn claims(namespaces: BTreeSet<String>, seat: Option<&str>) -> Result<Arc<dyn Claims>, Error> {
    let claims = fte_kubernetes::KubernetesClaims::connect(namespaces, seat).await.map_err(|error| Error::Start {
        what: "agents have their sandboxes in Kubernetes, and there is no way to it".to_owned(),
        advice: "check that `kubectl get sandboxclaims` works here, or that the pod has a service account's token".to_owned(),
        source: Some(error.into()),
    })?;
    Ok(Arc::new(claims))
}

#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "the same as with the feature")]
async fn claims(_: BTreeSet<String>, _: Option<&str>) -> Result<Arc<dyn Claims>, Error> {
    Err(Error::Start {
        what: "agents have their sandboxes in Kubernetes, and this fte was built without it".to_owned(),
        advice: "build it with `cargo build --release --features kubernetes`".to_owned(),
        source: None,
    })
}
