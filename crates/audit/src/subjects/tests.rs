//! What the keys promise, on real files.

use std::collections::HashSet;

use fte_bus::Record;
use fte_events::TaskId;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::*;
use crate::engine::Sealing;
use crate::entry::NewEntry;
use crate::entry::leaf::Header;
use crate::entry::reading::Reading;
use crate::subjects::holds::{Covers, Hold};

pub(super) struct Store {
    pub(super) directory: tempfile::TempDir,
    pub(super) subjects: Subjects,
}

impl Store {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let subjects = Subjects::open(SubjectsOptions::at(directory.path())).unwrap();
        Self { directory, subjects }
    }

    pub(super) fn reopened(self) -> Self {
        let Self { directory, subjects } = self;
        drop(subjects);
        let subjects = Subjects::open(SubjectsOptions::at(directory.path())).unwrap();
        Self { directory, subjects }
    }

    pub(super) fn seal(&self, event: &Event) -> Sealed {
        self.seal_all(std::slice::from_ref(event)).remove(0)
    }

    pub(super) fn seal_all(&self, events: &[Event]) -> Vec<Sealed> {
        let abouts: Vec<About> = events.iter().map(Event::about).collect();
        let group: Vec<Unsealed<'_>> = events.iter().zip(&abouts).map(|(event, about)| event.unsealed(about)).collect();
        self.subjects.seal(&group).unwrap()
    }

    pub(super) fn open(&self, event: &Event, sealed: &Sealed) -> Opened {
        let enc = sealed.enc.as_ref().unwrap();
        self.subjects.open_payload((enc.alg, &enc.key, &enc.nonce), event.context(), sealed.ciphertext.as_ref().unwrap()).unwrap()
    }

    pub(super) fn erase(&self, subject: &str) -> Result<Erasure, EraseError> {
        self.subjects.erase(&Subject::parse("default", subject).unwrap())
    }

    /// All files of the directory.
    pub(super) fn bytes(&self) -> Vec<u8> {
        std::fs::read_dir(self.directory.path()).unwrap().flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Whether these bytes stand in any file of the directory.
    pub(super) fn has(&self, bytes: &[u8]) -> bool {
        self.bytes().windows(bytes.len()).any(|window| window == bytes)
    }

    fn wrapped(&self, key: &str) -> Vec<u8> {
        let (n, _) = keys::key_of(key).unwrap();
        self.subjects.lock().connection.query_row("SELECT wrapped FROM key WHERE n = ?1", [n], |row| row.get(0)).unwrap()
    }
}

#[derive(Clone)]
pub(super) struct Event {
    pub(super) topic: &'static str,
    pub(super) id: String,
    pub(super) body: String,
}

impl Event {
    pub(super) fn new(topic: &'static str, task: Option<TaskId>, at: &str, data: Value) -> Self {
        let id = Uuid::now_v7().to_string();
        let mut event = json!({"id": id, "source": "/fte/x", "type": "t", "time": at, "data": data});
        if let Some(task) = task {
            event["subject"] = task.to_string().into();
        }
        Self { topic, id, body: event.to_string() }
    }

    fn about(&self) -> About {
        About::of(&Reading::of(self.body.as_bytes()).unwrap(), self.topic)
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { tenant: "default", source: "/fte/x", id: &self.id }
    }

    fn unsealed<'a>(&'a self, about: &'a About) -> Unsealed<'a> {
        Unsealed { about, context: self.context(), bytes: self.body.as_bytes(), sha256: Sha256::digest(self.body.as_bytes()).into() }
    }
}

const NOW: &str = "2026-07-01T10:00:00Z";
/// After anything that these tests erase.
const FUTURE: &str = "2100-01-01T00:00:00Z";

pub(super) fn request(task: TaskId, who: &str, at: &str) -> Event {
    Event::new("fte.triggers.inbound", Some(task), at, json!({"task": "call her at 555-0199", "requester": {"type": "user", "id": who}}))
}

