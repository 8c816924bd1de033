//! Watches that break, are forgotten, fall silent, or only mark the time.

use std::time::Duration;

use fte_kubernetes::Options;
use fte_runner::agents::Claims;

use crate::controller::{self, Outcome};
use crate::server::{Fault, Server};
use crate::support::{claim, client, key, options, request, started};

/// Polling is no help here: only a watch can tell.
fn by_watch_alone() -> Options {
    let never = Duration::from_secs(3600);
    Options { poll_every: never, renew_every: never, sweep_every: never, ..options() }
}

#[tokio::test]
async fn watches_that_break_in_the_middle_of_a_line_are_resumed() {
    let server = Server::start().await;
    server.world().watch_events_max = Some(1);
    controller::start(&server, true, |_| Outcome::Ready(Duration::from_millis(30), None));
    let client = client(&server, by_watch_alone());
    for _ in 0..3 {
        drop(claim(&client).await.unwrap());
    }
    client.settled().await;
    assert!(server.deeds("watch").len() > 1);
}

#[tokio::test]
async fn a_watch_whose_place_is_forgotten_begins_anew() {
    let server = Server::start().await;
    controller::start(&server, true, |_| Outcome::Ignored);
    let client = client(&server, by_watch_alone());
    let wanted = request(Duration::from_secs(60));
    let claiming = tokio::spawn(client.claim(wanted.clone()));
    server.until("it is made and watched", |world| world.watches == 1 && world.claims.contains_key(&key(&wanted))).await;
    let lists = server.deeds("list").len();
    // What happens is forgotten before the watch could say it.
    server.change(|world| {
        let mut claim = world.claims[&key(&wanted)].clone();
        claim["status"] = serde_json::json!({
            "conditions": [{"type": "Ready", "status": "True", "reason": "DependenciesReady", "message": ""}],
            "sandbox": {"name": "box", "podIPs": ["10.0.0.9"]}
        });
        world.put(&key(&wanted), claim, "MODIFIED");
        world.forget();
    });
    let claimed = claiming.await.unwrap().unwrap();
    assert_eq!(claimed.authority(), "10.0.0.9:8080");
    assert!(server.deeds("list").len() > lists);
    // Deleted unseen, while there was no watch: nobody says so, and it is found missing.
    server.change(|world| {
        world.remove(&key(&wanted));
        world.forget();
    });
    let why = claimed.lost.await.unwrap();
    assert!(why.contains("deleted"), "{why}");
}

/// Versions rise, none of it is ours, and old ones are forgotten: with a bookmark the watch resumes behind them, without a list.
#[tokio::test]
async fn a_bookmark_spares_the_list() {
    let server = Server::start().await;
    controller::start(&server, true, |_| Outcome::Ignored);
    let client = client(&server, by_watch_alone());
    let wanted = request(Duration::from_secs(60));
    let _claiming = tokio::spawn(client.claim(wanted.clone()));
    server.until("it is watched", |world| world.watches == 1 && world.claims.contains_key(&key(&wanted))).await;
    for _ in 0..5 {
        server.change(crate::server::World::age);
    }
    let (lists, watches) = (server.deeds("list").len(), server.deeds("watch").len());
    server.until("the last version is marked", |world| world.marked == world.version).await;
    server.change(|world| {
        world.forget();
        world.hang_up += 1;
    });
    server.until("it is watched again", |world| world.deeds.iter().filter(|deed| deed.call.verb == "watch").count() > watches).await;
    assert!(server.deeds("watch").iter().all(|deed| deed.status == 200));
    assert_eq!(server.deeds("list").len(), lists);
}

#[tokio::test]
async fn a_watch_that_says_nothing_or_is_refused_costs_only_time() {
    let (server, client) = started(|server| controller::start(server, true, |_| Outcome::Ready(Duration::from_millis(30), None))).await;
    server.world().silent = true;
    drop(claim(&client).await.unwrap());
    let (refusing, client) = started(|server| controller::start(server, true, |_| Outcome::Ready(Duration::from_millis(30), None))).await;
    refusing.faults(|call| (call.verb == "watch").then_some(Fault::Refused(403, "Forbidden", "no", None)));
    drop(claim(&client).await.unwrap());
}
