//! What the log itself says: that a task is closed, and that actions are missing.

use std::fs;

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

#[tokio::test]
async fn an_event_with_an_id_of_the_log_s_own_is_an_event_and_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = Engine::open(quick(directory.path())).unwrap();
    let task = TaskId::now();
    // Anybody may give an event such a name; which of them the log would use next is no secret.
    let forged = |id: String| event(&json!({"id": id, "source": "/fte/audit", "type": "made.up", "data": {}}));
    let ids = (0..20).map(|count| format!("task-closed/{task}/{count}")).chain([format!("shard-open/{}", 2027)]);
    log.append(ids.map(forged).collect()).await.unwrap();
    log.append(vec![of_task("fte.task.requested", "t", task, &json!({})), of_task("fte.result.completed", "r", task, &json!({}))])
        .await
        .unwrap();
    assert_eq!(of_kind(&log, Kind::TaskClosed, 1).await.len(), 1);
    assert!(matches!(log.append(vec![event(&json!({"id": "next", "source": "/s"}))]).await.unwrap()[..], [Appended::New(_)]));
    assert!(log.ready().is_ok());
}

#[tokio::test]
async fn many_contradictions_of_one_identity_are_numbered_and_only_the_newest_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let content = |n: usize| event(&json!({"id": "1", "source": "/s", "type": "t", "data": n}));
    for batch in (0..100).collect::<Vec<_>>().chunks(7) {
        log.append(batch.iter().map(|n| content(*n)).collect()).await.unwrap();
    }
    let conflicts = every(&log, any()).await.iter().filter(|entry| entry.header.kind == Kind::Conflict).count();
    assert_eq!(conflicts, 99);
    // The first and the newest are known again; one long gone is logged once more.
    assert!(matches!(
        log.append(vec![content(0), content(99), content(90)]).await.unwrap()[..],
        [Appended::Known, Appended::Known, Appended::Known]
    ));
    assert!(matches!(log.append(vec![content(5)]).await.unwrap()[..], [Appended::Conflict(_)]));
}

#[test]
fn what_waits_is_closed_and_told_also_while_the_clock_is_behind_the_log() {
    const YEAR: i64 = 365 * 24 * 3_600_000;
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("audit")).unwrap();
    let options = options(directory.path());
    let mut core = Core::open(options.means(&Arc::default())).unwrap();
    let append = |core: &mut Core, now_ms, entries: &[NewEntry]| core.append(&[entries.to_vec()], now_ms).unwrap().1.new;
    let count = |new: [u64; Kind::ALL.len()], kind| new[kind as usize];
    let life = |task| {
        [
            of_task("fte.task.requested", &format!("t{task}"), task, &json!({})),
            of_task("fte.result.completed", &format!("r{task}"), task, &json!({})),
        ]
    };
    let action = |sequence: u64| {
        let body = json!({"id": sequence.to_string(), "source": "/fte/intake", "type": "fte.action.recorded", "sequence": format!("{sequence:020}"), "fteepoch": "e"});
        record("fte.audit.actions", body.to_string())
    };
    // A clock that is five years ahead, and is put right.
    append(&mut core, JULY_2026 + 5 * YEAR, &[action(1)]);
    let now = JULY_2026;
    let new = append(&mut core, now, &[&life(TaskId::now())[..], &[action(4)]].concat());
    assert_eq!((count(new, Kind::TaskClosed), count(new, Kind::Gap)), (0, 0));
    // Due by the clock on the wall: the task after 10 s, the gap after 60.
    assert_eq!(core.due_ms().unwrap(), Some(now + 10_000));
    assert_eq!(core.tick(now + 9_999).unwrap().new, [0; Kind::ALL.len()]);
    let new = core.tick(now + 10_000).unwrap().new;
    assert_eq!((count(new, Kind::TaskClosed), count(new, Kind::Gap)), (1, 0));
    assert_eq!(core.due_ms().unwrap(), Some(now + 60_000));
    let new = core.tick(now + 60_000).unwrap().new;
    assert_eq!((count(new, Kind::TaskClosed), count(new, Kind::Gap)), (0, 1));
    assert_eq!(core.due_ms().unwrap(), None);
    // More than one group of the log's own takes are closed one after the other.
    let many: Vec<_> = (0..700).flat_map(|_| life(TaskId::now())).collect();
    let mut closed = vec![count(append(&mut core, now + 70_000, &many), Kind::TaskClosed)];
    while let Some(due) = core.due_ms().unwrap() {
        closed.push(count(core.tick(due).unwrap().new, Kind::TaskClosed));
    }
    assert!(closed.iter().sum::<u64>() == 700 && closed.len() == 2, "{closed:?}");
    // It goes back once more, and then has caught up: as ever.
    append(&mut core, now - YEAR, &life(TaskId::now()));
    assert_eq!(core.due_ms().unwrap(), Some(now - YEAR + 10_000));
    let now = JULY_2026 + 6 * YEAR;
    append(&mut core, now, &life(TaskId::now()));
    core.tick(now + 1).unwrap();
    assert_eq!(core.due_ms().unwrap(), Some(now + 10_000));
}

#[test]
fn a_clock_that_is_behind_the_log_is_measured() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shared = Shared::default();
    ::metrics::with_local_recorder(&recorder, || {
        shared.set_clock_behind(7_200_999);
        assert!(recorder.handle().render().contains("fte_audit_clock_behind_sec 7200"));
        shared.set_clock_behind(-5);
        assert!(recorder.handle().render().contains("fte_audit_clock_behind_sec 0"));
    });
}