fn status(task: TaskId) -> Event {
    Event::new("fte.status.updates", Some(task), NOW, json!({"message": "wrote to ada@example.com"}))
}

#[test]
fn what_is_sealed_opens_and_only_where_it_belongs() {
    let store = Store::new();
    let task = TaskId::now();
    let events = [status(task), request(task, "ada", NOW)];
    let sealed = store.seal_all(&events);
    let store = store.reopened();
    for (event, sealed) in events.iter().zip(&sealed) {
        assert_eq!(store.open(event, sealed), Opened::Bytes(event.body.clone().into_bytes()));
        let (enc, ciphertext) = (sealed.enc.as_ref().unwrap(), sealed.ciphertext.as_ref().unwrap());
        let elsewhere = Context { id: "other", ..event.context() };
        assert!(store.subjects.open_payload((enc.alg, &enc.key, &enc.nonce), elsewhere, ciphertext).is_err());
        assert!(!ciphertext.windows(3).any(|window| window == b"ada"));
    }
    assert_eq!(sealed[0].enc.as_ref().unwrap().key, sealed[1].enc.as_ref().unwrap().key, "a task has one key");
}

#[test]
fn a_sealed_event_is_told_from_a_contradiction_until_it_is_erased() {
    let store = Store::new();
    let event = status(TaskId::now());
    let record =
        |body: String| NewEntry::read(Record { topic: event.topic.into(), body: body.into(), partition: None, offset: None, key: None });
    let entry = record(event.body.clone());
    let sealed = Sealing::seal(&store.subjects, &[&entry]).unwrap().remove(0);
    let header = Header { enc: sealed.enc.clone(), ..entry.header(0) };
    assert_eq!(header.content, None, "a plain digest could be guessed");
    let is_same = |body: String| Sealing::is_same(&store.subjects, &header, &sealed.payload, &record(body)).unwrap();
    let repeated = event.body.replacen('{', r#"{"traceparent":"x","#, 1);
    let contradiction = event.body.replace("wrote", "lied");
    assert!(is_same(event.body.clone()) && is_same(repeated) && !is_same(contradiction.clone()));
    store.erase(&format!("key:{}", sealed.enc.as_ref().unwrap().key)).unwrap();
    assert!(is_same(contradiction), "the identity alone decides");
}

#[test]
fn a_key_is_named_whole_so_that_its_number_from_another_life_erases_nothing() {
    let store = Store::new();
    let event = request(TaskId::now(), "ada", NOW);
    let sealed = store.seal(&event);
    let (n, life) = keys::key_of(&sealed.enc.as_ref().unwrap().key).unwrap();
    let other = keys::key_text(n, life.wrapping_add(1));
    assert!(matches!(store.erase(&format!("key:{other}")), Err(EraseError::Key(KeyError::Unknown { .. }))));
    assert_eq!(store.open(&event, &sealed), Opened::Bytes(event.body.clone().into_bytes()));
}

#[test]
fn erasing_a_person_takes_their_tasks_along_in_whatever_order_events_came_and_nobody_else_s() {
    let store = Store::new();
    let (hers, his) = (TaskId::now(), TaskId::now());
    let child = TaskId::now();
    let handoff = Event::new("fte.handoffs.x", Some(child), NOW, json!({"task_id": child, "parent_task_id": hers, "task": "more of ada"}));
    let decided =
        Event::new("fte.audit.actions", Some(his), NOW, json!({"actor": {"type": "user", "id": "ada"}, "action": "approval.granted"}));
    // The status comes before the request that says whose task it is.
    let events = [status(hers), handoff, request(hers, "ada", NOW), request(his, "bob", NOW), decided];
    let sealed = store.seal_all(&events);
    let erasure = store.erase("user:ada").unwrap();
    assert_eq!((erasure.keys, erasure.tasks, erasure.step), (3, 2, Step::Destroyed));
    let store = store.reopened();
    for (place, is_erased) in [true, true, true, false, true].into_iter().enumerate() {
        assert_eq!(store.open(&events[place], &sealed[place]) == Opened::Erased, is_erased, "event {place}");
    }
    let mut expected = [*hers.as_uuid(), *child.as_uuid()];
    expected.sort();
    assert_eq!(store.subjects.erased_tasks(erasure.id, None, 10).unwrap(), expected);
    assert_eq!(store.subjects.erased_tasks(erasure.id, Some(expected[0]), 10).unwrap(), expected[1..]);
}

#[test]
fn a_destroyed_key_is_in_no_file_and_neither_is_the_name() {
    let store = Store::new();
    let events: Vec<Event> = (0..3000).map(|n| request(TaskId::now(), if n % 3 == 0 { "ada-lovelace" } else { "bob" }, NOW)).collect();
    let sealed: Vec<Sealed> = events.chunks(100).flat_map(|events| store.seal_all(events)).collect();
    let key = |sealed: &Sealed| store.wrapped(&sealed.enc.as_ref().unwrap().key);
    let wrapped: Vec<Vec<u8>> = sealed.iter().map(key).collect();
    let before = store.bytes();
    let places: std::collections::HashSet<&[u8]> = before.windows(24).collect();
    assert!(wrapped.iter().all(|wrapped| places.contains(&wrapped[..24])));
    let erasure = store.erase("user:ada-lovelace").unwrap();
    assert_eq!(erasure.keys, 1001);
    let after = store.bytes();
    let places: std::collections::HashSet<&[u8]> = after.windows(24).collect();
    for (n, wrapped) in wrapped.iter().enumerate() {
        // Every part of a copy would have its place, its beginning as well as its end.
        assert_eq!(places.contains(&wrapped[..24]) || places.contains(&wrapped[48..]), n % 3 != 0);
    }
    assert!(!store.has(b"ada-lovelace") && !store.has(b"bob"), "nobody is named in the clear, not even before");
    assert_eq!(store.subjects.search_values("ada-lovelace").unwrap(), ["ada-lovelace"]);
    assert_eq!(store.subjects.search_values("user:bob").unwrap()[1], **sealed[1].actor.as_ref().unwrap());
}

#[test]
fn what_arrives_late_is_unreadable_from_the_start_and_takes_its_task_along() {
    let store = Store::new();
    let (known, unknown) = (TaskId::now(), TaskId::now());
    store.seal(&request(known, "ada", NOW));
    // Of the second task only a status has come.
    let early = status(unknown);
    let sealed_early = store.seal(&early);
    let erasure = store.erase("user:ada").unwrap();
    store.subjects.set_logged(erasure.id).unwrap();
    store.subjects.set_told(erasure.id).unwrap();
    let store = store.reopened();
    let late = status(known);
    let sealed = store.seal(&late);
    assert_eq!(store.open(&late, &sealed), Opened::Erased);
    assert_eq!(store.subjects.unfinished(10).unwrap(), []);
    let request_late = request(unknown, "ada", NOW);
    let sealed = store.seal(&request_late);
    assert_eq!((store.open(&request_late, &sealed), sealed.actor), (Opened::Erased, None));
    assert_eq!(store.open(&early, &sealed_early), Opened::Erased);
    let found = store.subjects.unfinished(10).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].subject.as_ref().unwrap().to_string(), format!("task:{unknown}"));
    assert_eq!(store.subjects.erased_tasks(found[0].id, None, 10).unwrap(), [*unknown.as_uuid()]);
    // Who comes back is somebody new.
    let again = request(TaskId::now(), "ada", FUTURE);
    let sealed = store.seal(&again);
    assert!(matches!(store.open(&again, &sealed), Opened::Bytes(_)));
    assert_eq!(store.subjects.search_values("ada").unwrap()[1..], [sealed.actor.unwrap().into_string()]);
    assert_ne!(store.erase("user:ada").unwrap().id, erasure.id);
}

