//! Many claims, a cluster in which anything fails, and runners that die at any moment: in the end no claim is left, and none was taken from who held it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fte_events::{ClaimId, TaskId};
use fte_kubernetes::{KubernetesClaims, Options};
use fte_runner::agents::Claims;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::controller::{self, Outcome};
use crate::server::{Call, Deed, Fault, Server};
use crate::support::{client, options, request};

const SEEDS: u64 = 5;
/// Runners at a time, and their lives one after the other.
const RUNNERS: usize = 3;
const LIVES: usize = 4;
/// Claims of a runner at a time.
const WORKERS: u64 = 6;
/// With fewer claims than these, made and ready, nothing is shown.
const MADE: usize = 50;
const READY: usize = 10;

/// What is true of the runners, to judge the deletions by.
#[derive(Default)]
struct Notes {
    /// Claims that are held, with their holders.
    held: HashMap<String, String>,
    /// Holders that were killed.
    dead: HashSet<String>,
    ready: usize,
    wrong: Vec<String>,
}

type Shared = Arc<Mutex<Notes>>;

fn notes(shared: &Shared) -> MutexGuard<'_, Notes> {
    shared.lock().unwrap()
}

/// A runner's life: a runtime of its own, so that it can be killed with everything that it was about to do.
struct Life {
    holder: String,
    seat: String,
    runtime: Runtime,
    client: Arc<KubernetesClaims>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

impl Life {
    fn begin(server: &Server, seat: &str, seed: u64, shared: &Shared) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options = Options {
            lease: Duration::from_secs(1),
            renew_every: Duration::from_millis(200),
            sweep_every: Duration::from_millis(100),
            call_timeout: Duration::from_millis(400),
            poll_every: Duration::from_millis(50),
            retry_wait_max: Duration::from_millis(100),
            seat: Options::new([].into(), Some(seat)).seat,
            ..options()
        };
        let holder = options.holder.clone();
        let client = {
            let _within = runtime.enter();
            Arc::new(client(server, options))
        };
        let (stop, stopped) = watch::channel(false);
        let workers = (0..WORKERS).map(|at| {
            let (client, holder, shared, stopped) = (Arc::clone(&client), holder.clone(), Arc::clone(shared), stopped.clone());
            runtime.spawn(work(client, holder, fastrand::Rng::with_seed(seed * WORKERS + at), shared, stopped))
        });
        let workers = workers.collect();
        Self { holder, seat: seat.to_owned(), runtime, client, stop, workers }
    }

    /// Nothing of it is polled any more.
    fn kill(self, shared: &Shared) {
        notes(shared).dead.insert(self.holder);
        self.runtime.shutdown_background();
    }
}

async fn work(client: Arc<KubernetesClaims>, holder: String, mut rng: fastrand::Rng, shared: Shared, stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let mut wanted = request(Duration::from_millis(rng.u64(50..500)));
        wanted.task_id = TaskId::now();
        wanted.claim_id = ClaimId::of(wanted.task_id, 0, 1);
        let patience = Duration::from_millis(if rng.u8(..4) == 0 { rng.u64(..60) } else { 5000 });
        let Ok(Ok(claimed)) = tokio::time::timeout(patience, client.claim(wanted)).await else { continue };
        let name = claimed.name.strip_prefix("agents/").unwrap().to_owned();
        {
            let mut notes = notes(&shared);
            notes.ready += 1;
            notes.held.insert(name.clone(), holder.clone());
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(..120))).await;
        notes(&shared).held.remove(&name);
        drop(claimed);
    }
}

