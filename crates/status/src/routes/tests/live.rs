//! The stream of all tasks.

use fte_events::TaskId;

use super::Fixture;
use crate::Config;
use crate::test_support::History;

#[tokio::test]
async fn all_listeners_see_every_event_once_in_order_from_where_they_began() {
    let status = Fixture::start().await;
    status.record(History::whole(TaskId::now()).events).await;
    let (mut one, mut other) = (status.stream("/v1/events", None).await, status.stream("/v1/events", None).await);
    for _ in 0..3 {
        let history = History::whole(TaskId::now());
        status.record(history.events.clone()).await;
        assert_eq!(one.ids(history.events.len()).await, history.ids());
        assert_eq!(other.ids(history.events.len()).await, history.ids());
    }
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names() {
    let status = Fixture::start().await;
    let histories: Vec<_> = (0..3).map(|_| History::whole(TaskId::now())).collect();
    let results = "/v1/events?type=fte.result.completed,fte.result.failed";
    let mut by_type = status.stream(results, None).await;
    let mut by_task = status.stream(&format!("/v1/events?task_id={}", histories[1].task), None).await;
    for history in &histories {
        status.record(history.events.clone()).await;
    }
    for history in &histories {
        let frame = by_type.next().await.unwrap();
        assert_eq!((frame.event.as_str(), frame.data["subject"].as_str().unwrap()), ("fte.result.completed", &*history.task.to_string()));
    }
    assert_eq!(by_task.ids(histories[1].events.len()).await, histories[1].ids());
    status.get("/v1/events?task_id=x").await.expect_code(400, "invalid_query");
    status.get("/v1/events?types=fte.result.completed").await.expect_code(400, "invalid_query");
}

#[tokio::test]
async fn a_slow_listener_reads_on_from_the_store_and_misses_nothing() {
    let status = Fixture::start().await;
    let mut slow = status.stream("/v1/events", None).await;
    let mut filtered = status.stream("/v1/events?type=fte.result.completed", None).await;
    let mut expected = Vec::new();
    // Far more than the 64 KiB that this feed keeps.
    for _ in 0..400 {
        let history = History::whole(TaskId::now());
        expected.extend(history.ids());
        status.record(history.events).await;
    }
    assert_eq!(slow.ids(expected.len()).await, expected);
    for _ in 0..400 {
        assert_eq!(filtered.next().await.unwrap().event, "fte.result.completed");
    }
    let last = History::whole(TaskId::now());
    status.record(last.events.clone()).await;
    assert_eq!(slow.ids(last.events.len()).await, last.ids());
    assert_eq!(filtered.next().await.unwrap().data["subject"], last.task.to_string());
}

#[tokio::test]
async fn a_cut_stream_goes_on_after_its_last_event() {
    let status = Fixture::start().await;
    let histories: Vec<_> = (0..2).map(|_| History::whole(TaskId::now())).collect();
    for history in &histories {
        status.record(history.events.clone()).await;
    }
    let ids: Vec<String> = histories.iter().flat_map(History::ids).collect();
    for cut in 1..ids.len() {
        let mut stream = status.stream("/v1/events", Some(&ids[cut - 1])).await;
        assert_eq!(stream.ids(ids.len() - cut).await, ids[cut..]);
    }
    let answer = status.open("/v1/events", &[("last-event-id", "unheard-of")]).await;
    assert_eq!(answer.status(), 410);
}

#[tokio::test]
async fn more_listeners_than_allowed_are_told_to_come_back() {
    let status = Fixture::with(Config { feeds_max: 1, ..Config::default() }).await;
    let first = status.stream("/v1/events", None).await;
    status.get("/v1/events").await.expect_code(503, "too_many_waiters");
    drop(first);
    status.stream("/v1/events", None).await;
}

#[tokio::test]
async fn a_listener_that_resumes_into_what_was_kept_for_others_gets_its_own_events() {
    let status = Fixture::start().await;
    // Recent events are kept as this one wants them.
    let mut results = status.stream("/v1/events?type=fte.result.completed", None).await;
    let history = History::whole(TaskId::now());
    status.record(history.events.clone()).await;
    assert_eq!(results.next().await.unwrap().event, "fte.result.completed");
    let mut all = status.stream("/v1/events", Some(&history.events[0].event.id)).await;
    assert_eq!(all.ids(history.events.len() - 1).await, history.ids()[1..]);
    let next = History::whole(TaskId::now());
    status.record(next.events.clone()).await;
    assert_eq!(all.ids(next.events.len()).await, next.ids());
}
