//! State: conditions, transactions, expiry.

use http::Method;
use serde_json::{Value, json};

use crate::support::*;

const STORE: &str = "/v1.0/state/statestore";

async fn daprd() -> (App, Daprd) {
    let app = App::start(json!([])).await;
    let daprd = Daprd::beside(&app).await;
    (app, daprd)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_is_read_until_it_is_deleted() {
    let (_app, daprd) = daprd().await;
    daprd.get(&format!("{STORE}/k")).await.expect(204);
    daprd.post(STORE, &json!([{"key": "k", "value": {"a": [1, "x"]}}, {"key": "n", "value": null}, {"key": "none"}])).await.expect(204);
    let answer = daprd.get(&format!("{STORE}/k")).await.expect(200);
    assert_eq!(answer.json(), json!({"a": [1, "x"]}));
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(!answer.etag().is_empty());
    assert_eq!(daprd.get(&format!("{STORE}/n")).await.expect(200).json(), Value::Null);
    daprd.delete(&format!("{STORE}/k")).await.expect(204);
    daprd.get(&format!("{STORE}/k")).await.expect(204);
    daprd.delete(&format!("{STORE}/k")).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_seen_by_the_read_after_it() {
    let (_app, daprd) = daprd().await;
    for n in 0..200 {
        daprd.post(STORE, &json!([{"key": "k", "value": n}])).await.expect(204);
        assert_eq!(daprd.get(&format!("{STORE}/k")).await.expect(200).json(), n);
    }
}

/// What a save with some condition answers, depending on the row that is there.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_as_on_daprs_sqlite() {
    let (_app, daprd) = daprd().await;
    let first_write = json!({"concurrency": "first-write"});
    let save = async |item: Value| daprd.post(STORE, &json!([item])).await;
    let etag = async |key: &str| daprd.get(&format!("{STORE}/{key}")).await.expect(200).etag();

    // Create-only.
    save(json!({"key": "a", "value": 1, "options": first_write})).await.expect(204);
    save(json!({"key": "a", "value": 2, "options": first_write})).await.expect(409);
    // The right ETag, once.
    let first = etag("a").await;
    save(json!({"key": "a", "value": 2, "etag": first, "options": first_write})).await.expect(204);
    let answer = save(json!({"key": "a", "value": 3, "etag": first})).await.expect(409);
    assert_eq!(answer.code(), "ERR_STATE_SAVE");
    // An ETag where there is no row, and a text that never was one.
    save(json!({"key": "missing", "value": 1, "etag": first})).await.expect(409);
    save(json!({"key": "a", "value": 1, "etag": "nonsense"})).await.expect(409);
    // Last write wins without a condition, and an ETag does not come back.
    save(json!({"key": "a", "value": 4})).await.expect(204);
    daprd.delete(&format!("{STORE}/a")).await.expect(204);
    save(json!({"key": "a", "value": 5})).await.expect(204);
    save(json!({"key": "a", "value": 6, "etag": first})).await.expect(409);
    assert_eq!(daprd.get(&format!("{STORE}/a")).await.json(), 5);

    // Deleting with If-Match.
    let path = format!("{STORE}/a");
    let stale = daprd.send(Method::DELETE, &path, &[("if-match", &first)], "").await.expect(409);
    assert_eq!(stale.code(), "ERR_STATE_DELETE");
    let now = etag("a").await;
    daprd.send(Method::DELETE, &path, &[("if-match", &now)], "").await.expect(204);
    daprd.send(Method::DELETE, &path, &[("if-match", &now)], "").await.expect(409);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_create_only_writers_wins() {
    let (_app, daprd) = daprd().await;
    let save =
        async |n: usize| daprd.post(STORE, &json!([{"key": "k", "value": n, "options": {"concurrency": "first-write"}}])).await.status;
    let all = futures_util::future::join_all((0..50).map(save)).await;
    assert_eq!(all.iter().filter(|status| **status == 204).count(), 1);
    assert_eq!(all.iter().filter(|status| **status == 409).count(), 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_a_save_stand_alone() {
    let (_app, daprd) = daprd().await;
    daprd.post(STORE, &json!([{"key": "a", "value": 1}])).await.expect(204);
    daprd
        .post(STORE, &json!([{"key": "a", "value": 2, "options": {"concurrency": "first-write"}}, {"key": "b", "value": 2}]))
        .await
        .expect(409);
    assert_eq!(daprd.get(&format!("{STORE}/a")).await.json(), 1);
    assert_eq!(daprd.get(&format!("{STORE}/b")).await.json(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_all_or_nothing() {
    let (_app, daprd) = daprd().await;
    let transaction = async |operations: Value| daprd.post(&format!("{STORE}/transaction"), &json!({ "operations": operations })).await;
    transaction(json!([
        {"operation": "upsert", "request": {"key": "a", "value": 1}},
        {"operation": "upsert", "request": {"key": "b", "value": 1, "options": {"concurrency": "first-write"}}},
        {"operation": "delete", "request": {"key": "gone"}},
    ]))
    .await
    .expect(204);
    let answer = transaction(json!([
        {"operation": "upsert", "request": {"key": "a", "value": 2}},
        {"operation": "delete", "request": {"key": "b", "etag": "0000000000000000"}},
    ]))
    .await
    .expect(500);
    assert_eq!(answer.code(), "ERR_STATE_TRANSACTION");
    assert_eq!(daprd.get(&format!("{STORE}/a")).await.json(), 1);
    assert_eq!(daprd.get(&format!("{STORE}/b")).await.json(), 1);
    // Conditions see the operations before them.
    transaction(json!([
        {"operation": "delete", "request": {"key": "b"}},
        {"operation": "upsert", "request": {"key": "b", "value": 3, "options": {"concurrency": "first-write"}}},
    ]))
    .await
    .expect(204);
    assert_eq!(daprd.get(&format!("{STORE}/b")).await.json(), 3);
    transaction(json!([{"operation": "move", "request": {"key": "a"}}])).await.expect(400);
    transaction(json!([])).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_get_answers_for_every_key() {
    let (_app, daprd) = daprd().await;
    daprd.post(STORE, &json!([{"key": "a", "value": {"x": 1}}, {"key": "b\"c", "value": "t"}])).await.expect(204);
    let answer =
        daprd.post(&format!("{STORE}/bulk"), &json!({"keys": ["a", "missing", "b\"c"], "parallelism": 10})).await.expect(200).json();
    assert_eq!(answer[0]["data"], json!({"x": 1}));
    assert_eq!(answer[0]["etag"], daprd.get(&format!("{STORE}/a")).await.etag());
    assert_eq!(answer[1], json!({"key": "missing"}));
    assert_eq!(answer[2]["key"], "b\"c");
    assert_eq!(answer[2]["data"], "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_not_there() {
    let (_app, daprd) = daprd().await;
    let save = async |item: Value| daprd.post(STORE, &json!([item])).await;
    save(json!({"key": "a", "value": 1, "metadata": {"ttlInSeconds": "1"}})).await.expect(204);
    save(json!({"key": "b", "value": 1, "metadata": {"ttlInSeconds": "1000"}})).await.expect(204);
    let etag = daprd.get(&format!("{STORE}/a")).await.expect(200).etag();
    eventually("expired", async || (daprd.get(&format!("{STORE}/a")).await.status == 204).then_some(())).await;
    daprd.get(&format!("{STORE}/b")).await.expect(200);
    save(json!({"key": "a", "value": 2, "etag": etag})).await.expect(409);
    save(json!({"key": "a", "value": 3, "options": {"concurrency": "first-write"}})).await.expect(204);
    assert_eq!(daprd.get(&format!("{STORE}/a")).await.json(), 3);
    save(json!({"key": "c", "value": 1, "metadata": {"ttlInSeconds": "x"}})).await.expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_belong_to_their_app() {
    let one = App::start(json!([])).await;
    let two = App::start(json!([])).await;
    let daprd = Daprd::of(&[("one", one.addr), ("two", two.addr)], |_| {}).await;
    daprd.post(STORE, &json!([{"key": "k", "value": 1}])).await.expect(204);
    let other = daprd.send_to(1, Method::GET, &format!("{STORE}/k"), &[], "").await;
    assert_eq!(other.status, 204);
    daprd.post(STORE, &json!([{"key": "a||b", "value": 1}])).await.expect(400);
    daprd.post(STORE, &json!([{"value": 1}])).await.expect(400);
    daprd.get("/v1.0/state/other/k").await.expect(400);
    assert_eq!(daprd.post("/v1.0/state/other", &json!([])).await.code(), "ERR_STATE_STORE_NOT_FOUND");
    daprd.post(STORE, &json!({"not": "a list"})).await.expect(400);
    let query = daprd.post("/v1.0-alpha1/state/statestore/query", &json!({})).await;
    assert_eq!(query.expect(501).code(), "ERR_API_UNIMPLEMENTED");
}
