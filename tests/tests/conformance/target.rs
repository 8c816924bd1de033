//! What is tested: the embedded sidecar, started for the run, or sidecars that are already there.

mod process;
mod stack;

use std::collections::HashSet;
use std::time::Duration;

use fte_testkit::{Client, eventually_within};
use serde_json::Value;

use crate::app::Who;
use crate::feature::{Described, Feature, Store};
use process::Process;
use stack::Sidecars;

/// How long a sidecar may take to come up: a Kafka consumer group has to form.
pub(crate) const START_MAX: Duration = Duration::from_secs(120);

/// The tokens of the embedded sidecar; it is always run with both.
const API_TOKEN: &str = "conformance-api-token";
const APP_TOKEN: &str = "conformance-app-token";

/// What the environment says is to be tested.
pub(crate) struct Plan {
    pub(crate) pubsub: String,
    pub(crate) statestore: String,
    pub(crate) api_token: Option<String>,
    pub(crate) app_token: Option<String>,
    /// Address and app port of each sidecar; empty for the embedded one.
    pub(crate) given: Vec<(String, u16)>,
    restart: Option<String>,
    without: Vec<String>,
    /// The ones that were started for the run on real Kafka.
    stack: Option<Sidecars>,
}

/// A sidecar under test.
pub(crate) struct Sidecar {
    /// Sends the API token.
    pub(crate) client: Client,
    pub(crate) app_id: String,
    pub(crate) who: Who,
}

enum Control {
    Process(Box<tokio::sync::Mutex<Process>>),
    Stack(Box<tokio::sync::Mutex<Sidecars>>),
    Command(String),
    None,
}

/// What is tested.
pub(crate) struct Target {
    pub(crate) description: String,
    pub(crate) pubsub: String,
    pub(crate) statestore: String,
    pub(crate) api_token: Option<String>,
    pub(crate) app_token: Option<String>,
    /// The first is the one that is asked.
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) features: HashSet<Feature>,
    pub(crate) store: Store,
    control: Control,
}

#[expect(clippy::disallowed_methods, reason = "the suite is configured by its environment, read here and nowhere else")]
fn variable(name: &str) -> Option<String> {
    std::env::var(format!("FTE_CONFORMANCE_{name}")).ok().filter(|value| !value.is_empty())
}

impl Plan {
    pub(crate) async fn read() -> Self {
        if let Some(store) = variable("STACK") {
            let stack = Sidecars::start(&store).await;
            return Self {
                pubsub: "pubsub".to_owned(),
                statestore: "statestore".to_owned(),
                api_token: Some(API_TOKEN.to_owned()),
                app_token: Some(APP_TOKEN.to_owned()),
                given: stack.given(),
                restart: None,
                without: Vec::new(),
                stack: Some(stack),
            };
        }
        let given: Vec<(String, u16)> = ["", "_2", "_3"]
            .iter()
            .filter_map(|suffix| {
                let url = variable(&format!("URL{suffix}"))?;
                let name = format!("APP_PORT{suffix}");
                let port = variable(&name).and_then(|port| port.parse().ok());
                Some((url, port.unwrap_or_else(|| panic!("FTE_CONFORMANCE_{name} has to be the port of the app"))))
            })
            .collect();
        let embedded = |token: &str| given.is_empty().then(|| token.to_owned());
        Self {
            pubsub: variable("PUBSUB").unwrap_or_else(|| "pubsub".to_owned()),
            statestore: variable("STATESTORE").unwrap_or_else(|| "statestore".to_owned()),
            api_token: variable("API_TOKEN").or_else(|| embedded(API_TOKEN)),
            app_token: variable("APP_TOKEN").or_else(|| embedded(APP_TOKEN)),
            restart: variable("RESTART"),
            without: variable("WITHOUT").map(|names| names.split(',').map(|name| name.trim().to_owned()).collect()).unwrap_or_default(),
            given,
            stack: None,
        }
    }

    fn client(&self, url: &str) -> Client {
        match &self.api_token {
            Some(token) => Client::new(url).with_header("dapr-api-token", token),
            None => Client::new(url),
        }
    }

    /// The app ports and who listens there: known beforehand, as the apps have to be there first.
    pub(crate) async fn apps(&self) -> Vec<(Who, u16)> {
        if self.given.is_empty() {
            return vec![(Who::First, 0), (Who::First, 0), (Who::Second, 0)];
        }
        let mut apps = Vec::new();
        let mut first = None;
        for (url, port) in &self.given {
            let metadata = metadata(&self.client(url)).await;
            let id = first.get_or_insert_with(|| metadata["id"].clone());
            apps.push((if *id == metadata["id"] { Who::First } else { Who::Second }, *port));
        }
        apps
    }

