//! What dead runners leave behind.

use std::time::Duration;

use fte_kubernetes::Options;

use crate::server::{Fault, Server, World};
use crate::support::{client, options};

const HOUR: Duration = Duration::from_secs(3600);
const OURS: (&str, &str) = ("app.kubernetes.io/managed-by", "fte");

fn names(world: &World) -> Vec<&str> {
    world.claims.keys().map(|key| key.strip_prefix("agents/").unwrap()).collect()
}

#[tokio::test]
async fn what_a_predecessor_on_the_seat_left_is_deleted_at_once_and_what_others_hold_stays() {
    let server = Server::start().await;
    let new = Options::new(["agents".to_owned()].into(), Some("fte/fte-runner-0"));
    let seat = new.seat.clone().unwrap();
    server.change(|world| {
        world.plant("before", &[OURS, ("fte/holder", "before"), ("fte/seat", &seat)], HOUR);
        world.plant("peer", &[OURS, ("fte/holder", "peer"), ("fte/seat", "another")], HOUR);
        world.plant("seatless", &[OURS, ("fte/holder", "elsewhere")], HOUR);
        world.plant("foreign", &[("app.kubernetes.io/managed-by", "helm"), ("fte/seat", &seat)], Duration::ZERO);
        world.plant("nameless", &[OURS], Duration::ZERO);
    });
    let _client = client(&server, Options { seat: new.seat, ..options() });
    server.until("the predecessor's is gone", |world| !names(world).contains(&"before")).await;
    let lists = server.asked("list");
    server.until("more sweeps follow", |world| world.counts["list"] > lists + 3).await;
    assert_eq!(names(&server.world()), ["foreign", "nameless", "peer", "seatless"]);
}

/// No controller looks at the time here.
#[tokio::test]
async fn what_nobody_renews_is_deleted_after_its_time() {
    let server = Server::start().await;
    // More than one page would be too many to plant; the pages are those of the list.
    server.change(|world| {
        for at in 0..30 {
            let ends_in = if at % 3 == 0 { HOUR } else { Duration::ZERO };
            world.plant(&format!("claim-{at:02}"), &[OURS, ("fte/holder", "dead")], ends_in);
        }
    });
    let mut first = true;
    // The first list fails; the first deletions, too, each in its own way.
    server.faults(move |call| match call.verb {
        "list" if std::mem::take(&mut first) => Some(Fault::Refused(500, "InternalError", "etcd", None)),
        "delete" if call.before == 0 => Some(Fault::Refused(409, "Conflict", "the object has been modified", None)),
        "delete" if call.before == 3 => Some(Fault::Lost),
        "delete" if call.before == 6 => Some(Fault::Refused(404, "NotFound", "gone", None)),
        _ => None,
    });
    let _client = client(&server, options());
    server.until("what is over is gone", |world| world.claims.len() == 10).await;
    let lists = server.asked("list");
    server.until("more sweeps follow", |world| world.counts["list"] > lists + 3).await;
    assert_eq!(server.world().claims.len(), 10);
}

/// It is renewed between the look and the deletion.
#[tokio::test]
async fn a_claim_that_is_renewed_after_it_was_judged_stays() {
    let server = Server::start().await;
    server.change(|world| world.plant("late", &[OURS, ("fte/holder", "slow")], Duration::ZERO));
    let renewing = std::sync::Arc::downgrade(&server);
    server.faults(move |call| {
        if call.verb == "delete" && call.before == 0 {
            renewing.upgrade().unwrap().change(|world| {
                let mut claim = world.claims["agents/late"].clone();
                claim["spec"]["lifecycle"]["shutdownTime"] = "2999-01-01T00:00:00Z".into();
                world.put("agents/late", claim, "MODIFIED");
            });
        }
        None
    });
    let _client = client(&server, options());
    server.until("it was judged", |world| world.counts.get("delete").is_some_and(|count| *count > 0)).await;
    let lists = server.asked("list");
    server.until("more sweeps follow", |world| world.counts["list"] > lists + 3).await;
    assert_eq!(names(&server.world()), ["late"]);
    assert_eq!(server.deeds("delete")[0].status, 409);
}
