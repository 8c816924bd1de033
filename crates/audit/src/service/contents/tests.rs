//! Contents go when they have had their time, and not before; the log stays what it was.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use fte_bus::Record;
use fte_events::TaskId;
use fte_service::{AuditTrail, Bus, MapEnv, Settings};
use fte_testkit::{FakeSidecar, eventually};
use fte_tlog::Policy;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::engine::tests::test_key;
use crate::engine::{Engine, EngineOptions, Sealing};
use crate::entry::NewEntry;
use crate::notes::LogNotes;
use crate::service::desk::tests::seen_through;
use crate::subjects::holds::{Covers, Hold};
use crate::subjects::{Clock, EraseError, Step, Subject, SubjectsOptions};
use crate::verify::{self, Directory, Source, verify};

/// 10:00:00 UTC on the first of July 2026.
const START: i64 = 1_782_900_000_000;
const KEPT: i64 = 30 * DAY_MS;

/// An installation whose clock is ours.
struct World {
    directory: tempfile::TempDir,
    sidecar: FakeSidecar,
    now: Arc<AtomicI64>,
    /// How far the wall clock is ahead of that.
    ahead: Arc<AtomicI64>,
}

impl World {
    async fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            sidecar: FakeSidecar::start().await,
            now: Arc::new(AtomicI64::new(START)),
            ahead: Arc::default(),
        }
    }

    fn set(&self, now_ms: i64) {
        self.now.store(now_ms, Ordering::Relaxed);
    }

    /// A new process on the same directory.
    fn open(&self) -> Contents {
        let (now, ahead) = (Arc::clone(&self.now), Arc::clone(&self.ahead));
        let clock: Clock = Arc::new(move || now.load(Ordering::Relaxed) + ahead.load(Ordering::Relaxed));
        let at = self.directory.path();
        let places = SubjectsOptions { clock: Arc::clone(&clock), ..SubjectsOptions::at(at.join("keys")) };
        let subjects = Arc::new(Subjects::open(places).unwrap());
        let sealing: Arc<dyn Sealing> = Arc::clone(&subjects) as _;
        let options =
            EngineOptions { sealing, clock: Arc::clone(&clock), close_after: Duration::ZERO, ..EngineOptions::at(at, test_key()) };
        let log: Arc<dyn Log> = Arc::new(Engine::open(options).unwrap());
        let settings = Settings::from_env(&MapEnv::of([("FTE_SIDECAR_URL", &self.sidecar.url())]), crate::config::PORTS).unwrap();
        let bus = Bus::connect(&settings, crate::NAME).unwrap();
        let trail = AuditTrail::new(bus.publisher.clone(), crate::NAME);
        let desk = Desk::new(Arc::clone(&subjects), Arc::new(LogNotes(Arc::clone(&log))), bus.publisher, trail);
        let now = Arc::clone(&self.now);
        let monotonic = move || Duration::from_millis((now.load(Ordering::Relaxed) - START).unsigned_abs());
        Contents { log, subjects, desk, kept_ms: KEPT, clock: SteadyClock::of("test", move || clock(), monotonic) }
    }
}

fn event(task: TaskId, id: &str, event_type: &str, topic: &str, data: Value) -> NewEntry {
    let mut data = data;
    data["said"] = format!("what {id} says").into();
    let body =
        json!({"id": id, "source": "/fte/runner", "type": event_type, "subject": task, "time": "2026-07-01T10:00:00Z", "data": data});
    NewEntry::read(Record { topic: topic.into(), body: body.to_string().into(), partition: None, offset: None, key: None })
}

fn request(task: TaskId, id: &str, requester: &str) -> NewEntry {
    event(task, id, "fte.task.requested", "fte.triggers.inbound", json!({"requester": {"type": "user", "id": requester}}))
}

fn result(task: TaskId, id: &str) -> NewEntry {
    event(task, id, "fte.result.completed", "fte.results.completed", json!({}))
}

impl Contents {
    /// A task is asked for, ends, and is closed.
    async fn task(&self, requester: &str) -> TaskId {
        let task = TaskId::now();
        self.log.append(vec![request(task, &format!("{task}-q"), requester), result(task, &format!("{task}-r"))]).await.unwrap();
        self.closed(task, 1).await;
        task
    }

