//! Tenants: each sees what is its own, on every route, and cannot tell what is another's from what does not exist.

use fte_events::{DeadLettered, Failure, Outgoing, ResultKind, Status, TaskId, dead_letters, sample, triggers};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Fixture;
use crate::test_support::History;

/// A task id so old that nobody waits for it.
fn old_task() -> TaskId {
    TaskId::mint(Timestamp::now() - SignedDuration::from_secs(60), fastrand::u128(..))
}

/// The letter that a runner which knows tenants publishes about `body`; and its id.
fn letter(body: &[u8], tenant: &str) -> (String, Vec<u8>) {
    let data = DeadLettered::new(triggers::TOPIC, body, Failure::new("rejected", "no"), 1, sample::time(0), "fte-runner");
    let id = dead_letters::letter_id("fte-runner", body);
    (id.to_string(), Outgoing::new("runner", id, sample::time(0), &data).tenant(tenant).to_bytes().to_vec())
}

#[tokio::test]
async fn a_task_of_another_tenant_is_answered_as_one_that_does_not_exist() {
    let status = Fixture::start().await;
    let history = History::whole(old_task()).of_tenant("acme");
    status.record(history.events.clone()).await;
    let unknown = old_task();
    let (own, other, usual) =
        (status.called_by("a", Some("acme")), status.called_by("b", Some("other")), status.called_by("c", Some("default")));
    let stream = [("accept", "text/event-stream")];
    for path in ["", "/events", "/result", "/result?wait=10s", "/events?after=x"] {
        for stranger in [&other, &usual] {
            let named = |task: TaskId| format!("/v1/tasks/{task}{path}");
            let theirs = stranger.get(&named(history.task)).await.expect(404).to_string();
            let nobodys = stranger.get(&named(unknown)).await.expect(404).to_string();
            assert_eq!(theirs.replace(&history.task.to_string(), "ID"), nobodys.replace(&unknown.to_string(), "ID"));
            stranger.open_whole(&named(history.task), &stream).await.expect_code(404, "task_not_found");
        }
    }
    for friend in [&own, &status.called_by("root", None)] {
        let task = friend.get(&format!("/v1/tasks/{}", history.task)).await.expect(200);
        assert_eq!((&task["tenant"], &task["status"]), (&json!("acme"), &json!("completed")));
        friend.get(&format!("/v1/tasks/{}/result", history.task)).await.expect(200);
        let path = format!("/v1/tasks/{}/events", history.task);
        assert_eq!(friend.get(&path).await.expect(200)["items"].as_array().unwrap().len(), history.events.len());
        assert_eq!(friend.stream(&path, Some(&history.ids()[1])).await.rest().await, history.ids()[2..]);
    }
    let usual_task = History::whole(old_task());
    status.record(usual_task.events).await;
    let shown = usual.get(&format!("/v1/tasks/{}", usual_task.task)).await.expect(200);
    assert!(shown.get("tenant").is_none(), "{shown}");
}

