//! Each client: what it asks, what it prints, how it ends.

use crate::fake::{Fake, json, problem};
use crate::run::{Ran, command, fte};

const ID: &str = "01980000-0000-7000-8000-000000000001";
const ACCEPTED: &str = r#"{"task_id":"01980000-0000-7000-8000-000000000001","status":"accepted"}"#;

#[tokio::test]
async fn submit_sends_every_option_and_prints_the_id() {
    let fake = Fake::start([("POST /v1/tasks", vec![json(202, ACCEPTED)]), ("GET /v1/tasks?limit=1", vec![json(200, "{}")])]).await;
    let args = ["submit", "say hi", "--agent", "writer", "--require-approval", "--context", r#"{"a":1}"#, "--idempotency-key", "k-1"];
    let more = ["--priority", "p1", "--delay", "90s", "--deadline", "2030-01-01T00:00:00Z", "--api-key", "secret"];
    fte(&fake.url, &[&args[..], &more[..]].concat()).await.check(0, ID);
    let posted = || fake.asked().into_iter().filter(|asked| asked.route == "POST /v1/tasks").collect::<Vec<_>>();
    let asked = &posted()[0];
    assert_eq!(
        asked.body,
        r#"{"task":"say hi","agent":"writer","context":{"a":1},"require_approval":true,"priority":"P1","deadline":"2030-01-01T00:00:00Z","delay":"90s"}"#
    );
    assert_eq!(asked.headers["idempotency-key"], "k-1");
    assert_eq!(asked.headers["authorization"], "Bearer secret");
    assert_eq!(asked.headers["content-type"], "application/json");

    let ran = fte(&fake.url, &["submit", "hi", "--json"]).await;
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("accepted")));
    assert_eq!(posted()[1].body, r#"{"task":"hi"}"#);
}