    async fn of(&self, task: TaskId) -> Vec<Entry> {
        let query = Query { task: Some(Task::Id(*task.as_uuid())), limit: 100, ..Query::default() };
        self.log.entries(query).await.unwrap().entries
    }

    async fn closed(&self, task: TaskId, times: usize) {
        eventually(|| async {
            let count = self.of(task).await.iter().filter(|entry| entry.header.kind == Kind::TaskClosed).count();
            if count == times { Ok(()) } else { Err(count) }
        })
        .await;
    }

    /// Whether what events of a task say can be read: of all of them, or of none.
    async fn is_readable(&self, task: TaskId) -> bool {
        let entries = self.of(task).await;
        let readable: Vec<bool> =
            entries.iter().filter(|entry| entry.header.kind == Kind::Event).map(|entry| entry.bytes.is_some()).collect();
        assert!(!readable.is_empty() && readable.iter().all(|one| *one == readable[0]), "{readable:?}");
        readable[0]
    }

    async fn destroyed(&self) -> Vec<Value> {
        let query = Query { action: Some(Kind::KeyDestroyed.as_str().to_owned()), limit: 100, ..Query::default() };
        let entries = self.log.entries(query).await.unwrap().entries;
        entries.iter().map(|entry| serde_json::from_slice::<Value>(entry.bytes.as_deref().unwrap()).unwrap()["data"].clone()).collect()
    }
}

/// The log verifies, the index too, and says of a task what it said.
fn check(at: &Path) {
    let source = Directory::new(at.join("2026/log"));
    let options = verify::Options {
        is_whole: true,
        index: Some(at.join("index.sqlite")),
        ..verify::Options::new(Policy::of_logs([test_key().verifier()]))
    };
    let reports = verify(&[&source as &dyn Source], &options, &mut |_| {}).unwrap();
    assert_eq!(reports[0].findings, [], "{}", reports[0]);
}

#[tokio::test]
async fn a_clock_that_is_a_year_ahead_for_a_moment_destroys_nothing() {
    let world = World::new().await;
    let contents = world.open();
    let task = contents.task("ada").await;
    let nobodys = Record { topic: "fte.test".into(), body: "no event".into(), partition: None, offset: None, key: None };
    contents.log.append(vec![NewEntry::read(nobodys)]).await.unwrap();
    world.set(START + DAY_MS);
    world.ahead.store(365 * DAY_MS, Ordering::Relaxed);
    assert_eq!(contents.expire().await.unwrap(), 0);
    world.ahead.store(0, Ordering::Relaxed);
    assert_eq!(contents.expire().await.unwrap(), 0);
    assert!(contents.is_readable(task).await);

    // A clock that was put right stays where it is, and is believed a day later.
    world.ahead.store(365 * DAY_MS, Ordering::Relaxed);
    assert_eq!(contents.expire().await.unwrap(), 0);
    world.set(START + 2 * DAY_MS);
    assert_eq!(contents.expire().await.unwrap(), 2);
    assert!(!contents.is_readable(task).await);
}

