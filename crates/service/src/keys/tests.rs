use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::{get, post};
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::{ApiOptions, ApiRoutes, Readiness, api_router};

/// An API behind a file of keys.
struct Api {
    router: Router,
    keys: Keys,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn entry(name: &str, key: &NewKey, rest: &str) -> String {
    format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{}\"\n{rest}\n", key.sha256)
}

impl Api {
    fn with(file: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        std::fs::write(&path, file).unwrap();
        let keys = Keys::read("FTE_API_KEYS_FILE", &path).unwrap();
        let whoami = async |caller: Caller| format!("{}/{}/{:?}", caller.name().unwrap_or("?"), caller.tenant(), caller.scope());
        let routes = ApiRoutes::default().route("/v1/tasks", get(whoami)).route("/v1/tasks", post(whoami)).route("/v1/new", get(whoami));
        let options = ApiOptions {
            listens_on: ([127, 0, 0, 1], 8080).into(),
            allowed_hosts: Vec::new(),
            body_bytes_max: 4096,
            trail: None,
            denials: None,
            keys: Some(keys.clone()),
        };
        Self { router: api_router(vec![routes], &Readiness::new(Vec::new()), options), keys, path, _dir: dir }
    }

    async fn call(&self, method: &str, path: &str, key: Option<&str>) -> (u16, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        (parts.status.as_u16(), parts.headers, text)
    }

    async fn code(&self, method: &str, path: &str, key: Option<&str>) -> (u16, String) {
        let (status, _, body) = self.call(method, path, key).await;
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        (status, problem["code"].as_str().unwrap_or(&body).to_owned())
    }
}

#[tokio::test]
async fn a_key_lets_its_owner_do_what_its_roles_say_and_nothing_else() {
    let (reader, admin) = (NewKey::make().unwrap(), NewKey::make().unwrap());
    let api = Api::with(&format!(
        "{}{}",
        entry("ada", &reader, "roles = [\"read\"]\ntenant = \"acme\""),
        entry("root", &admin, "roles = [\"admin\"]\ntenant = \"*\"")
    ));
    let (read, root) = (Some(reader.secret.as_str()), Some(admin.secret.as_str()));
    assert_eq!(api.call("GET", "/v1/tasks", read).await.2, "ada/acme/One(\"acme\")");
    assert_eq!(api.code("POST", "/v1/tasks", read).await, (403, "role_missing".to_owned()));
    assert_eq!(api.code("GET", "/v1/new", read).await, (403, "role_missing".to_owned()), "without a rule");
    assert_eq!(api.code("GET", "/nowhere", read).await, (404, "route_not_found".to_owned()));
    assert_eq!(api.call("POST", "/v1/tasks", root).await.2, "root/default/All");
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_said_but_how_to_send_one() {
    let key = NewKey::make().unwrap();
    let old = NewKey::make().unwrap();
    let expired = entry("old", &old, "roles = [\"read\"]\nexpires = \"2020-01-01T00:00:00Z\"");
    let api = Api::with(&format!("{}{expired}", entry("ada", &key, "roles = [\"read\"]")));
    let (status, headers, body) = api.call("GET", "/v1/tasks", None).await;
    assert_eq!((status, headers["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    assert!(body.contains("key_missing") && body.contains("authorization: Bearer"), "{body}");
    assert_eq!(api.code("GET", "/v1/tasks", Some("fte_wrong")).await, (401, "key_unknown".to_owned()));
    assert_eq!(api.code("GET", "/v1/tasks", Some(&old.secret)).await, (401, "key_expired".to_owned()));
    assert_eq!(api.code("GET", "/v1/tasks", Some(&key.sha256)).await, (401, "key_unknown".to_owned()), "the file's digest is no key");
    assert_eq!(api.code("GET", "/nowhere", None).await.0, 401);
    assert_eq!(api.call("GET", "/health", None).await.0, 200);
    assert_eq!(api.call("GET", "/openapi.json", None).await.0, 200);
}

#[tokio::test]
async fn who_sends_too_much_is_told_when_to_come_again_and_others_are_not_held_up() {
    let (busy, quiet) = (NewKey::make().unwrap(), NewKey::make().unwrap());
    let limited = entry("busy", &busy, "roles = [\"read\"]\nrate = 2");
    let api = Api::with(&format!("{limited}{}", entry("quiet", &quiet, "roles = [\"read\"]")));
    let mut answers = Vec::new();
    // More than two fit into no time: the clock of the limiter is the real one.
    for _ in 0..50 {
        let (status, headers, body) = api.call("GET", "/v1/tasks", Some(&busy.secret)).await;
        if status == 429 {
            assert_eq!(headers["retry-after"], "1");
            assert!(body.contains("rate_limited") && body.contains("\"retryable\":true"), "{body}");
        }
        answers.push(status);
    }
    assert_eq!(answers[..2], [200, 200]);
    assert!(answers.contains(&429), "{answers:?}");
    assert_eq!(api.call("GET", "/v1/tasks", Some(&quiet.secret)).await.0, 200);
}

#[tokio::test]
async fn a_key_can_be_taken_back_and_given_without_a_restart() {
    let (first, second) = (NewKey::make().unwrap(), NewKey::make().unwrap());
    let api = Api::with(&entry("ada", &first, "roles = [\"read\"]"));
    let mut touched = SystemTime::now();
    let mut write = |text: &str| {
        std::fs::write(&api.path, text).unwrap();
        touched += Duration::from_secs(1);
        std::fs::File::options().append(true).open(&api.path).unwrap().set_modified(touched).unwrap();
        api.keys.look();
    };
    write(&entry("bob", &second, "roles = [\"read\"]"));
    assert_eq!(api.code("GET", "/v1/tasks", Some(&first.secret)).await, (401, "key_unknown".to_owned()));
    assert_eq!(api.call("GET", "/v1/tasks", Some(&second.secret)).await.0, 200);
    write("[[keys]]\nname = 5");
    assert_eq!(api.call("GET", "/v1/tasks", Some(&second.secret)).await.0, 200, "a file that cannot be used changes nothing");
}

#[tokio::test]
async fn wrong_keys_are_answered_so_often_and_right_ones_always() {
    let key = NewKey::make().unwrap();
    let api = Api::with(&entry("ada", &key, "roles = [\"read\"]"));
    let mut refused = Vec::new();
    for n in 0..300 {
        refused.push(api.code("GET", "/v1/tasks", Some(&format!("fte_{n}"))).await.1);
    }
    assert!(refused.iter().any(|code| code == "too_many_wrong_keys"), "{refused:?}");
    assert_eq!(api.call("GET", "/v1/tasks", Some(&key.secret)).await.0, 200);
}
