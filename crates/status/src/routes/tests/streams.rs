//! One task's stream: each event once, in order, wherever it is cut, and an end.

use fte_events::{ResultKind, Status, TaskId};

use super::Fixture;
use crate::test_support::History;

fn path(history: &History) -> String {
    format!("/v1/tasks/{}/events", history.task)
}

#[tokio::test]
async fn a_finished_task_is_streamed_to_its_end() {
    let status = Fixture::start().await;
    let history = History::whole(TaskId::now());
    status.record(history.events.clone()).await;
    let mut stream = status.stream(&path(&history), None).await;
    for event in &history.events {
        let frame = stream.next().await.unwrap();
        assert_eq!((&frame.id, &frame.event), (&event.event.id, &event.event.event_type));
        assert_eq!(frame.data, serde_json::from_slice::<serde_json::Value>(&event.record.body).unwrap());
    }
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_stream_cut_after_any_event_goes_on_with_the_next() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("x").claimed().step(Status::Running).parked().failed_try().claimed();
    let history = history.step(Status::Running).ended(ResultKind::Completed);
    status.record(history.events.clone()).await;
    let ids = history.ids();
    for cut in 1..=ids.len() {
        let mut first = status.stream(&path(&history), None).await;
        assert_eq!(first.ids(cut).await, ids[..cut]);
        drop(first);
        let rest = status.stream(&path(&history), Some(&ids[cut - 1])).await;
        assert_eq!(rest.rest().await, ids[cut..]);
    }
    let by_parameter = status.stream(&format!("{}?last_event_id={}", path(&history), ids[2]), None).await;
    assert_eq!(by_parameter.rest().await, ids[3..]);
}

#[tokio::test]
async fn a_stream_that_cannot_go_on_where_it_was_cut_says_so() {
    let status = Fixture::start().await;
    let (history, other) = (History::whole(TaskId::now()), History::whole(TaskId::now()));
    status.record(history.events.clone()).await;
    status.record(other.events.clone()).await;
    let other_event = &other.ids()[0];
    for last in ["unheard-of", other_event.as_str()] {
        status
            .open_whole(&path(&history), &[("accept", "text/event-stream"), ("last-event-id", last)])
            .await
            .expect_code(410, "event_gone");
    }
    // Given as nothing it counts as not given.
    assert_eq!(status.stream(&path(&history), Some("")).await.rest().await, history.ids());
}

#[tokio::test]
async fn a_live_stream_shows_each_event_when_it_is_committed_and_ends_with_the_last() {
    let status = Fixture::start().await;
    let history = History::whole(TaskId::now());
    // Asked for before anything of the task is known.
    let path = path(&history);
    let (mut stream, ()) = tokio::join!(status.stream(&path, None), status.record([history.events[0].clone()]));
    assert_eq!(stream.ids(1).await, [history.events[0].event.id.clone()]);
    for event in &history.events[1..] {
        status.record([event.clone(), event.clone()]).await;
        assert_eq!(stream.next().await.unwrap().id, event.event.id);
    }
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_stream_waits_for_every_release_even_of_claims_that_come_last() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("x").claimed().step(Status::Running).taken_over().parked();
    let history = history.failed_try().claimed().step(Status::Running).ended(ResultKind::Failed);
    // Topics run side by side: here the sandbox's events are late.
    let (sandbox, others): (Vec<_>, Vec<_>) =
        history.events.clone().into_iter().partition(|event| event.event.event_type.starts_with("fte.sandbox."));
    status.record(others.clone()).await;
    let mut stream = status.stream(&path(&history), None).await;
    stream.ids(others.len()).await;
    for event in sandbox {
        status.record([event.clone()]).await;
        assert_eq!(stream.next().await.unwrap().id, event.event.id);
    }
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn long_histories_are_streamed_in_pieces_without_a_gap() {
    let status = Fixture::start().await;
    let mut history = History::of(TaskId::now()).requested("x").claimed();
    for _ in 0..700 {
        history = history.step(Status::Running);
    }
    let history = history.ended(ResultKind::Completed);
    status.record(history.events.clone()).await;
    assert_eq!(status.stream(&path(&history), None).await.rest().await, history.ids());
}

#[tokio::test]
async fn streams_end_when_the_service_does() {
    let mut status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("x");
    status.record(history.events.clone()).await;
    let one = status.stream(&path(&history), None).await;
    let all = status.stream("/v1/events", None).await;
    status.service.stop.take().unwrap()().await;
    assert_eq!(one.rest().await, history.ids());
    assert_eq!(all.rest().await.len(), 0);
}