#[tokio::test]
async fn what_a_task_says_is_read_for_so_many_days_after_it_was_closed_and_what_it_was_for_ever() {
    let world = World::new().await;
    let contents = world.open();
    let old = contents.task("ada").await;
    let open = TaskId::now();
    contents.log.append(vec![request(open, "open", "ada")]).await.unwrap();
    let nobodys = Record { topic: "fte.test".into(), body: "no event".into(), partition: None, offset: None, key: None };
    contents.log.append(vec![NewEntry::read(nobodys)]).await.unwrap();
    world.set(START + DAY_MS);
    let young = contents.task("ada").await;
    world.set(START + KEPT - 1);
    assert_eq!(contents.expire().await.unwrap(), 0);
    let before: Vec<_> = contents.of(old).await.into_iter().map(|entry| (entry.position, entry.header)).collect();

    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 2, "the task's key and that of what is no event");
    assert_eq!(contents.expire().await.unwrap(), 0);
    assert!(!contents.is_readable(old).await && contents.is_readable(open).await && contents.is_readable(young).await);
    let after: Vec<_> = contents.of(old).await.into_iter().map(|entry| (entry.position, entry.header)).collect();
    assert_eq!(before, after);
    let history = crate::history::of(&*contents.log, Task::Id(*old.as_uuid()), None, None, 100).await.unwrap().unwrap();
    assert_eq!(history.missing, [""; 0], "what the log said when it closed it");
    // It is on record without a name, and nobody is told to forget anything.
    let destroyed = contents.destroyed().await;
    let count = |field: &str| destroyed.iter().map(|data| data[field].as_u64().unwrap()).sum::<u64>();
    assert!(destroyed.iter().all(|data| data["reason"] == "retention"), "{destroyed:?}");
    assert_eq!((destroyed.len(), count("keys"), count("tasks")), (2, 2, 1));
    assert_eq!(world.sidecar.published().len(), 0);

    // After a start as before it; what comes late of it cannot be read either, and the young one has its time a day later.
    drop(contents);
    let contents = world.open();
    contents
        .log
        .append(vec![event(old, "late", "fte.status.changed", "fte.status.updates", json!({"sequence": 1, "status": "completed"}))])
        .await
        .unwrap();
    contents.closed(old, 2).await;
    assert!(!contents.is_readable(old).await && contents.is_readable(young).await);
    world.set(START + DAY_MS + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 1);
    assert!(!contents.is_readable(young).await && contents.is_readable(open).await);
    drop(contents);
    check(world.directory.path());
}

#[tokio::test]
async fn a_task_that_was_closed_again_counts_from_then() {
    let world = World::new().await;
    let contents = world.open();
    let task = contents.task("ada").await;
    world.set(START + 10 * DAY_MS);
    contents
        .log
        .append(vec![event(task, "late", "fte.status.changed", "fte.status.updates", json!({"sequence": 1, "status": "completed"}))])
        .await
        .unwrap();
    contents.closed(task, 2).await;
    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 0);
    world.set(START + 10 * DAY_MS + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 1);
    assert!(!contents.is_readable(task).await);
}

#[tokio::test]
async fn what_is_held_stays_until_the_hold_is_lifted() {
    let world = World::new().await;
    let contents = world.open();
    let (ada, bob) = (contents.task("ada").await, contents.task("bob").await);
    let one = contents.task("eve").await;
    let place = |covers| {
        let hold = Hold { id: Uuid::now_v7(), covers, reason: String::new(), placed_by: "root".into(), placed_ms: START };
        contents.subjects.place_hold(&hold).unwrap();
        hold.id
    };
    let holds =
        [place(Covers::Subject { tenant: "default".into(), subject: "user:ada".into() }), place(Covers::Task { task_id: *one.as_uuid() })];
    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 1);
    assert!(contents.is_readable(ada).await && !contents.is_readable(bob).await && contents.is_readable(one).await);
    for covers in [Covers::Tenant { tenant: "default".into() }, Covers::Range { from_ms: START, to_ms: START + 1 }] {
        let wide = place(covers);
        for hold in holds {
            contents.subjects.lift_hold(hold).unwrap();
        }
        assert_eq!(contents.expire().await.unwrap(), 0);
        assert!(contents.subjects.lift_hold(wide).unwrap());
    }
    assert_eq!(contents.expire().await.unwrap(), 2);
    assert!(!contents.is_readable(ada).await && !contents.is_readable(one).await);
}

#[tokio::test]
async fn contents_that_have_had_their_time_can_still_be_erased_and_take_nothing_along_before_that() {
    let world = World::new().await;
    let contents = world.open();
    let parent = contents.task("ada").await;
    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 1);
    // A hand-off that arrives late is no part of what had its time.
    let child = TaskId::now();
    let handoff = event(child, "h", "fte.handoff.requested", "fte.handoffs.writer", json!({"parent_task_id": parent}));
    contents.log.append(vec![handoff]).await.unwrap();
    assert!(contents.is_readable(child).await);
    contents.desk.see_through().await.unwrap();
    assert_eq!(world.sidecar.published().len(), 0);
    // Whoever asks to be forgotten is, everywhere: the others hold what the log cannot read any more.
    let erased = contents.desk.erase(Subject::parse("default", "user:ada").unwrap(), "root").await.unwrap();
    let erased = seen_through(&contents.desk, erased).await;
    assert_eq!((erased.step, erased.tasks), (Step::Told, 2));
    assert!(!contents.is_readable(child).await);
    let told =
        eventually(|| async { world.sidecar.published().into_iter().find(|event| event.topic == "fte.triggers.inbound").ok_or("nothing") })
            .await;
    let tasks = told.json()["data"]["tasks"].to_string();
    assert!(tasks.contains(&parent.to_string()) && tasks.contains(&child.to_string()), "{tasks}");
    assert_eq!(contents.desk.erase(Subject::parse("default", &format!("task:{parent}")).unwrap(), "root").await.unwrap().id, erased.id);
}

