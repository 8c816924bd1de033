//! All services of `dapr.yaml` on a stack of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fte_events::catalogue::topics;
use fte_events::handoffs::built_in_agents;
use fte_testkit::{Client, Dir, eventually, eventually_within};
use fte_tests::infrastructure::{Infrastructure, root};
use fte_tests::load::Doors;
use fte_tests::tasks::{look, result_within};
use serde_json::Value;

use crate::run_file::{App, End, RunFile};
use crate::sidecar::Pair;

pub(crate) const API_TOKEN: &str = "what-the-sidecar-asks-for";
pub(crate) const APP_TOKEN: &str = "what-the-sidecar-shows";
/// How long a start may take: four sidecars and their consumer groups, on two cores.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(120);

/// A task's result, which may come late where a part has just started.
pub(crate) async fn result(status: &Client, task: &str) -> Value {
    result_within(START_PATIENCE, status, task).await
}

/// Posts a task until it is accepted, and gives its id. A topic that was just made, and a broker that was away, may refuse the first.
pub(crate) async fn post_until_accepted(intake: &Client, body: Value) -> String {
    eventually_within(START_PATIENCE, || async {
        let answer = intake.post("/v1/tasks", &body).await.map_err(|error| error.to_string())?;
        if answer.status != 202 {
            return Err(answer.text());
        }
        Ok(answer.json::<Value>()["task_id"].as_str().unwrap().to_owned())
    })
    .await
}

const CLOCK_FILE: &str = "FAKETIME_TIMESTAMP_FILE";
/// With `libfaketime` preloaded: a service whose time of day can be set, but not its monotonic clock.
pub(crate) const CLOCKS: [(&str, &str); 3] = [(CLOCK_FILE, ""), ("FAKETIME_CACHE_DURATION", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];

/// A state store, by its directory in `dapr/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Redis,
    Postgresql,
}

impl Store {
    fn directory(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgresql => "postgresql",
        }
    }
}

pub(crate) struct World {
    /// In the order of the run file; what was added comes last.
    pub(crate) pairs: Vec<Pair>,
    pub(crate) infrastructure: Infrastructure,
    /// What each service is started from, again and again.
    apps: Vec<App>,
    dir: Dir,
}

/// What is not as usual in a world.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unusual<'a> {
    /// More in the environment of the services.
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// Topics that are not made.
    pub(crate) lacks: &'a [&'a str],
    /// More options of `stack up`.
    pub(crate) stack: &'a [&'a str],
    /// Kafka asks who comes: SASL/SCRAM over TLS, and access rules.
    pub(crate) secured: bool,
    /// The read model is in PostgreSQL, which replicas of status share.
    pub(crate) status_on_postgresql: bool,
    /// Services and sidecars end as pods of the chart do.
    pub(crate) as_pods: bool,
}

impl World {
    /// Starts what the run file says, and waits until all are ready.
    pub(crate) async fn start(store: Store) -> Self {
        Self::start_with(store, &[]).await
    }

    /// [`World::start`], with more in the environment of the services.
    pub(crate) async fn start_with(store: Store, env: &[(&str, &str)]) -> Self {
        let world = Self::start_unusual(store, Unusual { env, ..Unusual::default() }).await;
        world.ready().await;
        world
    }

