//! P14: nothing is retired early, holds win, the year that is written stays, and what is left verifies, starts and is found as before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fte_bus::Record;
use fte_events::TaskId;
use fte_tlog::{Policy, TilePath};
use serde_json::Value;

use super::*;
use crate::engine::{Engine, reindex};
use crate::entry::Position;
use crate::history;
use crate::log::{Appended, Log, Query};
use crate::subjects::Subject;
use crate::subjects::erasing::What;
use crate::verify::{self, Directory, Report, Source, verify};

/// 10:00:00 UTC on the first of July 2026.
const JULY_2026: i64 = 1_782_900_000_000;
const YEAR: i64 = 366 * 24 * 3600 * 1000;

/// An installation whose clock is ours.
struct World {
    data: tempfile::TempDir,
    now: Arc<AtomicI64>,
}

fn task(number: u128) -> TaskId {
    TaskId::mint(Timestamp::from_millisecond(JULY_2026).unwrap(), number)
}

/// An event of a task that somebody asked for.
fn event(id: &str, task: TaskId, requester: &str, tenant: &str) -> NewEntry {
    let body = json!({"id": id, "source": "/fte/intake", "type": "fte.task.requested", "subject": task, "ftetenant": tenant,
        "data": {"task_id": task, "requester": {"type": "user", "id": requester}, "goal": format!("goal of {id}")}});
    record("fte.triggers.inbound", &body)
}

/// A number of a publisher's counter.
fn action(epoch: &str, number: u64) -> NewEntry {
    let body = json!({"id": format!("{epoch}-{number}"), "source": "/fte/intake", "type": "fte.action.recorded",
        "sequence": number.to_string(), "fteepoch": epoch});
    record("fte.audit.actions", &body)
}

fn record(topic: &str, body: &Value) -> NewEntry {
    NewEntry::read(Record { topic: topic.into(), body: body.to_string().into(), partition: None, offset: None, key: None })
}

