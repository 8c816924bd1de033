//! Who may have which export, and what is refused.

use axum::http::HeaderName;
use fte_service::extract::IDEMPOTENCY_KEY;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::*;
use crate::engine::tests::test_key;
use crate::engine::{Engine, EngineOptions, Plain};
use crate::entry::NewEntry;
use crate::export::unpack;
use crate::log::Log;

struct World {
    directory: tempfile::TempDir,
    exports: Exports,
}

impl World {
    /// A log with an event of each of two tenants.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log: std::sync::Arc<dyn Log> =
            std::sync::Arc::new(Engine::open(EngineOptions::at(directory.path().join("audit"), test_key())).unwrap());
        let event = |tenant: &str| {
            let body = json!({"id": tenant, "source": "/s", "ftetenant": tenant, "data": {"agent": "echo"}}).to_string();
            NewEntry::read(fte_bus::Record { topic: "t".into(), body: body.into(), partition: None, offset: None, key: None })
        };
        log.append(vec![event("acme"), event("globex")]).await.unwrap();
        let exports = Exports::open(
            directory.path().join("exports"),
            log,
            std::sync::Arc::new(Plain),
            crate::service::exports::Signers::new(test_key(), &[]),
        )
        .unwrap();
        Self { directory, exports }
    }

    async fn make(&self, caller: Caller, key: Option<&str>, body: &Value) -> Result<Value, Problem> {
        let headers = key.map(|key| (HeaderName::from_static(IDEMPOTENCY_KEY), key.parse().unwrap())).into_iter().collect();
        let made = make(State(self.exports.clone()), caller, headers, JsonBytes(body.to_string().into())).await?;
        assert_eq!(made.status(), StatusCode::CREATED);
        let location = made.headers()[LOCATION].to_str().unwrap().to_owned();
        let made: Value = serde_json::from_slice(&made.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(location, format!("/v1/audit/exports/{}", made["export_id"].as_str().unwrap()));
        Ok(made)
    }

    async fn fetch(&self, caller: Caller, made: &Value) -> Result<Bytes, Problem> {
        let id = made["export_id"].as_str().unwrap().parse().unwrap();
        let answer = archive(State(self.exports.clone()), caller, Path(id)).await?;
        let length: u64 = answer.headers()[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((bytes.len() as u64, made["bytes"].as_u64()), (length, Some(length)));
        Ok(bytes)
    }
}

fn of(name: &str, tenant: &str) -> Caller {
    Caller::of_key(name.to_owned(), Some(tenant.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_what_its_maker_may_see_and_only_who_may_see_that_gets_it() {
    let world = World::new().await;
    let ada = world.make(of("ada", "acme"), None, &json!({"agent": "echo"})).await.unwrap();
    assert_eq!(ada["entries"], 1);
    let bytes = world.fetch(of("eve", "acme"), &ada).await.unwrap();
    let unpacked = world.directory.path().join("unpacked");
    unpack(&*bytes, &unpacked).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"globex"), "nothing of another tenant is in it");
    let refused = world.fetch(of("bob", "globex"), &ada).await.unwrap_err();
    assert_eq!((refused.status, refused.code), (StatusCode::NOT_FOUND, "export_unknown"));
    world.fetch(Caller::anonymous(), &ada).await.unwrap();
    let all = world.make(Caller::anonymous(), None, &json!({"agent": "echo"})).await.unwrap();
    assert_eq!(all["entries"], 2);
    assert_eq!(world.fetch(of("bob", "globex"), &all).await.unwrap_err().code, "export_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_again_is_the_same_export_for_its_maker_alone() {
    let world = World::new().await;
    let body = json!({"agent": "echo"});
    let first = world.make(of("ada", "acme"), Some("k"), &body).await.unwrap();
    assert_eq!(world.make(of("ada", "acme"), Some("k"), &body).await.unwrap(), first);
    let others = [
        world.make(of("ada", "acme"), None, &body).await.unwrap(),
        world.make(of("ada", "acme"), Some("l"), &body).await.unwrap(),
        world.make(of("ada", "acme"), Some("k"), &json!({"action": "export"})).await.unwrap(),
        world.make(of("eve", "acme"), Some("k"), &body).await.unwrap(),
        world.make(of("ada", "globex"), Some("k"), &body).await.unwrap(),
    ];
    assert!(others.iter().all(|other| other["export_id"] != first["export_id"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_problems_with_stable_codes() {
    let world = World::new().await;
    let refused = async |key: Option<&str>, body: Value| {
        let problem = world.make(Caller::anonymous(), key, &body).await.unwrap_err();
        (problem.status.as_u16(), problem.code)
    };
    assert_eq!(refused(None, json!({"agent": "nobody"})).await, (404, "nothing_to_export"));
    assert_eq!(refused(None, json!({"colour": "red"})).await, (422, "invalid_body"));
    assert_eq!(refused(None, json!({"from": "yesterday"})).await, (422, "invalid_body"));
    assert_eq!(refused(Some("two words"), json!({})).await, (400, "invalid_idempotency_key"));
    let unknown = json!({"export_id": Uuid::nil()});
    assert_eq!(world.fetch(Caller::anonymous(), &unknown).await.unwrap_err().code, "export_unknown");
}

#[test]
fn what_may_succeed_later_says_when() {
    for failure in [Failure::Busy, Failure::NotYet, Failure::Outdated, Failure::Log(crate::log::LogError::Closed), Failure::Ended] {
        let problem = refused(failure);
        assert!(problem.status == StatusCode::SERVICE_UNAVAILABLE && problem.retryable(), "{}", problem.code);
    }
    assert_eq!(refused(Failure::TooMany).code, "export_too_large");
    assert_eq!(refused(Failure::Export(crate::export::ExportError::TooLarge)).code, "export_too_large");
}