#[test]
fn a_clock_that_is_a_year_ahead_for_a_moment_lets_nobody_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(std::sync::atomic::AtomicI64::new(jiff::Timestamp::now().as_millisecond()));
    let open = || {
        let now_ms = Arc::clone(&now_ms);
        let clock: Clock = Arc::new(move || now_ms.load(std::sync::atomic::Ordering::Relaxed));
        Subjects::open(SubjectsOptions { clock, ..SubjectsOptions::at(directory.path()) }).unwrap()
    };
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let store = Store { subjects: open(), directory: tempfile::tempdir().unwrap() };
    store.seal(&request(TaskId::now(), "ada", NOW));
    store.erase("user:ada").unwrap();
    now_ms.fetch_add(YEAR_MS, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(store.subjects.forget_gone().unwrap(), 0);
    now_ms.fetch_sub(YEAR_MS, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(store.subjects.forget_gone().unwrap(), 0);
    let late = request(TaskId::now(), "ada", NOW);
    let sealed = store.seal(&late);
    assert_eq!(store.open(&late, &sealed), Opened::Erased);
    drop(store);
    // After a year that was one.
    now_ms.fetch_add(YEAR_MS, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(open().forget_gone().unwrap(), 1);
}

#[test]
fn to_repeat_an_erasure_is_the_same_erasure() {
    let store = Store::new();
    let task = TaskId::now();
    store.seal(&request(task, "ada", NOW));
    for subject in ["user:ada".to_owned(), format!("task:{}", TaskId::now()), "user:nobody".to_owned()] {
        let first = store.erase(&subject).unwrap();
        assert_eq!(store.erase(&subject).unwrap(), first, "{subject}");
    }
    let ids: Vec<Uuid> = store.subjects.unfinished(10).unwrap().iter().map(|erasure| erasure.id).collect();
    assert_eq!(ids.len(), 3);
    for id in ids {
        store.subjects.set_logged(id).unwrap();
        store.subjects.set_told(id).unwrap();
        store.subjects.set_logged(id).unwrap();
    }
    assert_eq!(store.subjects.unfinished(10).unwrap(), []);
}

fn hold(covers: Covers) -> Hold {
    Hold { id: Uuid::now_v7(), covers, reason: "case 17".to_owned(), placed_by: "counsel".to_owned(), placed_ms: 1 }
}

#[test]
fn a_hold_stops_an_erasure_and_names_itself_until_it_is_lifted() {
    let store = Store::new();
    let task = TaskId::now();
    let event = request(task, "ada", NOW);
    let sealed = store.seal(&event);
    let tenant = "default".to_owned();
    let subject = |subject: &str| Covers::Subject { tenant: "default".to_owned(), subject: subject.to_owned() };
    for (covers, erased, blocks) in [
        (Covers::Tenant { tenant: tenant.clone() }, "user:ada", true),
        (Covers::Task { task_id: *task.as_uuid() }, "user:ada", true),
        (subject("user:ada"), "user:ada", true),
        (subject("user:ada"), &*format!("task:{task}"), true),
        (Covers::Range { from_ms: 0, to_ms: i64::MAX }, "user:ada", true),
        (Covers::Range { from_ms: 0, to_ms: 1 }, "user:carol", false),
        (Covers::Tenant { tenant: "other".to_owned() }, "user:carol", false),
        (subject("user:bob"), "user:carol", false),
    ] {
        let hold = hold(covers);
        store.subjects.place_hold(&hold).unwrap();
        store.subjects.place_hold(&hold).unwrap();
        match store.erase(erased) {
            Err(EraseError::Held(blocked)) => assert!(blocks && blocked.to_string().contains(&hold.id.to_string()), "{blocked}"),
            other => assert!(!blocks, "{hold:?} {other:?}"),
        }
        assert_eq!(store.subjects.holds().unwrap(), std::slice::from_ref(&hold));
        assert!(store.subjects.lift_hold(hold.id).unwrap() && store.subjects.lift_hold(hold.id).unwrap());
        let [placed] = &store.subjects.unlogged_holds().unwrap()[..] else { panic!("one is to be logged") };
        store.subjects.set_hold_logged(placed).unwrap();
        let [lifted] = &store.subjects.unlogged_holds().unwrap()[..] else { panic!("the lifting is to be logged") };
        assert!(placed.lifted_ms.is_none() && lifted.lifted_ms.is_some());
        store.subjects.set_hold_logged(lifted).unwrap();
        assert_eq!(store.subjects.unlogged_holds().unwrap(), []);
    }
    assert!(matches!(store.open(&event, &sealed), Opened::Bytes(_)));
    assert!(!store.subjects.lift_hold(Uuid::nil()).unwrap());
}

#[test]
fn keys_without_their_master_key_are_an_error_and_never_new_ones() {
    let store = Store::new();
    store.seal(&status(TaskId::now()));
    let Store { directory, subjects } = store;
    drop(subjects);
    let options = SubjectsOptions::at(directory.path());
    let kept = std::fs::read(&options.master_key).unwrap();
    std::fs::remove_file(&options.master_key).unwrap();
    assert!(matches!(Subjects::open(options.clone()).err(), Some(KeyError::MasterMissing { .. })));
    assert!(!options.master_key.exists());
    std::fs::write(&options.master_key, "0".repeat(64)).unwrap();
    assert!(matches!(Subjects::open(options.clone()).err(), Some(KeyError::MasterWrong { .. })));
    std::fs::write(&options.master_key, "nonsense").unwrap();
    assert!(matches!(Subjects::open(options.clone()).err(), Some(KeyError::MasterMalformed { .. })));
    std::fs::write(&options.master_key, kept).unwrap();
    Subjects::open(options).unwrap();
}

#[test]
fn sealing_and_erasing_at_once_leave_nothing_readable() {
    let store = Store::new();
    let store = std::sync::Arc::new(store);
    let sealing: Vec<_> = (0..4)
        .map(|_| {
            let store = std::sync::Arc::clone(&store);
            std::thread::spawn(move || {
                (0..100)
                    .map(|_| {
                        let event = request(TaskId::now(), "ada", NOW);
                        let sealed = store.seal(&event);
                        (event, sealed)
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    for _ in 0..20 {
        store.erase("user:ada").unwrap();
    }
    let sealed: Vec<_> = sealing.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    store.erase("user:ada").unwrap();
    for (event, sealed) in &sealed {
        assert_eq!(store.open(event, sealed), Opened::Erased);
    }
}

#[test]
fn the_keys_are_one_process_s_at_a_time() {
    let store = Store::new();
    assert!(matches!(Subjects::open(SubjectsOptions::at(store.directory.path())).err(), Some(KeyError::InUse { .. })));
    assert!(matches!(rewrap(SubjectsOptions::at(store.directory.path())).err(), Some(KeyError::InUse { .. })));
}

#[test]
fn after_a_change_of_the_master_key_the_old_one_opens_nothing_wherever_it_was_cut_short() {
    let store = Store::new();
    let (kept, erased) = (status(TaskId::now()), request(TaskId::now(), "ada", NOW));
    let (sealed_kept, sealed_erased) = (store.seal(&kept), store.seal(&erased));
    store.erase("user:ada").unwrap();
    let hold = hold(Covers::Tenant { tenant: "x".to_owned() });
    store.subjects.place_hold(&hold).unwrap();
    let wrapped_before = store.wrapped(&sealed_kept.enc.as_ref().unwrap().key);
    let Store { directory, subjects } = store;
    drop(subjects);
    let options = SubjectsOptions::at(directory.path());
    let old = std::fs::read(&options.master_key).unwrap();
    let check = |options: &SubjectsOptions| {
        let subjects = Subjects::open(options.clone()).unwrap();
        let open = |event: &Event, sealed: &Sealed| {
            let enc = sealed.enc.as_ref().unwrap();
            subjects.open_payload((enc.alg, &enc.key, &enc.nonce), event.context(), sealed.ciphertext.as_ref().unwrap()).unwrap()
        };
        assert_eq!(open(&kept, &sealed_kept), Opened::Bytes(kept.body.clone().into_bytes()));
        assert_eq!(open(&erased, &sealed_erased), Opened::Erased);
        assert_eq!(subjects.holds().unwrap(), std::slice::from_ref(&hold));
        assert!(!master::next_path(&options.master_key).exists());
    };
    // Cut short before anything was wrapped: the next key was never used.
    master::make(&master::next_path(&options.master_key)).unwrap();
    check(&options);
    assert_eq!(std::fs::read(&options.master_key).unwrap(), old);
    // Cut short after all was wrapped: the next key is the one.
    {
        let mut keys = keys::Keys::open(options.clone()).unwrap();
        let next = master::make(&master::next_path(&options.master_key)).unwrap();
        assert!(keys.rewrap(&next).is_ok());
    }
    check(&options);
    let second = std::fs::read(&options.master_key).unwrap();
    assert_ne!(second, old);
    // Not cut short.
    rewrap(options.clone()).unwrap();
    check(&options);
    let bytes: Vec<u8> = std::fs::read(directory.path().join("subjects.sqlite")).unwrap();
    assert!(!bytes.windows(24).any(|window| window == &wrapped_before[..24]), "what the old key opens is in no file");
    for former in [old, second] {
        std::fs::write(&options.master_key, former).unwrap();
        assert!(matches!(Subjects::open(options.clone()).err(), Some(KeyError::MasterWrong { .. })));
    }
}

#[test]
fn keys_that_nothing_needs_are_forgotten_and_what_ties_others_to_a_person_stays() {
    for erased in [true, false] {
        let store = Store::new();
        let (hers, child) = (TaskId::now(), TaskId::now());
        let handoff =
            Event::new("fte.handoffs.x", Some(child), NOW, json!({"task_id": child, "parent_task_id": hers, "task": "more of ada"}));
        let sealed = store.seal_all(&[request(hers, "ada", NOW), handoff]);
        let key = |place: usize| sealed[place].enc.as_ref().unwrap().key.clone();
        let values = HashSet::from([sealed[0].actor.clone().unwrap().into_string()]);
        let persons = store.subjects.persons_of(&HashSet::new(), &values).unwrap();
        let hers_alone = persons.values().next().unwrap().clone();
        assert_eq!(store.subjects.persons_of(&HashSet::from([hers_alone.clone()]), &HashSet::new()).unwrap(), persons);
        let wrapped = store.wrapped(&key(0));
        // What she asked for is retired, and what that handed on is not.
        assert_eq!(store.subjects.forget_keys(&HashSet::from([key(0), hers_alone.clone()])).unwrap(), 1);
        assert!(!store.has(&wrapped), "a forgotten key is in no file");
        if erased {
            let erasure = store.erase("user:ada").unwrap();
            assert_eq!(erasure.keys, 2, "her own, and that of what was handed on");
            continue;
        }
        for count in [2, 0] {
            assert_eq!(store.subjects.forget_keys(&HashSet::from([key(1), hers_alone.clone()])).unwrap(), count);
        }
        let rows = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            store.subjects.lock().connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(["key", "owner", "kin", "alias"].map(rows), [0; 4]);
        // Whoever comes back is somebody new, and not erased.
        let again = request(hers, "ada", FUTURE);
        let sealed = store.seal(&again);
        assert_eq!(store.open(&again, &sealed), Opened::Bytes(again.body.clone().into_bytes()));
    }
}
