//! What accepting a task costs: CPU time per `POST /v1/tasks` on the thread that runs the front, the handler and the SDK's publisher.
//!
//! The sidecar is a thread of its own that answers at once, so it is not counted; the HTTP server around the router is not either.
//! `cargo run --profile bench -p fte-intake --example accept [TASKS] [AT_A_TIME]`

#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use fte_intake::Config;
use fte_service::telemetry::Logs;
use fte_service::{ApiOptions, Bus, MapEnv, Ports, Readiness, Settings, api_router};
use futures_util::StreamExt as _;
use http::{Request, StatusCode};
use tower::ServiceExt as _;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let tasks = arguments.next().map_or(Ok(200_000), |text| text.parse::<u32>())?;
    let at_a_time = arguments.next().map_or(Ok(64), |text| text.parse::<usize>())?;

    let sidecar = std::net::TcpListener::bind("127.0.0.1:0")?;
    sidecar.set_nonblocking(true)?;
    let url = format!("http://{}", sidecar.local_addr()?);
    std::thread::spawn(move || answer_at_once(sidecar));

    fte_service::telemetry::init(Logs::from_env(&MapEnv::of([("FTE_LOG_FORMAT", "json")]), "info")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let settings = Settings::from_env(&MapEnv::of([("FTE_SIDECAR_URL", &url)]), Ports { app: 0, api: 0 })?;
        let bus = Bus::connect(&settings, fte_intake::NAME)?;
        let service = fte_intake::start(Config::default(), &settings, bus).await?;
        let api = api_router(vec![service.api], &Readiness::new(Vec::new()), ApiOptions::new(&settings)).with_state(());
        measure(&api, "GET /health (the front alone)", "/health", tasks, 1).await?;
        measure(&api, "POST /v1/tasks, refused", "/v1/tasks?refuse", tasks, 1).await?;
        measure(&api, "POST /v1/tasks, accepted", "/v1/tasks", tasks, at_a_time).await?;
        measure(&api, "POST /v1/tasks, accepted", "/v1/tasks", tasks / 10, 1).await
    })
}

fn answer_at_once(listener: std::net::TcpListener) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let answer = || post(async |_: axum::body::Bytes| StatusCode::NO_CONTENT).layer(axum::extract::DefaultBodyLimit::disable());
        let router = Router::new().route("/v1.0/publish/{*rest}", answer());
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        axum::serve(listener, router).await.expect("it serves");
    });
}

async fn measure(api: &Router, what: &str, path: &str, count: u32, at_a_time: usize) -> Result<(), Failure> {
    let body = match path {
        "/v1/tasks?refuse" => r#"{"task":""}"#,
        _ => r#"{"task":"summarise the minutes of the board","agent":"echo","context":{"minutes":"We met. We agreed."},"priority":"P2"}"#,
    };
    let (wall, busy) = (std::time::Instant::now(), busy_ns()?);
    let mut calls = futures_util::stream::iter((0..count).map(|_| {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = if path == "/health" { http::Method::GET } else { http::Method::POST };
        *request.uri_mut() = path.parse().expect("a path");
        request.headers_mut().insert("host", http::HeaderValue::from_static("127.0.0.1:8080"));
        request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        api.clone().oneshot(request)
    }))
    .buffer_unordered(at_a_time);
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    while let Some(Ok(response)) = calls.next().await {
        *statuses.entry(response.status().as_u16()).or_default() += 1;
    }
    let per_call = |nanos: u128| nanos as f64 / f64::from(count) / 1000.0;
    let (cpu_us, wall_us) = (per_call(u128::from(busy_ns()? - busy)), per_call(wall.elapsed().as_nanos()));
    println!("{what}, {at_a_time} at a time: {cpu_us:.1} µs CPU, {wall_us:.1} µs wall each; {statuses:?}");
    fte_service::metrics::upkeep();
    Ok(())
}

/// How long this thread has been on a CPU.
fn busy_ns() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}
