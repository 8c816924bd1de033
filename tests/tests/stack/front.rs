//! One address for the four services: nginx with the chart's configuration, as the guide tells who runs them with `dapr run -f .`.

use std::fmt::Write as _;

use fte_testkit::{Daemon, built_binary, eventually, eventually_within};
use fte_tests::infrastructure::root;
use fte_tests::ports::free_port;
use serde_json::Value;

use crate::sidecar::Pair;
use crate::world::{START_PATIENCE, World};

pub(crate) struct Front {
    _nginx: Daemon,
    pub(crate) url: String,
}

impl Front {
    /// Before the services of a world.
    pub(crate) async fn of(world: &World) -> Self {
        let address =
            |pair: &Pair| (pair.id.trim_start_matches("fte-").to_owned(), pair.api.base().trim_start_matches("http://").to_owned());
        Self::before(&world.pairs.iter().map(address).collect::<Vec<_>>()).await
    }

    /// Before services at these addresses.
    pub(crate) async fn before(services: &[(String, String)]) -> Self {
        let conf = std::fs::read_to_string(root().join("deploy/helm/fte/files/nginx.conf")).unwrap();
        let (before, rest) = conf.split_once("{{- range").expect("the chart names the services");
        let (named, after) = rest.split_once("{{- end }}").unwrap();
        let (_, options) = named.split_once(".svc:80;").expect("each is a Service of Kubernetes");
        let port = free_port();
        let mut upstreams = String::new();
        for (service, address) in services {
            writeln!(upstreams, "  upstream {service} {{ server {address};{}", options.trim_end()).unwrap();
        }
        // One process, that can be killed as a whole.
        let nginx = Daemon::new("nginx", ["setpriv", "--pdeathsig", "KILL", "--", "nginx", "-g", "daemon off; master_process off;"]);
        let scratch = format!("{}/", nginx.scratch().display());
        let conf = format!("{before}{upstreams}{after}").replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
        let conf = conf.replace("worker_processes 2;", "").replace("/tmp/", &scratch);
        let file = nginx.scratch().write("nginx.conf", conf);
        let mut nginx = nginx.arg("-e").arg(format!("{scratch}error.log")).arg("-c").arg(file);
        nginx.start().await;
        let url = format!("http://127.0.0.1:{port}");
        let client = fte_testkit::Client::new(&url);
        eventually(|| async { client.get("/front-health").await.map(|_| ()).map_err(|error| error.to_string()) }).await;
        Self { _nginx: nginx, url }
    }

    /// What `fte doctor` finds here, with more arguments; a probe is always sent.
    pub(crate) async fn doctor(&self, arguments: &[&str]) -> Findings {
        let mut doctor = tokio::process::Command::new(built_binary());
        let output = doctor.args(["doctor", "--probe", "--json", "--url", &self.url]).args(arguments).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let mut found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        println!("doctor: {}", String::from_utf8_lossy(&output.stdout));
        let Value::Array(findings) = found["items"].take() else { panic!("{found}") };
        Findings { findings, passed: output.status.success() }
    }

    /// Waits until it finds this, which may take the broker a moment; what is bad is told otherwise.
    pub(crate) async fn doctor_finds(&self, arguments: &[&str], is_found: impl Fn(&Findings) -> bool) -> Findings {
        eventually_within(START_PATIENCE, || async {
            let found = self.doctor(arguments).await;
            if is_found(&found) { Ok(found) } else { Err(format!("{:#?}", found.bad())) }
        })
        .await
    }

    /// Waits until it finds nothing wrong.
    pub(crate) async fn finds_nothing_wrong(&self, arguments: &[&str]) -> Findings {
        self.doctor_finds(arguments, |found| found.bad().is_empty()).await
    }
}

/// What the doctor found.
pub(crate) struct Findings {
    findings: Vec<Value>,
    pub(crate) passed: bool,
}

impl Findings {
    /// What is bad, each with its advice.
    pub(crate) fn bad(&self) -> Vec<(&str, String)> {
        let bad = self.findings.iter().filter(|finding| finding["health"] == "bad");
        bad.map(|finding| (finding["check"].as_str().unwrap(), format!("{} → {}", finding["found"], finding["advice"]))).collect()
    }

    /// The checks that went well.
    pub(crate) fn well(&self) -> Vec<&str> {
        self.findings.iter().filter(|finding| finding["health"] == "ok").map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    /// Whether something bad is found by such a check that has all these words.
    pub(crate) fn names(&self, check: &str, words: &[&str]) -> bool {
        self.bad().iter().any(|(found, text)| *found == check && words.iter().all(|word| text.contains(word)))
    }
}