#[tokio::test]
async fn tasks_are_listed_as_a_table_or_as_they_came() {
    let task = format!(
        r#"{{"task_id":"{ID}","status":"running","agent":"echo","stage":"draft","progress_pct":40,"updated_at":"2026-01-02T09:15:02Z","task":"a note\nabout rain, and about all that comes with it"}}"#
    );
    // The first page is short and not the last.
    let page = |items: &str, cursor: &str| json(200, &format!(r#"{{"items":[{items}],"next_cursor":{cursor}}}"#));
    let fake = Fake::start([
        ("GET /v1/tasks?status=running&agent=echo&limit=2", vec![page(&task, r#""c1""#)]),
        ("GET /v1/tasks?status=running&agent=echo&cursor=c1&limit=1", vec![page(&task, r#""c2""#)]),
        ("GET /v1/tasks?limit=20", vec![json(200, r#"{"items":[],"next_cursor":null}"#)]),
    ])
    .await;
    let args = ["tasks", "--status", "running", "--agent", "echo", "--limit", "2"];
    let ran = fte(&fake.url, &args).await;
    let table = [
        "ID                                    STATUS   AGENT  TASK                                      STAGE       UPDATED",
        "01980000-0000-7000-8000-000000000001  running  echo   a note about rain, and about all that c…  draft 40 %  2026-01-02T09:15:02Z",
        "01980000-0000-7000-8000-000000000001  running  echo   a note about rain, and about all that c…  draft 40 %  2026-01-02T09:15:02Z",
    ];
    ran.check(0, &table.join("\n"));
    assert!(ran.err.contains("--cursor c2"), "{}", ran.err);
    fte(&fake.url, &[&args[..], &["--json"]].concat()).await.check(0, &format!(r#"{{"items":[{task},{task}],"next_cursor":"c2"}}"#));
    fte(&fake.url, &["tasks"]).await.check(0, "");
    assert_eq!(fte(&fake.url, &["tasks", "--status", "sleeping"]).await.code, 2);
}

#[tokio::test]
async fn a_queued_task_of_a_list_shows_its_place_in_the_queue() {
    let other = ID.replace("01980000", "01980001");
    let task = |id: &str, status: &str| format!(r#"{{"task_id":"{id}","status":"{status}","agent":"echo","updated_at":"T","task":"x"}}"#);
    let place = format!(r#"{{"task_id":"{ID}","status":"queued","queue":{{"position":3,"waiting":7,"wait_s":11.2}}}}"#);
    let page = format!(r#"{{"items":[{},{}],"next_cursor":null}}"#, task(ID, "queued"), task(&other, "running"));
    let one = format!("GET /v1/tasks/{ID}");
    let fake =
        Fake::start([("GET /v1/tasks?limit=20", vec![json(200, &page)]), (&*one, vec![json(200, &place), problem(503, "away", "Away")])])
            .await;
    let table = |place: &str| {
        [
            format!(
                "ID                                    STATUS   AGENT  TASK  STAGE{}  UPDATED",
                " ".repeat(place.len().saturating_sub(5))
            ),
            format!("{ID}  queued   echo   x     {place}  T"),
            format!("{other}  running  echo   x     {}  T", " ".repeat(place.len())),
        ]
        .join("\n")
    };
    fte(&fake.url, &["tasks"]).await.check(0, &table("3 of 7, about 12 s"));
    // Nobody says where it stands: the list is there all the same.
    fte(&fake.url, &["tasks"]).await.check(0, &table("     "));
    // As JSON it is as it came, and nothing else is asked.
    let asked = fake.asked().len();
    fte(&fake.url, &["tasks", "--json"]).await.check(0, &page);
    assert_eq!(fake.asked().len(), asked + 1);
}

#[tokio::test]
async fn decisions_and_cancels_say_how_they_went() {
    let approval = format!("POST /v1/tasks/{ID}/approval");
    let first = r#"{"approved":true,"approver":"ann","decided_at":"2026-01-02T09:15:02Z","already":true}"#;
    let cancel = format!("POST /v1/tasks/{ID}/cancel");
    let known = format!("GET /v1/tasks/{ID}");
    let fake = Fake::start([
        (
            &*approval,
            vec![
                json(200, r#"{"already":false,"approver":"ann"}"#),
                problem(409, "already_decided", "Decided otherwise"),
                json(200, first),
            ],
        ),
        (&*cancel, vec![json(202, "{}"), problem(409, "task_terminal", "The task has ended"), json(202, "{}")]),
        (&*known, vec![json(200, r#"{"status":"running"}"#), problem(404, "task_not_found", "Not here")]),
    ])
    .await;
    fte(&fake.url, &["approve", ID, "--reason", "fine", "--approver", "ann"]).await.check(0, &format!("{ID}  approved"));
    let ran = fte(&fake.url, &["approve", ID, "--reject", "--question", "2", "--as", "bob"]).await;
    ran.check(4, "");
    assert_eq!(ran.err, "error: Decided otherwise (409 already_decided)\n  why: for this test\n");
    // Somebody has said the same before.
    let ran = fte(&fake.url, &["approve", ID, "--as", "bob"]).await;
    ran.check(0, &format!("{ID}  approved already  by ann  2026-01-02T09:15:02Z"));
    let ran = fte(&fake.url, &["cancel", ID]).await;
    ran.check(0, &format!("{ID}  cancel requested"));
    assert_eq!(ran.err, "");
    assert_eq!(fte(&fake.url, &["cancel", ID]).await.code, 4);
    // A task that nobody has met is cancelled all the same, and a mistake in its id comes to light.
    let ran = fte(&fake.url, &["cancel", ID]).await;
    ran.check(0, &format!("{ID}  cancel requested"));
    assert!(ran.err.contains("nobody has met this task") && ran.err.contains("fte tasks"), "{}", ran.err);
    let asked = fake.asked();
    let routes: Vec<_> = asked.iter().map(|asked| asked.route.as_str()).collect();
    assert_eq!(routes, [&approval, &approval, &approval, &cancel, &known, &cancel, &cancel, &known]);
    let bodies: Vec<_> = asked.into_iter().map(|asked| asked.body).collect();
    assert_eq!(
        bodies[..2],
        [r#"{"approved":true,"reason":"fine","approver":"ann"}"#, r#"{"approved":false,"question":2,"approver":"bob"}"#]
    );
    let mine = format!(r#"{{"by":"{}"}}"#, own_user());
    assert_eq!([&bodies[3], &bodies[5], &bodies[6]], [&mine; 3], "{bodies:?}");
}

#[tokio::test]
async fn who_is_logged_in_is_the_approver_unless_another_is_named() {
    let approval = format!("POST /v1/tasks/{ID}/approval");
    let fake = Fake::start([(&*approval, vec![json(200, "{}")])]).await;
    let approve = async |more: &[&str], env: &[(&str, &str)]| {
        let ran = command(&[&["approve", ID], more].concat()).env("FTE_URL", &fake.url).envs(env.iter().copied()).output().await.unwrap();
        assert!(ran.status.success(), "{ran:?}");
        let body: serde_json::Value = serde_json::from_str(&fake.asked().last().unwrap().body).unwrap();
        body["approver"].as_str().map(str::to_owned)
    };
    assert_eq!(approve(&[], &[("USER", "ann"), ("LOGNAME", "bob")]).await.as_deref(), Some("ann"));
    assert_eq!(approve(&[], &[("USER", ""), ("LOGNAME", "bob")]).await.as_deref(), Some("bob"));
    assert_eq!(approve(&["--approver", "eve"], &[("USER", "ann")]).await.as_deref(), Some("eve"));
    // Where the environment names nobody, it is whoever the command runs as.
    let own = own_user();
    assert_eq!(approve(&[], &[]).await.as_deref(), Some(own.as_str()));
    assert_eq!(approve(&["--by", "eve"], &[("USER", "ann")]).await.as_deref(), Some("eve"));

    // Who replies, sends or cancels is known by the same.
    let taken = format!(r#"{{"task_id":"{ID}","message_id":"m"}}"#);
    let acts: [(&str, &str, &[&str], &[&str]); 3] = [
        ("reply", "reply", &[ID, "yes"], &["--by", "--as", "--approver"]),
        ("send", "messages", &[ID, "hello"], &["--by", "--as"]),
        ("cancel", "cancel", &[ID], &["--by", "--as"]),
    ];
    for (verb, route, what, options) in acts {
        let (route, known) = (format!("POST /v1/tasks/{ID}/{route}"), format!("GET /v1/tasks/{ID}"));
        let fake = Fake::start([(&*route, vec![json(202, &taken)]), (&*known, vec![json(200, "{}")])]).await;
        let by = async |more: &[&str], env: &[(&str, &str)]| {
            let args = [&[verb], what, more].concat();
            let ran = command(&args).env("FTE_URL", &fake.url).envs(env.iter().copied()).output().await.unwrap();
            assert!(ran.status.success(), "{ran:?}");
            let asked = fake.asked();
            let body: serde_json::Value = serde_json::from_str(&asked.iter().rfind(|asked| asked.route == route).unwrap().body).unwrap();
            body["by"].as_str().map(str::to_owned)
        };
        assert_eq!(by(&[], &[]).await.as_deref(), Some(own.as_str()));
        assert_eq!(by(&[], &[("USER", "ann")]).await.as_deref(), Some("ann"));
        for option in options {
            assert_eq!(by(&[option, "eve"], &[("USER", "ann")]).await.as_deref(), Some("eve"));
        }
    }
}

/// Whoever a command runs as.
fn own_user() -> String {
    let own = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(own.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn what_is_no_task_id_is_refused_before_anything_is_asked() {
    let fake = Fake::start([]).await;
    for args in [&["watch", "42"][..], &["result", "hello"], &["approve", "x"], &["cancel", ""], &["audit", "task", "01980000"]] {
        let ran = fte(&fake.url, args).await;
        assert!(
            ran.code == 2 && ran.err.contains("01980000-0000-7000-8000-000000000001") && ran.err.contains("fte tasks"),
            "{args:?}: {ran:?}"
        );
    }
    assert_eq!(fake.asked().len(), 0);
}

#[tokio::test]
async fn commands_named_in_texts_go_to_the_instance_of_the_command_line() {
    let nowhere = "http://127.0.0.1:1";
    let fake = Fake::start([
        ("POST /v1/tasks", vec![json(202, ACCEPTED)]),
        ("GET /v1/tasks?limit=1", vec![problem(403, "role_missing", "Not yours")]),
        (&*format!("GET /v1/tasks/{ID}/result"), vec![json(202, r#"{"status":"running"}"#), problem(404, "task_not_found", "Not here")]),
        ("GET /v1/dead-letters/L1", vec![problem(404, "letter_not_found", "Not here")]),
    ])
    .await;
    let check = |ran: &Ran, text: &str| assert!(ran.err.contains(text), "{text} in {}", ran.err);
    // Named by the environment, it is there for the next command too.
    check(&fte(&fake.url, &["submit", "hi"]).await, &format!("`fte watch {ID}`"));
    let at = ["--url", &fake.url];
    check(&fte(nowhere, &[&["submit", "hi"][..], &at].concat()).await, &format!("`fte watch {ID} --url {}`", fake.url));
    check(&fte(nowhere, &[&["result", ID][..], &at].concat()).await, &format!("`fte watch {ID} --url {}`", fake.url));
    check(&fte(nowhere, &[&["result", ID][..], &at].concat()).await, &format!("`fte tasks --url {}`", fake.url));
    let ran = fte(nowhere, &["dead-letters", "--url", &format!("{}/", fake.url), "show", "L1"]).await;
    check(&ran, &format!("`fte dead-letters list --url {}`", fake.url));
}

#[tokio::test]
async fn who_only_takes_tasks_is_not_named_to_follow_them() {
    // As intake answers that has an address of its own.
    let only = problem(405, "method_not_allowed", "Method not allowed");
    let fake = Fake::start([("POST /v1/tasks", vec![json(202, ACCEPTED)]), ("GET /v1/tasks?limit=1", vec![only])]).await;
    let ran = fte(&fake.url, &["submit", "hi"]).await;
    ran.check(0, ID);
    assert!(ran.err.contains("only takes tasks") && ran.err.contains(&format!("`fte watch {ID} --url URL`")), "{}", ran.err);
    assert!(!ran.err.contains(&format!("--url {}", fake.url)), "{}", ran.err);
    // Who waits would wait in vain: nothing is sent.
    let posts = || fake.asked().iter().filter(|asked| asked.route == "POST /v1/tasks").count();
    let ran = fte(&fake.url, &["submit", "hi", "--wait"]).await;
    assert!(ran.code == 2 && ran.err.contains("only takes tasks") && posts() == 1, "{ran:?}");
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_discarded() {
    let letter = r#"{"id":"L1","consumer":"runner","original_topic":"t","status":"open","failed_at":"2026-01-02T09:15:02Z","error":{"code":"bad","message":"no"}}"#;
    let fake = Fake::start([
        ("GET /v1/dead-letters?limit=20", vec![json(200, &format!(r#"{{"items":[{letter}],"next_cursor":null}}"#))]),
        ("GET /v1/dead-letters/L1", vec![json(200, letter)]),
        ("POST /v1/dead-letters/L1/replay", vec![json(202, r#"{"id":"L1","status":"replayed","task_id":"T2"}"#)]),
        ("POST /v1/dead-letters/L1/discard", vec![json(200, "{}")]),
    ])
    .await;
    let ran = fte(&fake.url, &["dead-letters", "list"]).await;
    assert!(ran.out.contains("L1  open    runner  bad: no  t      2026-01-02T09:15:02Z"), "{}", ran.out);
    let ran = fte(&fake.url, &["dead-letters", "show", "L1"]).await;
    assert!(ran.code == 0 && ran.out.contains(r#""code": "bad""#), "{ran:?}");
    fte(&fake.url, &["dead-letters", "replay", "L1"]).await.check(0, "L1 is replayed; its task: T2");
    fte(&fake.url, &["dead-letters", "discard", "L1"]).await.check(0, "L1 is discarded");
    assert_eq!(fte(&fake.url, &["dead-letters", "replay", "L2"]).await.code, 3);
}

#[tokio::test]
async fn exit_codes_say_what_kind_of_failure_it_was() {
    let path = format!("GET /v1/tasks/{ID}/events");
    for (status, code) in [(401, 4), (403, 4), (404, 3), (422, 4), (429, 5), (500, 1), (503, 5)] {
        let fake = Fake::start([(&*path, vec![problem(status, "code", "Title")])]).await;
        let ran = fte(&fake.url, &["watch", ID]).await;
        assert_eq!(ran.code, code, "{status}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("error: Title ({status} code)\n  why: for this test")), "{}", ran.err);
    }
    // A port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = fte(&format!("http://127.0.0.1:{port}"), &["tasks"]).await;
    assert!(ran.code == 5 && ran.err.contains("does not answer\n  why: Connection refused") && ran.err.contains("fte up"), "{ran:?}");
    // A single service knows only its own routes.
    let fake = Fake::start([("GET /v1/tasks?limit=20", vec![problem(405, "method_not_allowed", "Method not allowed")])]).await;
    let ran = fte(&fake.url, &["tasks"]).await;
    assert!(ran.code == 4 && ran.err.contains("serves only a part of FTE"), "{ran:?}");
    assert_eq!(fte("", &["submit"]).await.code, 2);
    assert_eq!(fte("", &["submit", "x", "--context", "[1]"]).await.code, 2);
    let fake = Fake::start([("GET /v1/tasks?limit=20", vec![json(200, "<html>")])]).await;
    assert_eq!(fte(&fake.url, &["tasks"]).await.code, 1);
}

#[tokio::test]
async fn topics_come_in_every_format_without_an_instance() {
    let ran = fte("", &["topics", "--format", "json", "--agent", "writer"]).await;
    let topics = ran.json();
    let writer = topics.as_array().unwrap().iter().find(|topic| topic["name"] == "fte.handoffs.writer").unwrap();
    assert_eq!((&writer["partitions"], &writer["retention_ms"]), (&3.into(), &604_800_000.into()));
    let built_in = fte("", &["topics", "--json"]).await.json();
    assert_eq!(
        built_in["items"].as_array().unwrap().len(),
        topics.as_array().unwrap().len() + 1,
        "demo and echo, and writer in their place"
    );
    assert!(fte("", &["topics"]).await.out.contains("fte.audit.actions"));
    assert!(fte("", &["topics", "--format", "kafka-topics"]).await.out.starts_with("#!/bin/sh\n"));
    assert!(fte("", &["topics", "--format", "strimzi", "--cluster", "big"]).await.out.contains("strimzi.io/cluster: big"));
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let trail = r#"[{"type":"fte.task.requested"},{"type":"fte.status.changed"},{"type":"fte.result.completed"}]"#;
    let api = Fake::start([
        ("GET /health", vec![json(200, r#"{"status":"up","version":"0.1.0"}"#)]),
        ("GET /ready", vec![json(200, "{}"), problem(503, "not_ready", "Not ready")]),
        ("GET /v1/agents", vec![json(200, r#"{"items":[]}"#), problem(403, "forbidden", "Forbidden")]),
        ("POST /v1/tasks", vec![json(202, ACCEPTED)]),
        (&*format!("GET /v1/tasks/{ID}/result?wait=30s"), vec![json(200, r#"{"status":"completed"}"#)]),
        // It is not all there at once.
        (
            &*format!("GET /v1/audit/tasks/{ID}"),
            vec![
                problem(404, "task_not_found", "Task not found"),
                json(200, &format!(r#"{{"complete":false,"missing":["its result"],"entries":{trail}}}"#)),
                json(200, &format!(r#"{{"complete":true,"missing":[],"entries":{trail}}}"#)),
            ],
        ),
        (
            &*format!("GET /v1/tasks/{ID}/events?limit=1000"),
            vec![json(200, r#"{"items":[]}"#), json(200, &format!(r#"{{"items":{trail}}}"#))],
        ),
    ])
    .await;
    let components =
        r#"[{"name":"pubsub","type":"pubsub.kafka","version":"v1"},{"name":"statestore","type":"state.redis","version":"v1"}]"#;
    let sidecar = Fake::start([
        ("GET /v1.0/healthz/outbound", vec![json(204, "")]),
        ("GET /v1.0/metadata", vec![json(200, &format!(r#"{{"id":"fte-local","runtimeVersion":"1.18.3","components":{components}}}"#))]),
    ])
    .await;
    let ran = fte(&api.url, &["doctor", "--probe", "--json", "--sidecar-url", &sidecar.url]).await;
    let findings = &ran.json()["items"];
    let healths: Vec<_> =
        findings.as_array().unwrap().iter().map(|it| (it["check"].as_str().unwrap(), it["health"].as_str().unwrap())).collect();
    let checks = ["instance", "ready", "sidecar", "pubsub", "statestore", "probe task", "probe trail"];
    assert_eq!(healths, checks.map(|check| (check, "ok")), "{ran:?}");
    assert_eq!(ran.code, 0);

    assert!(findings[2]["found"].as_str().unwrap().starts_with(&sidecar.url), "{findings}");
    let posted = api.asked().into_iter().find(|asked| asked.route == "POST /v1/tasks").unwrap();
    let posted: serde_json::Value = serde_json::from_str(&posted.body).unwrap();
    assert!(posted["agent"].is_null(), "the instance's default agent does the probe's task");

    let ran = fte(&api.url, &["doctor", "--sidecar-url", "http://127.0.0.1:1"]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.out.contains("BAD      ready") && ran.out.contains("BAD      sidecar") && ran.out.contains("→"), "{}", ran.out);
    assert!(ran.out.contains("warning  agents") && ran.out.contains("not looked at"), "{}", ran.out);
    assert_eq!(ran.out.matches("http://127.0.0.1:1 ").count(), 1, "an address is named once: {}", ran.out);
    assert!(ran.out.contains("Connection refused") && !ran.out.contains("tcp connect error"), "{}", ran.out);
    assert!(ran.err.contains("2 of 4 checks failed"), "{}", ran.err);
}

#[tokio::test]
async fn doctor_does_not_take_any_server_for_an_instance() {
    let fake = Fake::start([]).await;
    let ran = fte(&fake.url, &["doctor", "--json", "--sidecar-url", "http://127.0.0.1:1"]).await;
    let findings = &ran.json()["items"];
    assert_eq!((&findings[0]["check"], &findings[0]["health"]), (&"instance".into(), &"warning".into()), "{findings}");
}

#[tokio::test]
async fn doctor_says_of_a_probe_whose_agent_waits_to_name_another_and_cancels_it() {
    let cancel = format!("POST /v1/tasks/{ID}/cancel");
    let fake = Fake::start([
        ("GET /health", vec![json(200, "{}")]),
        ("GET /ready", vec![json(200, "{}")]),
        ("GET /v1/agents", vec![json(200, r#"{"items":[]}"#)]),
        ("POST /v1/tasks", vec![json(202, ACCEPTED)]),
        (&*format!("GET /v1/tasks/{ID}/result?wait=30s"), vec![json(202, "{}")]),
        (&*format!("GET /v1/tasks/{ID}"), vec![json(200, r#"{"status":"awaiting_handoff"}"#)]),
        (&*cancel, vec![json(202, "{}")]),
    ])
    .await;
    let ran = fte(&fake.url, &["doctor", "--probe", "--sidecar-url", "http://127.0.0.1:1"]).await;
    assert!(
        ran.out.contains("BAD      probe task") && ran.out.contains("--probe-agent") && !ran.out.contains("probe trail"),
        "{}",
        ran.out
    );
    assert!(fake.asked().iter().any(|asked| asked.route == cancel), "{:?}", fake.asked());
}

#[tokio::test]
async fn doctor_names_who_was_not_given_the_probe_though_the_audit_log_does_not_answer() {
    let fake = Fake::start([
        ("GET /health", vec![json(200, "{}")]),
        ("GET /ready", vec![json(200, "{}")]),
        ("GET /v1/agents", vec![json(200, r#"{"items":[]}"#)]),
        ("POST /v1/tasks", vec![json(202, ACCEPTED)]),
        (&*format!("GET /v1/tasks/{ID}/result?wait=30s"), vec![json(200, r#"{"status":"completed"}"#)]),
        (&*format!("GET /v1/audit/tasks/{ID}"), vec![problem(500, "internal", "It broke")]),
        (&*format!("GET /v1/tasks/{ID}/events?limit=1000"), vec![json(200, r#"{"items":[{"type":"fte.task.requested"}]}"#)]),
    ])
    .await;
    let ran = fte(&fake.url, &["doctor", "--probe", "--sidecar-url", "http://127.0.0.1:1"]).await;
    assert!(ran.out.contains("BAD      probe trail") && ran.out.contains("It broke"), "{}", ran.out);
    assert!(ran.out.contains("BAD      runner") && !ran.out.contains("BAD      audit"), "{}", ran.out);
}

#[tokio::test]
async fn completions_come_for_every_shell_without_an_instance() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef fte"), ("fish", "complete -c fte")] {
        let ran = fte("", &["completions", shell]).await;
        assert!(ran.code == 0 && ran.out.contains(word) && ran.out.contains("dead-letters") && ran.err.is_empty(), "{shell}: {}", ran.err);
    }
    assert_eq!(fte("", &["completions", "abacus"]).await.code, 2);
}

#[tokio::test]
async fn artifacts_are_listed_and_one_that_is_not_what_it_should_be_is_not_saved() {
    // The SHA-256 of `abc`.
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let item =
        |name: &str, size: u32| format!(r#"{{"name":"{name}","content_type":"text/plain","size_bytes":{size},"sha256":"{sha256}"}}"#);
    let list = format!(r#"{{"items":[{},{}]}}"#, item("a.txt", 3), item("../up", 3));
    let (path, one) = (format!("GET /v1/tasks/{ID}/artifacts"), format!("GET /v1/tasks/{ID}/artifacts/{sha256}"));
    let missing = format!("GET /v1/tasks/{ID}/artifacts/b.txt");
    let fake = Fake::start([
        (path.as_str(), vec![json(200, &list)]),
        (one.as_str(), vec![json(200, "abc"), json(200, "abd"), json(200, "ab"), json(200, "abc")]),
        (missing.as_str(), vec![problem(404, "artifact_not_found", "Artifact not found")]),
    ])
    .await;
    let table = [
        "NAME   BYTES  TYPE        SHA256".to_owned(),
        format!("a.txt  3      text/plain  {sha256}"),
        format!("../up  3      text/plain  {sha256}"),
    ];
    fte(&fake.url, &["artifacts", ID]).await.check(0, &table.join("\n"));
    let none = Fake::start([(path.as_str(), vec![json(200, r#"{"items":[]}"#)])]).await;
    let ran = fte(&none.url, &["artifacts", ID]).await;
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "", "no artifacts\n"));
    fte(&fake.url, &["artifacts", ID, "--json"]).await.check(0, &list);
    let here = fte_testkit::Dir::new();
    let file = here.join("got");
    let to = ["artifacts", ID, "a.txt", "-o", file.to_str().unwrap()];
    assert_eq!(fte(&fake.url, &to).await.code, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "abc");
    let ran = fte(&fake.url, &to).await;
    assert!(ran.code == 2 && ran.err.contains("is there already"), "{}", ran.err);
    for _ in 0..2 {
        let ran = fte(&fake.url, &[&to[..], &["--force"]].concat()).await;
        assert!(ran.code == 1 && ran.err.contains("did not come as it was made"), "{}", ran.err);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "abc", "the one from before");
    }
    fte(&fake.url, &["artifacts", ID, sha256, "-o", "-"]).await.check(0, "abc");
    let ran = fte(&fake.url, &["artifacts", ID, "../up"]).await;
    assert!(ran.code == 2 && ran.err.contains("name one with -o"), "{}", ran.err);
    assert_eq!(fte(&fake.url, &["artifacts", ID, "b.txt"]).await.code, 3);
    assert_eq!(std::fs::read_dir(here.join("")).unwrap().count(), 1);
}
