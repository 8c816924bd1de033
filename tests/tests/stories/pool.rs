//! A full pool makes tasks wait; it never loses or dead-letters them.

use serde_json::{Value, json};

use crate::trail::{entries, histories};
use crate::world::Fte;

#[tokio::test]
async fn tasks_beyond_the_pool_wait_their_turn() {
    let agents = r#"
        default = "slow"
        [agents.slow]
        kind = "command"
        command = ["sh", "-c", "sleep 0.05; cat"]
        max = 2
    "#;
    let fte = Fte::with_agents(agents, &[("FTE_RUNNER_PLACES", "3")]).await;
    let mut tasks = Vec::new();
    for number in 0..40 {
        tasks.push(fte.post(json!({ "task": format!("wait {number}") })).await);
    }
    for task in &tasks {
        assert_eq!(fte.result(task).await["status"], "completed");
    }
    let api = fte.api();
    let letters: Value = api.get("/v1/dead-letters").await.unwrap().expect_status(200).json();
    assert_eq!(letters["items"], json!([]));
    let trail = fte_testkit::eventually(|| async {
        let trail = histories(&entries(&api).await);
        let faults: Vec<_> =
            tasks.iter().flat_map(|task| trail.get(task).map_or_else(|| vec!["unknown".to_owned()], |told| told.faults())).collect();
        if faults.is_empty() { Ok(trail) } else { Err(faults) }
    })
    .await;
    assert_eq!(trail.len(), 40);
}