/// What goes wrong, by chance; what is wrong for certain is noted.
fn weather(mut rng: fastrand::Rng, shared: Shared) -> impl FnMut(&Call) -> Option<Fault> + Send {
    move |call| {
        if call.verb == "delete" {
            let mut notes = notes(&shared);
            if notes.held.get(&call.name) == Some(&call.client) && !notes.dead.contains(&call.client) {
                notes.wrong.push(format!("{} is deleted by its holder, who holds it", call.name));
            }
        }
        if rng.u8(..5) > 0 {
            return None;
        }
        Some(match rng.u8(..8) {
            0 => Fault::Refused(429, "TooManyRequests", "slow down", Some(rng.u64(..2))),
            1 => Fault::Refused(500, "InternalError", "etcd", None),
            2 => Fault::Refused(409, "Conflict", "the object has been modified", None),
            3 => Fault::Cut,
            4 => Fault::Lost,
            5 => Fault::Behind(Duration::from_millis(rng.u64(..600))),
            6 => Fault::Late(Duration::from_millis(rng.u64(..500))),
            _ => Fault::Hung,
        })
    }
}

async fn storm(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let shared = Shared::default();
    let server = Server::start().await;
    server.change(|world| {
        world.finalizers = rng.bool();
        world.watch_events_max = Some(rng.usize(1..10));
    });
    let mut fates = rng.fork();
    controller::start(&server, rng.bool(), move |_| match fates.u8(..10) {
        0 => Outcome::Ignored,
        1 => Outcome::Waits("WarmPoolNotFound", "no such pool"),
        2 => Outcome::Named,
        _ => Outcome::Ready(Duration::from_millis(fates.u64(..80)), Some(if fates.bool() { "warm" } else { "cold" })),
    });
    server.faults(weather(rng.fork(), Arc::clone(&shared)));

    let mut lives: Vec<Life> = (0..RUNNERS).map(|at| Life::begin(&server, &format!("seat-{at}"), rng.u64(..1 << 32), &shared)).collect();
    for _ in 1..LIVES * RUNNERS {
        tokio::time::sleep(Duration::from_millis(rng.u64(50..250))).await;
        if rng.u8(..3) == 0 {
            server.change(crate::server::World::forget);
        }
        let at = rng.usize(..lives.len());
        let killed = lives.swap_remove(at);
        // On another seat its successor has to wait for the time of what it left.
        let seat = if rng.u8(..3) > 0 { killed.seat.clone() } else { format!("seat-{}", rng.u32(..)) };
        killed.kill(&shared);
        lives.push(Life::begin(&server, &seat, rng.u64(..1 << 32), &shared));
    }
    // A slow machine needs longer for enough to judge by.
    server.until("enough is claimed", |world| made(&world.deeds) > MADE && notes(&shared).ready > READY).await;
    for life in &mut lives {
        life.stop.send_replace(true);
        for worker in life.workers.drain(..) {
            worker.await.unwrap();
        }
    }
    // The weather stays; only the answers that never come would make it long.
    server.until("nothing is left", |world| world.claims.is_empty()).await;
    server.faults(|_| None);
    for life in &lives {
        life.client.settled().await;
    }
    judge(seed, &server, &shared);
    for life in lives {
        life.kill(&shared);
    }
}

fn judge(seed: u64, server: &Server, shared: &Shared) {
    let notes = notes(shared);
    let mut wrong = notes.wrong.clone();
    let mut deleted = HashSet::new();
    for deed in server.deeds("delete") {
        let Some(gone) = deed.deleted else { continue };
        let name = &deed.call.name;
        // By uid: a creation whose answer was lost may happen after all, once the name is free again.
        if !deleted.insert(gone.uid) {
            wrong.push(format!("{name} was deleted twice"));
        }
        if deed.call.client != gone.holder && !gone.was_over && !notes.dead.contains(&gone.holder) {
            wrong.push(format!("{name} of {} (seat {}), who lives, was deleted before its time", gone.holder, gone.seat));
        }
    }
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
}

/// How many claims were made.
fn made(deeds: &[Deed]) -> usize {
    deeds.iter().filter(|deed| deed.call.verb == "create" && deed.status == 201).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_any_weather_no_claim_is_left_and_none_is_taken_from_its_holder() {
    for seed in 0..SEEDS {
        storm(seed).await;
    }
}
