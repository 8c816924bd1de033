//! Dead letters: listed with their reasons, replayed and discarded once, on record.

use fte_events::{DeadLettered, EventName, Failure, Outgoing, ResultKind, TaskId, dead_letters, event_id, sample, triggers};
use fte_testkit::{Call, Fault};
use serde_json::{Value, json};

use super::Fixture;
use crate::test_support::History;

/// The letter that the runner publishes about `body`, as a record of its topic; and its id.
fn letter(topic: &str, body: &[u8]) -> (String, Vec<u8>) {
    let failure = Failure::new("rejected", "the agent is unknown");
    let data = DeadLettered::new(topic, body, failure, 1, sample::time(0), "fte-runner");
    let id = dead_letters::letter_id("fte-runner", body);
    (id.to_string(), Outgoing::new("runner", id, sample::time(0), &data).to_bytes().to_vec())
}

async fn receive(status: &Fixture, records: &[&[u8]]) {
    let acknowledged = status.deliver_raw("fte.deadletter.runner", records).await;
    assert!(acknowledged.iter().all(|done| *done));
}

/// A request that the runner gave up on, and its letter.
fn request_letter() -> (History, String, Vec<u8>) {
    let history = History::of(TaskId::now()).requested("summarise");
    let (id, record) = letter(triggers::TOPIC, &history.events[0].record.body);
    (history, id, record)
}

#[tokio::test]
async fn a_letter_is_listed_once_with_its_reason_and_shown_whole() {
    let status = Fixture::start().await;
    let (history, id, record) = request_letter();
    receive(&status, &[&record, &record]).await;
    receive(&status, &[&record]).await;
    let list = status.get("/v1/dead-letters").await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    let expected = json!({"id": id, "status": "open", "consumer": "fte-runner", "topic": "fte.deadletter.runner", "attempts": 1,
        "original_topic": "fte.triggers.inbound", "error": {"code": "rejected", "message": "the agent is unknown"},
        "failed_at": fte_bus::time::text(sample::time(0)), "task_id": history.task, "replayable": true});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&items[0][field], value, "{field}");
    }
    assert!(items[0].get("original_event").is_none());
    let whole = status.get(&format!("/v1/dead-letters/{id}")).await.expect(200);
    assert_eq!(whole["original_event"]["id"], history.events[0].event.id);
    status.get("/v1/dead-letters/unheard-of").await.expect_code(404, "letter_not_found");
}

#[tokio::test]
async fn a_request_is_replayed_as_one_new_task_on_record_before_it_is_published() {
    let status = Fixture::start().await;
    let (history, id, record) = request_letter();
    receive(&status, &[&record]).await;
    let answer = status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200);
    let task: TaskId = answer["task_id"].as_str().unwrap().parse().unwrap();
    assert_ne!(task, history.task);
    assert_eq!(status.get(&format!("/v1/dead-letters/{id}")).await.expect(200)["replay_task_id"], json!(task));

    let published = status.sidecar.published();
    let (action, request) = (published[0].json(), published[1].json());
    assert_eq!((published.len(), published[0].topic.as_str()), (2, "fte.audit.actions"));
    assert_eq!((&action["data"]["action"], &action["data"]["data"]["letter_id"]), (&json!("deadletter.replayed"), &json!(id)));
    assert_eq!((published[1].topic.as_str(), published[1].key.as_deref()), (triggers::TOPIC, Some(&*task.to_string())));
    let expected_id = event_id(task, EventName::Trigger { turn: 0 }).to_string();
    assert_eq!((&request["id"], &request["ftecause"], &request["subject"]), (&json!(expected_id), &json!(id), &json!(task)));
    assert!(request.get("ftereplay").is_none());
    let mut data: Value = serde_json::from_str(history.events[0].event.data.as_ref().unwrap().get()).unwrap();
    data["task_id"] = json!(task);
    assert_eq!(request["data"], data);

    let again = status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200);
    assert_eq!(again, answer);
    assert_eq!(status.sidecar.published().len(), 2, "a repeat publishes nothing");
    status.post(&format!("/v1/dead-letters/{id}/discard")).await.expect_code(409, "letter_replayed");

    // The read model takes it as any request.
    assert_eq!(status.deliver(triggers::TOPIC, vec![request]).await, [true]);
    assert_eq!(status.get(&format!("/v1/tasks/{task}")).await.expect(200)["task"], "summarise");
}

