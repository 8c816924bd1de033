//! Agents that fail: tried again, given up, and started where they were after a crash of the runner.

use fte_testkit::Dir;
use serde_json::{Value, json};

use crate::trail::settled;
use crate::world::{Fte, shown};

/// Agents that are shell scripts beside the file that names them, and keep their own count there: without walls.
async fn with_scripts(scripts: &[(&str, &str, &str)]) -> (Fte, Dir) {
    let dir = Dir::new();
    let mut agents = format!("default = \"{}\"\n", scripts[0].0);
    for (name, kind, script) in scripts {
        let file = dir.write(&format!("{name}.sh"), script.replace("DIR", dir.to_str().unwrap()));
        agents.push_str(&format!("[agents.{name}]\nkind = \"{kind}\"\ncommand = [\"sh\", \"{}\"]\nsandbox = \"none\"\n", file.display()));
    }
    (Fte::with_agents(&agents, &[]).await, dir)
}

/// Counts its starts in a file, and crashes at the first two.
const CRASH_TWICE: &str = r#"
n=$(($(cat DIR/starts 2>/dev/null || echo 0) + 1))
echo $n > DIR/starts
[ $n -gt 2 ] || kill -9 $$
cat > /dev/null
echo "{\"tries\": $n, \"attempt\": $FTE_ATTEMPT}"
"#;
const CRASH_TWICE_PROCESS: &str = r#"
read -r start
n=$(($(cat DIR/process-starts 2>/dev/null || echo 0) + 1))
echo $n > DIR/process-starts
[ $n -gt 2 ] || exit 7
echo "{\"type\":\"result\",\"result\":{\"tries\": $n}}"
"#;
const CRASH_ALWAYS: &str = "kill -9 $$\n";
const REFUSE: &str = "echo no such thing >&2; exit 3\n";

/// Asks, crashes, and does it anyway when it is started again.
const ASK_AND_CRASH: &str = r#"
read -r start
case "$start" in *'"attempt":1'*)
  echo '{"type":"approval","reason":"may I?"}'
  until [ -e DIR/crash ]; do sleep 0.01; done
  exit 7
esac
echo '{"type":"result","result":"did it anyway"}'
"#;

