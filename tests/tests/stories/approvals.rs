//! People decide: yes, no, twice, too late; and people call tasks off.

use serde_json::{Value, json};

use crate::world::{Fte, echo};

async fn decide(fte: &Fte, task: &str, approved: bool) -> fte_testkit::Response {
    fte.api().post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": approved, "approver": "ada" })).await.unwrap()
}

async fn answer(fte: &Fte, task: &str, question: u32, approved: bool) -> fte_testkit::Response {
    let answer = json!({ "approved": approved, "question": question, "approver": "ada" });
    fte.api().post(&format!("/v1/tasks/{task}/approval"), &answer).await.unwrap()
}

#[tokio::test]
async fn a_yes_lets_the_task_run_and_a_second_yes_changes_nothing() {
    let fte = Fte::start().await;
    let task = fte.post(json!({ "task": "spend money", "require_approval": true })).await;
    let waiting = fte.in_status(&task, "awaiting_approval").await;
    assert!(waiting["approval"]["expires_at"].is_string(), "{waiting}");
    decide(&fte, &task, true).await.expect_status(200);
    decide(&fte, &task, true).await.expect_status(200);
    assert_eq!(decide(&fte, &task, false).await.expect_status(409).problem_code(), "decided_otherwise");
    assert_eq!(fte.result(&task).await["status"], "completed");
}

#[tokio::test]
async fn who_comes_second_is_told_who_was_first() {
    let fte = Fte::start().await;
    let context = json!({ "demo": { "step_ms": 1 } });
    let task = fte.post(json!({ "task": "show", "agent": "demo", "context": context, "require_approval": true })).await;
    fte.asking(&task, 1).await;
    let api = fte.api();
    let path = format!("/v1/tasks/{task}/approval");
    let say = async |approved: bool, question: u32, by: &str| {
        api.post(&path, &json!({ "approved": approved, "question": question, "approver": by })).await.unwrap()
    };
    let first: Value = say(true, 1, "ada").await.expect_status(200).json();
    let at = first["decided_at"].as_str().unwrap().to_owned();
    assert_eq!(at.len(), "2026-11-30T15:39:12.123Z".len(), "{at}");
    assert_eq!(first, json!({ "task_id": task, "approved": true, "approver": "ada", "decided_at": at, "edited": false, "already": false }));
    let is_ada_s = async || {
        // The same from somebody else counts as theirs no more than another.
        let second: Value = say(true, 1, "bob").await.expect_status(200).json();
        assert_eq!(
            second,
            json!({ "task_id": task, "approved": true, "approver": "ada", "decided_at": at, "edited": false, "already": true })
        );
        let refused = say(false, 1, "bob").await.expect_status(409);
        assert_eq!(refused.problem_code(), "decided_otherwise");
        let refused: Value = refused.json();
        assert_eq!(
            (&refused["approved"], &refused["approver"], &refused["decided_at"], &refused["edited"]),
            (&json!(true), &json!("ada"), &json!(at), &json!(false)),
            "{refused}"
        );
        let words = refused["detail"].as_str().unwrap();
        assert!(words.contains("approved by ada at ") && words.contains(&at[..19]), "{words}");
    };
    is_ada_s().await;
    // Also once it asks something else, and after its end.
    fte.asking(&task, 2).await;
    is_ada_s().await;
    say(false, 2, "eve").await.expect_status(200);
    assert_eq!(fte.result(&task).await["status"], "rejected");
    let refused: Value = say(true, 2, "bob").await.expect_status(409).json();
    assert_eq!((&refused["approved"], &refused["approver"]), (&json!(false), &json!("eve")), "{refused}");
    is_ada_s().await;
}

