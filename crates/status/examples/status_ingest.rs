//! How fast the read model takes events in, and what that costs: `cargo run --profile bench -p fte-status --example status_ingest -- <tasks> [<events/s>]`.
//!
//! Each task has the six events of a short run (request, claim, running, result, completed, release), which arrive as the sidecar brings them: bulk calls
//! per topic, several at once, made beforehand a slice at a time, so that the clock sees the service alone. One client listens to the results of all tasks.
#![expect(clippy::print_stdout, reason = "it reports to a person")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use fte_events::{
    ClaimId, EventName, Origin, Outgoing, Payload, ResultKind, SandboxChange, SandboxClaim, SandboxKind, Status, StatusChanged, TaskId,
    TaskRequested, TaskResult, event_id, sample,
};
use fte_service::{Bus, MapEnv, Ports, Settings};
use http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use tower::ServiceExt;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// As in the `fte` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 256;
const STEPS: usize = 6;
const SLICE: usize = 5_000;

/// A bulk call: the topic and the body.
type Call = (String, Bytes);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let tasks: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let rate: Option<f64> = arguments.next().map(|text| text.parse()).transpose()?;
    let directory = tempfile::tempdir()?;
    let env = MapEnv::of([("FTE_DATA", &directory.path().to_string_lossy())]);
    let settings = Settings::from_env(&env, Ports { app: 0, api: 0 })?;
    let service = fte_status::start(fte_status::Config::default(), &settings, Bus::connect(&settings, "status")?).await?;
    let (app, (api, _)) = (service.app, service.api.split_for_parts());
    let listener = listen(api.clone()).await?;

    let (mut took, mut events, mut waits) = (Duration::ZERO, 0, Vec::new());
    let (mut others, mut writer) = (0.0, 0.0);
    for slice in 0..tasks.div_ceil(SLICE) {
        let count = SLICE.min(tasks - slice * SLICE);
        let rounds = rounds(count);
        let (cpu_before, writer_before, began) = (cpu("/proc/self/stat"), writer_cpu(), Instant::now());
        for (round, calls) in rounds.into_iter().enumerate() {
            if let Some(rate) = rate {
                let due = Duration::from_secs_f64(round as f64 * (BATCH * STEPS) as f64 / rate);
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
            let mut under_way = tokio::task::JoinSet::new();
            for call in calls {
                under_way.spawn(deliver(app.clone(), call));
            }
            while let Some(one) = under_way.join_next().await {
                waits.push(one??);
            }
        }
        took += began.elapsed();
        let of_writer = writer_cpu() - writer_before;
        (others, writer) = (others + cpu("/proc/self/stat") - cpu_before - of_writer, writer + of_writer);
        events += count * STEPS;
    }
    let seconds = took.as_secs_f64();
    let per_event = 1e6 / events as f64;
    waits.sort();
    let [p50, p99, max] = [50, 99, 100].map(|percent| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1e3);
    println!("{events} events in {seconds:.2} s: {:.0}/s", events as f64 / seconds);
    println!("a call of {BATCH}: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms");
    println!("CPU per event: writer {:.2} µs, all the rest {:.2} µs", writer * per_event, others * per_event);
    println!("at 30 000/s: {:.0} % of a core", (writer + others) * per_event * 3.0);
    read_back(api).await?;
    println!("resident {} MiB, database {} MiB", resident_mib(), std::fs::metadata(directory.path().join("status.sqlite"))?.len() >> 20);
    println!("the listener got {} MiB", listener.await? >> 20);
    Ok(())
}

/// Calls the service as the sidecar does; it must acknowledge every event.
async fn deliver(app: Router, (topic, body): Call) -> Result<Duration, Error> {
    let began = Instant::now();
    let request = Request::post(format!("/events/{topic}")).header("content-type", "application/json").body(Body::from(body))?;
    let answer = app.oneshot(request).await?.into_body().collect().await?.to_bytes();
    let took = began.elapsed();
    if answer.windows(5).any(|word| word == b"RETRY") { Err("an event was not acknowledged".into()) } else { Ok(took) }
}

/// Reads the results of all tasks until two seconds of silence; gives back how many bytes came.
async fn listen(api: Router) -> Result<tokio::task::JoinHandle<usize>, Error> {
    let request = Request::get("/v1/events?type=fte.result.completed").body(Body::empty())?;
    let mut stream = api.oneshot(request).await?.into_body();
    Ok(tokio::spawn(async move {
        let mut bytes = 0;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(Duration::from_secs(2), stream.frame()).await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        bytes
    }))
}

