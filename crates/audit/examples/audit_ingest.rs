//! Measures the way into the log: reading, recognising, numbering, committing.
//!
//! `cargo run --profile bench -p fte-audit --example audit_ingest -- events=1000000 way=bulk`, and more of these:
//!
//! * `events=1000000`, `each=256`: how many, and how many of them in a delivery. Of 1 kB, as tasks make them that pass through an embedded sidecar: six of each task, with
//!   the attributes that a sidecar adds.
//! * `at_once=16`: deliveries under way; or `rate=5000`: so many events a second, whatever has been answered, each delivery timed from when it was due.
//! * `directory=audit-ingest`: where the log is; one that has entries already goes on.
//! * `duplicates=0`: how many in a hundred come again.
//! * `ids=task`: those of the catalogue, or `random`, as those of outside systems may be.
//! * `way=direct`, or `bulk`: through the route that a sidecar calls, with its JSON and base64, but without HTTP.
//! * `sealing=sealed`: what is personal is encrypted, as the service does; or `plain`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use fte_audit::engine::{Engine, EngineOptions};
use fte_audit::entry::{Entry, NewEntry, Position};
use fte_audit::log::{Log, Query};
use fte_audit::subjects::{Subjects, SubjectsOptions};
use fte_bus::Record;
use fte_events::{EventName, TaskId, event_id};
use fte_service::{MapEnv, Settings};
use hdrhistogram::Histogram;
use http_body_util::BodyExt;
use tower::ServiceExt;

struct Plan {
    events: usize,
    at_once: usize,
    rate: Option<f64>,
    each: usize,
    directory: PathBuf,
    duplicates_pct: usize,
    random: bool,
    bulk: bool,
    sealed: bool,
}

impl Plan {
    const KNOWN: [&str; 9] = ["events", "at_once", "rate", "each", "directory", "duplicates", "ids", "way", "sealing"];

