use std::sync::atomic::AtomicUsize;

use axum::routing::get;
use axum::{Json, Router};
use fte_bus::SidecarConfig;
use fte_testkit::PATIENCE;

use super::*;

/// A runner behind a sidecar that counts how often it is asked.
async fn runner(full: FullQueues, hangs: bool) -> (Sidecar, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        if hangs {
            std::future::pending::<()>().await;
        }
        Json(full)
    };
    let place = async |axum::extract::Path(task): axum::extract::Path<TaskId>| {
        Json(Standing { position: 1 + u64::from(task.to_string().is_empty()), waiting: 3, wait_s: None })
    };
    let app = Router::new().route("/pool/full", get(answer)).route("/pool/tasks/{id}", get(place));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = SidecarConfig::at_port(listener.local_addr().unwrap().port());
    let server = axum::serve(listener, Router::new().nest("/v1.0/invoke/fte-runner/method", app));
    tokio::spawn(async move { server.await });
    (Sidecar::new(config).unwrap(), asked)
}

#[tokio::test]
async fn many_ask_and_the_runner_is_asked_once() {
    let full = FullQueues { full: [("busy".to_owned(), 7)].into() };
    let (sidecar, asked) = runner(full, false).await;
    let queues = Queues::within(PATIENCE, sidecar);
    let answers = futures_util::future::join_all((0..100).map(|_| queues.is_full("busy"))).await;
    assert_eq!(answers, vec![Some(Duration::from_secs(7)); 100]);
    assert_eq!(queues.is_full("free").await, None);
    // Half a minute of a slow machine may pass in between, and each second another question.
    let most = 1 + usize::try_from(queues.asked.known.borrow().at.unwrap().elapsed().as_secs()).unwrap();
    assert!(asked.load(Ordering::Relaxed) <= most.max(2));
}

#[tokio::test]
async fn a_runner_that_hangs_or_is_away_has_room() {
    let (hanging, asked) = runner(FullQueues::default(), true).await;
    let queues = Queues::new(hanging);
    assert_eq!(queues.is_full("busy").await, None);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let away = Sidecar::new(SidecarConfig::at_port(1)).unwrap();
    assert_eq!(Queues::new(away.clone()).is_full("busy").await, None);
    assert_eq!(Standings::new(away).of(TaskId::now()).await, None);
}

#[tokio::test]
async fn a_standing_is_remembered_and_the_memory_is_bounded() {
    let (sidecar, _) = runner(FullQueues::default(), false).await;
    let standings = Standings::within(PATIENCE, sidecar);
    let task = TaskId::now();
    assert_eq!(standings.of(task).await, Some(Standing { position: 1, waiting: 3, wait_s: None }));
    standings.known().entry(task).and_modify(|known| known.1 = None);
    if standings.known()[&task].0.elapsed() < FRESH / 2 {
        assert_eq!(standings.of(task).await, None, "for a second it is what was said last");
    }
    standings.known().extend((0..STANDINGS_MAX).map(|_| (TaskId::now(), (Instant::now(), None))));
    let before = standings.known().len();
    standings.of(TaskId::now()).await;
    assert!(standings.known().len() <= before);
}