/// What reading costs with all of that stored.
async fn read_back(api: Router) -> Result<(), Error> {
    let newest = get(&api, "/v1/tasks?limit=1").await?;
    let newest: serde_json::Value = serde_json::from_slice(&newest)?;
    let id = newest["items"][0]["task_id"].as_str().ok_or("nothing was stored")?;
    let paths = [
        "/v1/tasks".to_owned(),
        "/v1/tasks?status=failed".to_owned(),
        "/v1/tasks?status=completed&agent=writer".to_owned(),
        format!("/v1/tasks/{id}"),
        format!("/v1/tasks/{id}/events"),
        format!("/v1/tasks/{id}/result?wait=1s"),
    ];
    for path in paths {
        let mut times = Vec::new();
        for _ in 0..101 {
            let began = Instant::now();
            get(&api, &path).await?;
            times.push(began.elapsed());
        }
        times.sort();
        println!("{path}: {:.0} µs", times[50].as_secs_f64() * 1e6);
    }
    Ok(())
}

async fn get(api: &Router, path: &str) -> Result<Bytes, Error> {
    let answer = api.clone().oneshot(Request::get(path).body(Body::empty())?).await?;
    if answer.status() == 200 {
        Ok(answer.into_body().collect().await?.to_bytes())
    } else {
        Err(format!("{path}: {}", answer.status()).into())
    }
}

/// Rounds of calls, one call per happening.
fn rounds(count: usize) -> Vec<Vec<Call>> {
    let tasks: Vec<TaskId> = (0..count).map(|_| TaskId::now()).collect();
    tasks.chunks(BATCH).map(|tasks| (0..STEPS).map(|step| call(tasks, step)).collect()).collect()
}

fn call(tasks: &[TaskId], step: usize) -> Call {
    let mut topic = String::new();
    let mut body = br#"{"id":"1","entries":["#.to_vec();
    for (place, task) in tasks.iter().enumerate() {
        let (event_topic, event) = event(*task, step);
        body.extend_from_slice(format!(r#"{}{{"entryId":"{place}","event":"#, if place > 0 { "," } else { "" }).as_bytes());
        body.extend_from_slice(&event);
        body.extend_from_slice(
            br#","metadata":{"__key":"k","__partition":"3","__offset":"7"},"contentType":"application/cloudevents+json"}"#,
        );
        topic = event_topic;
    }
    body.extend_from_slice(b"]}");
    (topic, body.into())
}

fn event(task: TaskId, step: usize) -> (String, Bytes) {
    let now = Timestamp::now();
    match step {
        0 => {
            let request = TaskRequested::new(task, "summarise the minutes of the last meeting", Origin::Http, now);
            wire("intake", task, EventName::Trigger { turn: 0 }, &request)
        }
        1 | 5 => {
            let claim_id = ClaimId::of(task, 0, 1);
            let kind = if step == 1 { SandboxKind::Claimed } else { SandboxKind::Released };
            let SandboxChange { claim, .. } = sample::sandbox_change(kind);
            let name = if step == 1 { EventName::Claimed(claim_id) } else { EventName::Released(claim_id) };
            wire("runner", task, name, &SandboxChange { kind, claim: SandboxClaim { claim_id, ..claim } })
        }
        2 => moved(task, Status::Running, 1),
        3 => {
            let result = TaskResult { task_id: task, artifacts: Vec::new(), ..sample::task_result(ResultKind::Completed) };
            wire("runner", task, EventName::Result, &result)
        }
        _ => moved(task, Status::Completed, 2),
    }
}

fn moved(task: TaskId, status: Status, sequence: u64) -> (String, Bytes) {
    let change = StatusChanged { agent: Some("echo".to_owned()), ..StatusChanged::new(task, status, sequence, 1) };
    wire("runner", task, EventName::Status { sequence }, &change)
}

fn wire<P: Payload>(service: &str, task: TaskId, name: EventName<'_>, payload: &P) -> (String, Bytes) {
    let event = Outgoing::new(service, event_id(task, name), Timestamp::now(), payload).about(task);
    (payload.topic().into_owned(), event.to_bytes())
}

/// Seconds of CPU in a `stat` file of `/proc`.
fn cpu(path: &str) -> f64 {
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn writer_cpu() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let is_writer = |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "status-store");
    threads.map(|thread| thread.path()).filter(|path| is_writer(path)).map(|path| cpu(&path.join("stat").to_string_lossy())).sum()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}