#[tokio::test]
async fn nobody_decides_without_a_name() {
    let fte = Fte::start().await;
    let task = fte.post(json!({ "task": "spend money", "require_approval": true })).await;
    fte.in_status(&task, "awaiting_approval").await;
    let path = format!("/v1/tasks/{task}/approval");
    for nobody in [json!({ "approved": true }), json!({ "approved": true, "approver": "" }), json!({ "approved": false, "approver": "  " })]
    {
        let answer = fte.api().post(&path, &nobody).await.unwrap().expect_status(422);
        assert_eq!(answer.problem_code(), "approver_missing");
        assert!(answer.text().contains("--as") && answer.json::<Value>()["errors"][0]["pointer"] == "/approver", "{}", answer.text());
    }
    assert_eq!(fte.in_status(&task, "awaiting_approval").await["approval"]["question"], 1, "nothing was decided");
    decide(&fte, &task, true).await.expect_status(200);
    let granted = crate::trail::actions(&fte.api(), &task, "approval.granted", 1).await;
    assert_eq!(granted[0]["event"]["data"]["actor"], json!({ "type": "user", "id": "ada" }), "{granted:?}");
}

#[tokio::test]
async fn a_no_ends_the_task() {
    let fte = Fte::start().await;
    let task = fte.post(json!({ "task": "spend money", "require_approval": true })).await;
    fte.in_status(&task, "awaiting_approval").await;
    decide(&fte, &task, false).await.expect_status(200);
    let result = fte.result(&task).await;
    assert_eq!(result["status"], "rejected");
    assert!(result["error"]["message"].as_str().unwrap().contains("ada"), "{result}");
    decide(&fte, &task, false).await.expect_status(200);
    assert_eq!(decide(&fte, &task, true).await.expect_status(409).problem_code(), "decided_otherwise");
}

#[tokio::test]
async fn an_agent_that_asks_goes_on_after_a_yes_with_or_without_its_sandbox() {
    for stay_ms in ["60000", "0"] {
        let fte = Fte::start_with(&[], &[("FTE_RUNNER_APPROVAL_STAY_MS", stay_ms)]).await;
        let task = fte.post(json!({ "task": "show", "agent": "demo", "context": { "demo": { "step_ms": 1 } } })).await;
        fte.in_status(&task, "awaiting_approval").await;
        decide(&fte, &task, true).await.expect_status(200);
        let result = fte.result(&task).await;
        assert_eq!(result["status"], "completed", "{result}");
        assert_eq!(result["artifacts"].as_array().unwrap().len(), 1, "{result}");
    }
}

#[tokio::test]
async fn an_answer_that_names_its_question_decides_no_other() {
    let fte = Fte::start().await;
    let context = json!({ "demo": { "step_ms": 1 } });
    let task = fte.post(json!({ "task": "show", "agent": "demo", "context": context, "require_approval": true })).await;
    fte.asking(&task, 1).await;
    answer(&fte, &task, 1, true).await.expect_status(200);
    fte.asking(&task, 2).await;

    // The first answer is sent again, as after a lost response; then somebody has second thoughts about it; then somebody runs ahead.
    answer(&fte, &task, 1, true).await.expect_status(200);
    assert_eq!(answer(&fte, &task, 1, false).await.expect_status(409).problem_code(), "decided_otherwise");
    assert_eq!(answer(&fte, &task, 3, true).await.expect_status(409).problem_code(), "other_question");
    assert_eq!(fte.asking(&task, 2).await["status"], "awaiting_approval");

    answer(&fte, &task, 2, true).await.expect_status(200);
    assert_eq!(fte.result(&task).await["status"], "completed");
}

#[tokio::test]
async fn an_approval_that_nobody_gives_runs_out() {
    let fte = Fte::start_with(&[], &[("FTE_RUNNER_APPROVAL_TTL", "1s")]).await;
    let task = fte.post(json!({ "task": "spend money", "require_approval": true })).await;
    let result = fte.result(&task).await;
    assert_eq!((&result["status"], &result["error"]["code"]), (&json!("timed_out"), &json!("approval_expired")));
    assert_eq!(decide(&fte, &task, true).await.expect_status(409).problem_code(), "not_awaiting_approval");
}

