//! State: every call of Dapr's table, conditions, transactions, expiry. What differs by store is asserted for each.

use std::time::{Duration, Instant};

use fte_bus::{Error, Guard, Operation, Problem, Save, Saved, Sidecar, SidecarConfig, StateStore};
use fte_testkit::{PATIENCE, Response, eventually_within, in_time};
use http::Method;
use serde_json::{Value, json};

use crate::feature::{Feature, Store};
use crate::runner::{Case, cases};
use crate::world::{JSON, World, error_code};

pub(crate) const CASES: &[Case] = cases![
    what_is_saved_is_read_until_it_is_deleted,
    every_value_comes_back_as_it_was,
    the_last_write_wins_without_a_condition,
    an_etag_holds_once,
    an_etag_of_a_missing_row,
    a_first_write_creates_only,
    one_of_many_creators_wins,
    a_delete_may_ask_for_an_etag,
    items_of_a_save_stand_alone,
    bulk_get_answers_for_every_key,
    a_transaction_writes_all,
    a_failed_transaction,
    a_transaction_of_the_sdk,
    a_store_that_the_sdk_finds_fit,
    what_has_expired_is_not_there,
    a_time_to_live_ends_with_a_save_that_says_so,
    what_cannot_be_done_says_why,
    keys_belong_to_their_app needs [SecondApp],
];

struct Rows<'a> {
    world: &'a World,
    route: String,
}

impl<'a> Rows<'a> {
    fn of(world: &'a World) -> Self {
        Self { world, route: format!("/v1.0/state/{}", world.target.statestore) }
    }

    async fn save(&self, items: Value, status: u16) {
        let answer = self.world.post(&self.route, &items).await;
        assert_eq!(answer.status.as_u16(), status, "{items}: {}", answer.text());
        match status {
            204 => assert_eq!(answer.text(), ""),
            400 => assert!(!error_code(&answer).is_empty()),
            _ => assert_eq!(error_code(&answer), "ERR_STATE_SAVE", "{}", answer.text()),
        }
    }

    async fn transact(&self, operations: &Value) -> Response {
        self.world.post(&format!("{}/transaction", self.route), &json!({ "operations": operations })).await
    }

    async fn transaction(&self, operations: Value, status: u16) {
        let answer = self.transact(&operations).await;
        assert_eq!(answer.status.as_u16(), status, "{operations}: {}", answer.text());
        if status == 500 {
            assert_eq!(error_code(&answer), "ERR_STATE_TRANSACTION", "{}", answer.text());
        }
    }

    /// Value and ETag.
    async fn row(&self, key: &str) -> Option<(Value, String)> {
        let answer = self.world.get(&format!("{}/{key}", self.route)).await;
        if answer.status == 204 {
            assert_eq!(answer.text(), "");
            return None;
        }
        let answer = answer.expect_status(200);
        let etag = answer.headers["etag"].to_str().expect("an ETag").to_owned();
        assert!(!etag.is_empty());
        Some((answer.json(), etag))
    }

    async fn value(&self, key: &str) -> Value {
        self.row(key).await.map_or(Value::Null, |(value, _)| value)
    }

    async fn etag(&self, key: &str) -> String {
        self.row(key).await.unwrap_or_else(|| panic!("{key} is not there")).1
    }

    async fn delete(&self, key: &str, etag: Option<&str>, status: u16) {
        let headers: Vec<(&str, &str)> = etag.map(|etag| ("if-match", etag)).into_iter().collect();
        let answer = self.world.send(Method::DELETE, &format!("{}/{key}", self.route), &headers, "").await;
        assert_eq!(answer.status.as_u16(), status, "{key} {etag:?}: {}", answer.text());
        if status != 204 {
            assert_eq!(error_code(&answer), "ERR_STATE_DELETE");
        }
    }
}

fn first_write() -> Value {
    json!({"concurrency": "first-write"})
}

async fn what_is_saved_is_read_until_it_is_deleted(world: &World) {
    let rows = Rows::of(world);
    for method in [Method::POST, Method::PUT] {
        let (key, other) = (world.mark(), world.mark());
        assert_eq!(rows.row(&key).await, None);
        let items = json!([{"key": key, "value": {"n": 1}}, {"key": other, "value": "text"}]);
        world.send(method, &rows.route, &[("content-type", JSON)], items.to_string()).await.expect_status(204);
        assert_eq!(rows.value(&key).await, json!({"n": 1}));
        assert_eq!(rows.value(&other).await, "text");
        assert_eq!(world.get(&format!("{}/{key}", rows.route)).await.headers["content-type"], JSON);
        rows.delete(&key, None, 204).await;
        assert_eq!(rows.row(&key).await, None);
        // Deleting what is not there is fine.
        rows.delete(&key, None, 204).await;
        assert_eq!(rows.value(&other).await, "text");
    }
    rows.save(json!([]), 204).await;
}

