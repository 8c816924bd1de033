//! A service and its `daprd`, as two processes.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use fte_testkit::{Client, Daemon, built_binary, eventually_within};
use fte_tests::infrastructure::root;
use fte_tests::ports::free_port;

use crate::run_file::{App, End, SidecarPorts};
use crate::world::{API_TOKEN, APP_TOKEN, START_PATIENCE};

/// A service beside its sidecar.
pub(crate) struct Pair {
    pub(crate) id: String,
    pub(crate) service: Daemon,
    pub(crate) daprd: Daemon,
    /// The public API.
    pub(crate) api: Client,
    /// The port that the sidecar calls, for its probes.
    pub(crate) app: Client,
    /// The sidecar's own API.
    pub(crate) sidecar: Client,
    /// Where the sidecar listens.
    pub(crate) ports: SidecarPorts,
    end: Option<End>,
}

impl Pair {
    /// What the run file says of an app, not started yet. Only where things are is changed: addresses, and the data directory.
    pub(crate) fn new<'a>(mut app: App, daprd: &str, data: &Path, secrets: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let ports = SidecarPorts { http: free_port(), grpc: free_port(), internal_grpc: free_port(), metrics: free_port() };
        let (app_port, api_port) = (free_port(), free_port());
        app.port = app_port;
        let addr = app.env.insert("FTE_API_ADDR".to_owned(), format!("127.0.0.1:{api_port}"));
        assert!(addr.is_some(), "{}: the run file says where its API listens", app.id);

        // As with `runtimePath: ./dapr/loopback`.
        let on_loopback = root().join("dapr/loopback/.dapr/bin/daprd").into_os_string();
        let mut sidecar = Daemon::new(format!("daprd of {}", app.id), with_the_test(&app.dir, [on_loopback]))
            .env("DAPRD", daprd)
            .env("DAPR_API_TOKEN", API_TOKEN)
            .env("APP_API_TOKEN", APP_TOKEN)
            // Where there is no other address than the loopback, it would not start.
            .env("DAPR_HOST_IP", "127.0.0.1");
        for argument in app.daprd_arguments(ports) {
            sidecar = sidecar.arg(argument);
        }
        for (name, value) in secrets {
            sidecar = sidecar.env(name, value);
        }

        // `fte` of the run file is found in PATH, as it would be by the CLI.
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", built_binary().parent().unwrap().display());
        let command = with_the_test(&app.dir, app.command.iter().map(OsString::from));
        let mut service = Daemon::new(app.id.clone(), command)
            .env("PATH", path)
            .env("DAPR_API_TOKEN", API_TOKEN)
            .env("APP_API_TOKEN", APP_TOKEN)
            .env("FTE_DATA", data);
        for (name, value) in app.app_env(ports) {
            service = service.env(name, value);
        }
        let client = |port: u16| Client::new(format!("http://127.0.0.1:{port}"));
        Self {
            id: app.id,
            service,
            daprd: sidecar,
            api: client(api_port),
            app: client(app_port),
            sidecar: client(ports.http).with_header("dapr-api-token", API_TOKEN),
            ports,
            end: app.end,
        }
    }

    /// As the CLI: the sidecar first, the app once the sidecar listens.
    pub(crate) async fn start(&mut self) {
        self.daprd.start().await;
        self.service.start().await;
    }

    /// Waits until the service is ready, and the sidecar with all its components and its app.
    pub(crate) async fn ready(&self) {
        eventually_within(START_PATIENCE, || async {
            let ready = self.app.get("/ready").await.map_err(|error| error.to_string())?;
            if ready.status != 200 {
                return Err(format!("{}: {}", self.id, ready.text()));
            }
            let healthy = self.sidecar.get("/v1.0/healthz").await.map_err(|error| error.to_string())?;
            if healthy.status == 204 { Ok(()) } else { Err(format!("sidecar of {}: {}", self.id, healthy.text())) }
        })
        .await;
    }

    /// Asks both to end, as the end of a pod does, and waits until they have.
    pub(crate) async fn stop(&mut self) {
        self.daprd.terminate();
        self.service.stop().await;
        self.daprd.ended().await;
    }

    /// Ends both as Kubernetes ends a pod of the chart: the sidecar is told at once, the service after its `preStop`. Whoever is still there when the grace is over
    /// would be killed.
    pub(crate) async fn ends_as_a_pod(&mut self) {
        let end = self.end.expect("it was started as a pod");
        let begun = Instant::now();
        self.daprd.terminate();
        tokio::time::sleep(Duration::from_secs(end.pre_stop_s)).await;
        let service = self.service.stop().await;
        let of_service = begun.elapsed();
        let daprd = self.daprd.ended().await;
        println!("{} has ended after {of_service:.1?} ({service}), its sidecar after {:.1?} ({daprd})", self.id, begun.elapsed());
        assert!(service.success() && daprd.success(), "{}: {service}, its sidecar: {daprd}", self.id);
        assert!(of_service < Duration::from_secs(end.pre_stop_s + end.drain_s), "{} took {of_service:?}", self.id);
        assert!(begun.elapsed() < Duration::from_secs(end.kill_s()), "{} would have been killed", self.id);
    }

    /// Kills both as `kill -9` does, as if their machine were gone.
    pub(crate) async fn kill(&mut self) {
        self.service.kill().await;
        self.daprd.kill().await;
    }

    /// Kills the sidecar as `kill -9` does, starts it again, and waits until all is ready.
    pub(crate) async fn kill_sidecar_and_restart(&mut self) {
        self.daprd.start().await;
        self.ready().await;
    }

    /// Kills the service as `kill -9` does, starts it again, and waits until all is ready.
    pub(crate) async fn kill_service_and_restart(&mut self) {
        self.service.start().await;
        self.ready().await;
    }
}

/// A command in a directory, that ends when the test ends however that is.
fn with_the_test(dir: &Path, command: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["setpriv", "--pdeathsig", "KILL", "--", "env", "-C"].map(OsString::from).to_vec();
    words.push(dir.into());
    words.extend(command);
    words
}