impl World {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), now: Arc::new(AtomicI64::new(JULY_2026)) }
    }

    /// 2026, 2027 and 2028 with an event each, of a task of its own, and one task through all of them.
    async fn of_three_years() -> Self {
        let this = Self::new();
        for year in 0..3 {
            this.live(JULY_2026 + year * YEAR, async |log| {
                let own = event(&format!("own-{year}"), task(10 + u128::try_from(year).unwrap()), "ada", "default");
                let mut entries = vec![own, event(&format!("long-{year}"), task(1), "bob", "default")];
                entries.extend((1..4).map(|number| action("e", u64::try_from(year).unwrap() * 3 + number)));
                log.append(entries).await.unwrap();
            })
            .await;
        }
        this
    }

    fn at(&self) -> std::path::PathBuf {
        self.data.path().join("audit")
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Arc::new(move || now.load(Ordering::Relaxed))
    }

    fn set(&self, now_ms: i64) {
        self.now.store(now_ms, Ordering::Relaxed);
    }

    fn options(&self) -> Options {
        Options { clock: self.clock(), ..Options::at(self.at(), "ada") }
    }

    fn asked(&self, shard: u16) -> Options {
        Options { shard: Some(shard), ..self.options() }
    }

    fn subjects(&self) -> Subjects {
        let clock = self.clock();
        Subjects::open(SubjectsOptions { clock, ..SubjectsOptions::at(self.at().join("keys")) }).unwrap()
    }

    /// The service runs for a while.
    async fn live(&self, now_ms: i64, work: impl AsyncFnOnce(&dyn Log)) {
        self.set(now_ms);
        std::fs::create_dir_all(self.at().join("keys")).unwrap();
        let place = KeyPlace::File(self.at().join("keys").join(signing::KEY));
        let Given { present, next, former } = rotation::given(&place, None, Some("log.test"), &self.at()).unwrap();
        let sealing: Arc<dyn Sealing> = Arc::new(self.subjects());
        let (group_open, clock) = (Duration::ZERO, self.clock());
        let options = EngineOptions { next_key: next.map(Arc::new), former, ..EngineOptions::at(self.at(), Arc::new(present)) };
        let log = Engine::open(EngineOptions { sealing, group_open, clock, ..options }).unwrap();
        work(&log).await;
    }

    fn reports(&self) -> Vec<Report> {
        let mut years: Vec<u16> = (2026..2100).filter(|year| self.at().join(year.to_string()).is_dir()).collect();
        years.sort_unstable();
        let sources: Vec<_> = years.iter().map(|year| Directory::new(self.at().join(year.to_string()).join("log"))).collect();
        let sources: Vec<&dyn Source> = sources.iter().map(|source| source as &dyn Source).collect();
        let key = std::fs::read_to_string(self.at().join("keys/log.pub")).unwrap();
        let options = verify::Options {
            is_whole: true,
            index: Some(self.at().join("index.sqlite")),
            ..verify::Options::new(Policy::of_logs([key.trim().parse().unwrap()]))
        };
        verify(&sources, &options, &mut |_| {}).unwrap()
    }

    /// Everything verifies, the index too, and these years are retired.
    fn check(&self, expected: Option<&str>) {
        let reports = self.reports();
        for report in &reports {
            assert_eq!(report.findings, [], "{report}");
            assert_eq!(report.gaps, 0, "{report}");
        }
        assert_eq!(verify::retired(&reports).as_deref(), expected);
        assert!(expected.is_none_or(|years| verify::summary(&reports).ends_with(&format!("first bad entry: none · retired {years}"))));
    }

    /// The files and what is in them, but for what a lock or SQLite leaves beside its file.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, files);
                } else if !path.to_string_lossy().ends_with("-wal") && !path.to_string_lossy().ends_with("-shm") {
                    files.insert(path.to_string_lossy().into_owned(), std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(&self.at(), &mut files);
        files
    }

    fn knows(&self, person: &str) -> bool {
        let subjects = self.subjects();
        let What::Person(person) = Subject::parse("default", person).unwrap().what else { panic!("{person} is no person") };
        let keys = subjects.lock();
        let name = keys.vault.person("default", &person);
        let sql = "SELECT count(*) FROM key WHERE unit = ?1";
        keys.connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).unwrap() == 1
    }

    fn keys(&self) -> i64 {
        self.subjects().lock().connection.query_row("SELECT count(*) FROM key", [], |row| row.get(0)).unwrap()
    }
}

fn due(plan: &Plan) -> Vec<u16> {
    plan.due.iter().map(|due| due.shard).collect()
}

fn refused(options: &Options) -> String {
    let text = fte_service::chain(&retire(options).unwrap_err()).to_string();
    assert_eq!(text, fte_service::chain(&plan(options).unwrap_err()).to_string());
    text
}

#[tokio::test]
async fn p14_nothing_is_retired_early_nor_the_year_that_is_written() {
    let world = World::of_three_years().await;
    let before = world.files();
    let end = JULY_2026 + KEPT_MS;
    world.set(end - 1);
    assert_eq!(due(&plan(&world.options()).unwrap()), [] as [u16; 0]);
    assert!(refused(&world.asked(2026)).contains("2026-07-01T10:00:00.000Z, and it has its time at 2033-07-01T10:00:00.000Z"));
    world.set(JULY_2026 + 100 * YEAR);
    assert!(refused(&world.asked(2028)).contains("the one that is written"));
    assert!(refused(&world.asked(2027)).contains("shard 2026 is older and still there"));
    assert!(refused(&world.asked(2025)).contains("no shard 2025"));
    assert_eq!(due(&plan(&world.options()).unwrap()), [2026, 2027]);
    // Neither did any of this change anything, nor does a dry run where something is due.
    world.set(end);
    assert_eq!(due(&plan(&world.options()).unwrap()), [2026]);
    assert_eq!(world.files(), before);

    let done = retire(&world.options()).unwrap();
    assert_eq!((due(&done), done.kept.map(|(shard, _)| shard)), (vec![2026], Some(2027)));
    world.check(Some("2026"));
    world.set(JULY_2026 + YEAR + KEPT_MS - 1);
    assert!(refused(&world.asked(2027)).contains("has its time at"));
    // What is retired already is nothing to do.
    assert_eq!(due(&retire(&world.asked(2026)).unwrap()), [] as [u16; 0]);
    world.set(JULY_2026 + YEAR + KEPT_MS);
    assert_eq!(due(&retire(&world.asked(2027)).unwrap()), [2027]);
    world.check(Some("2026–2027"));
}