#[tokio::test]
async fn a_hold_whose_row_was_taken_away_holds_everything_until_somebody_lifts_it() {
    let world = World::new().await;
    let contents = world.open();
    let (task, other) = (contents.task("ada").await, contents.task("bob").await);
    let covers = Covers::Task { task_id: *task.as_uuid() };
    let [kept, lifted] = [Uuid::now_v7(), Uuid::now_v7()].map(|id| Hold {
        id,
        covers: covers.clone(),
        reason: "a case".into(),
        placed_by: "root".into(),
        placed_ms: START,
    });
    contents.desk.place(kept.clone()).await.unwrap();
    contents.desk.place(lifted.clone()).await.unwrap();
    assert!(contents.desk.lift(lifted.id, "root").await.unwrap());
    contents.desk.see_through().await.unwrap();
    // As it is, a start changes nothing.
    contents.desk.recall_holds(&*contents.log).await.unwrap();
    assert_eq!(contents.desk.holds().await.unwrap(), std::slice::from_ref(&kept));

    let keys = rusqlite::Connection::open(world.directory.path().join("keys/subjects.sqlite")).unwrap();
    assert_eq!(keys.execute("DELETE FROM hold", []).unwrap(), 2);
    contents.desk.recall_holds(&*contents.log).await.unwrap();
    let holds = contents.desk.holds().await.unwrap();
    assert!(holds.len() == 1 && holds[0].id == kept.id && holds[0].covers.to_string() != kept.covers.to_string(), "{holds:?}");
    for task in [task, other] {
        let erased = contents.desk.erase(Subject::parse("default", &format!("task:{task}")).unwrap(), "root").await;
        assert!(matches!(erased, Err(EraseError::Held(_))), "{erased:?}");
    }
    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 0);
    // Whoever writes the row can say that it was lifted, and that this is in the log.
    keys.execute("UPDATE hold SET lifted_ms = 1, logged = 2 WHERE id = ?1", [kept.id.as_bytes()]).unwrap();
    assert_eq!(contents.desk.holds().await.unwrap(), []);
    contents.desk.recall_holds(&*contents.log).await.unwrap();
    assert_eq!(contents.desk.holds().await.unwrap(), holds);
    // An older copy of the keys: it has in force what was lifted since. That is not logged anew either.
    contents.subjects.place_hold(&lifted).unwrap();
    assert_eq!(contents.desk.holds().await.unwrap().len(), 2);
    contents.desk.recall_holds(&*contents.log).await.unwrap();
    assert_eq!(contents.desk.holds().await.unwrap().len(), 1);
    // It is in the log already, and not logged anew; its end is.
    assert!(contents.desk.lift(kept.id, "root").await.unwrap());
    contents.desk.see_through().await.unwrap();
    contents.desk.recall_holds(&*contents.log).await.unwrap();
    assert_eq!(contents.desk.holds().await.unwrap(), []);
    let of = async |action: &str| {
        let query = Query { action: Some(action.to_owned()), limit: 100, ..Query::default() };
        contents.log.entries(query).await.unwrap().entries.iter().map(|entry| entry.header.kind).collect::<Vec<_>>()
    };
    assert_eq!((of("hold_placed").await, of("hold_lifted").await), (vec![Kind::HoldPlaced; 2], vec![Kind::HoldLifted; 2]));
    contents.desk.erase(Subject::parse("default", &format!("task:{task}")).unwrap(), "root").await.unwrap();
}