#[tokio::test]
async fn a_bare_request_is_replayed_as_a_new_task_too() {
    let status = Fixture::start().await;
    let bare = json!({"id": "1", "source": "/shop", "type": "com.dapr.event.sent", "data": {"task": "pack it", "budget_usd": 0.1}});
    let (id, record) = letter(triggers::TOPIC, bare.to_string().as_bytes());
    receive(&status, &[&record]).await;
    let answer = status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200);
    let request = status.sidecar.published()[1].json();
    assert_eq!(request["data"], json!({"task": "pack it", "budget_usd": 0.1, "task_id": answer["task_id"]}));
}

#[tokio::test]
async fn any_other_event_is_replayed_as_it_was_for_who_gave_up_on_it() {
    let status = Fixture::start().await;
    let ended = History::whole(TaskId::now()).ended(ResultKind::Completed);
    let result = ended.events.iter().find(|event| event.event.event_type == "fte.result.completed").unwrap();
    let (id, record) = letter("fte.results.completed", &result.record.body);
    receive(&status, &[&record]).await;
    let answer = status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200);
    let published = status.sidecar.published().pop().unwrap();
    let mut expected: Value = serde_json::from_slice(&result.record.body).unwrap();
    expected["ftereplay"] = json!(format!("fte-runner/{id}"));
    assert_eq!((published.json(), published.topic.as_str()), (expected, "fte.results.completed"));
    assert_eq!(published.key.as_deref(), result.event.subject.as_deref());
    assert_eq!((&answer["task_id"], &answer["event_id"]), (&json!(result.event.subject), &json!(result.event.id)));
}

#[tokio::test]
async fn what_the_runner_gave_up_on_of_a_task_whose_end_was_told_is_not_replayed() {
    let status = Fixture::start().await;
    let parked = History::whole(TaskId::now()).parked();
    let resumed = parked.events.iter().find(|event| event.event.event_type == "fte.task.resumed").unwrap().record.body.clone();
    let handoff = sample::handoff_requested();
    let handoff_topic = fte_events::handoffs::topic(&handoff.to_agent);
    let handoff = Outgoing::new("runner", handoff.handoff_id, sample::time(0), &handoff).about(handoff.task_id).to_bytes().to_vec();
    let request = json!({"id": "1", "source": "/shop", "type": "fte.task.requested", "data": {"task": {"not": "a text"}}});
    let request = request.to_string();
    let cases: [(&str, &[u8], &str); 3] = [
        (triggers::TOPIC, &resumed, "start the task anew"),
        (&handoff_topic, &handoff, "the task that waited for it has been told"),
        (triggers::TOPIC, request.as_bytes(), "publish it anew"),
    ];
    for (topic, body, reason) in cases {
        let (id, record) = letter(topic, body);
        receive(&status, &[&record]).await;
        let shown = status.get(&format!("/v1/dead-letters/{id}")).await.expect(200);
        assert_eq!(shown["replayable"], false, "{shown}");
        let answer = status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(409);
        assert_eq!(answer["code"], "letter_not_replayable");
        assert!(answer["detail"].as_str().unwrap().contains(reason), "{answer}");
        assert_eq!(status.sidecar.published().len(), 0, "nothing was decided");
    }
    // What the sidecar could not deliver ended nothing; and what this service gave up on, it alone is told again.
    let mut undelivered: Value = serde_json::from_slice(&handoff).unwrap();
    undelivered["topic"] = json!(handoff_topic);
    undelivered["id"] = json!("another");
    receive(&status, &[undelivered.to_string().as_bytes()]).await;
    let data = DeadLettered::new(&handoff_topic, &handoff, Failure::new("handler_failed", "?"), 5, sample::time(0), "fte-status");
    let id = dead_letters::letter_id("fte-status", &handoff);
    let record = Outgoing::new("status", id, sample::time(0), &data).to_bytes();
    assert_eq!(status.deliver_raw("fte.deadletter.status", &[&record]).await, [true]);
    let list = status.get("/v1/dead-letters?limit=2").await.expect(200);
    for letter in list["items"].as_array().unwrap() {
        assert_eq!(letter["replayable"], true, "{letter}");
        status.post(&format!("/v1/dead-letters/{}/replay", letter["id"].as_str().unwrap())).await.expect(200);
    }
}

