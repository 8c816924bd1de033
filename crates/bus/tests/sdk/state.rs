use std::time::Duration;

use bytes::Bytes;
use fte_bus::{Guard, Problem, Save, Saved, StateStore};
use fte_testkit::{Call, Careless, FakeSidecar, Fault};
use futures_util::future::join_all;

use super::sidecar;

fn save(key: &str, writer: &str, guard: Guard) -> Save {
    Save { key: key.to_owned(), value: Bytes::from(format!(r#"{{"writer":"{writer}"}}"#)), guard, ttl: None }
}

#[tokio::test]
async fn of_many_writers_one_wins_and_the_others_know() {
    let fake = FakeSidecar::start().await;
    let store = StateStore::new(sidecar(&fake), "statestore");
    let writers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let outcomes = join_all(writers.iter().map(|writer| store.save(save("k", writer, Guard::Absent)))).await;
    let won: Vec<_> = outcomes.into_iter().enumerate().filter(|(_, outcome)| matches!(outcome, Ok(Saved::Written))).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(fake.document("k").unwrap()["writer"], won[0].0.to_string());
}

#[tokio::test]
async fn one_conflict_in_a_batch_does_not_touch_the_others() {
    let fake = FakeSidecar::start().await;
    let store = StateStore::new(sidecar(&fake), "statestore");
    store.save(save("taken", "other", Guard::Absent)).await.unwrap();
    let held = fake.hold(Call::Write);
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.save(save("first", "me", Guard::Absent)).await }
    });
    fte_testkit::eventually(|| async { if fake.calls(Call::Write) == 2 { Ok(()) } else { Err(fake.calls(Call::Write)) } }).await;
    let rest = tokio::spawn({
        let store = store.clone();
        async move { store.save_many(["a", "taken", "b"].map(|key| save(key, "me", Guard::Absent)).into()).await }
    });
    tokio::task::yield_now().await;
    drop(held);
    assert_eq!(first.await.unwrap().unwrap(), Saved::Written);
    let outcomes: Vec<Saved> = rest.await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Saved::Written, Saved::Conflict, Saved::Written]);
}

#[tokio::test]
async fn a_lost_answer_is_looked_up() {
    let fake = FakeSidecar::start().await;
    let store = StateStore::new(sidecar(&fake), "statestore");
    fake.next(Call::Write, [Some(Fault::LoseAnswer)]);
    assert_eq!(store.save(save("k", "me", Guard::Absent)).await.unwrap(), Saved::Written);
    fake.next(Call::Write, [Some(Fault::Break)]);
    let unchanged = store.get("k").await.unwrap().unwrap().etag;
    assert!(store.save(save("k", "again", Guard::Unchanged(unchanged.clone()))).await.is_err(), "it did not happen, and that is said");
    // Some stores answer a conflict with 500.
    store.save(save("k", "other", Guard::Unchanged(unchanged.clone()))).await.unwrap();
    fake.next(Call::Write, [Some(Fault::Refuse(500))]);
    assert_eq!(store.save(save("k", "late", Guard::Unchanged(unchanged))).await.unwrap(), Saved::Conflict);
}

#[tokio::test]
async fn a_document_saved_without_a_time_to_live_stays_whatever_was_before() {
    let fake = FakeSidecar::start().await;
    let store = StateStore::new(sidecar(&fake), "statestore");
    let placeholder = Save { ttl: Some(Duration::from_secs(60)), ..save("k", "placeholder", Guard::Absent) };
    store.save(placeholder.clone()).await.unwrap();
    assert_eq!(fake.ttl_s("k"), Some(60));
    let etag = store.get("k").await.unwrap().unwrap().etag;
    assert_eq!(store.save(save("k", "me", Guard::Unchanged(etag))).await.unwrap(), Saved::Written);
    assert_eq!(fake.ttl_s("k"), None);
}

#[tokio::test]
async fn concurrent_reads_travel_together() {
    let fake = FakeSidecar::start().await;
    let store = StateStore::new(sidecar(&fake), "statestore");
    for key in ["a", "b"] {
        store.save(save(key, key, Guard::Absent)).await.unwrap();
    }
    let keys: Vec<String> = (0..100).map(|number| ["a", "b", "missing"][number % 3].to_owned()).collect();
    let found = join_all(keys.iter().map(|key| store.get(key))).await;
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(found.unwrap().is_some(), key != "missing", "{key}");
    }
    assert!(fake.calls(Call::Read) < 10, "{} calls for 100 reads", fake.calls(Call::Read));
}

#[tokio::test]
async fn a_key_that_dapr_would_misread_is_refused() {
    let fake = FakeSidecar::start().await;
    let store = StateStore::new(sidecar(&fake), "statestore");
    assert!(store.save(save("a||b", "me", Guard::Absent)).await.is_err());
    assert_eq!(fake.calls(Call::Write), 0);
}

#[tokio::test]
async fn a_store_whose_guards_do_not_hold_is_found_out_and_nothing_is_left_of_the_trial() {
    let trial = async |careless: Option<Careless>| {
        let fake = FakeSidecar::start().await;
        careless.into_iter().for_each(|how| fake.careless(how));
        let fitness = StateStore::new(sidecar(&fake), "statestore").fitness().await.unwrap();
        assert_eq!(fake.keys(), Vec::<String>::new());
        fitness.map_err(|unfit| unfit.problem)
    };
    assert_eq!(trial(None).await, Ok(()));
    assert_eq!(trial(Some(Careless::Replaces)).await, Err(Problem::Replaces));
    assert_eq!(trial(Some(Careless::Overwrites)).await, Err(Problem::Overwrites));
    assert_eq!(trial(Some(Careless::NoVersions)).await, Err(Problem::NoVersions));
    assert_eq!(trial(Some(Careless::KeepsForEver)).await, Err(Problem::NoTimeToLive));
}

#[tokio::test]
async fn a_store_that_cannot_be_asked_now_is_not_judged() {
    let fake = FakeSidecar::start().await;
    let store = StateStore::new(sidecar(&fake), "statestore");
    for calls in 0..6 {
        fake.fail_after(calls, Fault::Break, Fault::Refuse(500));
        store.fitness().await.unwrap_err();
        fake.heal();
    }
    let anew = FakeSidecar::start().await;
    anew.careless(Careless::Loses);
    StateStore::new(sidecar(&anew), "statestore").fitness().await.unwrap_err();
    assert_eq!(store.fitness().await.unwrap(), Ok(()));
}
