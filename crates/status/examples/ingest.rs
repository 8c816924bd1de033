//! How fast the read model takes events in, and what that costs: `cargo run --profile bench -p fte-status --example ingest -- <tasks> [<events/s>]`.
//!
//! Each task has the six events of a short run (request, claim, running, result, completed, release), which arrive as the sidecar brings them: in
//! batches per topic, several at once. Made beforehand, a slice at a time, so that the clock sees reading, writing and waking alone.
#![expect(clippy::print_stdout, reason = "it reports to a person")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fte_bus::{Delivery, RawEvent, Record};
use fte_events::{
    ClaimId, EventName, Origin, Outgoing, Payload, ResultKind, SandboxChange, SandboxClaim, SandboxKind, Status, StatusChanged, TaskId,
    TaskRequested, TaskResult, event_id, sample,
};
use fte_status::store::{Store, StoreOptions};
use jiff::Timestamp;

const BATCH: usize = 256;
const SLICE: usize = 5_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let tasks: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let rate: Option<f64> = arguments.next().map(|text| text.parse()).transpose()?;
    let directory = tempfile::tempdir()?;
    let store = Store::open(
        StoreOptions::at(directory.path().join("status.sqlite")),
        fte_status::wake::Waiters::new(16),
        fte_status::feed::Feed::new(4 << 20, 16),
    )?;
    let _listener = store.feed().listen()?;

    let (mut took, mut events, mut waits) = (Duration::ZERO, 0, Vec::new());
    let (mut handlers, mut writer) = (0.0, 0.0);
    for slice in 0..tasks.div_ceil(SLICE) {
        let deliveries = slice_of_tasks(SLICE.min(tasks - slice * SLICE));
        let count: usize = deliveries.iter().flatten().map(Vec::len).sum();
        let (cpu_before, writer_before, began) = (cpu("/proc/self/stat"), writer_cpu(), Instant::now());
        for (round, batches) in deliveries.into_iter().enumerate() {
            if let Some(rate) = rate {
                let due = Duration::from_secs_f64(round as f64 * (BATCH * 6) as f64 / rate);
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
            let mut under_way = tokio::task::JoinSet::new();
            for batch in batches {
                let store = store.clone();
                under_way.spawn(async move {
                    let began = Instant::now();
                    let events =
                        batch.into_iter().map(|delivery| fte_status::reading::read(delivery, Timestamp::now())).collect::<Result<_, _>>();
                    store.record(events.expect("sample events can be read")).await.expect("the disk takes them");
                    began.elapsed()
                });
            }
            while let Some(one) = under_way.join_next().await {
                waits.push(one?);
            }
        }
        took += began.elapsed();
        let of_writer = writer_cpu() - writer_before;
        (handlers, writer) = (handlers + cpu("/proc/self/stat") - cpu_before - of_writer, writer + of_writer);
        events += count;
    }
    let seconds = took.as_secs_f64();
    let per_event = 1e6 / events as f64;
    waits.sort();
    let [p50, p99, max] = [50, 99, 100].map(|percent| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1e3);
    println!(
        "{events} events in {seconds:.2} s: {:.0}/s, a batch of {BATCH}: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms",
        events as f64 / seconds
    );
    println!("CPU per event: writer {:.2} µs, handlers {:.2} µs", writer * per_event, handlers * per_event);
    println!("at 30 000/s: {:.0} % of a core", (writer + handlers) * per_event * 3.0);
    println!("resident {} MiB, database {} MiB", resident_mib(), std::fs::metadata(directory.path().join("status.sqlite"))?.len() >> 20);
    Ok(())
}

/// Rounds of batches, one batch per topic and happening.
fn slice_of_tasks(count: usize) -> Vec<Vec<Vec<Delivery>>> {
    let mut rounds = Vec::new();
    let mut made = 0;
    while made < count {
        let tasks: Vec<TaskId> = (made..count.min(made + BATCH)).map(|_| TaskId::now()).collect();
        made += tasks.len();
        rounds.push((0..6).map(|step| tasks.iter().map(|task| delivery(*task, step)).collect()).collect());
    }
    rounds
}

fn delivery(task: TaskId, step: u32) -> Delivery {
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

fn moved(task: TaskId, status: Status, sequence: u64) -> Delivery {
    let change = StatusChanged { agent: Some("echo".to_owned()), ..StatusChanged::new(task, status, sequence, 1) };
    wire("runner", task, EventName::Status { sequence }, &change)
}

fn wire<P: Payload>(service: &str, task: TaskId, name: EventName<'_>, payload: &P) -> Delivery {
    let body = Outgoing::new(service, event_id(task, name), Timestamp::now(), payload).about(task).to_bytes();
    let event = RawEvent::parse(&body).expect("what was written can be read");
    Delivery { event, record: Record { topic: Arc::from(&*payload.topic()), body, partition: None, offset: None, key: None } }
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