#[tokio::test]
async fn lists_show_each_caller_its_own_page_by_page() {
    let status = Fixture::start().await;
    let mut expected: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for number in 0..12 {
        let tenant = ["default", "acme", "zeta"][number % 3];
        let history = History::whole(TaskId::now()).of_tenant(tenant);
        status.record(history.events).await;
        for list in [tenant, "*"] {
            expected.entry(list).or_default().insert(0, history.task.to_string());
        }
    }
    for (list, tasks) in expected {
        let client = status.called_by("x", Some(list).filter(|list| *list != "*"));
        let (mut found, mut path) = (Vec::new(), "/v1/tasks?limit=3".to_owned());
        loop {
            let page = client.get(&path).await.expect(200);
            found.extend(page["items"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/v1/tasks?limit=3&cursor={cursor}");
        }
        assert_eq!(found, tasks, "{list}");
    }
    assert_eq!(status.called_by("x", Some("nobody")).get("/v1/tasks").await.expect(200), json!({"items": []}));
}

#[tokio::test]
async fn an_event_of_another_tenant_about_a_task_adds_nothing_to_it() {
    let status = Fixture::start().await;
    let history = History::of(TaskId::now()).of_tenant("acme").requested("say hello").claimed().step(Status::Running);
    let forged = History::of(history.task)
        .of_tenant("evil")
        .step(Status::Queued)
        .requested("say goodbye")
        .ended(ResultKind::Failed)
        .said_elsewhere();
    let (acme, evil, root) = (status.called_by("a", Some("acme")), status.called_by("e", Some("evil")), status.called_by("root", None));
    status.record(history.events.clone()).await;
    let path = format!("/v1/tasks/{}", history.task);
    let waiting = [acme.get_later(&format!("{path}/result?wait=60s")), root.get_later(&format!("{path}/result?wait=60s"))];
    status.waiting(2).await;
    let mut stream = acme.stream(&format!("{path}/events"), None).await;
    assert_eq!(stream.ids(history.events.len()).await, history.ids());

    status.record(forged.events.clone()).await;
    for client in [&acme, &root] {
        let task = client.get(&path).await.expect(200);
        assert_eq!((&task["status"], &task["task"], &task["tenant"]), (&json!("running"), &json!("say hello"), &json!("acme")));
        assert_eq!(client.get(&format!("{path}/events")).await.expect(200)["items"].as_array().unwrap().len(), history.events.len());
    }
    assert_eq!(evil.get(&path).await.expect(200)["status"], "failed");
    assert!(waiting.iter().all(|answer| !answer.is_finished()));

    let whole = history.ended(ResultKind::Completed);
    status.record(whole.events[3..].to_vec()).await;
    for answer in waiting {
        assert_eq!(answer.await.unwrap().expect(200)["status"], "completed");
    }
    assert_eq!(stream.rest().await, whole.ids()[3..]);
}

#[tokio::test]
async fn the_stream_of_all_tasks_is_that_of_the_callers_tenant() {
    let status = Fixture::start().await;
    let (acme, other, root) = (status.called_by("a", Some("acme")), status.called_by("o", Some("other")), status.called_by("root", None));
    let mut live = [acme.stream("/v1/events", None).await, other.stream("/v1/events", None).await, root.stream("/v1/events", None).await];
    let histories: Vec<_> = (0..40).map(|number| History::whole(TaskId::now()).of_tenant(["acme", "other"][number % 2])).collect();
    for history in &histories {
        status.record(history.events.clone()).await;
    }
    let ids = |tenant: &str| -> Vec<String> {
        histories.iter().filter(|history| tenant == "*" || history.tenant == tenant).flat_map(History::ids).collect()
    };
    for (stream, tenant) in live.iter_mut().zip(["acme", "other", "*"]) {
        assert_eq!(stream.ids(ids(tenant).len()).await, ids(tenant));
    }
    // Read again from the store, after an event of one's own; another's is as unknown as any.
    let own = ids("acme");
    assert_eq!(acme.stream("/v1/events", Some(&own[0])).await.ids(own.len() - 1).await, own[1..]);
    acme.open_whole("/v1/events", &[("last-event-id", &ids("other")[0])]).await.expect_code(410, "event_gone");
    let task = histories[1].task;
    let mut filtered = acme.stream(&format!("/v1/events?task_id={task}"), None).await;
    status.record(History::of(task).of_tenant("other").step(Status::Queued).said_elsewhere().events).await;
    status.record(History::of(task).of_tenant("acme").requested("mine").said_elsewhere().events).await;
    assert_eq!(filtered.next().await.unwrap().data["ftetenant"], "acme");
}

#[tokio::test]
async fn letters_are_seen_and_decided_by_their_own_tenant_and_by_operators() {
    let status = Fixture::start().await;
    let request = |tenant| History::of(TaskId::now()).of_tenant(tenant).requested("x").events[0].record.body.clone();
    let (of_acme, of_other) = (request("acme"), request("other"));
    let ((acme_id, acme_letter), (other_id, other_letter)) = (letter(&of_acme, "default"), letter(&of_other, "other"));
    let (odd_id, odd) = letter(b"{not json", "acme");
    let records: [&[u8]; 4] = [&acme_letter, &other_letter, &odd, b"\xff nobody's"];
    assert_eq!(status.deliver_raw("fte.deadletter.runner", &records).await, [true; 4]);

    let (acme, usual, root) =
        (status.called_by("ada", Some("acme")), status.called_by("u", Some("default")), status.called_by("root", None));
    let ids = |page: Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(acme.get("/v1/dead-letters").await.expect(200)), [odd_id.clone(), acme_id.clone()]);
    assert_eq!(ids(acme.get("/v1/dead-letters?status=open&limit=1").await.expect(200)), [odd_id]);
    assert_eq!(ids(usual.get("/v1/dead-letters").await.expect(200)).len(), 1, "the one that cannot be read");
    assert_eq!(ids(root.get("/v1/dead-letters").await.expect(200)).len(), 4);
    let theirs = format!("/v1/dead-letters/{other_id}");
    let missing = acme.get("/v1/dead-letters/nothing").await.expect(404).to_string().replace("nothing", "ID");
    assert_eq!(acme.get(&theirs).await.expect(404).to_string().replace(&other_id, "ID"), missing);
    for decision in ["replay", "discard"] {
        acme.post(&format!("{theirs}/{decision}")).await.expect_code(404, "letter_not_found");
    }
    assert!(status.sidecar.published().is_empty());
    assert_eq!(root.get(&theirs).await.expect(200)["tenant"], "other");

    acme.post(&format!("/v1/dead-letters/{acme_id}/replay")).await.expect(200);
    let published = status.sidecar.published();
    assert_eq!(published[0].json()["data"]["actor"]["id"], "ada");
    let tenants = published.iter().map(|event| event.json()["ftetenant"].clone());
    assert_eq!(tenants.collect::<Vec<_>>(), ["acme", "acme"], "what was done, and the new task");
}

#[tokio::test]
async fn a_letter_of_this_service_is_the_tenants_whose_event_it_is() {
    let status = Fixture::start().await;
    let event = json!({"id": "1", "source": "/x", "type": "fte.status.changed", "ftetenant": "acme", "data": {"task_id": "none"}});
    assert_eq!(status.deliver("fte.status.updates", vec![event]).await, [true]);
    let published = status.sidecar.published();
    assert_eq!((published[0].topic.as_str(), &published[0].json()["ftetenant"]), ("fte.deadletter.status", &json!("acme")));
}
