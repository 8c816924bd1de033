//! Much at the same time: the same event from many sides, streams cut at any moment, streams that nobody reads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fte_testkit::{Client, SseStream, cloud_event, request};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::load::{Doors, Load};
use crate::trail::settled;
use crate::world::{Dice, Fte, LOAD_PATIENCE, echo, post, result, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_event_from_many_sides_at_once_and_across_crashes_is_one_task() {
    let mut fte = Fte::start_with(&["--quiet"], &[]).await;
    let requests: Arc<Vec<_>> = Arc::new((0..20).map(|number| request(&format!("once {number}"))).collect());
    let (sidecar, found) = watch::channel(Some(fte.process.sidecar()));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (requests, mut found) = (Arc::clone(&requests), found.clone());
            tokio::spawn(async move {
                let mut dice = Dice::new(publisher + 1);
                let mut published = 0;
                // Each side publishes all of them, in an order of its own, and some again.
                while published < 60 {
                    let Some(sidecar) = found.wait_for(Option::is_some).await.unwrap().clone() else { return };
                    let event = serde_json::to_value(cloud_event(&requests[dice.below(20) as usize])).unwrap();
                    let path = "/v1.0/publish/pubsub/fte.triggers.inbound";
                    match sidecar.post_as(path, "application/cloudevents+json", &event).await {
                        Ok(answer) if answer.status == 204 => published += 1,
                        _ => tokio::time::sleep(Duration::from_millis(2)).await,
                    }
                }
            })
        })
        .collect();
    let mut dice = Dice::new(11);
    while publishers.iter().any(|publisher| !publisher.is_finished()) {
        tokio::time::sleep(Duration::from_millis(20 + dice.below(150))).await;
        sidecar.send_replace(None);
        fte.process.kill().await;
        fte.process.restart().await;
        sidecar.send_replace(Some(fte.process.sidecar()));
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for request in requests.iter() {
        fte.publish("fte.triggers.inbound", &serde_json::to_value(cloud_event(request)).unwrap()).await;
    }
    let tasks: Vec<String> = requests.iter().map(|request| request.task_id.to_string()).collect();
    assert_eq!(settled(&fte.doors(), &tasks).await.len(), tasks.len());
}

/// Reads a stream that is cut again and again, and taken up after the last event that was seen.
struct Cut {
    path: String,
    open: Option<SseStream>,
    seen: Vec<String>,
    cuts: usize,
}

impl Cut {
    fn new(path: String) -> Self {
        Self { path, open: None, seen: Vec::new(), cuts: 0 }
    }

    /// Reads one event, with cuts before it.
    async fn read(&mut self, api: &Client, dice: &mut Dice, cuts_max: usize) {
        assert!(self.read_some(api, dice, (cuts_max, 6), false).await);
    }

    /// Reads to the end that the server gives it.
    async fn read_to_end(&mut self, api: &Client, dice: &mut Dice) {
        assert!(!self.read_some(api, dice, (20, 2), true).await);
    }