    fn read(arguments: impl Iterator<Item = String>) -> Self {
        let mut given = BTreeMap::new();
        for argument in arguments {
            let known = argument.split_once('=').filter(|(name, _)| Self::KNOWN.contains(name));
            let (name, value) = known.unwrap_or_else(|| panic!("{argument}: expected NAME=VALUE, of {}", Self::KNOWN.join(", ")));
            given.insert(name.to_owned(), value.to_owned());
        }
        let number = |name: &str, default: usize| {
            given.get(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
        };
        let word = |name: &str, default: &str| given.get(name).map_or(default, String::as_str).to_owned();
        Self {
            events: number("events", 1_000_000),
            at_once: number("at_once", 16),
            rate: given.contains_key("rate").then(|| number("rate", 0) as f64),
            each: number("each", 256),
            directory: PathBuf::from(word("directory", "audit-ingest")),
            duplicates_pct: number("duplicates", 0),
            random: word("ids", "task") == "random",
            bulk: word("way", "direct") == "bulk",
            sealed: word("sealing", "sealed") == "sealed",
        }
    }
}

fn main() {
    let plan = Plan::read(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run(plan));
}

async fn run(plan: Plan) {
    std::fs::create_dir_all(&plan.directory).expect("a directory to measure in");
    let place = fte_audit::keys::signing::KeyPlace::File(plan.directory.join("audit/keys/log.key"));
    let key = fte_audit::keys::signing::key(&place, None, &plan.directory.join("audit")).expect("a key");
    let opening = Instant::now();
    let mut options = EngineOptions::at(plan.directory.join("audit"), Arc::new(key));
    if plan.sealed {
        options.sealing = Arc::new(Subjects::open(SubjectsOptions::at(plan.directory.join("audit/keys"))).expect("keys"));
    }
    let log: Arc<dyn Log> = Arc::new(Engine::open(options).expect("the log opens"));
    let opened = opening.elapsed();
    let plan = Arc::new(plan);
    // Made before the clock runs: what is measured is the log.
    let mut batches: Vec<Vec<Bytes>> = batches(&plan);
    let total: usize = batches.iter().map(Vec::len).sum();
    let bytes: usize = batches.iter().flatten().map(Bytes::len).sum();
    if plan.bulk {
        batches = batches.iter().enumerate().map(|(number, batch)| vec![bulk_body(batch, &Origin::of(number, plan.each))]).collect();
    }
    let batches = Arc::new(batches);
    let next = Arc::new(AtomicUsize::new(0));

    let settings = Settings::from_env(&MapEnv::default(), fte_audit::config::PORTS).expect("default settings");
    let router = fte_audit::service::subscribe::subscriptions(&settings, &log, &fte_audit::service::heard::Heard::nothing()).router();
    let (bulk, each) = (plan.bulk, plan.each);
    // With a rate as many workers as may ever wait: a delivery is never late because others are.
    let workers = if plan.rate.is_some() { 1_000 } else { plan.at_once };
    let apart = plan.rate.map(|rate| Duration::from_secs_f64(plan.each as f64 / rate));

    let (cpu, started, resident_before) = (cpu_time(), Instant::now(), resident_mib("VmRSS"));
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let (log, batches, next, router) = (Arc::clone(&log), Arc::clone(&batches), Arc::clone(&next), router.clone());
            tokio::spawn(async move {
                let topic: Arc<str> = "fte.status.updates".into();
                let mut waits = Histogram::<u64>::new(3).expect("a histogram");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(batch) = batches.get(number) else { break };
                    let asked = match apart {
                        Some(apart) => started + apart * u32::try_from(number).unwrap_or(u32::MAX),
                        None => Instant::now(),
                    };
                    tokio::time::sleep_until(asked.into()).await;
                    if bulk {
                        deliver(&router, batch[0].clone()).await;
                        waits.record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX)).expect("a wait");
                        continue;
                    }
                    let Origin { partition, first } = Origin::of(number, each);
                    let read = |(offset, body): (i64, &Bytes)| {
                        let (partition, offset) = (Some(partition), Some(offset));
                        NewEntry::read(Record { topic: Arc::clone(&topic), body: body.clone(), partition, offset, key: None })
                    };
                    let entries = (first..).zip(batch).map(read).collect();
                    log.append(entries).await.expect("the log takes entries");
                    waits.record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX)).expect("a wait");
                }
                waits
            })
        })
        .collect();
    let mut waits = Histogram::<u64>::new(3).expect("a histogram");
    for worker in workers {
        waits.add(worker.await.expect("a worker ends")).expect("histograms of one kind");
    }
    let (took, cpu) = (started.elapsed(), cpu_time() - cpu);
    let histories = ask(&*log).await;
    let rate = total as f64 / took.as_secs_f64();
    let disk = disk_bytes(&plan.directory);
    let ms = |quantile| waits.value_at_quantile(quantile) as f64 / 1000.0;
    #[expect(clippy::print_stdout, reason = "this is what it is for")]
    {
        println!("opened in {:.3} s", opened.as_secs_f64());
        println!("{total} events of {} bytes in {:.2} s: {rate:.0}/s", bytes / total.max(1), took.as_secs_f64());
        println!(
            "CPU {:.2} µs an event: {:.0} % of a core at 30 000/s",
            cpu.as_secs_f64() * 1e6 / total as f64,
            cpu.as_secs_f64() / total as f64 * 3e6
        );
        println!("acknowledged in ms: p50 {:.1}, p99 {:.1}, max {:.1}", ms(0.5), ms(0.99), ms(1.0));
        let ms = |quantile| histories.value_at_quantile(quantile) as f64 / 1000.0;
        println!("a task's history in ms: p50 {:.2}, p99 {:.2}, max {:.2}", ms(0.5), ms(0.99), ms(1.0));
        println!(
            "{} bytes of disk blocks an event, at most {} MiB resident more than before",
            disk / total as u64,
            resident_mib("VmHWM").saturating_sub(resident_before)
        );
    }
}

/// Deliveries of events in the order in which tasks make them.
fn batches(plan: &Plan) -> Vec<Vec<Bytes>> {
    let mut events = Vec::with_capacity(plan.events);
    let mut running = Vec::new();
    // Later runs into the same directory go on where earlier ones ended, as time does.
    let now = jiff::Timestamp::now().as_millisecond();
    while events.len() < plan.events {
        // A few hundred tasks are under way at a time.
        let at = jiff::Timestamp::from_millisecond(now + i64::try_from(events.len() / 30).unwrap_or(0)).expect("a time");
        running.push((TaskId::mint(at, fastrand::u128(..)), 0));
        let place = if running.len() > 200 { 0 } else { fastrand::usize(..running.len()) };
        let (task, step) = &mut running[place];
        *step += 1;
        events.push(event(*task, *step, plan.random));
        if *step == 6 {
            running.swap_remove(place);
        }
        if events.len() > 1000 && fastrand::usize(..100) < plan.duplicates_pct {
            let again = events[events.len() - 1 - fastrand::usize(..1000)].clone();
            events.push(again);
        }
    }
    events.chunks(plan.each).map(<[Bytes]>::to_vec).collect()
}

/// Makes an event one kB long.
const FILLER: &str = "Nothing of what was said there may be lost, so that whoever reads this later knows who decided what, when, and why; and that it was not changed since the day it was written.";