async fn every_value_comes_back_as_it_was(world: &World) {
    let rows = Rows::of(world);
    for value in [
        json!({"a": [1, {"b": null}], "ü": "\u{1F600}\n\""}),
        json!([]),
        json!(""),
        json!("text"),
        json!(7),
        json!(-0.5),
        json!(true),
        json!("x".repeat(100_000)),
    ] {
        let key = world.mark();
        rows.save(json!([{"key": key, "value": value}]), 204).await;
        assert_eq!(rows.value(&key).await, value);
    }
    if world.has(Feature::Embedded) {
        // Dapr reads it as a float.
        let (key, value) = (world.mark(), json!(9_007_199_254_740_993_u64));
        rows.save(json!([{"key": key, "value": value}]), 204).await;
        assert_eq!(rows.value(&key).await, value);
    }
    // Characters of a key that mean something in a path are escaped there, the slash as well.
    let mark = world.mark();
    rows.save(json!([{"key": format!("{mark}/a b:c|d%e"), "value": 1}]), 204).await;
    assert_eq!(rows.value(&format!("{mark}%2Fa%20b:c%7Cd%25e")).await, 1);
    world.get(&format!("{}/{mark}/a", rows.route)).await.expect_status(404);
}

async fn the_last_write_wins_without_a_condition(world: &World) {
    let (rows, key) = (Rows::of(world), world.mark());
    let mut etags = Vec::new();
    for n in 0..3 {
        rows.save(json!([{"key": key, "value": n, "options": {"concurrency": "last-write", "consistency": "strong"}}]), 204).await;
        assert_eq!(rows.value(&key).await, n);
        etags.push(rows.etag(&key).await);
    }
    etags.dedup();
    assert_eq!(etags.len(), 3, "each write has an ETag of its own");
}

async fn an_etag_holds_once(world: &World) {
    let (rows, key) = (Rows::of(world), world.mark());
    rows.save(json!([{"key": key, "value": 1}]), 204).await;
    let first = rows.etag(&key).await;
    rows.save(json!([{"key": key, "value": 2, "etag": first, "options": first_write()}]), 204).await;
    rows.save(json!([{"key": key, "value": 3, "etag": first, "options": first_write()}]), 409).await;
    rows.save(json!([{"key": key, "value": 3, "etag": first}]), 409).await;
    assert_eq!(rows.value(&key).await, 2);
    rows.save(json!([{"key": key, "value": 3, "etag": rows.etag(&key).await}]), 204).await;
    assert_eq!(rows.value(&key).await, 3);
    // A text that never was an ETag: 400 where ETags are counts, else it is just another one.
    let answer = world.post(&rows.route, &json!([{"key": key, "value": 4, "etag": "nonsense"}])).await;
    let expected = if world.target.store == Store::Redis { 400 } else { 409 };
    assert_eq!(answer.status.as_u16(), expected, "{}", answer.text());
    assert_eq!(rows.value(&key).await, 3);
    if world.target.store != Store::Redis {
        // It does not come back with a row that was deleted and made again. (On Redis it is a count.)
        rows.delete(&key, None, 204).await;
        rows.save(json!([{"key": key, "value": 5}]), 204).await;
        rows.save(json!([{"key": key, "value": 6, "etag": first}]), 409).await;
        assert_eq!(rows.value(&key).await, 5);
    }
}

async fn an_etag_of_a_missing_row(world: &World) {
    let (rows, known, key) = (Rows::of(world), world.mark(), world.mark());
    rows.save(json!([{"key": known, "value": 1}]), 204).await;
    let etag = rows.etag(&known).await;
    let item = json!([{"key": key, "value": 1, "etag": etag, "options": first_write()}]);
    if world.target.store == Store::Redis {
        rows.save(item, 204).await;
        assert_eq!(rows.value(&key).await, 1, "Redis takes it for an insert");
    } else {
        rows.save(item, 409).await;
        assert_eq!(rows.row(&key).await, None);
    }
}

