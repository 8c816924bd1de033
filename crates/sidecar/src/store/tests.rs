//! What the writer drops, and by which clock.

use std::sync::atomic::{AtomicI64, Ordering};

use super::state::{Change, Condition};
use super::*;
use crate::options::TopicSpec;
use crate::record::Head;

const DAY_MS: i64 = 24 * 3_600_000;
const YEAR_MS: i64 = 365 * DAY_MS;

/// A store whose clocks are ours: how far both have gone, and how much more the wall clock alone.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    _threads: StoreThreads,
    gone_ms: Arc<AtomicI64>,
    ahead_ms: Arc<AtomicI64>,
    sweeps: u32,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path());
        let week = Duration::from_secs(7 * 24 * 3600);
        options.topics = vec![TopicSpec { name: "t".to_owned(), partitions: 1, retention: Some(week) }];
        let (gone_ms, ahead_ms) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let (gone, ahead) = (gone_ms.clone(), ahead_ms.clone());
        let clock = SteadyClock::of(move || {
            let gone_ms = gone.load(Ordering::Relaxed);
            (writer::now_ms() + gone_ms + ahead.load(Ordering::Relaxed), Duration::from_millis(gone_ms.cast_unsigned()))
        });
        let (store, threads) = open_by(&options, clock).unwrap();
        Self { dir, store, _threads: threads, gone_ms, ahead_ms, sweeps: 0 }
    }

    async fn publish(&self, count: u32) {
        let topic = self.store.topic("t").unwrap();
        for number in 0..count {
            let mut records = RecordBuf::default();
            let head = Head { key: None, headers: b"", at_ms: writer::now_ms(), flags: 0 };
            let value = |out: &mut Vec<u8>| {
                out.extend_from_slice(number.to_string().as_bytes());
                Ok::<_, ()>(0)
            };
            records.push(0, head, value).unwrap();
            self.store.publish(topic.clone(), records).await.unwrap();
        }
    }

    /// Where a group of that name begins, or goes on.
    async fn next_of(&self, app: &str) -> u64 {
        let topic = self.store.topic("t").unwrap();
        self.store.join(app, &topic).await.unwrap().get()[0].next
    }

    async fn make(&self, key: &str) -> bool {
        let value = Change::Put { value: b"1".to_vec(), expires_ms: Some(writer::now_ms() + 8 * DAY_MS) };
        let write = StateWrite { key: key.to_owned(), change: value, condition: Condition::Absent };
        self.store.write_state(vec![write], false).await.unwrap()[0].is_ok()
    }

    async fn sweep(&mut self) {
        self.store.commands.send(Command::Sweep).await.unwrap();
        // The writer does one after the other.
        self.sweeps += 1;
        self.store.ensure_topic(&format!("after-{}", self.sweeps)).await.unwrap();
    }

    /// How many batches, groups and rows of state there are.
    fn kept(&self) -> [i64; 3] {
        let db = rusqlite::Connection::open(self.dir.path().join("sidecar.sqlite")).unwrap();
        ["batches", "cursors", "state"].map(|table| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap())
    }
}

#[tokio::test]
async fn a_clock_that_is_a_year_ahead_for_a_moment_drops_nothing() {
    let mut world = World::new();
    world.publish(3).await;
    assert_eq!(world.next_of("app").await, 0);
    assert!(world.make("done").await);
    let before = world.kept();

    world.ahead_ms.store(YEAR_MS, Ordering::Relaxed);
    world.sweep().await;
    assert_eq!(world.kept(), before);
    assert!(world.store.read_state(vec!["done".to_owned()]).await.unwrap()[0].is_some());
    assert!(!world.make("done").await, "what was done is remembered");
    assert_eq!(world.next_of("late").await, 0, "who comes now is given what is kept");

    world.ahead_ms.store(0, Ordering::Relaxed);
    world.sweep().await;
    assert_eq!(world.kept(), [before[0], before[1] + 1, before[2]]);

    // And a year that was one is.
    world.gone_ms.store(YEAR_MS, Ordering::Relaxed);
    world.sweep().await;
    assert_eq!(world.kept(), [1, 0, 0], "the last batch stays: it knows the heads");
}