#[tokio::test]
async fn p14_what_is_left_starts_verifies_and_is_found_and_a_replay_is_news() {
    let world = World::of_three_years().await;
    world.set(JULY_2026 + KEPT_MS);
    let final_note = std::fs::read_to_string(world.at().join("2026/log/checkpoint")).unwrap();
    retire(&world.options()).unwrap();
    let left: Vec<_> = world.files().into_keys().filter(|path| path.contains("/2026/")).collect();
    assert!(left.len() == 2 && left[0].ends_with("2026/log/checkpoint") && left[1].ends_with("2026/retired"), "{left:?}");
    assert_eq!(std::fs::read_to_string(world.at().join("2026/log/checkpoint")).unwrap(), final_note);
    assert!(!world.at().join("2026/log/tile").exists() && !world.at().join("2026/blobs").exists());
    world
        .live(JULY_2026 + KEPT_MS + 1, async |log| {
            let found = log.entries(Query { limit: 1000, ..Query::default() }).await.unwrap();
            assert_eq!((found.entries[0].position, found.actions_missing), (Position { shard: 2027, index: 0 }, 0));
            let said: Vec<_> = found.entries.iter().filter(|entry| entry.header.kind == Kind::ShardRetired).collect();
            let payload: Value = serde_json::from_slice(said[0].bytes.as_deref().unwrap()).unwrap();
            let data = &payload["data"];
            assert_eq!(
                (said.len(), &data["shard"], &data["entries"], data["checkpoint"].as_str()),
                (1, &json!(2026), &json!(6), Some(&*final_note))
            );
            assert_eq!((&data["policy"], &data["kept_days"]), (&json!(POLICY), &json!(2557)));
            let by = log.entries(Query { action: Some("audit.shard-retired".to_owned()), limit: 9, ..Query::default() }).await.unwrap();
            assert!(by.entries.len() == 1 && by.entries[0].header.enc.is_some(), "who it was is sealed");
            // The retired year: its checkpoint, and nothing else.
            let retired = log.retired();
            assert_eq!((retired.len(), retired[0].shard, retired[0].record), (1, 2026, said[0].position));
            assert_eq!(&*log.checkpoint(Some(2026)).await.unwrap().unwrap().note, &*final_note);
            let bundle: TilePath = "tile/entries/000.p/6".parse().unwrap();
            assert!(log.tile(2026, bundle).await.unwrap().is_none());
            assert!(log.entry(Position { shard: 2026, index: 1 }).await.unwrap().is_none());
            // A task that began then says so; one that was all of it is not known.
            let of = async |number| history::of(log, Task::Id(*task(number).as_uuid()), None, None, 10).await.unwrap();
            let long = of(1).await.unwrap();
            assert_eq!(
                (long.retired, &*long.missing),
                (1, &["its first 1 entries, which were logged in a year that is retired".to_owned()][..])
            );
            assert!(of(10).await.is_none());
            assert_eq!(of(11).await.unwrap().retired, 0);
            // What comes again of a retired year is news, and once; of later years it is known.
            for (id, number, expected) in [("own-0", 10, true), ("own-0", 10, false), ("own-1", 11, false)] {
                let outcome = log.append(vec![event(id, task(number), "ada", "default")]).await.unwrap();
                assert_eq!(matches!(outcome[..], [Appended::New(_)]), expected, "{id}");
            }
            // Counters go on: a number that is lost now is missed, of old and new processes.
            log.append(vec![action("e", 10), action("e", 12), action("new", 2)]).await.unwrap();
            assert_eq!(log.entries(Query::default()).await.unwrap().actions_missing, 2);
            log.append(vec![action("e", 11), action("new", 1)]).await.unwrap();
        })
        .await;
    world.check(Some("2026"));
    reindex(&world.at(), &mut |_, _| {}).unwrap();
    world.check(Some("2026"));
    // Everything but the newest year, in one go.
    world.set(JULY_2026 + 30 * YEAR);
    assert_eq!(due(&retire(&world.options()).unwrap()), [2027, 2028]);
    world.check(Some("2026–2028"));
    world.set(JULY_2026 + 60 * YEAR);
    // The year that has the record of the first ones is retired, too.
    assert_eq!(due(&retire(&world.options()).unwrap()), [2033]);
    world.check(Some("2026–2033"));
    reindex(&world.at(), &mut |_, _| {}).unwrap();
    world.live(JULY_2026 + 60 * YEAR, async |log| assert_eq!(log.retired().len(), 4)).await;
    world.check(Some("2026–2033"));
}

