//! How much the sidecar carries, and at what cost: bulk publish → bulk delivery to three groups, and state beside it.
//!
//! ```text
//! cargo run --profile bench -p fte-sidecar --example throughput -- [events/s] [state ops/s] [seconds] [event bytes] [connections] [bulk calls]
//! ```
//!
//! A rate of 0 is flat out, `-` is none. The sidecar runs in a process of its own, so that its CPU time and memory are told
//! from those of the load. The disk is the one below the temporary directory.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for the terminal")]

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fte_sidecar::{AppSpec, Options, TopicSpec};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;

/// As in the `fte` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOPICS: usize = 6;
const BATCH: usize = 32;
/// Topics each group subscribes to: 35 000 events/s become about 80 000 deliveries/s.
const GROUPS: [(&str, usize); 3] = [("audit", 6), ("status", 6), ("runner", 2)];

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "sidecar") {
        sidecar(&args[1..]).await;
    } else {
        load(&args).await;
    }
}

/// The child: a sidecar until its standard input ends.
async fn sidecar(args: &[String]) {
    let mut options = Options::new(&args[0]);
    options.apps = GROUPS
        .iter()
        .zip(&args[1..])
        .map(|((id, _), addr)| AppSpec {
            app_id: (*id).to_owned(),
            app: addr.parse().unwrap(),
            http: ([127, 0, 0, 1], 0).into(),
            api_token: None,
            app_token: None,
        })
        .collect();
    options.limits.bulk_calls_max = args[1 + GROUPS.len()].parse().unwrap();
    options.topics = (0..TOPICS).map(|n| TopicSpec { name: format!("topic-{n}"), partitions: 12, retention: None }).collect();
    let sidecar = fte_sidecar::start(options).await.unwrap();
    for addr in sidecar.http_addrs() {
        println!("{addr}");
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    sidecar.stop().await;
}

#[derive(Default)]
struct Counts {
    published: AtomicU64,
    delivered: AtomicU64,
    calls: AtomicU64,
    state: AtomicU64,
    failed: AtomicU64,
    publish_us: AtomicU64,
    publishes: AtomicU64,
    /// From the begin of a publish call to the app having read the first event of a delivery.
    hop_us: AtomicU64,
}

async fn load(args: &[String]) {
    let rate = |index: usize, default: &str| match args.get(index).map_or(default, String::as_str) {
        "-" => None,
        text => Some(text.parse::<u64>().unwrap()),
    };
    let events = rate(0, "0");
    let ops = rate(1, "0");
    let seconds = rate(2, "10").unwrap();
    let bytes = rate(3, "1000").unwrap();
    let connections = rate(4, "16").unwrap();
    let counts = Arc::new(Counts::default());
    let mut apps = Vec::new();
    for (_, topics) in GROUPS {
        apps.push(app(topics, counts.clone()).await);
    }
    let dir = tempfile::TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("sidecar")
        .arg(dir.path())
        .args(apps.iter().map(ToString::to_string))
        .arg(rate(5, "4").unwrap().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let api: Vec<SocketAddr> = (0..GROUPS.len()).map(|_| lines.next().unwrap().unwrap().parse().unwrap()).collect();
    // Warm-up: the apps are found, the first commits done.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let idle = usage(&child);
    println!("idle: {:.1} MiB resident", idle.resident_mib);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(events) = events {
        for n in 0..connections {
            let pace = Pace::new(events, connections, BATCH as u64);
            let addr = api[n as usize % api.len()];
            tasks.spawn(publish(client.clone(), addr, n, bytes as usize, pace, end, counts.clone()));
        }
    }
    if let Some(ops) = ops {
        for n in 0..connections {
            let pace = Pace::new(ops, connections, 8);
            tasks.spawn(state(client.clone(), api[2], n, pace, end, counts.clone()));
        }
    }
    while tasks.join_next().await.is_some() {}
    let published = counts.published.load(Ordering::Relaxed);
    let elapsed = began.elapsed().as_secs_f64();
    let wanted: u64 = published * GROUPS.iter().map(|(_, topics)| *topics as u64).sum::<u64>() / TOPICS as u64;
    let at_end = counts.delivered.load(Ordering::Relaxed);
    let patience = Instant::now();
    // Within what the uneven split of events over topics allows.
    let mut last = 0;
    while patience.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = counts.delivered.load(Ordering::Relaxed);
        if now == last && now + wanted / 20 >= wanted {
            break;
        }
        last = now;
    }
    let caught_up = began.elapsed().as_secs_f64() - 0.3;
    let used = usage(&child);
    let cpu = used.cpu_s - idle.cpu_s;
    let calls = counts.calls.load(Ordering::Relaxed);
    let delivered = counts.delivered.load(Ordering::Relaxed);
    println!("published  {:>9.0} events/s in bulk calls of {BATCH}, {bytes} bytes each", published as f64 / elapsed);
    println!(
        "           {:.2} ms mean per call, {} failed",
        counts.publish_us.load(Ordering::Relaxed) as f64 / 1000.0 / counts.publishes.load(Ordering::Relaxed).max(1) as f64,
        counts.failed.load(Ordering::Relaxed),
    );
    println!(
        "delivered  {:>9.0} events/s while publishing, {:>9.0} until caught up, {:.1} a call",
        at_end as f64 / elapsed,
        delivered as f64 / caught_up,
        delivered as f64 / calls.max(1) as f64
    );
    println!(
        "           {:.2} ms mean from the publisher to the app",
        counts.hop_us.load(Ordering::Relaxed) as f64 / 1000.0 / calls.max(1) as f64
    );
    println!("state      {:>9.0} ops/s in calls of 8", counts.state.load(Ordering::Relaxed) as f64 / elapsed);
    println!("sidecar    {cpu:.2} s CPU in {caught_up:.1} s = {:.2} cores, {:.1} MiB resident", cpu / caught_up, used.resident_mib);
    drop(child.stdin.take());
    child.wait().unwrap();
    std::io::stdout().flush().unwrap();
}

/// Keeps a rate on average; bursts make up for what was late.
struct Pace {
    every: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(per_s: u64, tasks: u64, batch: u64) -> Self {
        Self { every: (per_s > 0).then(|| Duration::from_secs_f64((tasks * batch) as f64 / per_s as f64)), next: Instant::now() }
    }

    async fn turn(&mut self) {
        if let Some(every) = self.every {
            tokio::time::sleep_until(self.next.into()).await;
            self.next += every;
        }
    }
}

/// Microseconds since the first call.
fn now_us() -> u64 {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_micros() as u64
}

type Http = Client<HttpConnector, Full<Bytes>>;

async fn post(client: &Http, uri: &str, body: Vec<u8>, cloudevents: &str) -> bool {
    let request = Request::post(uri).header("content-type", cloudevents).body(Full::new(Bytes::from(body))).unwrap();
    let Ok(response) = client.request(request).await else {
        return false;
    };
    let fine = response.status().is_success();
    response.into_body().collect().await.is_ok() && fine
}

async fn publish(client: Http, addr: SocketAddr, seed: u64, bytes: usize, mut pace: Pace, end: Instant, counts: Arc<Counts>) {
    let filler = "x".repeat(bytes.saturating_sub(420));
    let mut n = 0_u64;
    while Instant::now() < end {
        pace.turn().await;
        let topic = (seed + n) as usize % TOPICS;
        let mut body = Vec::with_capacity(BATCH * (bytes + 200));
        body.push(b'[');
        for entry in 0..BATCH {
            if entry > 0 {
                body.push(b',');
            }
            n += 1;
            write!(
                body,
                r#"{{"entryId":"{entry}","contentType":"application/cloudevents+json","metadata":{{"partitionKey":"task-{}"}},"event":{{"specversion":"1.0","id":"0192f3a4-5b6c-7d8e-9f00-{seed:04}{n:08}","source":"/fte/runner","type":"fte.status.changed","subject":"task-{}","time":"2026-01-01T00:00:00.000Z","datacontenttype":"application/json","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","ftetenant":"default","fteversion":"1","data":{{"at_us":{},"task_id":"task-{}","status":"running","message":"{filler}"}}}}}}"#,
                n / 7,
                n / 7,
                now_us(),
                n / 7
            )
            .unwrap();
        }
        body.push(b']');
        let began = Instant::now();
        if post(&client, &format!("http://{addr}/v1.0/publish/bulk/pubsub/topic-{topic}"), body, "application/json").await {
            counts.published.fetch_add(BATCH as u64, Ordering::Relaxed);
        } else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        counts.publishes.fetch_add(1, Ordering::Relaxed);
        counts.publish_us.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

/// Documents of 1 kB, each written three times and read once, as a task's is.
async fn state(client: Http, addr: SocketAddr, seed: u64, mut pace: Pace, end: Instant, counts: Arc<Counts>) {
    let filler = "y".repeat(900);
    let mut round = 0_u64;
    while Instant::now() < end {
        pace.turn().await;
        let first = round / 4 * 8;
        let keys: Vec<String> = (0..8).map(|n| format!("task/0192f3a4-{:08}-{seed:04}", first + n)).collect();
        let fine = if round % 4 == 3 {
            let body = json!({ "keys": keys }).to_string();
            post(&client, &format!("http://{addr}/v1.0/state/statestore/bulk"), body.into(), "application/json").await
        } else {
            let items: Vec<_> =
                keys.iter().map(|key| json!({"key": key, "value": {"status": "running", "turn": round, "filler": filler}})).collect();
            post(&client, &format!("http://{addr}/v1.0/state/statestore"), json!(items).to_string().into(), "application/json").await
        };
        round += 1;
        if fine {
            counts.state.fetch_add(8, Ordering::Relaxed);
        } else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An app that subscribes in bulk and says SUCCESS to everything.
async fn app(topics: usize, counts: Arc<Counts>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let subscriptions: Vec<_> = (0..topics)
        .map(|n| {
            json!({"pubsubname": "pubsub", "topic": format!("topic-{n}"), "route": "/events",
                "bulkSubscribe": {"enabled": true, "maxMessagesCount": 500, "maxAwaitDurationMs": 20}})
        })
        .collect();
    let list = Bytes::from(json!(subscriptions).to_string());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (counts, list) = (counts.clone(), list.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| answer(request, counts.clone(), list.clone()));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    addr
}

async fn answer(request: Request<Incoming>, counts: Arc<Counts>, list: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/dapr/subscribe" {
        return Ok(Response::new(Full::new(list)));
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    // Every entry names itself once; looking for that costs little beside parsing.
    let needle = b"{\"entryId\":\"";
    let mut entries = 0;
    let mut at = 0;
    while at + needle.len() <= body.len() {
        if body[at] == b'{' && body[at..].starts_with(needle) {
            entries += 1;
            at += 600;
        }
        at += 1;
    }
    if let Some(at) = body.windows(8).take(2000).position(|piece| piece == b"\"at_us\":") {
        let digits = body[at + 8..].iter().take_while(|byte| byte.is_ascii_digit());
        let sent = digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        counts.hop_us.fetch_add(now_us().saturating_sub(sent), Ordering::Relaxed);
    }
    let mut text = Vec::with_capacity(entries * 40 + 20);
    text.extend_from_slice(b"{\"statuses\":[");
    for entry in 0..entries {
        if entry > 0 {
            text.push(b',');
        }
        write!(text, "{{\"entryId\":\"{entry}\",\"status\":\"SUCCESS\"}}").unwrap();
    }
    text.extend_from_slice(b"]}");
    counts.delivered.fetch_add(entries as u64, Ordering::Relaxed);
    counts.calls.fetch_add(1, Ordering::Relaxed);
    Ok(Response::new(Full::new(Bytes::from(text))))
}

struct Usage {
    cpu_s: f64,
    resident_mib: f64,
}

/// What a child has used, from the process file system.
fn usage(child: &Child) -> Usage {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    Usage { cpu_s: ticks as f64 / 100.0, resident_mib: kib / 1024.0 }
}
