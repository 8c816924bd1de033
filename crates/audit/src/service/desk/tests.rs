//! An erasure is seen through whatever fails in between, and nothing of it is said twice.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use fte_service::{Bus, MapEnv, Settings};
use fte_testkit::{Call, FakeSidecar, Fault, eventually};
use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::entry::reading::Reading;
use crate::subjects::{About, Context, SubjectsOptions, Unsealed};

/// Notes as a log keeps them: each identity once. It fails as often as it is told to, with or without having kept the note.
#[derive(Default)]
struct Kept {
    notes: Mutex<Vec<Note>>,
    faults: Mutex<Vec<bool>>,
}

impl Notes for Kept {
    fn note(&self, note: Note) -> BoxFuture<'_, Result<(), LogError>> {
        let fault = self.faults.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if fault != Some(false) {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.iter().all(|kept| kept.id != note.id) {
                notes.push(note);
            }
        }
        Box::pin(async move { if fault.is_some() { Err(LogError::Closed) } else { Ok(()) } })
    }
}

pub(crate) struct World {
    directory: tempfile::TempDir,
    sidecar: FakeSidecar,
    notes: Arc<Kept>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), sidecar: FakeSidecar::start().await, notes: Arc::default() }
    }

    /// A new process on the same directory.
    pub(crate) fn desk(&self) -> Desk {
        let settings = Settings::from_env(&MapEnv::of([("FTE_SIDECAR_URL", &self.sidecar.url())]), crate::config::PORTS).unwrap();
        let bus = Bus::connect(&settings, NAME).unwrap();
        let subjects = Arc::new(Subjects::open(SubjectsOptions::at(self.directory.path())).unwrap());
        Desk::new(subjects, Arc::clone(&self.notes) as _, bus.publisher.clone(), AuditTrail::new(bus.publisher, NAME))
    }

    fn told(&self) -> Vec<Value> {
        let published = self.sidecar.published();
        published.iter().filter(|event| event.topic == "fte.triggers.inbound").map(fte_testkit::Published::json).collect()
    }
}

/// Logs so many tasks of ada's, and gives the key of the last.
pub(crate) fn seal(desk: &Desk, tasks: usize) -> Option<String> {
    let mut last = None;
    for _ in 0..tasks {
        let event = json!({"id": Uuid::now_v7(), "source": "/fte/intake", "subject": TaskId::now(), "time": "2026-07-01T10:00:00Z",
            "data": {"requester": {"type": "user", "id": "ada"}}})
        .to_string();
        let about = About::of(&Reading::of(event.as_bytes()).unwrap(), "fte.triggers.inbound");
        let context = Context { tenant: "default", source: "/fte/intake", id: "1" };
        let sealed = desk.subjects.seal(&[Unsealed { about: &about, context, bytes: event.as_bytes(), sha256: [0; 32] }]).unwrap();
        last = sealed[0].enc.as_ref().map(|enc| enc.key.clone());
    }
    last
}

/// An erasure when all of it is done. The call that asked for it waits a little only, which a busy machine may not keep to.
pub(crate) async fn seen_through(desk: &Desk, erasure: Erasure) -> Erasure {
    desk.see_through().await.unwrap();
    desk.subjects.erasure(erasure.id).unwrap().unwrap()
}

fn ada() -> Subject {
    Subject::parse("default", "user:ada").unwrap()
}

#[tokio::test]
async fn an_erasure_is_logged_once_and_told_to_all_with_every_task() {
    let world = World::new().await;
    let desk = world.desk();
    seal(&desk, 501);
    let erasure = seen_through(&desk, desk.erase(ada(), "root").await.unwrap()).await;
    assert_eq!((erasure.step, erasure.tasks, erasure.subject.clone()), (Step::Told, 501, None));
    assert_eq!(desk.erase(ada(), "root").await.unwrap(), erasure);
    let told = world.told();
    let tasks: BTreeSet<&str> =
        told.iter().flat_map(|event| event["data"]["tasks"].as_array().unwrap()).map(|id| id.as_str().unwrap()).collect();
    assert_eq!((told.len(), tasks.len()), (2, 501));
    let notes = world.notes.notes.lock().unwrap().clone();
    assert!(notes.len() == 1 && notes[0].kind == Kind::KeyDestroyed && !notes[0].payload.to_string().contains("ada"), "{notes:?}");
}

#[tokio::test]
async fn it_is_seen_through_after_a_crash_at_any_step_and_says_nothing_in_two_ways() {
    // What the log does with the note, then what the broker does with the event.
    let faults: [(Option<bool>, Option<Fault>); 5] = [
        (Some(false), None),
        (Some(true), None),
        (None, Some(Fault::Refuse(500))),
        (None, Some(Fault::LoseAnswer)),
        (Some(true), Some(Fault::LoseAnswer)),
    ];
    for (note, publish) in faults {
        let world = World::new().await;
        let desk = world.desk();
        seal(&desk, 3);
        world.notes.faults.lock().unwrap().extend(note);
        world.sidecar.always(Call::Publish, publish);
        // The process dies with whatever it was at.
        let subjects = Arc::clone(&desk.subjects);
        let erasure = tokio::task::spawn_blocking(move || subjects.erase(&ada()).unwrap()).await.unwrap();
        let cut_short = tokio::time::timeout(Duration::from_millis(300), desk.see_through()).await;
        assert!(!matches!(cut_short, Ok(Ok(()))), "{note:?} {publish:?}");
        drop(desk);
        world.sidecar.heal();

        let desk = eventually(|| async {
            // The keys are one process's at a time: the dead one's last work may still be under way.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.desk())).map_err(|_| "still locked".to_owned())
        })
        .await;
        let keeper = tokio::spawn(desk.clone().keep());
        eventually(|| async {
            let step = desk.subjects.erasure(erasure.id).unwrap().unwrap().step;
            if step == Step::Told { Ok(()) } else { Err(format!("{step:?}")) }
        })
        .await;
        keeper.abort();
        assert_eq!(world.notes.notes.lock().unwrap().len(), 1, "{note:?} {publish:?}");
        let told: BTreeSet<String> = world.told().iter().map(Value::to_string).collect();
        assert_eq!(told.len(), 1, "{note:?} {publish:?}: the same event, however often");
    }
}

#[tokio::test]
async fn a_hold_is_logged_when_it_is_placed_and_when_it_is_lifted() {
    let world = World::new().await;
    let desk = world.desk();
    let covers = Covers::Subject { tenant: "default".to_owned(), subject: "user:ada".to_owned() };
    let hold = Hold { id: Uuid::now_v7(), covers, reason: "case 17".to_owned(), placed_by: "counsel".to_owned(), placed_ms: 1 };
    desk.place(hold.clone()).await.unwrap();
    assert!(matches!(desk.erase(ada(), "root").await, Err(EraseError::Held(_))));
    assert!(world.told().is_empty());
    assert!(desk.lift(hold.id, "counsel").await.unwrap());
    desk.see_through().await.unwrap();
    let notes = world.notes.notes.lock().unwrap().clone();
    assert_eq!(notes.iter().map(|note| note.kind).collect::<Vec<_>>(), [Kind::HoldPlaced, Kind::HoldLifted]);
    assert!(notes.iter().all(|note| !note.payload.to_string().contains("ada") && !note.payload.to_string().contains("case")), "{notes:?}");
}
