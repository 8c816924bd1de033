//! Agents that run elsewhere: real servers, each of which breaks, hangs, floods, lies or behaves in its own way.

mod a2a;
mod interop;
mod post;
mod server;

use std::path::Path;
use std::time::Duration;

use fte_runner::agents::{AgentHost, HttpLimits, Limits, Means};
use fte_runner::ports::{Agents as _, Said, Session, Start};
use fte_service::MapEnv;
use fte_service::agents::Agents;
use tempfile::TempDir;

use crate::support::{all, kept, start};

const SECRET: &str = "s3cret-token";

/// Limits that ask again soon.
fn quick() -> Limits {
    let http = HttpLimits { poll: Duration::from_millis(5), poll_max: Duration::from_millis(50), ..HttpLimits::default() };
    Limits { http, ..Limits::default() }
}

/// A host with one agent, which is elsewhere.
struct Far {
    data: TempDir,
    host: AgentHost,
}

impl Far {
    fn new(url: &str, protocol: &str) -> Self {
        Self::with(url, protocol, "", quick())
    }

    fn with(url: &str, protocol: &str, keys: &str, limits: Limits) -> Self {
        let header = r#"headers = { Authorization = "Bearer env:TOKEN" }"#;
        let text = format!("[agents.agent]\nkind = \"http\"\nurl = \"{url}\"\nprotocol = \"{protocol}\"\n{header}\n{keys}\n");
        let agents = Agents::parse(Path::new("agents.toml"), &text).unwrap();
        let data = tempfile::tempdir().unwrap();
        let artifacts = fte_artifacts::Artifacts::open(&fte_artifacts::Place::Data, data.path()).unwrap();
        let env = MapEnv::of([("TOKEN", SECRET)]);
        let host = AgentHost::new(&agents, None, data.path(), artifacts, &env, limits, Means::default()).unwrap();
        Self { data, host }
    }

    async fn start(&self, start: Start) -> Session {
        self.host.start("agent", start).await.unwrap()
    }

    async fn all(&self, start: Start) -> Vec<Said> {
        all(&mut self.start(start).await).await
    }

    async fn last(&self, task: &str) -> Said {
        self.all(start(task)).await.pop().expect("an agent says something")
    }

    fn kept(&self, said: &Said) -> Vec<u8> {
        let Said::Artifact(artifact) = said else { panic!("expected an artifact: {said:?}") };
        kept(self.data.path(), &artifact.uri).unwrap()
    }
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn artifacts(said: &[Said]) -> Vec<&Said> {
    said.iter().filter(|said| matches!(said, Said::Artifact(_))).collect()
}
