//! One POST, and the loop closes on the real thing.

use fte_testkit::eventually;
use fte_tests::tasks::{echo, post};
use fte_tests::trail::settled;
use serde_json::{Value, json};

use crate::front::Front;
use crate::world::{Store, World, result};

async fn one_post_gives_one_result_and_a_whole_trail(store: Store) {
    let world = World::start(store).await;
    let doors = world.doors();
    let task = post(&doors.intake, echo("summarise the minutes")).await;
    let result = result(&doors.status, &task).await;
    assert_eq!(result["status"], "completed");
    assert_eq!(result["result"]["echo"], "summarise the minutes");
    let history: Value = eventually(|| async {
        let history = doors.audit.get(&format!("/v1/audit/tasks/{task}")).await.unwrap();
        // The result may be there before the audit has heard of anything.
        let history: Value = if history.status == 200 { history.json() } else { return Err(Value::from(history.text())) };
        if history["complete"] == true { Ok(history) } else { Err(history) }
    })
    .await;
    assert_eq!(history["missing"], json!([]), "{history}");
    let told = settled(&doors, std::slice::from_ref(&task)).await;
    assert_eq!(told[&task].statuses.values().map(String::as_str).collect::<Vec<_>>(), ["running", "completed"]);

    // The doctor finds nothing wrong, and has looked everywhere.
    let front = Front::of(&world).await;
    let described = world.infrastructure.data("described");
    std::fs::write(&described, world.infrastructure.ask(&["kafka-topics", "--describe"])).unwrap();
    let found = front.finds_nothing_wrong(&["--topics", described.to_str().unwrap()]).await;
    assert!(found.passed);
    for check in ["instance", "intake", "runner", "status", "audit", "probe task", "probe trail"] {
        assert!(found.well().contains(&check), "{check} of {:?}", found.well());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_one_post_gives_one_result_and_a_whole_trail() {
    one_post_gives_one_result_and_a_whole_trail(Store::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_postgresql_one_post_gives_one_result_and_a_whole_trail() {
    one_post_gives_one_result_and_a_whole_trail(Store::Postgresql).await;
}
