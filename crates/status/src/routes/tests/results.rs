//! Waiting for a result.

use fte_events::{ResultKind, Status, TaskId};
use serde_json::{Value, json};

use super::Fixture;
use crate::test_support::History;

fn data_of_result(history: &History) -> Value {
    let result = history.events.iter().find(|event| event.event.event_type.starts_with("fte.result.")).unwrap();
    serde_json::from_str(result.event.data.as_ref().unwrap().get()).unwrap()
}

#[tokio::test]
async fn the_result_is_the_data_of_its_event_whatever_the_end() {
    let status = Fixture::start().await;
    for kind in ResultKind::ALL {
        let history = History::of(TaskId::now()).requested("x").claimed().step(Status::Running).ended(kind);
        status.record(history.events.clone()).await;
        for wait in ["", "?wait=30s"] {
            let answer = status.get(&format!("/v1/tasks/{}/result{wait}", history.task)).await;
            assert_eq!(answer.expect(200), data_of_result(&history));
        }
    }
}

#[tokio::test]
async fn a_task_that_goes_on_is_answered_with_the_task_after_the_wait() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("x").claimed().step(Status::Running);
    status.record(history.events.clone()).await;
    for wait in ["", "?wait=", "?wait=1ms", "?wait=0s"] {
        assert_eq!(status.get(&format!("/v1/tasks/{}/result{wait}", history.task)).await.expect(202)["status"], "running");
    }
    for bad in ["61s", "soon", "-1s"] {
        status.get(&format!("/v1/tasks/{}/result?wait={bad}", history.task)).await.expect_code(400, "invalid_query");
    }
}

#[tokio::test]
async fn who_waits_is_woken_by_the_commit_of_the_result_and_by_nothing_else() {
    let status = Fixture::start().await;
    let history = History::whole(TaskId::now());
    let waiting: Vec<_> = (0..3).map(|_| status.get_later(&format!("/v1/tasks/{}/result?wait=60s", history.task))).collect();
    status.waiting(3).await;
    // Even the request is not known yet; event by event, the result is the fourth.
    for event in &history.events[..3] {
        status.record([event.clone()]).await;
    }
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    status.record(history.events[3..].to_vec()).await;
    for answer in waiting {
        assert_eq!(answer.await.unwrap().expect(200), data_of_result(&history));
    }
}

#[tokio::test]
async fn an_ending_service_answers_who_waits() {
    let mut status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("x");
    status.record(history.events.clone()).await;
    let waiting = status.get_later(&format!("/v1/tasks/{}/result?wait=60s", history.task));
    status.waiting(1).await;
    status.service.stop.take().unwrap()().await;
    assert_eq!(waiting.await.unwrap().expect(202)["task_id"], json!(history.task));
}