    /// Starts what the run file says, and waits for nothing.
    pub(crate) async fn start_unusual(store: Store, unusual: Unusual<'_>) -> Self {
        let security: &[&str] = if unusual.secured { &["--secured"] } else { &[] };
        let infrastructure = Infrastructure::start_with(&[unusual.stack, security].concat()).await;
        let topics = topics(&built_in_agents());
        let wanted = topics.iter().filter(|topic| !unusual.lacks.contains(&&*topic.name));
        let wanted: Vec<String> = wanted.map(|topic| format!("{}={}", topic.name, topic.partitions)).collect();
        if wanted.len() == topics.len() {
            infrastructure.ask(&["topics"]);
        } else {
            infrastructure.ask(&[vec!["topics"], wanted.iter().map(String::as_str).collect()].concat());
        }
        let dir = Dir::new();
        let resources = dir.join("dapr");
        copy_with_addresses(&root().join("dapr"), &resources, &infrastructure);
        let mut apps = RunFile::read(&root().join("dapr.yaml"));
        for app in &mut apps {
            for path in &mut app.resources {
                let below = path.strip_prefix(root().join("dapr")).unwrap();
                // The file itself says how to choose another store: another directory.
                let below = match below.to_str().unwrap() {
                    "redis" => PathBuf::from(store.directory()),
                    "kafka" if unusual.secured => PathBuf::from("kafka-secured"),
                    _ => below.to_owned(),
                };
                *path = resources.join(below);
            }
            assert_eq!(
                (app.placement.as_str(), app.scheduler.as_str()),
                ("localhost:50005", "localhost:50006"),
                "where dapr init puts them"
            );
            app.placement = infrastructure.address("placement");
            app.scheduler = infrastructure.address("scheduler");
            if unusual.as_pods {
                let end = End::of_the_chart();
                app.env.insert("FTE_DRAIN_MS_MAX".to_owned(), (1000 * end.drain_s).to_string());
                app.end = Some(end);
            }
            app.env.extend(unusual.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            if unusual.status_on_postgresql && app.id == "fte-status" {
                app.env.insert("FTE_STATUS_DATABASE_URL".to_owned(), database_url(&infrastructure));
            }
        }
        let mut world = Self { pairs: Vec::new(), infrastructure, apps, dir };
        for app in world.apps.clone() {
            world.start_one(app, "data").await;
        }
        world
    }

    async fn start_one(&mut self, mut app: App, data: &str) {
        let data = self.dir.join(data);
        if let Some(file) = app.env.get_mut(CLOCK_FILE) {
            *file = self.dir.join(format!("{}.clock", app.id)).to_str().unwrap().to_owned();
            std::fs::write(file, "+0").unwrap();
        }
        let id = app.id.clone();
        let secrets = self.infrastructure.secrets().chain(self.infrastructure.secrets_of(&id));
        let mut pair = Pair::new(app, &self.infrastructure.program("daprd"), &data, secrets);
        pair.start().await;
        self.pairs.push(pair);
    }

    /// Starts one more replica of a service: the same app id, and everything else of its own. Gives its place among the pairs.
    pub(crate) async fn add(&mut self, service: &str) -> usize {
        let id = format!("fte-{service}");
        let mut app = self.apps.iter().find(|app| app.id == id).unwrap().clone();
        let own = format!("data-{}", self.pairs.len());
        if let Some(seat) = app.env.get_mut("FTE_RUNNER_SEAT") {
            seat.clone_from(&own);
        }
        self.start_one(app, &own).await;
        self.pairs.len() - 1
    }

    /// Sets a service's clock off by so many seconds, and waits until the service itself shows that. It must have been started with [`CLOCKS`].
    pub(crate) async fn set_clock(&self, service: &str, offset_s: i64) {
        const NEAR_S: i64 = 300;
        std::fs::write(self.dir.join(format!("fte-{service}.clock")), format!("{offset_s:+}")).unwrap();
        let pair = self.pairs.iter().find(|pair| pair.id == format!("fte-{service}")).unwrap();
        eventually(|| async {
            let diagnosis = look(&pair.api, &format!("/v1/services/{service}")).await?;
            let shown: jiff::Timestamp = diagnosis["now"].as_str().unwrap().parse().unwrap();
            let off_s = (shown - jiff::Timestamp::now()).get_seconds();
            if (off_s - offset_s).abs() < NEAR_S { Ok(()) } else { Err(format!("{service} is {off_s} s off, not {offset_s}")) }
        })
        .await;
    }

    /// Waits until every service and every sidecar is ready.
    pub(crate) async fn ready(&self) {
        for pair in &self.pairs {
            pair.ready().await;
        }
    }

    /// Of a service, as `intake`.
    pub(crate) fn pair(&mut self, service: &str) -> &mut Pair {
        let id = format!("fte-{service}");
        self.pairs.iter_mut().find(|pair| pair.id == id).unwrap()
    }

    /// Where people find the services.
    pub(crate) fn doors(&self) -> Doors {
        let api = |service: &str| -> Client { self.pairs.iter().find(|pair| pair.id == format!("fte-{service}")).unwrap().api.clone() };
        Doors { intake: api("intake"), runner: api("runner"), status: api("status"), audit: api("audit") }
    }
}

/// The stack's PostgreSQL, as status wants it named.
fn database_url(infrastructure: &Infrastructure) -> String {
    let (_, secret) = infrastructure.secrets().find(|(name, _)| *name == "FTE_SECRET_POSTGRES").unwrap();
    let password = secret.split(' ').find_map(|part| part.strip_prefix("password=")).unwrap();
    format!("postgres://fte:{password}@{}/postgres", infrastructure.address("postgres"))
}

/// Copies the resources; each address that stands in them must, and becomes that of the story's own stack.
fn copy_with_addresses(from: &Path, to: &Path, infrastructure: &Infrastructure) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_with_addresses(&entry.path(), &target, infrastructure);
            continue;
        }
        let mut text = std::fs::read_to_string(entry.path()).unwrap();
        for (usual, part) in [("localhost:9092", "kafka"), ("localhost:9094", "kafka_secured"), ("localhost:6379", "redis")] {
            text = text.replace(&format!("\"{usual}\""), &format!("\"{}\"", infrastructure.address(part)));
            assert!(!text.contains(usual), "{usual} stands unquoted in {}", entry.path().display());
        }
        std::fs::write(target, text).unwrap();
    }
}