async fn a_first_write_creates_only(world: &World) {
    let (rows, key) = (Rows::of(world), world.mark());
    let refused = if world.target.store == Store::Sqlite { 409 } else { 500 };
    rows.save(json!([{"key": key, "value": 1, "options": first_write()}]), 204).await;
    rows.save(json!([{"key": key, "value": 2, "options": first_write()}]), refused).await;
    rows.save(json!([{"key": key, "value": 2, "etag": "", "options": first_write()}]), refused).await;
    assert_eq!(rows.value(&key).await, 1);
    rows.delete(&key, None, 204).await;
    rows.save(json!([{"key": key, "value": 3, "options": first_write()}]), 204).await;
    assert_eq!(rows.value(&key).await, 3);
}

async fn one_of_many_creators_wins(world: &World) {
    let (rows, key) = (Rows::of(world), world.mark());
    let create = async |n: usize| world.post(&rows.route, &json!([{"key": key, "value": n, "options": first_write()}])).await.status;
    let answers = futures_util::future::join_all((0..20).map(create)).await;
    let winners: Vec<_> = answers.iter().enumerate().filter(|(_, status)| **status == 204).map(|(n, _)| n).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    assert_eq!(rows.value(&key).await, winners[0]);
}

async fn a_delete_may_ask_for_an_etag(world: &World) {
    let (rows, key) = (Rows::of(world), world.mark());
    rows.save(json!([{"key": key, "value": 1}]), 204).await;
    let stale = rows.etag(&key).await;
    rows.save(json!([{"key": key, "value": 2}]), 204).await;
    rows.delete(&key, Some(&stale), 409).await;
    assert_eq!(rows.value(&key).await, 2);
    rows.delete(&key, Some(&rows.etag(&key).await), 204).await;
    assert_eq!(rows.row(&key).await, None);
    if world.target.store != Store::Redis {
        rows.delete(&key, Some(&stale), 409).await;
    }
}

async fn items_of_a_save_stand_alone(world: &World) {
    let (rows, taken, free) = (Rows::of(world), world.mark(), world.mark());
    rows.save(json!([{"key": taken, "value": 1}]), 204).await;
    let stale = rows.etag(&taken).await;
    rows.save(json!([{"key": taken, "value": 2}]), 204).await;
    let items = json!([{"key": taken, "value": 3, "etag": stale}, {"key": free, "value": 3}]);
    let status = world.post(&rows.route, &items).await.status.as_u16();
    assert_eq!(rows.value(&taken).await, 2, "what lost stays as it was");
    // Stores with bulk writes of their own do all or nothing.
    match world.target.store {
        Store::Sqlite if world.has(Feature::Embedded) => assert_eq!((status, rows.value(&free).await), (409, json!(3))),
        _ => assert!(status == 409 || status == 500, "{status}"),
    }
}

async fn bulk_get_answers_for_every_key(world: &World) {
    let rows = Rows::of(world);
    let keys = [world.mark(), world.mark(), world.mark()];
    rows.save(json!([{"key": keys[0], "value": {"n": 1}}, {"key": keys[2], "value": "text"}]), 204).await;
    let route = format!("{}/bulk", rows.route);
    for method in [Method::POST, Method::PUT] {
        let answer = world.send(method, &route, &[("content-type", JSON)], json!({"keys": keys, "parallelism": 10}).to_string()).await;
        let mut answer: Vec<Value> = answer.expect_status(200).json();
        // Stores answer in an order of their own.
        answer.sort_by_key(|item| keys.iter().position(|key| item["key"] == **key));
        assert_eq!(answer.len(), 3, "{answer:?}");
        assert_eq!((&answer[0]["data"], answer[0]["etag"].as_str()), (&json!({"n": 1}), Some(&*rows.etag(&keys[0]).await)));
        assert_eq!((answer[1].get("data"), answer[1].get("error")), (None, None), "a missing row is a key without data");
        assert_eq!(answer[2]["data"], "text");
    }
    assert_eq!(world.post(&route, &json!({"keys": []})).await.expect_status(200).json::<Value>(), json!([]));
    world.send(Method::POST, &route, &[("content-type", JSON)], "{broken").await.expect_status(400);
}

