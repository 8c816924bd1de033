//! Several replicas of a service, each with its sidecar, share one app id: Kafka gives each its partitions, ETags fence what one of them left.

use std::collections::BTreeSet;
use std::time::Duration;

use fte_testkit::{Client, eventually_within};
use fte_tests::load::{Doors, Load};
use fte_tests::tasks::{post, shown};
use serde_json::{Value, json};

use crate::story::{EACH, ENV, Story, counted};
use crate::world::{Store, Unusual, World};

/// A lease is stale after 15 s, and Kafka misses a member after 10 s.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(60);
const TRIGGERS: &str = "fte.triggers.inbound";

/// How many sandboxes this runner has in use for the agent that takes its time.
pub(crate) async fn at_work(runner: &Client) -> u64 {
    let agents: Value = runner.get("/v1/agents").await.unwrap().expect_status(200).json();
    agents["items"].as_array().unwrap().iter().find(|agent| agent["name"] == "demo").unwrap()["in_use"].as_u64().unwrap()
}

/// Waits until this replica finishes deliveries of the topic.
async fn takes(replica: &Client, topic: &str) {
    let counter = format!("kf_messages_consumed_total{{topic=\"{topic}\",");
    let taken = || counted(replica, &counter, |line| line.contains("\"done\""));
    let before = taken().await;
    eventually_within(TAKEOVER_PATIENCE, || async {
        let now = taken().await;
        if now > before { Ok(()) } else { Err(format!("{now} events of {topic} taken")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_runners_and_two_intakes_share_the_work_while_one_is_killed_one_comes_and_one_goes() {
    let mut world = World::start_with(Store::Redis, ENV).await;
    let second_intake = world.add("intake").await;
    let second = world.add("runner").await;
    let third = world.add("runner").await;
    world.ready().await;
    let runners = [world.pairs.iter().position(|pair| pair.id == "fte-runner").unwrap(), second, third];

    let api = |world: &World, place: usize| world.pairs[place].api.clone();
    // Half of the people go through the other intake, and decide through the runner that will be killed.
    let others = Doors { intake: api(&world, second_intake), runner: api(&world, third), ..world.doors() };
    let mut other_load = Load::start_paced(EACH, 2, others.clone());
    let mut story = Story::on(world, EACH, 2);
    story.flows().await;
    for runner in runners {
        takes(&api(&story.world, runner), TRIGGERS).await;
    }

    // A runner is gone in the middle of its work, with its machine.
    let slow = json!({ "task": "take your time", "agent": "demo", "context": { "demo": { "step_ms": 3000 } } });
    let (doomed, doors) = (api(&story.world, third), story.world.doors());
    let mut slow_tasks = Vec::new();
    // Only these are at work then: the loads have short ones of the same agent.
    story.load.pause().await;
    other_load.pause().await;
    // Two, of which one may be about to wait for a person, which needs no sandbox.
    while slow_tasks.len() < 12 || at_work(&doomed).await < 2 {
        assert!(slow_tasks.len() < 60, "a third of the tasks should be at the third runner");
        let task = post(&doors.intake, slow.clone()).await;
        // What is still on its way is at nobody's.
        shown(&doors.status, &task, |shown| shown["status"] != "accepted" && shown["status"] != "queued").await;
        slow_tasks.push(task);
    }
    story.load.open(doors.clone());
    other_load.open(others);
    story.world.pairs[third].kill().await;
    let taken_over = eventually_within(TAKEOVER_PATIENCE, || async {
        let mut expired = 0;
        for task in &slow_tasks {
            let events: Value = doors.status.get(&format!("/v1/tasks/{task}/events")).await.unwrap().json();
            let is_expired = |events: &Vec<Value>| events.iter().any(|event| event["type"] == "fte.sandbox.expired");
            expired += u32::from(events["items"].as_array().is_some_and(is_expired));
        }
        if expired > 0 { Ok(expired) } else { Err("no sandbox of the killed runner is accounted for") }
    })
    .await;
    println!("taken over: {taken_over} of {} slow tasks", slow_tasks.len());
    story.flows().await;

    // One comes: Kafka gives it partitions of the others.
    let newcomer = story.world.add("runner").await;
    story.world.pairs[newcomer].ready().await;
    takes(&api(&story.world, newcomer), TRIGGERS).await;
    story.flows().await;

    // One goes, as a pod goes that is not needed any more.
    story.world.pairs[second].stop().await;
    story.flows().await;

    let mut more = other_load.end().await;
    assert!(more.len() > 20, "the second intake took {} tasks", more.len());
    more.extend(slow_tasks);
    story.ends_well_with(more).await;
    other_load.go_home().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_statuses_share_a_database_and_a_stream_that_one_of_them_takes_to_its_grave_goes_on_at_the_other() {
    let unusual = Unusual { env: ENV, status_on_postgresql: true, ..Unusual::default() };
    let mut world = World::start_unusual(Store::Redis, unusual).await;
    let second = world.add("status").await;
    world.ready().await;
    let (first, doomed) = (world.doors().status, world.pairs[second].api.clone());
    let mut story = Story::on(world, EACH, 4);
    story.flows().await;
    for status in [&first, &doomed] {
        takes(status, "fte.results.completed").await;
    }

    // Whoever reads a stream gets what the other took in.
    let doors = story.world.doors();
    let show = json!({ "task": "show", "agent": "demo", "context": { "demo": { "step_ms": 500 } } });
    let task = post(&doors.intake, show).await;
    let events = format!("/v1/tasks/{task}/events");
    let mut seen = Vec::new();
    shown(&doomed, &task, |_| true).await;
    let mut stream = doomed.events(&events, None).await.unwrap();
    while seen.len() < 3 {
        seen.push(stream.next().await.unwrap().id);
    }
    story.world.pairs[second].kill().await;
    let mut stream = first.events(&events, seen.last().map(String::as_str)).await.unwrap();
    while let Some(event) = stream.next().await {
        seen.push(event.id);
    }
    let told: Value = first.get(&format!("{events}?limit=1000")).await.unwrap().expect_status(200).json();
    let ids: BTreeSet<&str> = told["items"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), ids);
    assert_eq!(seen.len(), ids.len(), "an event came twice: {seen:?}");
    assert!(told["items"].as_array().unwrap().iter().any(|event| event["type"] == "fte.result.completed"), "{told}");

    // Kafka gives the partitions of the dead one to the living.
    story.flows().await;
    story.ends_well_with(vec![task]).await;
}
