//! What is on record: the audit log, results, agents.

use crate::fake::{Fake, json, problem};
use crate::run::fte;

const ID: &str = "01980000-0000-7000-8000-000000000001";

#[tokio::test]
async fn audit_entries_are_asked_for_by_every_filter() {
    let entry = format!(
        r#"{{"shard":"a","index":7,"type":"fte.status.changed","source":"/fte/runner","task_id":"{ID}","time":"2026-01-02T09:15:02Z","event":{{}}}}"#
    );
    let route = format!("GET /v1/audit/entries?task_id={ID}&action=x&outcome=denied&from=2026-01-01T00%3A00%3A00Z&limit=50");
    let fake = Fake::start([(&*route, vec![json(200, &format!(r#"{{"items":[{entry}],"next_cursor":null}}"#))])]).await;
    let args = ["audit", "list", "--task", ID, "--action", "x", "--outcome", "denied", "--from", "2026-01-01T00:00:00Z"];
    let ran = fte(&fake.url, &args).await;
    let fields: Vec<_> = ran.out.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        (ran.code, fields),
        (0, vec!["a/7", "2026-01-02T09:15:02.000Z", "fte.status.changed", "?", "/fte/runner", ID]),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn the_audit_list_shows_what_is_no_event_and_tells_what_happened() {
    let entry = |index: u32, kind: &str, source: &str, event: &str| {
        format!(r#"{{"shard":2026,"index":{index},"id":null,"source":{source},"type":{kind},"task_id":null,"time":null,"event":{event}}}"#)
    };
    let of = |index: u32, kind: &str, data: &str| entry(index, &format!("{kind:?}"), r#""/fte/x""#, &format!(r#"{{"data":{data}}}"#));
    let entries = [
        // What came was no event: there is neither source nor type.
        entry(0, "null", "null", "null").replace(r#""event""#, r#""kind":"unparsed","topic":"fte.results.completed","event""#),
        of(1, "fte.action.recorded", r#"{"action":"approval.granted","actor":{"type":"user","id":"ann"},"outcome":"success"}"#),
        of(2, "fte.action.recorded", r#"{"action":"event.rejected","actor":{"type":"service","id":"runner"},"outcome":"failure"}"#),
        of(3, "fte.status.changed", r#"{"status":"running","stage":"draft","progress_pct":40}"#),
        of(4, "fte.result.failed", r#"{"status":"failed","error":{"code":"agent_crashed","message":"secret words"}}"#),
        of(5, "fte.event.dead-lettered", r#"{"consumer":"runner","error":{"code":"bad_data"}}"#),
        of(6, "fte.sandbox.released", r#"{"agent":"echo","reason":"completed"}"#),
        of(7, "fte.task.requested", r#"{"task":"secret words","agent":"writer"}"#),
        of(8, "fte.task.resumed", r#"{"turn":1,"reason":"approved"}"#),
        of(9, "elsewhere.happened", "7"),
        of(10, "fte.action.recorded", r#"{"action":"approval.denied","actor":{"type":"user","id":"ann"},"outcome":"denied"}"#),
        of(11, "fte.result.rejected", r#"{"status":"rejected","error":{"code":"rejected"},"duration_ms":7}"#),
    ];
    let body = format!(r#"{{"items":[{}],"next_cursor":null}}"#, entries.join(","));
    let fake = Fake::start([("GET /v1/audit/entries?limit=50", vec![json(200, &body)])]).await;
    let ran = fte(&fake.url, &["audit", "list"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let what = [
        "not an event, on fte.results.completed",
        "approval.granted by user ann",
        "event.rejected by service runner, failure",
        "running, draft, 40 %",
        "failed, agent_crashed",
        "by runner, bad_data",
        "agent echo, completed",
        "agent writer",
        "approved, turn 1",
        "elsewhere.happened",
        "approval.denied by user ann  ",
        "  rejected, in 7 ms",
    ];
    for (line, what) in ran.out.lines().skip(1).zip(what) {
        assert!(line.contains(what), "{what} in\n{}", ran.out);
    }
    assert!(ran.out.lines().next().unwrap().contains("WHAT") && !ran.out.contains("secret"), "{}", ran.out);
}

#[tokio::test]
async fn a_task_s_history_says_whether_it_is_complete() {
    let entry = format!(
        r#"{{"shard":2026,"index":3,"type":"fte.result.completed","source":"/fte/runner","task_id":"{ID}","time":"2026-01-02T09:15:02Z","event":{{"data":{{"status":"completed"}}}}}}"#
    );
    let history = |complete: bool, missing: &str| {
        json(200, &format!(r#"{{"task_id":"{ID}","complete":{complete},"missing":[{missing}],"entries":[{entry}]}}"#))
    };
    let route = format!("GET /v1/audit/tasks/{ID}");
    let lacking = history(false, r#""a trigger","a release""#);
    let answers = vec![history(true, ""), lacking.clone(), lacking, problem(404, "task_not_found", "Nothing of it")];
    let fake = Fake::start([(&*route, answers)]).await;
    let ran = fte(&fake.url, &["audit", "task", ID]).await;
    assert!(ran.code == 0 && ran.out.contains("2026/3") && ran.out.ends_with("complete: 1 entry\n"), "{ran:?}");
    let ran = fte(&fake.url, &["audit", "task", ID]).await;
    assert!(ran.code == 6 && ran.out.contains("2026/3") && ran.err.contains("a trigger; a release"), "{ran:?}");
    let ran = fte(&fake.url, &["audit", "task", ID, "--json"]).await;
    assert_eq!((ran.code, &ran.json()["missing"][1]), (6, &"a release".into()), "{ran:?}");
    assert_eq!(fte(&fake.url, &["audit", "task", ID]).await.code, 3);
}

#[tokio::test]
async fn a_result_is_printed_when_there_is_one_and_waited_for_when_asked() {
    let (now, wait) = (format!("GET /v1/tasks/{ID}/result"), format!("GET /v1/tasks/{ID}/result?wait=30s"));
    let running = json(202, r#"{"status":"running"}"#);
    let failed = json(200, r#"{"status":"failed","error":{"code":"agent_crashed","message":"exit 1"}}"#);
    let done = json(200, r#"{"status":"completed","result":"hello"}"#);
    let fake = Fake::start([
        (&*now, vec![running.clone(), failed, done.clone(), problem(404, "task_not_found", "Not here")]),
        (&*wait, vec![running.clone(), done]),
        (&*format!("{now}?wait=0s"), vec![running]),
    ])
    .await;
    let ran = fte(&fake.url, &["result", ID]).await;
    ran.check(6, "");
    assert!(ran.err.contains("it is running") && ran.err.contains("fte watch"), "{}", ran.err);
    fte(&fake.url, &["result", ID]).await.check(1, "agent_crashed: exit 1");
    fte(&fake.url, &["result", ID, "--json"]).await.check(0, r#"{"status":"completed","result":"hello"}"#);
    fte(&fake.url, &["result", ID]).await.check(3, "");
    // Longer than the API waits at a time.
    fte(&fake.url, &["result", ID, "--wait", "45s"]).await.check(0, "hello");
    fte(&fake.url, &["result", ID, "--wait", "0s"]).await.check(6, "");
}

#[tokio::test]
async fn agents_are_listed_with_how_they_are_used() {
    let body = r#"{"items":[{"name":"echo","kind":"builtin","default":true,"capacity":512,"in_use":2,"queued":0},{"name":"writer","kind":"process","default":false,"capacity":4,"in_use":4,"queued":9,"queue":100,"rate":"60/m"}],"next_cursor":null}"#;
    let fake = Fake::start([("GET /v1/agents", vec![json(200, body)])]).await;
    let table = [
        "AGENT   KIND     DEFAULT  IN USE  QUEUED  RATE",
        "echo    builtin  yes      2/512   0",
        "writer  process           4/4     9/100   60/m",
    ];
    fte(&fake.url, &["agents"]).await.check(0, &table.join("\n"));
    fte(&fake.url, &["agents", "--json"]).await.check(0, body);
}