fn event(task: TaskId, step: u64, random: bool) -> Bytes {
    let id = if random { uuid::Uuid::from_u128(fastrand::u128(..)) } else { event_id(task, EventName::Status { sequence: step }) };
    let text = format!(
        r#"{{"data":{{"agent":"echo","attempt":1,"details":{{"tokens":1234,"cached":true,"ratio":0.5}},"message":"The agent has read the minutes and writes the summary now.","note":"{FILLER}","progress_pct":50,"sequence":{step},"stage":"writing","status":"running","task_id":"{task}"}},"datacontenttype":"application/json","ftecause":"{id}","ftetenant":"default","fteversion":"1","id":"{id}","pubsubname":"pubsub","source":"/fte/runner","specversion":"1.0","subject":"{task}","time":"2026-07-01T10:00:00.123456Z","topic":"fte.status.updates","traceid":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"","type":"fte.status.changed"}}"#
    );
    Bytes::from(text)
}

/// Asks for the histories of tasks from all over the log.
async fn ask(log: &dyn Log) -> Histogram<u64> {
    let mut waits = Histogram::<u64>::new(3).expect("a histogram");
    let page = log.entries(Query { limit: 1, ..Query::default() }).await.expect("a page");
    let Some(Entry { position: first, .. }) = page.entries.first() else {
        return waits;
    };
    // Gapless numbers make the end easy to find: double, then halve.
    let is_there = async |index| log.entry(Position { index, ..*first }).await.expect("an answer").is_some();
    let (mut low, mut high) = (0, 1);
    while is_there(high).await {
        (low, high) = (high, high * 2);
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if is_there(middle).await {
            low = middle;
        } else {
            high = middle;
        }
    }
    for _ in 0..500 {
        let at = Position { index: fastrand::u64(..high), ..*first };
        let Some(task) = log.entry(at).await.expect("an answer").and_then(|entry| entry.task()) else {
            continue;
        };
        let asked = Instant::now();
        let history = fte_audit::history::of(log, task, None, None, 10_000).await.expect("a history");
        assert!(history.is_some(), "an entry's task has a history");
        waits.record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX)).expect("a wait");
    }
    waits
}

/// Where the events of a delivery were read: each partition's one after the other, as a topic has them, since an offset that the log has passed is noted in
/// the entry. A later run into the same directory begins at the first offsets again, as a topic does that was made anew.
struct Origin {
    partition: i32,
    first: i64,
}

impl Origin {
    /// More than are delivered at a time, so that no two of one partition overtake each other.
    const PARTITIONS: usize = 60;

    fn of(delivery: usize, each: usize) -> Self {
        let (partition, first) = (delivery % Self::PARTITIONS, delivery / Self::PARTITIONS * each);
        Self { partition: i32::try_from(partition).unwrap_or_default(), first: i64::try_from(first).unwrap_or_default() }
    }
}

/// A delivery as Dapr makes it in bulk with `rawPayload`.
fn bulk_body(events: &[Bytes], Origin { partition, first }: &Origin) -> Bytes {
    let mut body = String::from(r#"{"id":"9f0f3d8a-3f5c-4d1c-9d1b-7a4a7c0b2f11","entries":["#);
    for (place, event) in events.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let offset = first + i64::try_from(place).unwrap_or_default();
        let event = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, event);
        body.push_str(&format!(
            r#"{comma}{{"entryId":"{place}","event":"{event}","contentType":"application/octet-stream","metadata":{{"__key":"01980000-0000-7000-8000-000000000001","__offset":"{offset}","__partition":"{partition}","__timestamp":"1782900000000","__topic":"fte.status.updates","pubsubName":"pubsub"}}}}"#
        ));
    }
    body.push_str(
        r#"],"topic":"fte.status.updates","metadata":{"pubsubName":"pubsub"},"pubsubname":"pubsub","type":"com.dapr.event.sent.bulk"}"#,
    );
    Bytes::from(body)
}

async fn deliver(router: &axum::Router, body: Bytes) {
    let request = Request::post("/events/fte.status.updates").header("content-type", "application/json");
    let request = request.body(Body::from(body)).expect("a request");
    let response = router.clone().oneshot(request).await.expect("an answer");
    let answer = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(!answer.windows(5).any(|text| text == b"RETRY"), "the log takes entries");
}

/// Bytes that all files below a directory take of the disk, in whole blocks.
fn disk_bytes(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: &std::fs::DirEntry| {
        entry.metadata().map_or(0, |meta| meta.blocks() * 512 + if meta.is_dir() { disk_bytes(&entry.path()) } else { 0 })
    };
    entries.map(|entry| of(&entry)).sum()
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<i64> = stat.rsplit(')').next().unwrap_or_default().split(' ').filter_map(|field| field.parse().ok()).collect();
    // After the state's letter: utime and stime are the 11th and 12th numbers, in ticks of 10 ms.
    let ticks = fields.get(10).unwrap_or(&0) + fields.get(11).unwrap_or(&0);
    Duration::from_millis(u64::try_from(ticks).unwrap_or(0) * 10)
}

fn resident_mib(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
