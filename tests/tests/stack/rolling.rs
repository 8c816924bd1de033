//! A rolling update as the chart has it: each pod ends as Kubernetes ends it, one after the other, while people work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fte_testkit::Client;
use fte_tests::load::Doors;
use fte_tests::tasks::{post, shown};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::endpoints::Endpoints;
use crate::front::Front;
use crate::replicas::at_work;
use crate::story::{EACH, ENV, Story};
use crate::world::{Store, Unusual, World};

/// Until whoever routes has heard that a pod ends.
const ROUTES_KNOW: Duration = Duration::from_secs(2);
const SLOW_TASKS: usize = 4;

/// The Services of an installation, and the proxy before them.
struct Cluster {
    services: BTreeMap<String, Endpoints>,
    front: Front,
}

impl Cluster {
    async fn of(world: &World) -> Self {
        let mut services = BTreeMap::new();
        for pair in &world.pairs {
            let service = pair.id.trim_start_matches("fte-").to_owned();
            if !services.contains_key(&service) {
                services.insert(service.clone(), Endpoints::none().await);
            }
            services[&service].add(&pair.api);
        }
        let addresses: Vec<_> = services.iter().map(|(service, endpoints)| (service.clone(), endpoints.address.clone())).collect();
        Self { services, front: Front::before(&addresses).await }
    }

    /// A pod ends; meanwhile routes hear of it.
    async fn ends(&self, world: &mut World, place: usize) {
        let pair = &mut world.pairs[place];
        let (endpoints, api) = (&self.services[pair.id.trim_start_matches("fte-")], pair.api.clone());
        tokio::join!(pair.ends_as_a_pod(), async {
            tokio::time::sleep(ROUTES_KNOW).await;
            endpoints.remove(&api);
        });
    }

    /// A pod is there, once it is ready.
    async fn begins(&self, world: &World, place: usize) {
        let pair = &world.pairs[place];
        pair.ready().await;
        self.services[pair.id.trim_start_matches("fte-")].add(&pair.api);
    }

    /// A pod of a set with names: the old one has to end before the next of that name.
    async fn replaces(&self, world: &mut World, place: usize) {
        self.ends(world, place).await;
        world.pairs[place].start().await;
        self.begins(world, place).await;
    }
}

/// Somebody who asks the runners all the time, by a question and by an answer to a task that nobody knows.
struct Asker {
    is_over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    asking: JoinHandle<Vec<String>>,
}

impl Asker {
    fn start(front: &str) -> Self {
        let (is_over, asked, api) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Client::new(front));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&asked));
        let asking = tokio::spawn(async move {
            let mut wrong = Vec::new();
            let decision = json!({ "approved": true, "approver": "ada" });
            while !over.load(Ordering::Relaxed) {
                for (answer, expected) in [
                    (api.get("/v1/agents").await, 200),
                    (api.post("/v1/tasks/0198c5a0-0000-7000-8000-000000000000/approval", &decision).await, 404),
                ] {
                    count.fetch_add(1, Ordering::Relaxed);
                    match answer {
                        Ok(answer) if answer.status == expected => {}
                        Ok(answer) => wrong.push(format!("{}: {}", answer.status, answer.text())),
                        Err(error) => wrong.push(error.to_string()),
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            wrong
        });
        Self { is_over, asked, asking }
    }

    /// What was not answered as it should.
    async fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let wrong = self.asking.await.unwrap();
        println!("the runners were asked {} times", self.asked.load(Ordering::Relaxed));
        wrong
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pod_is_replaced_one_after_the_other_and_nobody_is_refused_and_nothing_is_lost_or_doubled() {
    let mut world = World::start_unusual(Store::Redis, Unusual { env: ENV, as_pods: true, ..Unusual::default() }).await;
    let place = |world: &World, service: &str| world.pairs.iter().position(|pair| pair.id == format!("fte-{service}")).unwrap();
    let [intake, runner, status, audit] = ["intake", "runner", "status", "audit"].map(|service| place(&world, service));
    let (second_intake, second_runner) = (world.add("intake").await, world.add("runner").await);
    world.ready().await;
    let cluster = Cluster::of(&world).await;
    let doors = Doors::all(&Client::new(&cluster.front.url));
    let mut story = Story::through(doors.clone(), world, EACH, 4);
    story.flows().await;

    let asker = Asker::start(&cluster.front.url);

    // Deployments: the new pod first.
    for old in [intake, second_intake] {
        let new = story.world.add("intake").await;
        cluster.begins(&story.world, new).await;
        cluster.ends(&mut story.world, old).await;
        story.flows().await;
    }
    // What is at work there goes on for longer than any pod may take to end.
    let slow = json!({ "task": "take your time", "agent": "demo", "context": { "demo": { "step_ms": 8000 } } });
    let mut slow_tasks = Vec::new();
    for one in [second_runner, runner] {
        let (api, before) = (story.world.pairs[one].api.clone(), slow_tasks.len());
        while slow_tasks.len() < before + SLOW_TASKS || at_work(&api).await < 2 {
            assert!(slow_tasks.len() < 60, "half of the tasks should be at each runner");
            let task = post(&doors.intake, slow.clone()).await;
            shown(&doors.status, &task, |shown| shown["status"] != "accepted" && shown["status"] != "queued").await;
            slow_tasks.push(task);
        }
        cluster.replaces(&mut story.world, one).await;
        story.flows().await;
    }
    assert_eq!(asker.end().await, Vec::<String>::new());
    // Of these there is one, so that nobody can read meanwhile; what comes is accepted, and waits.
    for one in [status, audit] {
        cluster.replaces(&mut story.world, one).await;
        story.flows().await;
    }
    assert_eq!(story.load.refused(), 0, "posts were refused or cut");

    // Some had begun at a runner that ended, and began again elsewhere; all are held to one result below.
    let mut begun_again = 0;
    for task in &slow_tasks {
        let events: Value = doors.status.get(&format!("/v1/tasks/{task}/events?limit=1000")).await.unwrap().expect_status(200).json();
        begun_again += usize::from(events["items"].as_array().unwrap().iter().any(|event| event["type"] == "fte.sandbox.expired"));
    }
    println!("begun again: {begun_again} of {} slow tasks", slow_tasks.len());
    assert!(begun_again > 0);
    story.ends_well_with(slow_tasks).await;
}