async fn a_transaction_writes_all(world: &World) {
    let (rows, made, gone, kept) = (Rows::of(world), world.mark(), world.mark(), world.mark());
    rows.save(json!([{"key": gone, "value": 1}, {"key": kept, "value": 1}]), 204).await;
    let operations = json!([
        {"operation": "upsert", "request": {"key": made, "value": {"n": 1}}},
        {"operation": "delete", "request": {"key": gone}},
        {"operation": "upsert", "request": {"key": kept, "value": 2, "etag": rows.etag(&kept).await, "options": first_write()}},
    ]);
    rows.transaction(operations, 204).await;
    assert_eq!((rows.value(&made).await, rows.row(&gone).await, rows.value(&kept).await), (json!({"n": 1}), None, json!(2)));
    rows.transaction(json!([]), 204).await;
    let put = format!("{}/transaction", rows.route);
    let operations =
        json!({"operations": [{"operation": "upsert", "request": {"key": made, "value": 9}}], "metadata": {"partitionKey": "x"}});
    world.send(Method::PUT, &put, &[("content-type", JSON)], operations.to_string()).await.expect_status(204);
    assert_eq!(rows.value(&made).await, 9);
    // One that a transaction makes as the first is not known as made so on Redis, and is made again.
    let first = world.mark();
    let create = |value: u32| json!({"key": first, "value": value, "options": first_write()});
    rows.transaction(json!([{"operation": "upsert", "request": create(1)}]), 204).await;
    let (again, left) = match world.target.store {
        Store::Redis => (204, 2),
        Store::Sqlite => (409, 1),
        Store::Postgres => (500, 1),
    };
    rows.save(json!([create(2)]), again).await;
    assert_eq!(rows.value(&first).await, left);
}

fn store_of_the_sdk(world: &World, store: &str) -> StateStore {
    let mut config = SidecarConfig::at(world.api().base());
    config.api_token = world.target.api_token.clone();
    StateStore::new(Sidecar::new(config).expect("a client"), store)
}

async fn a_store_that_the_sdk_finds_fit(world: &World) {
    store_of_the_sdk(world, &world.target.statestore).fitness().await.expect("tried").expect("fit");
    let missing = store_of_the_sdk(world, "nowhere").fitness().await.expect("answered").expect_err("not there");
    assert_eq!(missing.problem, Problem::Missing);
}

async fn a_transaction_of_the_sdk(world: &World) {
    let store = store_of_the_sdk(world, &world.target.statestore);
    let (made, changed, gone, dropped) = (world.mark(), world.mark(), world.mark(), world.mark());
    let save = |key: &str, value: u32, guard| Save { key: key.to_owned(), value: value.to_string().into(), guard, ttl: None };
    for key in [&changed, &gone, &dropped] {
        assert_eq!(store.save(save(key, 1, Guard::Absent)).await.expect("saved"), Saved::Written);
    }
    let etag = async |key: &str| store.get(key).await.expect("read").expect("there").etag;
    let (before, last) = (etag(&changed).await, etag(&gone).await);
    let operations = [
        Operation::Save(save(&changed, 2, Guard::Unchanged(before.clone()))),
        Operation::Delete { key: gone.clone(), etag: Some(last) },
        Operation::Delete { key: dropped.clone(), etag: None },
    ];
    store.transaction(&operations).await.expect("all of it");
    let value = async |key: &str| store.get(key).await.expect("read").map(|document| document.value);
    let now = async || (value(&changed).await, value(&gone).await, value(&dropped).await, value(&made).await);
    assert_eq!(now().await, (Some("2".into()), None, None, None));
    // What does not hold any more is an error, and changes nothing by itself.
    for stale in [
        Operation::Save(save(&changed, 9, Guard::Unchanged(before.clone()))),
        Operation::Delete { key: changed.clone(), etag: Some(before) },
    ] {
        store.transaction(&[stale]).await.expect_err("a conflict");
    }
    // Redis would not know of what is made here that it was made by somebody who wanted to be the first.
    let making = [Operation::Save(save(&made, 1, Guard::Absent))];
    assert!(matches!(store.transaction(&making).await, Err(Error::Invalid(_))));
    assert_eq!(now().await, (Some("2".into()), None, None, None));
    // Whoever was the first stays it, also after a transaction.
    assert_eq!(store.save(save(&changed, 9, Guard::Absent)).await.expect("an answer"), Saved::Conflict);
}