    /// The target, with its apps at `ports`.
    pub(crate) async fn target(mut self, apps: &[(Who, u16)]) -> Target {
        let (urls, control) = if self.given.is_empty() {
            let tokens = (self.api_token.clone().unwrap_or_default(), self.app_token.clone().unwrap_or_default());
            let process = Process::start(apps, tokens).await;
            (process.urls().to_vec(), Control::Process(Box::new(tokio::sync::Mutex::new(process))))
        } else {
            let control = match self.stack.take() {
                Some(stack) => Control::Stack(Box::new(tokio::sync::Mutex::new(stack))),
                None => self.restart.clone().map_or(Control::None, Control::Command),
            };
            (self.given.iter().map(|(url, _)| url.clone()).collect(), control)
        };
        let mut sidecars = Vec::new();
        for (url, (who, _)) in urls.iter().zip(apps) {
            let client = self.client(url);
            let app_id = metadata(&client).await["id"].as_str().expect("metadata names the app").to_owned();
            sidecars.push(Sidecar { client, app_id, who: *who });
        }
        let first = metadata(&sidecars[0].client).await;
        let described = Described::read(&first, &self.pubsub, &self.statestore, variable("VERSION").as_deref());
        let mut features: HashSet<Feature> = described.features().into_iter().collect();
        let parts = [
            (self.api_token.is_some(), Feature::ApiToken),
            (self.app_token.is_some(), Feature::AppToken),
            (apps.iter().any(|(who, _)| *who == Who::Second), Feature::SecondApp),
            (apps.iter().filter(|(who, _)| *who == Who::First).count() > 1, Feature::SecondInstance),
            (!matches!(control, Control::None), Feature::Restart),
            (matches!(control, Control::Process(_) | Control::Stack(_)), Feature::Stop),
        ];
        features.extend(parts.into_iter().filter_map(|(has, feature)| has.then_some(feature)));
        for name in &self.without {
            match name.as_str() {
                "jobs" => features.remove(&Feature::Jobs),
                other => panic!("FTE_CONFORMANCE_WITHOUT: {other} is nothing a target can be without; jobs is"),
            };
        }
        let (major, minor) = described.version;
        let kind = if described.embedded { "the embedded sidecar" } else { "daprd" };
        Target {
            description: format!(
                "{kind} {major}.{minor} at {}, app {}, {:?}",
                sidecars[0].client.base(),
                described.app_id,
                described.store
            ),
            pubsub: self.pubsub,
            statestore: self.statestore,
            api_token: self.api_token,
            app_token: self.app_token,
            sidecars,
            features,
            store: described.store,
            control,
        }
    }
}

async fn metadata(client: &Client) -> Value {
    eventually_within(START_MAX, || async {
        let answer = client.get("/v1.0/metadata").await.map_err(|error| format!("{}: {error}", client.base()))?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(format!("{}: {} {}", client.base(), answer.status, answer.text())) }
    })
    .await
}

impl Target {
    /// Kills the sidecars and starts them again.
    pub(crate) async fn restart(&self) {
        match &self.control {
            Control::Process(process) => process.lock().await.restart().await,
            Control::Stack(sidecars) => sidecars.lock().await.restart().await,
            Control::Command(command) => {
                let status = tokio::process::Command::new("sh").args(["-c", command]).status().await.expect("sh starts");
                assert!(status.success(), "FTE_CONFORMANCE_RESTART ended with {status}");
            }
            Control::None => panic!("a case that restarts needs Restart"),
        }
    }

    /// Asks the sidecars to stop, does `meanwhile` while they do, and starts them again once they have.
    pub(crate) async fn stop_and_start(&self, meanwhile: impl Future<Output = ()>) {
        match &self.control {
            Control::Process(process) => process.lock().await.stop_and_start(meanwhile).await,
            Control::Stack(sidecars) => sidecars.lock().await.stop_and_start(meanwhile).await,
            _ => panic!("a case that stops needs Stop"),
        }
    }

    /// The end of what the process has logged, if it is ours.
    pub(crate) fn log_tail(&self) -> Option<String> {
        match &self.control {
            Control::Process(process) => Some(process.try_lock().ok()?.log_tail()),
            Control::Stack(sidecars) => Some(sidecars.try_lock().ok()?.log_tail()),
            _ => None,
        }
    }
}