/// Whoever said no while the next try was waiting was told that it counts.
#[tokio::test]
async fn a_no_to_an_agent_that_crashed_meanwhile_is_the_end() {
    let (fte, dir) = with_scripts(&[("asks", "process", ASK_AND_CRASH)]).await;
    let mut counted = 0;
    for _ in 0..5 {
        let task = fte.post(json!({ "task": "try" })).await;
        fte.asking(&task, 1).await;
        dir.write("crash", "");
        fte_testkit::eventually(|| async {
            let shown: Value = fte.api().get(&format!("/v1/tasks/{task}")).await.map_err(|error| error.to_string())?.json();
            if shown["attempt"] == 2 || shown["status"] == "completed" { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
        let answer = fte
            .api()
            .post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": false, "approver": "ada", "reason": "no" }))
            .await
            .unwrap();
        let end = fte.result(&task).await;
        std::fs::remove_file(dir.join("crash")).unwrap();
        match answer.status.as_u16() {
            200 => {
                counted += 1;
                assert_eq!(end["status"], "rejected", "{end}");
            }
            status => assert_eq!((status, &end["status"]), (409, &json!("completed")), "{end}"),
        }
    }
    assert!(counted > 0, "the next try waits before it starts");
}

#[tokio::test]
async fn an_agent_that_crashes_is_tried_three_times_in_all() {
    let (fte, _dir) = with_scripts(&[
        ("twice", "command", CRASH_TWICE),
        ("twice-process", "process", CRASH_TWICE_PROCESS),
        ("always", "command", CRASH_ALWAYS),
        ("refuse", "command", REFUSE),
    ])
    .await;
    let mut tasks = Vec::new();
    for agent in ["twice", "twice-process", "always", "refuse"] {
        tasks.push(fte.post(json!({ "task": "try", "agent": agent })).await);
    }
    let twice = fte.result(&tasks[0]).await;
    assert_eq!((&twice["status"], &twice["attempt"]), (&json!("completed"), &json!(3)), "{twice}");
    assert_eq!(twice["result"], json!({ "tries": 3, "attempt": 3 }));
    let process = fte.result(&tasks[1]).await;
    assert_eq!(
        (&process["status"], &process["attempt"], &process["result"]["tries"]),
        (&json!("completed"), &json!(3), &json!(3)),
        "{process}"
    );
    let always = fte.result(&tasks[2]).await;
    let code = &always["error"]["code"];
    assert_eq!((&always["status"], &always["attempt"], code), (&json!("failed"), &json!(3), &json!("agent_killed")), "{always}");
    let refused = fte.result(&tasks[3]).await;
    assert_eq!((&refused["status"], &refused["attempt"]), (&json!("failed"), &json!(1)), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("no such thing"), "{refused}");

    let told = settled(&fte.doors(), &tasks).await;
    let claims: Vec<usize> = tasks.iter().map(|task| told[task].claimed.len()).collect();
    assert_eq!(claims, [3, 3, 3, 1], "a sandbox for each try");
}

/// The types of the events about sandboxes in a list, in its order.
fn about_sandboxes(events: &[Value]) -> Vec<&str> {
    let types = events.iter().map(|event| event["type"].as_str().unwrap_or_default());
    types.filter_map(|event_type| event_type.strip_prefix("fte.sandbox.")).collect()
}

#[tokio::test]
async fn an_agent_that_does_not_start_is_a_claim_that_failed_once_for_each_try() {
    let dir = Dir::new();
    std::os::unix::fs::symlink(dir.join("loop"), dir.join("loop")).unwrap();
    let agent =
        |name: &str| format!("[agents.{name}]\nkind = \"command\"\ncommand = [\"{}\"]\nsandbox = \"none\"\n", dir.join(name).display());
    // What is not there will not be there at the next try; what cannot be read may heal.
    let fte = Fte::with_agents(&format!("default = \"loop\"\n{}{}", agent("loop"), agent("missing")), &[]).await;
    let mut tasks = Vec::new();
    for name in ["loop", "missing"] {
        tasks.push(fte.post(json!({ "task": "try", "agent": name })).await);
    }
    for (task, tries) in tasks.iter().zip([3, 1]) {
        let end = fte.result(task).await;
        assert_eq!(
            (&end["status"], &end["attempt"], &end["error"]["code"]),
            (&json!("failed"), &json!(tries), &json!("agent_start_failed"))
        );
    }
    let told = settled(&fte.doors(), &tasks).await;
    for (task, tries) in tasks.iter().zip([3, 1]) {
        assert_eq!(told[task].claimed.len(), tries);
        let each = ["claimed", "claim-failed", "released"];
        let expected: Vec<&str> = each.iter().copied().cycle().take(each.len() * tries).collect();
        let shown: Value = fte.api().get(&format!("/v1/tasks/{task}/events?limit=1000")).await.unwrap().expect_status(200).json();
        let shown = shown["items"].as_array().unwrap();
        assert_eq!(about_sandboxes(shown), expected, "{shown:?}");
        let failed = shown.iter().find(|event| event["type"] == "fte.sandbox.claim-failed").unwrap();
        assert_eq!((&failed["data"]["reason"], &failed["data"]["runtime"]), (&json!("failed"), &json!("process")), "{failed}");
        let audit: Value = fte.api().get(&format!("/v1/audit/tasks/{task}")).await.unwrap().expect_status(200).json();
        let events: Vec<Value> = audit["entries"].as_array().unwrap().iter().map(|entry| json!({ "type": entry["type"] })).collect();
        assert_eq!(about_sandboxes(&events), expected, "{audit}");
    }
}

/// Keeps a checkpoint and hangs; started with one, it answers with it.
const CHECKPOINT: &str = r#"
read -r start
case "$start" in
  *'"checkpoint":null'*)
    echo '{"type":"checkpoint","data":{"page":7}}'
    echo '{"type":"stage","name":"kept"}'
    sleep 600 ;;
  *) printf '{"type":"result","result":%s}\n' "$start" ;;
esac
"#;

#[tokio::test]
async fn after_a_crash_of_the_runner_an_agent_gets_its_checkpoint_and_the_same_attempt() {
    let (mut fte, _dir) = with_scripts(&[("pages", "process", CHECKPOINT)]).await;
    let task = fte.post(json!({ "task": "read the book", "context": { "book": "long" } })).await;
    shown(&fte.api(), &task, |task| task["stage"] == "kept").await;
    fte.process.kill().await;
    fte.process.restart().await;
    let done = fte.result(&task).await;
    assert_eq!(done["status"], "completed", "{done}");
    let start = &done["result"];
    assert_eq!((&start["checkpoint"], &start["attempt"]), (&json!({ "page": 7 }), &json!(1)), "{done}");
    assert_eq!((&start["task"], &start["context"]), (&json!("read the book"), &json!({ "book": "long" })));
    let told = settled(&fte.doors(), std::slice::from_ref(&task)).await;
    assert_eq!(told[&task].claimed.len(), 2);
}

/// Says that it is ready, and crashes once a file is there.
#[tokio::test]
async fn an_attempt_that_failed_before_a_crash_of_the_runner_stays_counted() {
    let script = "n=$(($(cat DIR/n 2>/dev/null || echo 0) + 1)); echo $n > DIR/n; [ $n -gt 2 ] && sleep 600; kill -9 $$\n";
    let (mut fte, dir) = with_scripts(&[("counted", "command", script)]).await;
    let task = fte.post(json!({ "task": "try" })).await;
    // The third start hangs, so two attempts have failed.
    let third = || async { if std::fs::read_to_string(dir.join("n")).is_ok_and(|n| n.trim() == "3") { Ok(()) } else { Err("not yet") } };
    fte_testkit::eventually(third).await;
    fte.process.kill().await;
    dir.write("n", "-10");
    fte.process.restart().await;
    let ended = fte.result(&task).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("failed"), &json!(3)), "{ended}");
    let starts: i64 = std::fs::read_to_string(dir.join("n")).unwrap().trim().parse().unwrap();
    assert_eq!(starts, -9, "one more start of the third attempt, and no fourth");
    settled(&fte.doors(), std::slice::from_ref(&task)).await;
}