async fn a_failed_transaction(world: &World) {
    let rows = Rows::of(world);
    // A stale ETag, a create-only write of what is there, and a delete with a stale ETag: each is 500.
    for conflict in 0..3 {
        let (other, taken) = (world.mark(), world.mark());
        rows.save(json!([{"key": taken, "value": 1, "options": first_write()}]), 204).await;
        let stale = rows.etag(&taken).await;
        rows.save(json!([{"key": taken, "value": 2, "etag": stale, "options": first_write()}]), 204).await;
        let failing = match conflict {
            0 => json!({"operation": "upsert", "request": {"key": taken, "value": 3, "etag": stale, "options": first_write()}}),
            1 => json!({"operation": "upsert", "request": {"key": taken, "value": 3, "options": first_write()}}),
            _ => json!({"operation": "delete", "request": {"key": taken, "etag": stale, "options": first_write()}}),
        };
        rows.transaction(json!([{"operation": "upsert", "request": {"key": other, "value": 3}}, failing]), 500).await;
        assert_eq!(rows.value(&taken).await, 2);
        if world.target.store == Store::Redis {
            assert_eq!(rows.value(&other).await, 3, "Redis does not roll back");
        } else {
            assert_eq!(rows.row(&other).await, None, "nothing of it is stored");
        }
    }
}

async fn what_has_expired_is_not_there(world: &World) {
    let (rows, short, long, never) = (Rows::of(world), world.mark(), world.mark(), world.mark());
    let items = json!([
        {"key": short, "value": 1, "metadata": {"ttlInSeconds": "1"}},
        {"key": long, "value": 1, "metadata": {"ttlInSeconds": "1000"}},
        {"key": never, "value": 1, "metadata": {"ttlInSeconds": "1"}},
        {"key": never, "value": 1, "metadata": {"ttlInSeconds": "-1"}},
    ]);
    for item in items.as_array().expect("a list") {
        rows.save(json!([item]), 204).await;
    }
    fte_testkit::eventually(|| async { rows.row(&short).await.map_or(Ok(()), Err) }).await;
    assert_eq!((rows.value(&long).await, rows.value(&never).await), (json!(1), json!(1)));
    // An expired row is as good as none.
    rows.save(json!([{"key": short, "value": 2, "options": first_write()}]), 204).await;
    assert_eq!(rows.value(&short).await, 2);
    // Dapr says 500, which asks to try again what can never be accepted.
    let refused = if world.has(Feature::Embedded) { 400 } else { 500 };
    rows.save(json!([{"key": short, "value": 1, "metadata": {"ttlInSeconds": "soon"}}]), refused).await;
    assert_eq!(rows.value(&short).await, 2);
    // In a transaction as well.
    let key = world.mark();
    rows.transaction(json!([{"operation": "upsert", "request": {"key": key, "value": 1, "metadata": {"ttlInSeconds": "1"}}}]), 204).await;
    fte_testkit::eventually(|| async { rows.row(&key).await.map_or(Ok(()), Err) }).await;
}

async fn a_time_to_live_ends_with_a_save_that_says_so(world: &World) {
    let rows = Rows::of(world);
    let (saved, in_transaction, unsaid, ttl) = in_time(Duration::from_secs(4), async |ttl| {
        let (saved, in_transaction, unsaid) = (world.mark(), world.mark(), world.mark());
        let began = Instant::now();
        let short = json!({"ttlInSeconds": ttl.as_secs().to_string()});
        let items: Vec<Value> = [&saved, &in_transaction, &unsaid].map(|key| json!({"key": key, "value": 1, "metadata": short})).into();
        rows.save(json!(items), 204).await;
        let for_ever = |key: &str, etag: &str| json!({"key": key, "value": 2, "etag": etag, "options": first_write(), "metadata": {"ttlInSeconds": "-1"}});
        let etags = (rows.row(&saved).await, rows.row(&in_transaction).await);
        // All of it has to come before the end of it, of which a store that counts in whole seconds may be a second early.
        let late = || (began.elapsed() + Duration::from_secs(1) >= ttl).then(|| began.elapsed());
        let (Some((_, etag)), Some((_, other))) = etags else { return Err(late().expect("what was saved is there for its time")) };
        let answers = [
            world.post(&rows.route, &json!([for_ever(&saved, &etag)])).await,
            rows.transact(&json!([{"operation": "upsert", "request": for_ever(&in_transaction, &other)}])).await,
            world.post(&rows.route, &json!([{"key": unsaid, "value": 2}])).await,
        ];
        late().map_or(Ok(()), Err)?;
        for answer in answers {
            answer.expect_status(204);
        }
        Ok((saved, in_transaction, unsaid, ttl))
    })
    .await;
    // What is saved last expires last.
    let control = world.mark();
    rows.save(json!([{"key": control, "value": 1, "metadata": {"ttlInSeconds": ttl.as_secs().to_string()}}]), 204).await;
    eventually_within(ttl + PATIENCE, || async { rows.row(&control).await.map_or(Ok(()), Err) }).await;
    assert_eq!((rows.value(&saved).await, rows.value(&in_transaction).await), (json!(2), json!(2)));
    // Redis keeps the time of the row before; the others know none.
    let kept = if world.target.store == Store::Redis { Value::Null } else { json!(2) };
    assert_eq!(rows.value(&unsaid).await, kept);
}