#[tokio::test]
async fn a_replay_whose_task_is_there_is_noted_and_not_published_again() {
    let status = Fixture::start().await;
    let (history, id, record) = request_letter();
    receive(&status, &[&record]).await;
    let path = format!("/v1/dead-letters/{id}");
    let task: TaskId = status.get(&path).await.expect(200)["replay_task_id"].as_str().unwrap().parse().unwrap();
    // It was published before a crash, and the decision was not noted: all that is left of it is the task.
    assert_ne!(task, history.task);
    status.record(History::of(task).requested("summarise").ended(ResultKind::Completed).events).await;
    let answer = status.post(&format!("{path}/replay")).await.expect(200);
    assert_eq!((&answer["status"], &answer["task_id"]), (&json!("replayed"), &json!(task)));
    assert!(status.sidecar.published().iter().all(|published| published.topic != triggers::TOPIC));
    assert_eq!(status.get(&path).await.expect(200)["status"], "replayed");
}

#[tokio::test]
async fn what_this_service_gave_up_on_is_replayed_for_it_alone_not_run_again() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("once");
    let body = &history.events[0].record.body;
    let data = DeadLettered::new(triggers::TOPIC, body, Failure::new("handler_failed", "?"), 5, sample::time(0), "fte-status");
    let id = dead_letters::letter_id("fte-status", body);
    let record = Outgoing::new("status", id, sample::time(0), &data).to_bytes();
    assert_eq!(status.deliver_raw("fte.deadletter.status", &[&record]).await, [true]);
    status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200);
    let replayed = status.sidecar.published()[1].json();
    assert_eq!((&replayed["ftereplay"], &replayed["id"]), (&json!(format!("fte-status/{id}")), &json!(history.events[0].event.id)));
}

#[tokio::test]
async fn nothing_is_decided_while_the_sidecar_cannot_be_reached_and_a_repeat_is_the_same_event() {
    let status = Fixture::start().await;
    let (_, id, record) = request_letter();
    receive(&status, &[&record]).await;
    // The audit action goes through; the event does not, three tries long.
    status.sidecar.next(Call::Publish, [None, Some(Fault::Refuse(500)), Some(Fault::Refuse(500)), Some(Fault::LoseAnswer)]);
    status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect_code(503, "sidecar_unavailable");
    assert_eq!(status.get(&format!("/v1/dead-letters/{id}")).await.expect(200)["status"], "open");
    status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200);
    let events: Vec<Value> = status.sidecar.published().iter().filter(|p| p.topic == triggers::TOPIC).map(|p| p.json()).collect();
    assert_eq!(events.len(), 2, "the lost answer was of a publish");
    assert_eq!((&events[0]["id"], &events[0]["source"]), (&events[1]["id"], &events[1]["source"]));
}

#[tokio::test]
async fn an_occasion_is_replayed_as_it_was_under_a_new_identity() {
    let status = Fixture::start().await;
    let data = json!({"schedule": "weekly", "due_at": "2026-07-01T06:00:00Z"});
    let event = json!({"id": "27", "source": "/cron", "type": "fte.schedule.fired", "subject": "café 7", "data": data});
    let (id, record) = letter(triggers::TOPIC, event.to_string().as_bytes());
    receive(&status, &[&record]).await;
    let answer = status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200);
    assert!(answer.get("task_id").is_none(), "whether anybody does anything is the runner's to say: {answer}");
    let fired = status.sidecar.published()[1].json();
    assert_eq!((&fired["type"], &fired["subject"], &fired["data"]), (&event["type"], &event["subject"], &data));
    assert_eq!((&fired["source"], &fired["ftecause"]), (&json!("/fte/status"), &json!(id)));
    let task = TaskId::from_source("/fte/status", fired["id"].as_str().unwrap());
    assert_eq!(status.sidecar.published()[1].key.as_deref(), Some(&*task.to_string()));
    assert_eq!(status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(200), answer);
    assert_eq!(status.sidecar.published().len(), 2, "a repeat publishes nothing");
}

#[tokio::test]
async fn two_who_replay_at_once_publish_once() {
    let status = Fixture::start().await;
    let (_, id, record) = request_letter();
    receive(&status, &[&record]).await;
    let path = format!("/v1/dead-letters/{id}/replay");
    let (one, other) = tokio::join!(status.post(&path), status.post(&path));
    assert_eq!(one.expect(200), other.expect(200));
    assert_eq!(status.sidecar.published().iter().filter(|published| published.topic == triggers::TOPIC).count(), 1);
}