#[tokio::test]
async fn p14_holds_win() {
    let world = World::of_three_years().await;
    world.set(JULY_2026 + KEPT_MS);
    let day = 24 * 3600 * 1000;
    let text = |text: &str| text.to_owned();
    let mut held = Vec::new();
    let person = |id: &str| Covers::Subject { tenant: text("default"), subject: format!("user:{id}") };
    for (covers, holds) in [
        (Covers::Tenant { tenant: text("default") }, true),
        (Covers::Tenant { tenant: text("acme") }, false),
        (Covers::Task { task_id: *task(10).as_uuid() }, true),
        (Covers::Task { task_id: *task(1).as_uuid() }, true),
        (Covers::Task { task_id: *task(11).as_uuid() }, false),
        (person("ada"), true),
        // Nobody knows of them, so nobody knows that they are not in it.
        (person("eve"), true),
        (Covers::Range { from_ms: 0, to_ms: JULY_2026 + 1 }, true),
        (Covers::Range { from_ms: 0, to_ms: JULY_2026 }, false),
        (Covers::Range { from_ms: JULY_2026, to_ms: JULY_2026 + day }, true),
        (Covers::Range { from_ms: JULY_2026 + 1, to_ms: JULY_2026 + day }, false),
    ] {
        let hold = Hold { id: Uuid::now_v7(), covers, reason: text("case 17"), placed_by: text("eva"), placed_ms: JULY_2026 };
        world.subjects().place_hold(&hold).unwrap();
        if holds {
            assert!(refused(&world.asked(2026)).contains(&format!("the legal hold {} of eva forbids it: case 17", hold.id)), "{hold:?}");
            held.push(hold.id.to_string());
            assert!(due(&plan(&world.options()).unwrap()).is_empty());
        } else {
            assert_eq!(due(&plan(&world.options()).unwrap()), [2026], "{hold:?}");
        }
        world.subjects().lift_hold(hold.id).unwrap();
    }
    // Each refusal is on record, with who was refused and by which hold.
    world
        .live(JULY_2026 + KEPT_MS, async |log| {
            let denied = Query { outcome: Some("denied".to_owned()), limit: 100, ..Query::default() };
            let mut found = Vec::new();
            for entry in log.entries(denied).await.unwrap().entries {
                let event: Value = serde_json::from_slice(entry.bytes.as_deref().unwrap()).unwrap();
                let data = &event["data"];
                assert_eq!((&data["actor"]["id"], &data["resource"]), (&json!("ada"), &json!("shard/2026")));
                assert_eq!((&data["action"], &data["data"]["code"]), (&json!("audit.shard-retired"), &json!("legal_hold")));
                found.push(text(data["data"]["hold_id"].as_str().unwrap()));
            }
            assert_eq!(found, held);
        })
        .await;
    // Who came later is in no earlier year.
    world.live(JULY_2026 + KEPT_MS, async |log| drop(log.append(vec![event("late", task(50), "zoe", "default")]).await.unwrap())).await;
    let hold = Hold { id: Uuid::now_v7(), covers: person("zoe"), reason: text(""), placed_by: text(""), placed_ms: 0 };
    world.subjects().place_hold(&hold).unwrap();
    assert_eq!(due(&plan(&world.options()).unwrap()), [2026]);
    // The log has a hold that nobody knows beside it: the keys are an older copy.
    let id = Uuid::now_v7();
    let note = |kind, word: &str| {
        Note { kind, id: format!("hold-{word}/{id}"), tenant: None, payload: json!({"hold_id": id, "covers": "tenant"}) }.entry()
    };
    world.live(JULY_2026 + KEPT_MS, async |log| drop(log.append(vec![note(Kind::HoldPlaced, "placed")]).await.unwrap())).await;
    assert!(refused(&world.asked(2026)).contains(&format!("the legal hold {id} was placed and not that it was lifted")));
    world.live(JULY_2026 + KEPT_MS, async |log| drop(log.append(vec![note(Kind::HoldLifted, "lifted")]).await.unwrap())).await;
    assert_eq!(due(&retire(&world.options()).unwrap()), [2026]);
    world.check(Some("2026"));
    std::fs::remove_file(world.at().join("keys/subjects.sqlite")).unwrap();
    assert!(refused(&world.options()).contains("the legal holds are not known"));
}