async fn what_cannot_be_done_says_why(world: &World) {
    let rows = Rows::of(world);
    let check = async |path: &str, body: &str, status: u16, code: &str| {
        let answer = world.send(Method::POST, path, &[("content-type", JSON)], body.to_owned()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text());
        assert_eq!(error_code(&answer), code, "{path} {body}");
    };
    check("/v1.0/state/nobody", "[]", 400, "ERR_STATE_STORE_NOT_FOUND").await;
    check("/v1.0/state/nobody/bulk", "{}", 400, "ERR_STATE_STORE_NOT_FOUND").await;
    check("/v1.0/state/nobody/transaction", "{}", 400, "ERR_STATE_STORE_NOT_FOUND").await;
    let unknown = world.get("/v1.0/state/nobody/key").await.expect_status(400);
    assert_eq!(error_code(&unknown), "ERR_STATE_STORE_NOT_FOUND");
    assert_eq!(unknown.json::<Value>()["message"], "state store nobody is not found");
    assert_eq!(error_code(&world.delete("/v1.0/state/nobody/key").await.expect_status(400)), "ERR_STATE_STORE_NOT_FOUND");

    for body in ["{broken", "{}", "text", "[1]", r#"[["key", 1]]"#, ""] {
        check(&rows.route, body, 400, "ERR_MALFORMED_REQUEST").await;
    }
    check(&rows.route, r#"[{"key": "a||b", "value": 1}]"#, 400, "ERR_MALFORMED_REQUEST").await;
    let answer = world.get(&format!("{}/a%7C%7Cb", rows.route)).await.expect_status(400);
    assert_eq!(error_code(&answer), "ERR_MALFORMED_REQUEST");
    assert!(answer.text().contains("input key/keyPrefix 'a||b' can't contain '||'"), "{}", answer.text());
    assert_eq!(error_code(&world.delete(&format!("{}/a%7C%7Cb", rows.route)).await.expect_status(400)), "ERR_MALFORMED_REQUEST");

    let transaction = format!("{}/transaction", rows.route);
    for body in ["{broken", "[]", r#"{"operations": {}}"#] {
        check(&transaction, body, 400, "ERR_MALFORMED_REQUEST").await;
    }
    let unknown = r#"{"operations": [{"operation": "move", "request": {"key": "a"}}]}"#;
    check(&transaction, unknown, 400, "ERR_NOT_SUPPORTED_STATE_OPERATION").await;
    let piped = r#"{"operations": [{"operation": "upsert", "request": {"key": "a||b", "value": 1}}]}"#;
    check(&transaction, piped, 400, "ERR_MALFORMED_REQUEST").await;
    for body in [r#"[{"value": 1}]"#, r#"[{"key": "", "value": 1}]"#] {
        check(&rows.route, body, 400, "ERR_MALFORMED_REQUEST").await;
    }
    if world.has(Feature::Embedded) {
        // Dapr writes a row without a key, which nobody can read.
        let keyless = r#"{"operations": [{"operation": "upsert", "request": {"value": 1}}]}"#;
        check(&transaction, keyless, 400, "ERR_MALFORMED_REQUEST").await;
    }
}

async fn keys_belong_to_their_app(world: &World) {
    let (rows, key) = (Rows::of(world), world.mark());
    rows.save(json!([{"key": key, "value": "mine"}]), 204).await;
    let other = world.target.sidecars.iter().find(|sidecar| sidecar.app_id != world.app_id()).expect("a second app");
    let path = format!("{}/{key}", rows.route);
    assert_eq!(other.client.get(&path).await.expect("an answer").status, 204);
    other.client.post(&rows.route, &json!([{"key": key, "value": "theirs"}])).await.expect("an answer").expect_status(204);
    assert_eq!(rows.value(&key).await, "mine");
    // Instances of one app share them.
    for sidecar in world.target.sidecars.iter().filter(|sidecar| sidecar.app_id == world.app_id()) {
        assert_eq!(sidecar.client.get(&path).await.expect("an answer").expect_status(200).json::<Value>(), "mine");
    }
}
