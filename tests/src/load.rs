//! People at work: some post tasks one after the other, one approves whatever waits for approval. They go on through outages, and remember
//! what was accepted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fte_testkit::Client;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, watch};
use tokio::task::JoinHandle;

/// Wait of a poster after an answer that did not come, and of the approver between two looks.
const PAUSE: Duration = Duration::from_millis(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where people find the services.
#[derive(Clone, Debug)]
pub struct Doors {
    pub intake: Client,
    pub runner: Client,
    pub status: Client,
    pub audit: Client,
}

impl Doors {
    /// Of `fte up`: one port for all.
    pub fn all(api: &Client) -> Self {
        Self { intake: api.clone(), runner: api.clone(), status: api.clone(), audit: api.clone() }
    }
}

/// People at work until [`Load::end`].
pub struct Load {
    doors: watch::Sender<Option<Doors>>,
    shared: Arc<Shared>,
    posters: Vec<JoinHandle<()>>,
    approver: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    accepted: Mutex<Vec<String>>,
    refused: AtomicU64,
    /// Held by everybody who is posting.
    posting: RwLock<()>,
    is_over: AtomicBool,
    all_is_settled: AtomicBool,
}

impl Load {
    /// So many people post at the same time.
    pub fn start(posters: u64, doors: Doors) -> Self {
        Self::start_up_to(u64::MAX, posters, doors)
    }

    /// So many people post at the same time, each of them at most so often: what must not pile up where a story is long.
    pub fn start_paced(every: Duration, posters: u64, doors: Doors) -> Self {
        Self::start_all(&[], u64::MAX, every, posters, doors)
    }

    /// So many people post at the same time, each up to so many tasks.
    pub fn start_up_to(each_max: u64, posters: u64, doors: Doors) -> Self {
        Self::start_all(&[], each_max, Duration::ZERO, posters, doors)
    }

    /// So many people post at the same time, plain tasks to these agents in turns.
    pub fn start_for(agents: &'static [&'static str], posters: u64, doors: Doors) -> Self {
        Self::start_all(agents, u64::MAX, Duration::ZERO, posters, doors)
    }

    fn start_all(agents: &'static [&'static str], each_max: u64, every: Duration, posters: u64, doors: Doors) -> Self {
        let (doors, watched) = watch::channel(Some(doors));
        let shared = Arc::<Shared>::default();
        let posters =
            (0..posters).map(|poster| tokio::spawn(post(poster, agents, each_max, every, watched.clone(), Arc::clone(&shared)))).collect();
        let approver = Some(tokio::spawn(approve(watched, Arc::clone(&shared))));
        Self { doors, shared, posters, approver }
    }

    /// Everybody waits until the doors are open again.
    pub fn close(&self) {
        self.doors.send_replace(None);
    }

    /// [`Load::close`], and waits until nobody is posting any more.
    pub async fn pause(&self) {
        self.close();
        drop(self.shared.posting.write().await);
    }

    /// The doors are open (again), perhaps elsewhere.
    pub fn open(&self, doors: Doors) {
        self.doors.send_replace(Some(doors));
    }

    /// How many tasks were accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.lock().unwrap().len()
    }

    /// How many posts were put off so far (503), or got no answer.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends the posting, and gives back what was accepted. The approver goes on until this is dropped.
    pub async fn end(&mut self) -> Vec<String> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for poster in self.posters.drain(..) {
            poster.await.unwrap();
        }
        self.shared.accepted.lock().unwrap().clone()
    }

    /// Sends the approver home, once nothing waits any more.
    pub async fn go_home(mut self) {
        self.shared.all_is_settled.store(true, Ordering::Relaxed);
        if let Some(approver) = self.approver.take() {
            approver.await.unwrap();
        }
    }
}

/// The doors, once they are open; none when the load is over.
async fn opened(doors: &mut watch::Receiver<Option<Doors>>) -> Option<Doors> {
    doors.wait_for(Option::is_some).await.ok().and_then(|doors| doors.clone())
}

/// The doors, once they are open, and what says that somebody is posting; none when the load is over.
async fn begin<'a>(doors: &mut watch::Receiver<Option<Doors>>, shared: &'a Shared) -> Option<(Doors, RwLockReadGuard<'a, ()>)> {
    loop {
        opened(doors).await?;
        let posting = shared.posting.read().await;
        // They may have been closed meanwhile.
        if let Some(doors) = doors.borrow().clone() {
            return Some((doors, posting));
        }
    }
}

async fn post(
    poster: u64,
    agents: &[&str],
    each_max: u64,
    every: Duration,
    mut doors: watch::Receiver<Option<Doors>>,
    shared: Arc<Shared>,
) {
    for number in 0..each_max {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let Some((doors, posting)) = begin(&mut doors, &shared).await else { return };
        let next = tokio::time::Instant::now() + every;
        let body = match number % 10 {
            0 => json!({ "task": "show", "agent": "demo", "context": { "demo": { "step_ms": 20 } } }),
            1 => json!({ "task": "ask first", "require_approval": true }),
            2 => json!({ "task": "a little later", "delay": "1s" }),
            _ => match agents.get((number % agents.len().max(1) as u64) as usize) {
                Some(agent) => json!({ "task": format!("{poster}/{number}"), "priority": "P3", "agent": agent }),
                None => json!({ "task": format!("{poster}/{number}"), "priority": "P3" }),
            },
        };
        // A lost answer leaves open whether there is a task; if there is, it is held to the same invariants.
        match doors.intake.post("/v1/tasks", &body).await {
            Ok(answer) if answer.status == 202 => {
                shared.accepted.lock().unwrap().push(answer.json::<Value>()["task_id"].as_str().unwrap().to_owned());
            }
            Ok(answer) if answer.status == 503 => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
            Err(_) => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
        drop(posting);
        tokio::time::sleep_until(next).await;
    }
}

async fn approve(mut doors: watch::Receiver<Option<Doors>>, shared: Arc<Shared>) {
    while !shared.all_is_settled.load(Ordering::Relaxed) {
        let Some(doors) = opened(&mut doors).await else { return };
        if let Ok(waiting) = doors.status.get("/v1/tasks?status=awaiting_approval&limit=1000").await
            && waiting.status == 200
        {
            let waiting: Value = waiting.json();
            for tasks in waiting["items"].as_array().unwrap().chunks(16) {
                // They may be answered, refused as too late, or cut by a kill; the next round sees what is left.
                join_all(tasks.iter().map(|task| approve_one(&doors.runner, task["task_id"].as_str().unwrap()))).await;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn approve_one(runner: &Client, task: &str) {
    drop(runner.post(&format!("/v1/tasks/{task}/approval"), &json!({ "approved": true, "approver": "ada" })).await);
}
