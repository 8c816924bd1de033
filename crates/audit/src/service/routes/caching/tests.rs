//! What answers say of how long they last, through the real router.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::engine::{Engine, EngineOptions, Sealing};
use crate::service::reads::Reads;
use crate::service::routes::App;
use crate::service::routes::tests::{Audit, live, options, sealed};
use crate::subjects::{Subject, Subjects, SubjectsOptions};

/// Status, Cache-Control, ETag and body.
async fn get(audit: &Audit, path: &str, known: Option<&str>) -> (u16, String, String, Value) {
    let mut request = Request::get(path).header("host", "localhost");
    if let Some(known) = known {
        request = request.header(IF_NONE_MATCH, known);
    }
    let response = audit.api.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let header = |name| response.headers().get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap()).to_owned();
    let (status, cache, tag) = (response.status().as_u16(), header(header::CACHE_CONTROL), header(header::ETAG));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, cache, tag, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn what_is_fixed_is_kept_for_good_and_what_leads_to_the_last_checkpoint_as_long_as_that() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path());
    live(&audit).await;
    let shard = sealed(&audit).await["shard"].clone();
    let check = async |path: String, expected: (HeaderName, &str)| {
        let (status, cache, ..) = get(&audit, &path, None).await;
        assert_eq!((status, &*cache), (200, expected.1), "{path}");
    };
    check(format!("/v1/audit/log/{shard}/checkpoint"), LAST).await;
    check(format!("/v1/audit/log/{shard}/tile/0/000.p/7"), FIXED).await;
    check(format!("/v1/audit/log/{shard}/tile/entries/000.p/7"), FIXED_FOR_ONE).await;
    check(format!("/v1/audit/entries/{shard}/3/proof"), LAST_FOR_ONE).await;
    check(format!("/v1/audit/entries/{shard}/3"), ASKED_AFTER).await;
    // Fixed is what names both sizes and of what.
    check(format!("/v1/audit/consistency?from=3&to=7&shard={shard}"), FIXED).await;
    for sizes in ["from=3".to_owned(), "from=3&to=7".to_owned(), format!("from=3&shard={shard}")] {
        check(format!("/v1/audit/consistency?{sizes}"), LAST).await;
    }
    // What is not there yet may be in a moment.
    let absent = format!("/v1/audit/consistency?from=3&to=8&shard={shard}");
    for path in [&*absent, "/v1/audit/entries/1999/0/proof", "/v1/audit/entries/1999/0", "/v1/audit/log/1999/checkpoint"] {
        let (status, cache, ..) = get(&audit, path, None).await;
        assert!(status >= 400 && cache.is_empty(), "{path}: {status}, {cache}");
    }
}

#[tokio::test]
async fn an_entry_that_was_erased_is_shown_by_no_cache_and_one_that_is_unchanged_is_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let subjects = Arc::new(Subjects::open(SubjectsOptions::at(directory.path().join("audit/keys"))).unwrap());
    let sealing: Arc<dyn Sealing> = Arc::clone(&subjects) as _;
    let log: App = Arc::new(Engine::open(EngineOptions { sealing: Arc::clone(&sealing), ..options(directory.path()) }).unwrap());
    let audit = Audit::with(Arc::clone(&log), Reads::on_record(log, sealing));
    live(&audit).await;
    let list = audit.get("/v1/audit/entries?actor=ada").await;
    let path = format!("/v1/audit/entries/{}/{}", list["items"][0]["shard"], list["items"][0]["index"]);

    let (status, _, open, entry) = get(&audit, &path, None).await;
    assert_eq!((status, &entry["event"]["type"]), (200, &"fte.task.requested".into()));
    for known in [open.clone(), format!("\"other\", W/{open}"), "*".to_owned()] {
        assert_eq!(get(&audit, &path, Some(&known)).await, (304, ASKED_AFTER.1.to_owned(), open.clone(), Value::Null), "{known}");
    }
    assert_eq!(get(&audit, &path, Some("\"other\"")).await.0, 200);

    subjects.erase(&Subject::parse("default", "user:ada").unwrap()).unwrap();
    let (status, cache, erased, entry) = get(&audit, &path, Some(&open)).await;
    assert_eq!((status, &*cache, &entry["erased"], &entry["event"]), (200, ASKED_AFTER.1, &true.into(), &Value::Null));
    assert_ne!(erased, open);
    assert_eq!(get(&audit, &path, Some(&erased)).await.0, 304);
    // Who has a copy and asks whether it is still so has read it: that is on record as any other reading.
    let reads = audit.get("/v1/audit/entries?action=read&limit=1000").await;
    assert_eq!(reads["items"].as_array().unwrap().len(), 1 + 7, "{reads}");
}