#[tokio::test]
async fn a_cancel_counts_before_during_and_not_after() {
    let agents = r#"
        default = "slow"
        [agents.slow]
        kind = "command"
        command = ["sleep", "600"]
        [agents.echo]
        kind = "builtin"
    "#;
    let fte = Fte::with_agents(agents, &[]).await;
    let api = fte.api();
    let cancel = |task: String| {
        let api = api.clone();
        async move { api.post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap() }
    };

    // Before the runner has met it.
    let request = fte_testkit::request("never");
    let early = request.task_id.to_string();
    cancel(early.clone()).await.expect_status(202);
    fte.publish("fte.triggers.inbound", &serde_json::to_value(fte_testkit::cloud_event(&request)).unwrap()).await;
    assert_eq!(fte.result(&early).await["status"], "cancelled");

    // While it runs.
    let running = fte.post(json!({ "task": "sleep" })).await;
    fte.in_status(&running, "running").await;
    cancel(running.clone()).await.expect_status(202);
    assert_eq!(fte.result(&running).await["status"], "cancelled");

    // Afterwards.
    let done = fte.post(echo("done")).await;
    fte.result(&done).await;
    assert_eq!(cancel(done).await.expect_status(409).problem_code(), "task_ended");
}

#[tokio::test]
async fn a_cancel_is_by_whom_it_names_and_needs_neither_name_nor_body() {
    let fte = Fte::start().await;
    let api = fte.api();
    let later = async || {
        let task = fte.post(json!({ "task": "later", "delay": "1h" })).await;
        fte.in_status(&task, "queued").await;
        task
    };
    let cancel = async |task: &str, content_type: &'static str, body: &str| {
        let headers = http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type))]);
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        api.send(http::Method::POST, &format!("/v1/tasks/{task}/cancel"), headers, body).await.unwrap()
    };
    let json = "application/json";
    // As `curl -X POST` and `curl -d ''` send nothing.
    let form = "application/x-www-form-urlencoded";
    for (content_type, body, by) in
        [(json, r#"{"by":"ada"}"#, "ada"), (json, "{}", "unknown"), (json, r#"{"by":" "}"#, "unknown"), (form, "", "unknown")]
    {
        let task = later().await;
        cancel(&task, content_type, body).await.expect_status(202);
        let end = fte.result(&task).await;
        assert_eq!((&end["status"], &end["error"]["message"]), (&json!("cancelled"), &json!(format!("cancelled by {by}"))), "{end}");
        let said = crate::trail::actions(&api, &task, "task.cancel-requested", 1).await;
        assert_eq!(said[0]["event"]["data"]["actor"], json!({ "type": "user", "id": by }), "{said:?}");
    }
    let task = later().await;
    let long = json!({ "by": "x".repeat(201) }).to_string();
    assert_eq!(cancel(&task, json, &long).await.expect_status(422).problem_code(), "invalid_cancel");
    assert_eq!(cancel(&task, json, r#"{"who":"ada"}"#).await.expect_status(422).problem_code(), "invalid_body");
    assert_eq!(cancel(&task, json, "by ada").await.expect_status(400).problem_code(), "invalid_json");
    assert_eq!(cancel(&task, form, "by=ada").await.expect_status(415).problem_code(), "unsupported_media_type");
    fte.in_status(&task, "queued").await;
}

#[tokio::test]
async fn nobody_can_say_a_thing_to_what_is_not_there_also_once_it_is_cancelled() {
    let fte = Fte::start().await;
    let task = fte_events::TaskId::now().to_string();
    for _ in 0..2 {
        assert_eq!(decide(&fte, &task, true).await.expect_status(404).problem_code(), "task_not_found");
        for (path, body) in [("reply", json!({ "result": 1, "by": "ada" })), ("messages", json!({ "text": "hello" }))] {
            let answer = fte.api().post(&format!("/v1/tasks/{task}/{path}"), &body).await.unwrap();
            assert_eq!(answer.expect_status(404).problem_code(), "task_not_found", "{path}");
        }
        let shown = fte.api().get(&format!("/v1/approvals/{task}")).await.unwrap();
        assert_eq!(shown.expect_status(404).problem_code(), "task_not_found");
        // It leaves a document behind, for a task that is still to come.
        fte.api().post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap().expect_status(202);
    }
    let shown: Value = fte.api().get("/v1/agents").await.unwrap().expect_status(200).json();
    assert!(shown["items"].as_array().unwrap().iter().any(|agent| agent["name"] == "echo"), "{shown}");
}
