//! An agent in a sandbox that is claimed for it: a real server that stands for the pod, and a cluster that is played.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::routing::post;
use axum::{Json, Router};
use fte_events::Runtime;
use fte_runner::agents::{AgentHost, ClaimError, ClaimRequest, ClaimedSandbox, Claims, Limits, Means, SandboxHost};
use fte_runner::ports::{Agents as _, Pending, Said, Start};
use fte_service::MapEnv;
use fte_service::agents::Agents;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::{all, start};

const AGENTS: &str = r#"
[agents.research]
kind = "http"
url = "http://sandbox/work"
protocol = "post"
headers = { Authorization = "Bearer env:TOKEN" }
sandbox = { kind = "kubernetes", warm_pool = "research", namespace = "agents", port = 8080 }
"#;

/// What the pod was asked.
type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

async fn pod(asked: &Asked) -> u16 {
    let work = |State(asked): State<Asked>, uri: Uri, headers: HeaderMap, Json(body): Json<Value>| async move {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        asked.lock().unwrap().push((format!("{}{uri}", header("host")), header("authorization"), body));
        Json(json!({"found": 3}))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(axum::serve(listener, Router::new().route("/work", post(work)).with_state(Arc::clone(asked))).into_future());
    port
}

/// Gives out one pod, and knows whether it is held.
#[derive(Debug)]
struct Cluster {
    port: u16,
    claimed: Mutex<Vec<ClaimRequest>>,
    held: Arc<()>,
    lose: Mutex<Vec<oneshot::Sender<String>>>,
}

impl Claims for Cluster {
    fn claim(&self, request: ClaimRequest) -> Pending<Result<ClaimedSandbox, ClaimError>> {
        let (lose, lost) = oneshot::channel();
        self.lose.lock().unwrap().push(lose);
        self.claimed.lock().unwrap().push(request);
        let host = SandboxHost::Address("127.0.0.1".parse().unwrap());
        let (port, guard) = (self.port, Box::new(Arc::clone(&self.held)));
        Box::pin(async move { Ok(ClaimedSandbox { name: "agents/fte-1".to_owned(), host, port, warm: Some(false), lost, guard }) })
    }

    fn settled(&self) -> Pending<()> {
        Box::pin(async {})
    }
}

async fn cluster() -> (Arc<Cluster>, Asked) {
    let asked = Asked::default();
    let port = pod(&asked).await;
    (Arc::new(Cluster { port, claimed: Mutex::default(), held: Arc::default(), lose: Mutex::default() }), asked)
}

fn host(data: &Path, claims: Option<Arc<dyn Claims>>) -> AgentHost {
    let agents = Agents::parse(Path::new("agents.toml"), AGENTS).unwrap();
    let env = MapEnv::of([("TOKEN", "s3cret")]);
    let artifacts = fte_artifacts::Artifacts::open(&fte_artifacts::Place::Data, data).unwrap();
    let host = AgentHost::new(&agents, None, data, artifacts, &env, Limits::default(), Means::default());
    host.unwrap().with_claims(claims)
}

#[tokio::test]
async fn an_agent_is_spoken_to_in_the_sandbox_that_was_claimed_for_it() {
    let ((cluster, asked), data) = (cluster().await, tempfile::tempdir().unwrap());
    let host = host(data.path(), Some(Arc::<Cluster>::clone(&cluster)));
    assert_eq!(host.runtime("research"), Some(Runtime::Kubernetes));
    // A place that was kept by an earlier session was in another sandbox.
    let wanted = Start { checkpoint: Some(json!({"http_location": "http://10.9.9.9/gone", "attempt": 1})), ..start("dig") };
    let mut session = host.start("research", wanted.clone()).await.unwrap();
    let said = all(&mut session).await;
    assert!(
        matches!(&said[0], Said::Log(line) if line.starts_with("sandbox agents/fte-1 is ready") && line.ends_with(", cold")),
        "{said:?}"
    );
    assert_eq!(said[1..], [Said::Result(json!({"found": 3}))]);
    {
        let asked = asked.lock().unwrap();
        let (to, key, body) = &asked[0];
        assert_eq!((asked.len(), to.as_str(), key.as_str()), (1, format!("127.0.0.1:{}/work", cluster.port).as_str(), "Bearer s3cret"));
        assert_eq!((&body["task"], &body["checkpoint"]), (&json!("dig"), &Value::Null));
    }
    let request = cluster.claimed.lock().unwrap().pop().unwrap();
    assert_eq!((request.claim_id, request.task_id, request.agent.as_str()), (wanted.claim_id, wanted.task_id, "research"));
    assert_eq!((request.sandbox.warm_pool.as_str(), request.sandbox.namespace.as_str()), ("research", "agents"));
    assert_eq!(Arc::strong_count(&cluster.held), 2);
    drop(session);
    assert_eq!(Arc::strong_count(&cluster.held), 1);
}

#[tokio::test]
async fn where_nobody_claims_an_agent_in_a_sandbox_does_not_start() {
    let data = tempfile::tempdir().unwrap();
    let error = host(data.path(), None).start("research", start("dig")).await.err().unwrap();
    assert!(!error.retryable && error.reason.contains("nobody here claims"), "{error}");
}
