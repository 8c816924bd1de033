//! Events that say that a time has come, and the tasks that the configuration makes of them.

use fte_events::{DailyTaskDue, TaskId};
use serde_json::{Value, json};

use crate::world::{Fte, look};

const AGENTS: &str = r#"
default = "echo"
[agents.echo]
kind = "builtin"
[agents.cook]
kind = "builtin"
builtin = "echo"

[[occasions]]
on = "fte.daily-task.due"
name = "menu"
agent = "cook"
task = "write the menu"
[[occasions]]
on = "fte.deadline.passed"
task = "order for the café"
require_approval = true
"#;

/// An event as a scheduler elsewhere publishes it.
fn occasion(id: &str, kind: &str, data: &Value) -> (String, Value) {
    let event = json!({"specversion": "1.0", "id": id, "source": "/cron", "type": kind, "time": "2026-07-01T06:00:00Z",
        "datacontenttype": "application/json", "data": data});
    (TaskId::from_source("/cron", id).to_string(), event)
}

#[tokio::test]
async fn a_time_that_has_come_starts_what_the_configuration_says_once_and_it_can_be_audited() {
    let fte = Fte::with_agents(AGENTS, &[]).await;
    let due = serde_json::to_value(DailyTaskDue { task_type: "menu".into(), ..fte_testkit::sample::daily_task_due() }).unwrap();
    let (menu, event) = occasion("menu-1", "fte.daily-task.due", &due);
    fte.publish("fte.triggers.inbound", &event).await;
    fte.publish("fte.triggers.inbound", &event).await;
    let result = fte.result(&menu).await;
    assert_eq!(
        (&result["status"], &result["agent"], &result["result"]["echo"]),
        (&json!("completed"), &json!("cook"), &json!("write the menu"))
    );
    let api = fte.api();
    // What it is to do is in no request, and is shown as that of any other task.
    let shown = crate::world::shown(&api, &menu, |task| task["task"] == "write the menu").await;
    assert_eq!(
        (&shown["origin"], &shown["priority"], &shown["require_approval"]),
        (&json!("schedule"), &json!("P2"), &json!(false)),
        "{shown}"
    );
    let listed = look(&api, "/v1/tasks").await.unwrap();
    assert_eq!(listed["items"][0]["task"], "write the menu", "{listed}");
    let history: Value = fte_testkit::eventually(|| async {
        let history = look(&api, &format!("/v1/audit/tasks/{menu}")).await?;
        if history["complete"] == true { Ok(history) } else { Err(history.to_string()) }
    })
    .await;
    let triggers = history["entries"].as_array().unwrap().iter().filter(|entry| entry["topic"] == "fte.triggers.inbound");
    assert_eq!(triggers.map(|entry| &entry["type"]).collect::<Vec<_>>(), ["fte.daily-task.due"], "{history}");

    // One that needs a person waits for one.
    let (order, event) =
        occasion("order-1", "fte.deadline.passed", &json!({"cafe_id": 7, "date": "2026-07-01", "timestamp": "2026-07-01T06:00:00Z"}));
    fte.publish("fte.triggers.inbound", &event).await;
    assert_eq!(fte.in_status(&order, "awaiting_approval").await["task"], "order for the café");
    api.post(&format!("/v1/tasks/{order}/approval"), &json!({"approved": true, "approver": "ada"})).await.unwrap().expect_status(200);
    assert_eq!(fte.result(&order).await["result"]["echo"], "order for the café");
}

#[tokio::test]
async fn an_occasion_that_nobody_is_told_about_starts_nothing_and_holds_nothing_up() {
    let fte = Fte::with_agents(AGENTS, &[]).await;
    let due = |name: &str| json!({"task_type": name, "timestamp": "2026-07-01T06:00:00Z"});
    let (unknown, nothing) = occasion("inventory-1", "fte.daily-task.due", &due("inventory"));
    let (bad, unreadable) = occasion("bad-1", "fte.daily-task.due", &json!({"task_type": 7}));
    let (menu, last) = occasion("menu-1", "fte.daily-task.due", &due("menu"));
    // In one partition: when the last has its result, the others were handled.
    for event in [nothing, unreadable, last] {
        let path = "/v1.0/publish/pubsub/fte.triggers.inbound?metadata.partitionKey=one";
        fte.process.sidecar().post_as(path, "application/cloudevents+json", &event).await.unwrap().expect_status(204);
    }
    assert_eq!(fte.result(&menu).await["status"], "completed");
    let api = fte.api();
    let letters = fte_testkit::eventually(|| async {
        let letters = look(&api, "/v1/dead-letters").await?;
        if letters["items"].as_array().unwrap().iter().any(|letter| letter["consumer"] == "fte-runner") {
            Ok(letters)
        } else {
            Err(letters.to_string())
        }
    })
    .await;
    let of_runner: Vec<&Value> = letters["items"].as_array().unwrap().iter().filter(|letter| letter["consumer"] == "fte-runner").collect();
    assert_eq!(of_runner.iter().map(|letter| &letter["task_id"]).collect::<Vec<_>>(), [&json!(bad)], "{letters}");
    // What was logged before the end of the last one's history was logged of it, too.
    fte_testkit::eventually(|| async {
        let history = look(&api, &format!("/v1/audit/tasks/{menu}")).await?;
        if history["complete"] == true { Ok(()) } else { Err(history.to_string()) }
    })
    .await;
    let history = fte_testkit::eventually(|| async { look(&api, &format!("/v1/audit/tasks/{unknown}")).await }).await;
    let topics: Vec<&str> = history["entries"].as_array().unwrap().iter().filter_map(|entry| entry["topic"].as_str()).collect();
    assert_eq!(topics, ["fte.triggers.inbound"], "{history}");
}