#[tokio::test]
async fn the_keys_that_only_a_retired_year_needed_are_forgotten() {
    let world = World::new();
    world
        .live(JULY_2026, async |log| {
            let entries =
                [(1, "ada"), (2, "bob"), (3, "eve")].map(|(number, who)| event(&format!("a{number}"), task(number), who, "default"));
            log.append(entries.to_vec()).await.unwrap();
        })
        .await;
    world
        .live(JULY_2026 + YEAR, async |log| {
            // Bob's task goes on, and ada has another.
            log.append(vec![event("b2", task(2), "bob", "default"), event("b4", task(4), "ada", "default")]).await.unwrap();
        })
        .await;
    assert_eq!(world.keys(), 4 + 3);
    world.set(JULY_2026 + KEPT_MS);
    assert_eq!(due(&retire(&world.options()).unwrap()), [2026]);
    // Those of tasks 1 and 3 and of eve are gone; ada's own came with the retirement again, as she is who did it.
    assert_eq!(world.keys(), 2 + 2);
    world
        .live(JULY_2026 + KEPT_MS, async |log| {
            let found = log.entries(Query { actor: Some("ada".to_owned()), limit: 10, ..Query::default() }).await.unwrap();
            assert_eq!(found.entries.len(), 2);
            let found = log.entries(Query { limit: 100, ..Query::default() }).await.unwrap();
            assert!(found.entries.iter().all(|entry| entry.bytes.is_some()), "all that is left can be read");
        })
        .await;
    // An erasure still finds what is theirs.
    let erasure = world.subjects().erase(&Subject::parse("default", "user:bob").unwrap()).unwrap();
    assert_eq!((erasure.keys, erasure.tasks), (2, 1));
}

/// A task that somebody asked for on behalf of a customer, and one that was handed on from another.
fn served(number: u128, customer: &str) -> NewEntry {
    let data = json!({"task_id": task(number), "requester": {"type": "user", "id": "bob"}, "customer": {"id": customer}, "goal": "g"});
    record("fte.triggers.inbound", &request(number, &data))
}

fn handed_on(number: u128, parent: u128) -> NewEntry {
    let data = json!({"task_id": task(number), "parent_task_id": task(parent), "requester": {"type": "agent", "id": "echo"}, "goal": "g"});
    record("fte.triggers.inbound", &request(number, &data))
}

fn request(number: u128, data: &Value) -> Value {
    json!({"id": format!("r{number}"), "source": "/fte/intake", "type": "fte.task.requested", "subject": task(number), "data": data})
}