#[tokio::test]
async fn a_discarded_letter_stays_discarded_and_on_record() {
    let status = Fixture::start().await;
    let (_, id, record) = request_letter();
    receive(&status, &[&record]).await;
    let answer = status.post(&format!("/v1/dead-letters/{id}/discard")).await.expect(200);
    assert_eq!(answer["status"], "discarded");
    assert_eq!(status.post(&format!("/v1/dead-letters/{id}/discard")).await.expect(200), answer);
    status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect_code(409, "letter_discarded");
    let published = status.sidecar.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].json()["data"]["action"], "deadletter.discarded");
    assert_eq!(status.get("/v1/dead-letters?status=open").await.expect(200)["items"], json!([]));
    assert_eq!(status.get("/v1/dead-letters?status=discarded").await.expect(200)["items"][0]["id"], json!(id));
    status.get("/v1/dead-letters?status=gone").await.expect_code(400, "invalid_query");
    status.get("/v1/dead-letters?state=open").await.expect_code(400, "invalid_query");
}

#[tokio::test]
async fn what_cannot_be_replayed_says_why() {
    let status = Fixture::start().await;
    let large = History::of(TaskId::now()).requested(&"x".repeat(50_000));
    let cases: [(&str, &[u8], &str); 4] = [
        (triggers::TOPIC, &large.events[0].record.body, "too large"),
        (triggers::TOPIC, b"{not json", "no CloudEvent"),
        ("somebody.elses", br#"{"id":"1","source":"/x","type":"t"}"#, "topic"),
        ("fte.audit.actions", br#"{"id":"2","source":"/x","type":"t"}"#, "topic"),
    ];
    for (topic, body, reason) in cases {
        let (id, record) = letter(topic, body);
        receive(&status, &[&record]).await;
        let shown = status.get(&format!("/v1/dead-letters/{id}")).await.expect(200);
        assert_eq!(shown["replayable"], false);
        assert!(shown["not_replayable"].as_str().unwrap().contains(reason), "{shown}");
        let answer = status.post(&format!("/v1/dead-letters/{id}/replay")).await.expect(409);
        assert_eq!(answer["code"], "letter_not_replayable");
        assert!(answer["detail"].as_str().unwrap().contains(reason), "{answer}");
        status.post(&format!("/v1/dead-letters/{id}/discard")).await.expect(200);
    }
    assert!(status.sidecar.published().iter().all(|published| published.topic == "fte.audit.actions"));
}

#[tokio::test]
async fn records_that_the_sidecar_gave_up_on_are_letters_as_they_are() {
    let status = Fixture::start().await;
    let history = History::whole(TaskId::now());
    let mut event: Value = serde_json::from_slice(&history.events[0].record.body).unwrap();
    event["topic"] = json!(triggers::TOPIC);
    let event = event.to_string();
    let broken_letter = json!({"id": "1", "source": "/x", "type": "fte.event.dead-lettered", "data": {}}).to_string();
    let records: [&[u8]; 4] = [event.as_bytes(), b"\xff\xfe not even text", broken_letter.as_bytes(), b""];
    receive(&status, &records).await;
    receive(&status, &records).await;
    let list = status.get("/v1/dead-letters").await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    assert!(items.iter().all(|item| item["consumer"] == "fte-runner" && item["error"]["code"] == "undeliverable"), "{list}");
    let request = &items[3];
    assert_eq!((&request["original_topic"], &request["replayable"]), (&json!(triggers::TOPIC), &json!(true)));
    // It is a letter, not the event: the task is told of by its own topic alone.
    assert_eq!(status.get("/v1/tasks").await.expect(200)["items"], json!([]));
    status.post(&format!("/v1/dead-letters/{}/replay", request["id"].as_str().unwrap())).await.expect(200);
}

#[tokio::test]
async fn a_letter_is_among_the_events_of_its_task() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).requested("x").ended(ResultKind::Failed);
    status.record(history.events.clone()).await;
    let body = &history.events[0].record.body;
    let data = DeadLettered::new(triggers::TOPIC, body, Failure::new("rejected", "no"), 1, sample::time(0), "fte-runner");
    let id = dead_letters::letter_id("fte-runner", body);
    let record = Outgoing::new("runner", id, sample::time(0), &data).about(history.task).to_bytes();
    receive(&status, &[&record]).await;
    let events = status.get(&format!("/v1/tasks/{}/events", history.task)).await.expect(200);
    assert_eq!(events["items"].as_array().unwrap().last().unwrap()["id"], json!(id));
}

#[tokio::test]
async fn pages_of_letters_show_each_once_newest_first() {
    let status = Fixture::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let (_, id, record) = request_letter();
        receive(&status, &[&record]).await;
        ids.insert(0, id);
    }
    let (mut found, mut path) = (Vec::new(), "/v1/dead-letters?limit=2".to_owned());
    loop {
        let page = status.get(&path).await.expect(200);
        found.extend(page["items"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/dead-letters?limit=2&cursor={cursor}");
    }
    assert_eq!(found, ids);
}
