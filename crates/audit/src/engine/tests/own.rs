//! What the log itself says: that a task is closed, and that actions are missing.

use super::*;

fn of_task(event_type: &str, id: &str, task: TaskId, data: &Value) -> NewEntry {
    let topic = if event_type == "fte.task.requested" { "fte.triggers.inbound" } else { TOPIC };
    let body = json!({"id": id, "source": "/fte/runner", "type": event_type, "subject": task, "ftetenant": "acme", "data": data});
    record(topic, body.to_string())
}

fn quick(directory: &Path) -> EngineOptions {
    EngineOptions { close_after: Duration::ZERO, gap_grace: Duration::from_millis(1), ..options(directory) }
}

/// Waits until there are so many entries of a kind.
async fn of_kind(log: &Engine, kind: Kind, count: usize) -> Vec<Entry> {
    loop {
        let found: Vec<_> = every(log, Query { action: Some(kind.as_str().to_owned()), ..any() }).await;
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn payload(entry: &Entry) -> Value {
    serde_json::from_slice(entry.bytes.as_deref().unwrap()).unwrap()
}

#[tokio::test]
async fn a_task_that_ended_is_closed_and_closed_again_after_a_late_event() {
    let directory = tempfile::tempdir().unwrap();
    let log = Engine::open(quick(directory.path())).unwrap();
    let task = TaskId::now();
    let life = [
        of_task("fte.task.requested", "t", task, &json!({})),
        of_task("fte.sandbox.claimed", "c", task, &json!({"claim_id": "c"})),
        of_task("fte.status.changed", "s1", task, &json!({"sequence": 1, "status": "running"})),
        of_task("fte.status.changed", "s3", task, &json!({"sequence": 3, "status": "completed"})),
        of_task("fte.result.completed", "r", task, &json!({})),
    ];
    log.append(life.to_vec()).await.unwrap();
    let closed = of_kind(&log, Kind::TaskClosed, 1).await;
    assert_eq!(
        payload(&closed[0]),
        json!({"entries": 5, "complete": false, "missing": ["sandboxes: 1 claimed, 0 given back", "status changes 2 to 2"]})
    );
    assert_eq!((closed[0].header.task_seq, closed[0].tenant()), (Some(5), "acme"));
    let late = [
        of_task("fte.sandbox.released", "e", task, &json!({"claim_id": "c"})),
        of_task("fte.status.changed", "s2", task, &json!({"sequence": 2, "status": "running"})),
    ];
    log.append(late.to_vec()).await.unwrap();
    let closed = of_kind(&log, Kind::TaskClosed, 2).await;
    assert_eq!(payload(&closed[1]), json!({"entries": 8, "complete": true, "missing": []}));
    // A repeat is no event.
    log.append(life.to_vec()).await.unwrap();
    let entries = every(&log, Query { task: Some(Task::Id(*task.as_uuid())), ..any() }).await;
    let numbers: Vec<_> = entries.iter().map(|entry| entry.header.task_seq.unwrap()).collect();
    assert_eq!(numbers, (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn p05_a_missing_action_is_recorded_after_a_while_and_so_is_its_arrival() {
    let directory = tempfile::tempdir().unwrap();
    let log = Engine::open(quick(directory.path())).unwrap();
    let action = |sequence: u64| {
        let body = json!({"id": sequence.to_string(), "source": "/fte/intake", "type": "fte.action.recorded",
            "sequence": format!("{sequence:020}"), "fteepoch": "e"});
        record("fte.audit.actions", body.to_string())
    };
    log.append(vec![action(1), action(5)]).await.unwrap();
    let gaps = of_kind(&log, Kind::Gap, 1).await;
    assert_eq!(payload(&gaps[0]), json!({"source": "/fte/intake", "epoch": "e", "first": 2, "last": 4}));
    let open = log.gaps().await.unwrap();
    assert_eq!((open.missing, open.open[0].entry), (3, Some(gaps[0].position)));
    log.append(vec![action(3)]).await.unwrap();
    let filled = of_kind(&log, Kind::GapFilled, 1).await;
    assert_eq!(payload(&filled[0]), json!({"source": "/fte/intake", "epoch": "e", "number": 3}));
    let now = log.gaps().await.unwrap();
    assert_eq!((now.missing, now.open.len(), now.filled[0].first), (2, 2, 3));
    drop(log);
}