    async fn read_some(&mut self, api: &Client, dice: &mut Dice, (cuts_max, one_in): (usize, u64), to_end: bool) -> bool {
        loop {
            let stream = match &mut self.open {
                Some(stream) => stream,
                None => self.open.insert(api.events(&self.path, self.seen.last().map(String::as_str)).await.unwrap()),
            };
            // Cut after some events, or in the middle of waiting for one.
            if self.cuts < cuts_max && dice.below(one_in) == 0 {
                let wait = Duration::from_millis(dice.below(4));
                if let Ok(Some(event)) = tokio::time::timeout(wait, stream.next()).await {
                    self.seen.push(event.id);
                }
                self.open = None;
                self.cuts += 1;
                continue;
            }
            match stream.next().await {
                Some(event) => {
                    self.seen.push(event.id);
                    if !to_end {
                        return true;
                    }
                }
                None => return false,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_cut_two_hundred_times_under_load_tell_every_event_once_and_in_order() {
    let fte = Fte::start_with(&["--quiet"], &[("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let api = fte.api();
    let mut whole = api.events("/v1/events", None).await.unwrap();
    let mut dice = Dice::new(3);
    let mut cut = Cut::new("/v1/events".to_owned());
    // Before the first event there is nothing to take up after.
    cut.open = Some(api.events("/v1/events", None).await.unwrap());
    cut.seen.push({
        let first = post(&api, echo("first")).await;
        let event = cut.open.as_mut().unwrap().next().await.unwrap();
        assert_eq!(event.json()["subject"], first);
        event.id
    });

    // Enough to be cut in so many times, and no more: what is posted is read three times over.
    let mut load = Load::start_up_to(100, 3, fte.doors());
    while cut.cuts < 170 {
        cut.read(&api, &mut dice, 170).await;
    }
    // And single tasks', from the moment they are known.
    let mut cuts = cut.cuts;
    while cuts < 200 {
        let task = post(&api, json!({ "task": "show", "agent": "demo", "context": { "demo": { "step_ms": 2 } } })).await;
        // Topics come in no order among each other, and a stream does not wait for this one.
        told(&api, &task, |event| event["type"] == "fte.task.requested").await;
        let path = format!("/v1/tasks/{task}/events");
        let mut pieces = Cut::new(path.clone());
        pieces.read_to_end(&api, &mut dice).await;
        let listed: Value = api.get(&format!("{path}?limit=1000")).await.unwrap().expect_status(200).json();
        let listed: Vec<_> = listed["items"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!(pieces.seen, listed, "{task}");
        cuts += pieces.cuts;
    }

    let accepted = load.end().await;
    let told = settled(&fte.doors(), &accepted).await;
    load.go_home().await;
    let expected: usize = told.values().map(|history| history.shown.len()).sum();
    while cut.seen.len() < expected {
        cut.read(&api, &mut dice, 0).await;
    }
    let mut uncut = Vec::new();
    while uncut.len() < expected {
        uncut.push(whole.next().await.unwrap().id);
    }
    assert_eq!(cut.seen, uncut);
    let mut unique = uncut.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_taken_up_after_a_crash_goes_on_where_it_was() {
    let mut fte = Fte::start_with(&["--quiet"], &[("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let first = post(&fte.api(), echo("first")).await;
    result(&fte.api(), &first).await;
    let history: Value = fte.api().get(&format!("/v1/tasks/{first}/events")).await.unwrap().expect_status(200).json();
    let mut seen = vec![history["items"][0]["id"].as_str().unwrap().to_owned()];
    let mut load = Load::start(3, fte.doors());
    let mut dice = Dice::new(5);
    for _ in 0..6 {
        let mut stream = fte.api().events("/v1/events", seen.last().map(String::as_str)).await.unwrap();
        for _ in 0..20 + dice.below(60) {
            seen.push(stream.next().await.unwrap().id);
        }
        // Killed while it is being read: what was sent to the end counts.
        let reading = tokio::spawn(async move {
            let mut last = Vec::new();
            while let Some(event) = stream.next().await {
                last.push(event.id);
            }
            last
        });
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
        fte.process.kill().await;
        load.close();
        seen.extend(reading.await.unwrap());
        fte.process.restart().await;
        load.open(fte.doors());
    }
    let accepted = load.end().await;
    let told = settled(&fte.doors(), &accepted).await;
    load.go_home().await;
    let expected: usize = told.values().map(|history| history.shown.len()).sum();
    let mut stream = fte.api().events("/v1/events", seen.last().map(String::as_str)).await.unwrap();
    while seen.len() < expected {
        seen.push(stream.next().await.unwrap().id);
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((seen.len(), count), (expected, expected));
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Events of about 30 KB, twice as many of them as tasks.
async fn large_tasks(api: &Client, count: usize) -> Vec<String> {
    let text = "x".repeat(30_000);
    let mut tasks = Vec::new();
    while tasks.len() < count {
        tasks.extend(join_all((0..4).map(|_| post(api, echo(&text)))).await);
    }
    for task in &tasks {
        result(api, task).await;
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_reads_cost_no_memory_and_hold_up_nobody() {
    const STREAMS: usize = 400;
    const TASKS: usize = 200;
    /// Of each stream of all tasks: two pieces of 64 KiB, each with an event of 30 KB beyond, and its connection.
    const STREAM_KIB: u64 = 256;
    /// What the process grows and shrinks by under this load with no stream at all, once it has what it needs.
    const LOAD_KIB: u64 = 16 * 1024;
    /// So many rounds of the load there are first, and so many in a row that take no more memory.
    const ROUNDS: u32 = 8;
    const STEADY: u32 = 3;
    let fte = Fte::start_with(&["--quiet"], &[]).await;
    let api = fte.api();
    // The load itself takes memory until the sidecar's and the databases' caches are full.
    let (mut before_kib, mut rounds, mut steady) = (0, 0, 0);
    while rounds < ROUNDS || steady < STEADY {
        assert!(rounds < 10 * ROUNDS, "the load alone takes ever more memory: {before_kib} KiB after {rounds} rounds");
        large_tasks(&api, TASKS).await;
        rounds += 1;
        let kib = resident_kib(fte.process.ready().pid);
        steady = if kib <= before_kib { steady + 1 } else { 0 };
        before_kib = before_kib.max(kib);
    }

    let host = api.base().trim_start_matches("http://").to_owned();
    let first = post(&api, echo("first")).await;
    result(&api, &first).await;
    let mut unread = Vec::new();
    for number in 0..STREAMS {
        let path = if number % 2 == 0 { "/v1/events".to_owned() } else { format!("/v1/tasks/{first}/events") };
        let mut stream = TcpStream::connect(&host).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        unread.push(stream);
    }
    let slow = api.events("/v1/events", None).await.unwrap();
    let mut reader = api.events("/v1/events?type=fte.result.completed", None).await.unwrap();
    let tasks = large_tasks(&api, TASKS).await;
    let grown_kib = resident_kib(fte.process.ready().pid).saturating_sub(before_kib);
    let data_kib = (TASKS * 2 * 30_000 * STREAMS / 2 / 1024) as u64;
    println!("{STREAMS} unread streams of {data_kib} KiB in all grew the process by {grown_kib} KiB");
    let most_kib = LOAD_KIB + STREAM_KIB * STREAMS as u64 / 2;
    assert!(grown_kib < most_kib, "{grown_kib} KiB, expected less than {most_kib} KiB of {data_kib} KiB");

    // Of what came before they were opened they may have the last events, too.
    let tasks: BTreeSet<String> = tasks.into_iter().collect();
    let mut told = BTreeSet::new();
    while !told.is_superset(&tasks) {
        assert!(told.insert(reader.next().await.unwrap().json()["subject"].as_str().unwrap().to_owned()));
    }
    // Whoever reads late still gets everything, once.
    let told = settled(&Doors::all(&api), &tasks.iter().cloned().collect::<Vec<_>>()).await;
    let recorded: BTreeSet<String> = tasks.iter().flat_map(|task| told[task].shown.iter().cloned()).collect();
    let (mut slow, mut late) = (slow, BTreeSet::new());
    while !late.is_superset(&recorded) {
        assert!(late.insert(tokio::time::timeout(LOAD_PATIENCE, slow.next()).await.unwrap().unwrap().id));
    }
}