#[tokio::test]
async fn the_search_begins_again_where_a_hold_was_lifted_meanwhile() {
    let world = World::new().await;
    let contents = world.open();
    let task = contents.task("ada").await;
    let upto = contents.of(task).await.pop().unwrap().position;
    contents.subjects.expire_tasks(&[], None, upto).unwrap();
    let covers = Covers::Task { task_id: *task.as_uuid() };
    let hold = Hold { id: Uuid::now_v7(), covers, reason: String::new(), placed_by: "root".into(), placed_ms: START };
    contents.subjects.place_hold(&hold).unwrap();
    assert!(!contents.subjects.lift_hold(Uuid::now_v7()).unwrap());
    assert_eq!(contents.subjects.expired_to().unwrap(), Some(upto));
    // A search that had begun before reports after it.
    assert!(contents.subjects.lift_hold(hold.id).unwrap());
    contents.subjects.expire_tasks(&[], Some(upto), upto).unwrap();
    assert_eq!(contents.subjects.expired_to().unwrap(), None);
    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 1);
    // To lift it again begins nothing again.
    assert!(contents.subjects.lift_hold(hold.id).unwrap() && contents.subjects.expired_to().unwrap().is_some());
}

#[tokio::test]
async fn an_entry_that_cannot_be_opened_keeps_no_other_from_having_its_time() {
    let world = World::new().await;
    let contents = world.open();
    let (lost, task) = (contents.task("ada").await, contents.task("bob").await);
    // A number as that of the task to look for, with a key of a copy that was put back.
    let named = event(lost, "closed-by-somebody", "fte.action.recorded", "fte.status.updates", json!({"action": "task_closed"}));
    contents.log.append(vec![named]).await.unwrap();
    contents.closed(lost, 2).await;
    {
        let keys = contents.subjects.lock();
        let unit = keys.vault.task("default", &Task::Id(*lost.as_uuid()));
        keys.connection.execute("DELETE FROM key WHERE unit = ?1", [unit]).unwrap();
    }
    drop(contents);
    let contents = world.open();
    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 1);
    assert!(!contents.is_readable(task).await);
}

#[tokio::test]
async fn a_task_goes_as_a_whole_whatever_tenant_its_events_named() {
    let world = World::new().await;
    let contents = world.open();
    let task = TaskId::now();
    let mut of_acme = json!({"id": "q", "source": "/fte/runner", "type": "fte.task.requested", "subject": task, "ftetenant": "acme"});
    of_acme["data"] = json!({"said": "what acme says"});
    let record =
        Record { topic: "fte.triggers.inbound".into(), body: of_acme.to_string().into(), partition: None, offset: None, key: None };
    let early = event(task, "s", "fte.status.changed", "fte.status.updates", json!({"sequence": 1, "status": "running"}));
    contents.log.append(vec![early, NewEntry::read(record), result(task, "r")]).await.unwrap();
    contents.closed(task, 1).await;
    world.set(START + KEPT + 1);
    assert_eq!(contents.expire().await.unwrap(), 2);
    assert!(!contents.is_readable(task).await);
}

#[tokio::test]
async fn no_copy_of_a_key_is_left_and_a_cut_repeats_nothing() {
    let world = World::new().await;
    let contents = world.open();
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(contents.task("ada").await);
    }
    let wrapped: Vec<Vec<u8>> = {
        let keys = contents.subjects.lock();
        let mut select = keys.connection.prepare("SELECT wrapped FROM key WHERE unit >= x'74' AND unit < x'75'").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(wrapped.len(), 3);
    world.set(START + KEPT + 1);
    // The first is destroyed and the process dies before anything is on record.
    let first = contents.of(tasks[0]).await.pop().unwrap();
    let due = [("default".to_owned(), Task::Id(*tasks[0].as_uuid()))];
    assert_eq!(contents.subjects.expire_tasks(&due, None, first.position).unwrap(), 1);
    drop(contents);
    let contents = world.open();
    contents.desk.see_through().await.unwrap();
    assert_eq!((contents.destroyed().await.len(), contents.expire().await.unwrap()), (1, 2));
    contents.desk.see_through().await.unwrap();
    contents.desk.see_through().await.unwrap();
    assert_eq!(contents.destroyed().await.iter().map(|data| data["keys"].as_u64().unwrap()).sum::<u64>(), 3);
    drop(contents);
    for file in std::fs::read_dir(world.directory.path().join("keys")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(wrapped.iter().all(|key| !bytes.windows(key.len()).any(|window| window == key)));
    }
}
