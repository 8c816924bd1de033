//! One POST, and the loop visibly closes.

use fte_events::catalogue;
use fte_events::handoffs::built_in_agents;
use serde_json::Value;

use crate::trail::{entries, histories};
use crate::world::{Fte, echo, look};

#[tokio::test]
async fn one_post_gives_one_result_and_a_whole_trail() {
    let fte = Fte::start().await;
    let task = fte.post(echo("summarise the minutes")).await;
    let result = fte.result(&task).await;
    assert_eq!(result["status"], "completed");
    assert_eq!(result["result"]["echo"], "summarise the minutes");

    let api = fte.api();
    let history: Value = fte_testkit::eventually(|| async {
        let history = look(&api, &format!("/v1/audit/tasks/{task}")).await?;
        if history["complete"] == true { Ok(history) } else { Err(history.to_string()) }
    })
    .await;
    assert_eq!(history["missing"], serde_json::json!([]), "{history}");
    let trail = histories(&entries(&api).await);
    let told = &trail[&task];
    assert_eq!(told.faults(), Vec::<String>::new());
    assert_eq!(told.statuses.values().map(String::as_str).collect::<Vec<_>>(), ["running", "completed"]);
    assert_eq!(told.claimed.len(), 1);

    let shown = fte.in_status(&task, "completed").await;
    assert_eq!(shown["agent"], "echo");
    assert_eq!(shown["attempt"], 1);
    // Topics come in no order among each other: the sandbox may be given back when all else is told.
    let events = fte_testkit::eventually(|| async {
        let events = look(&api, &format!("/v1/tasks/{task}/events")).await?;
        if events["items"].as_array().unwrap().len() >= 6 { Ok(events) } else { Err(events.to_string()) }
    })
    .await;
    assert_eq!(events["items"].as_array().unwrap().len(), 6, "{events}");
}

#[tokio::test]
async fn a_stop_and_a_start_lose_nothing() {
    let mut fte = Fte::start().await;
    let task = fte.post(echo("before")).await;
    assert!(fte.process.stop().await.success());
    fte.process.restart().await;
    assert_eq!(fte.result(&task).await["status"], "completed");
    let after = fte.post(echo("after")).await;
    assert_eq!(fte.result(&after).await["status"], "completed");
}

#[tokio::test]
async fn what_is_published_on_any_topic_of_the_catalogue_reaches_its_subscribers() {
    let fte = Fte::start().await;
    let topics: Vec<_> = catalogue::topics(&built_in_agents()).into_iter().filter(|topic| !topic.later).collect();
    for topic in &topics {
        let event = serde_json::json!({"specversion": "1.0", "id": topic.name, "source": "elsewhere", "type": "elsewhere.happened",
            "datacontenttype": "application/json", "data": {"task": "look into it"}});
        fte.publish(&topic.name, &event).await;
    }
    let api = fte.api();
    for topic in &topics {
        let name = &*topic.name;
        fte_testkit::eventually(|| async {
            let recorded = entries(&api).await.into_iter().filter(|entry| entry["id"] == name && entry["topic"] == name).count();
            let metrics = api.get("/metrics").await.unwrap().expect_status(200).text();
            let consumed = format!("kf_messages_consumed_total{{topic=\"{name}\",");
            let counts = metrics.lines().filter(|line| line.starts_with(&consumed) && !line.contains("\"retry\""));
            let consumed: u64 = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
            let met = recorded == 1 && consumed >= topic.subscribers.len() as u64;
            if met { Ok(()) } else { Err(format!("{name}: recorded {recorded}, consumed {consumed} by {:?}", topic.subscribers)) }
        })
        .await;
    }
}