#[tokio::test]
async fn whoever_is_only_named_beside_a_task_is_forgotten_with_the_last_of_their_tasks() {
    let world = World::new();
    world.live(JULY_2026, async |log| drop(log.append(vec![served(1, "c1"), served(2, "c2"), served(3, "c3")]).await.unwrap())).await;
    // The second has another task, and what the third asked for goes on as one of nobody's.
    world
        .live(JULY_2026 + YEAR, async |log| {
            log.append(vec![served(4, "c2"), handed_on(5, 3), event("other", task(6), "zoe", "default")]).await.unwrap();
        })
        .await;
    let known = || ["customer:c1", "customer:c2", "customer:c3", "user:bob", "user:zoe"].map(|person| world.knows(person));
    let options = || Options { by: "eva".to_owned(), ..world.options() };
    world.set(JULY_2026 + KEPT_MS);
    let covers = Covers::Subject { tenant: "default".to_owned(), subject: "customer:c1".to_owned() };
    let hold = Hold { id: Uuid::now_v7(), covers, reason: String::new(), placed_by: String::new(), placed_ms: 0 };
    world.subjects().place_hold(&hold).unwrap();
    assert_eq!(due(&retire(&options()).unwrap()), [] as [u16; 0]);
    assert_eq!(known(), [true; 5]);
    world.subjects().lift_hold(hold.id).unwrap();
    let before = world.files();
    assert_eq!(due(&retire(&options()).unwrap()), [2026]);
    assert_eq!(known(), [false, true, true, true, true]);
    // The keys went, and the process before the year did: the next command does it again.
    for (path, bytes) in before.iter().filter(|(path, _)| !path.contains("/keys/")) {
        std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for path in world.files().into_keys().filter(|path| !path.contains("/keys/") && !before.contains_key(path)) {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(due(&retire(&options()).unwrap()), [2026]);
    assert_eq!(known(), [false, true, true, true, true]);
    world.check(Some("2026"));
    world.set(JULY_2026 + YEAR + KEPT_MS);
    assert_eq!(due(&retire(&options()).unwrap()), [2027]);
    assert_eq!(known(), [false; 5]);
    world.check(Some("2026–2027"));
}

#[tokio::test]
async fn a_running_service_is_not_touched_nor_a_year_whose_end_was_changed() {
    let world = World::of_three_years().await;
    world
        .live(JULY_2026 + KEPT_MS, async |_| {
            let text = fte_service::chain(&retire(&world.options()).unwrap_err()).to_string();
            assert!(text.contains("only one may write the log; stop it first"), "{text}");
        })
        .await;
    assert_eq!(world.reports().len(), 3);
    // The last entry says how long the year is kept: another one is refused.
    let path = std::fs::read_dir(world.at().join("2026/log/tile/entries/000.p")).unwrap().next().unwrap().unwrap().path();
    let mut bundle = std::fs::read(&path).unwrap();
    let time = b"\"logged_time\":17829";
    let at = bundle.windows(time.len()).rposition(|window| window == time).unwrap();
    bundle[at + time.len() - 1] = b'8';
    std::fs::write(&path, bundle).unwrap();
    let text = fte_service::chain(&retire(&world.options()).unwrap_err()).to_string();
    assert!(text.contains("is not the one that was signed"), "{text}");
}

#[tokio::test]
async fn a_year_in_which_the_next_key_is_announced_stays_until_that_has_taken_over() {
    let world = World::of_three_years().await;
    let places = rotation::Places::at(world.at());
    rotation::begin(&places).unwrap();
    // Announced in 2028, and signing ever since.
    world.live(JULY_2026 + 2 * YEAR, async |log| drop(log.append(vec![event("x", task(60), "ada", "default")]).await.unwrap())).await;
    world.live(JULY_2026 + 3 * YEAR, async |log| drop(log.append(vec![event("y", task(61), "ada", "default")]).await.unwrap())).await;
    world.set(JULY_2026 + 2 * YEAR + KEPT_MS);
    let done = retire(&world.options()).unwrap();
    assert_eq!((due(&done), matches!(done.kept, Some((2028, Why::Rotation)))), (vec![2026, 2027], true));
    let text = fte_service::chain(&retire(&world.asked(2028)).unwrap_err()).to_string();
    assert!(text.contains("change the key first"), "{text}");
    rotation::finish(&places).unwrap();
    world.live(JULY_2026 + 2 * YEAR + KEPT_MS, async |_| {}).await;
    assert_eq!(due(&retire(&world.options()).unwrap()), [2028]);
    world.check(Some("2026–2028"));
}
