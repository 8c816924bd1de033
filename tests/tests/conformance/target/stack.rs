//! Three `daprd` on a real Kafka, started for the run: two instances of the first app and one of a second.

use fte_testkit::{Daemon, Dir};
use fte_tests::infrastructure::Infrastructure;
use fte_tests::ports::free_port;

use super::{API_TOKEN, APP_TOKEN};
use crate::topics::TOPICS;

const APPS: [&str; 3] = ["conf-one", "conf-one", "conf-two"];

/// The sidecars, and what they run on.
pub(crate) struct Sidecars {
    daemons: Vec<Daemon>,
    /// API port and app port of each.
    ports: Vec<(u16, u16)>,
    // After the sidecars, which end first.
    _infrastructure: Infrastructure,
    _resources: Dir,
}

impl Sidecars {
    /// With this state store: `sqlite`, `redis` or `postgresql`.
    pub(crate) async fn start(store: &str) -> Self {
        let infrastructure = Infrastructure::start().await;
        let topics: Vec<String> = TOPICS.iter().map(|topic| format!("{}={}", topic.name, topic.partitions)).collect();
        infrastructure.ask(&[&["topics"], &topics.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
        let resources = Dir::new();
        let pubsub = include_str!("../resources/daprd/pubsub.yaml");
        resources.write("pubsub.yaml", pubsub.replace("127.0.0.1:9092", &infrastructure.address("kafka")));
        resources.write("resiliency.yaml", include_str!("../resources/resiliency.yaml"));
        resources.write("statestore.yaml", statestore(store, &infrastructure, &resources));
        let mut sidecars = Self { daemons: Vec::new(), ports: Vec::new(), _infrastructure: infrastructure, _resources: resources };
        for (number, app_id) in APPS.into_iter().enumerate() {
            let (http, app) = (free_port(), free_port());
            let daprd = sidecars._infrastructure.program("daprd");
            let mut daemon = Daemon::new(format!("sidecar {number} of {app_id}"), ["setpriv", "--pdeathsig", "KILL", "--", &daprd])
                .env("DAPR_API_TOKEN", API_TOKEN)
                .env("APP_API_TOKEN", APP_TOKEN)
                .env("DAPR_HOST_IP", "127.0.0.1");
            let numbers = [("dapr-http-port", http), ("app-port", app)];
            let others = ["dapr-grpc-port", "dapr-internal-grpc-port", "metrics-port"].map(|name| (name, free_port()));
            for (name, port) in numbers.into_iter().chain(others) {
                daemon = daemon.arg(format!("--{name}")).arg(port.to_string());
            }
            let resources = sidecars._resources.to_str().expect("a path of letters").to_owned();
            for (name, value) in [
                ("app-id", app_id.to_owned()),
                ("dapr-listen-addresses", "127.0.0.1".to_owned()),
                ("resources-path", resources),
                ("scheduler-host-address", sidecars._infrastructure.address("scheduler")),
                ("log-level", "warn".to_owned()),
                // Without these it leaves its app at once when it is asked to stop, in the middle of a delivery.
                ("dapr-graceful-shutdown-seconds", "30".to_owned()),
                ("dapr-block-shutdown-duration", "8s".to_owned()),
            ] {
                daemon = daemon.arg(format!("--{name}")).arg(value);
            }
            daemon.start().await;
            sidecars.daemons.push(daemon);
            sidecars.ports.push((http, app));
        }
        sidecars
    }

    /// Address and app port of each.
    pub(crate) fn given(&self) -> Vec<(String, u16)> {
        self.ports.iter().map(|(http, app)| (format!("http://127.0.0.1:{http}"), *app)).collect()
    }

    /// Kills all as `kill -9` does, and starts them again.
    pub(crate) async fn restart(&mut self) {
        for daemon in &mut self.daemons {
            daemon.kill().await;
        }
        for daemon in &mut self.daemons {
            daemon.start().await;
        }
    }

    /// Asks all to stop, does `meanwhile` while they do, and starts them again once they have.
    pub(crate) async fn stop_and_start(&mut self, meanwhile: impl Future<Output = ()>) {
        self.daemons.iter().for_each(Daemon::terminate);
        let ended = async {
            for daemon in &mut self.daemons {
                let status = daemon.ended().await;
                assert!(status.success(), "it ended with {status}");
            }
        };
        tokio::join!(ended, meanwhile);
        for daemon in &mut self.daemons {
            daemon.start().await;
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        self.daemons.iter().map(Daemon::log_tail).collect::<Vec<_>>().join("\n")
    }
}

fn statestore(store: &str, infrastructure: &Infrastructure, scratch: &Dir) -> String {
    let secret =
        |name: &str| infrastructure.secrets().find(|(secret, _)| *secret == name).expect("the stack names its secrets").1.to_owned();
    let (kind, version, metadata) = match store {
        "sqlite" => {
            return include_str!("../resources/daprd/statestore.yaml").replace("file:state", &format!("file:{}/state", scratch.display()));
        }
        "redis" => {
            let (host, password) = (infrastructure.address("redis"), secret("FTE_SECRET_REDIS_PASSWORD"));
            ("redis", "v1", format!("[{{name: redisHost, value: \"{host}\"}}, {{name: redisPassword, value: \"{password}\"}}]"))
        }
        "postgresql" => ("postgresql", "v2", format!("[{{name: connectionString, value: \"{}\"}}]", secret("FTE_SECRET_POSTGRES"))),
        other => panic!("FTE_CONFORMANCE_STACK: {other} is no store it knows; sqlite, redis and postgresql are"),
    };
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: statestore}}\nspec: {{type: state.{kind}, version: {version}, metadata: {metadata}}}\n"
    )
}
