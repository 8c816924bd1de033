//! Sandboxes in Kubernetes: a [`Claims`] that claims pods from [agent-sandbox](https://github.com/kubernetes-sigs/agent-sandbox), as `SandboxClaim`s of
//! `extensions.agents.x-k8s.io/v1beta1` that name a `SandboxWarmPool`.
//!
//! Always true:
//!
//! * A claim is made before it is known to be made, under a name derived from the claim's id in the task's document, and never without a time at which it
//!   ends by itself ([`Options::lease`]). A living runner renews that time; so what nobody holds any more ends, whoever died, whatever answer was lost.
//! * What is dropped is deleted, by its uid: nobody deletes a claim that only has the name of his. Writes are creations, patches of that one time, and
//!   deletions; what others wrote into an object is never written back.
//! * A sweeper deletes what the ending by time would delete later: claims of this runner that it does not hold, of the dead predecessor on its seat, and
//!   those whose time has passed although no controller looked.
//!
//! Expiry by a lease in each claim was chosen over leader election among runners (a second truth about who lives, beside the one in the state store) and
//! over owner references to the runner's pod (they do not cross namespaces, and `fte up` has no pod). Its price is a patch per claim every
//! [`Options::renew_every`], and clocks that agree within [`Options::skew_max`].
//!
//! | where | what |
//! |---|---|
//! | `api` | the two kinds of objects, as far as they are used |
//! | `calls`, `pause` | calls to the API server, with time limits, and the waiting that it asks for |
//! | `claim` | the life of one claim |
//! | `news` | what becomes of the claims that are held, by one watch per namespace |
//! | `sweep` | the sweeper |

mod api;
mod calls;
mod claim;
mod error;
mod held;
mod news;
mod options;
mod pause;
mod sweep;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use fte_runner::agents::{ClaimError, ClaimRequest, ClaimedSandbox, Claims};
use fte_runner::ports::Pending;
use fte_service::SteadyClock;
use kube::Client;
use kube::client::ClientBuilder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use self::error::ConnectError;
pub use self::options::Options;

use self::calls::Calls;
use self::claim::Keeper;
use self::error::Error;
use self::held::Held;
use self::news::News;
use self::pause::{Pause, PauseLayer};

/// Claims sandboxes in a cluster for one process.
pub struct KubernetesClaims {
    shared: Arc<Shared>,
    sweeper: JoinHandle<()>,
}

/// What the claims of one process have in common.
struct Shared {
    calls: Calls,
    held: Arc<Held>,
    news: News,
    /// By which a claim has had its time.
    clock: SteadyClock,
    options: Options,
}

impl KubernetesClaims {
    /// Finds the cluster by the service account of the pod, else as `kubectl` does, and claims in these namespaces of it. `seat` is what no two processes in the
    /// pod's namespace hold at the same time, such as the pod's name; outside a pod nobody can tell, and it counts for nothing. Asks the cluster for
    /// nothing yet: one that is away is no reason not to start. Needs a Tokio runtime.
    pub async fn connect(namespaces: BTreeSet<String>, seat: Option<&str>) -> Result<Self, ConnectError> {
        if let Ok(config) = kube::Config::incluster() {
            let seat = seat.map(|seat| format!("{}/{seat}", config.default_namespace));
            return Self::with_config(config, Options::new(namespaces, seat.as_deref()));
        }
        let config = kube::Config::infer().await.map_err(|source| ConnectError::NoCluster { source: Box::new(source) })?;
        Self::with_config(config, Options::new(namespaces, None))
    }

    /// The same, with a cluster that is known. Needs a Tokio runtime.
    pub fn with_config(mut config: kube::Config, options: Options) -> Result<Self, ConnectError> {
        // Its own retries wait for as long as a server likes, and know nothing of each other.
        config.default_retry = false;
        config.connect_timeout = Some(options.call_timeout);
        let pause = Arc::new(Pause::default());
        let builder = ClientBuilder::try_from(config).map_err(|source| ConnectError::Unusable { source: Box::new(source) })?;
        let client: Client = builder.with_layer(&PauseLayer(Arc::clone(&pause))).build();
        let held = Arc::new(Held::default());
        let shared = Arc::new(Shared {
            news: News::new(client.clone(), Arc::clone(&held), &options),
            calls: Calls::new(client, pause, &options),
            held,
            clock: SteadyClock::new("sandbox claims of others"),
            options,
        });
        let sweeper = tokio::spawn(sweep::run(Arc::clone(&shared)));
        Ok(Self { shared, sweeper })
    }
}

impl fmt::Debug for KubernetesClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesClaims").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Drop for KubernetesClaims {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

impl Claims for KubernetesClaims {
    fn claim(&self, request: ClaimRequest) -> Pending<Result<ClaimedSandbox, ClaimError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            // The keeper goes on by itself, so that what is dropped here is given back whoever polls what.
            let (guard, dropped) = mpsc::channel(1);
            let (tell, ready) = oneshot::channel();
            let (lose, lost) = oneshot::channel();
            let (keeper, port) = Keeper::new(shared, request)?;
            let name = keeper.name();
            tokio::spawn(keeper.run(tell, lose, dropped));
            let ready = ready.await.unwrap_or(Err(Error::Stopped))?;
            Ok(ClaimedSandbox { name, host: ready.host, port, warm: ready.warm, lost, guard: Box::new(guard) })
        })
    }

    fn settled(&self) -> Pending<()> {
        let held = Arc::clone(&self.shared.held);
        Box::pin(async move { held.empty().await })
    }
}
