//! What a task may cost, in dollars and in tokens: counted over all tries, and the end of it where it is more.

use serde_json::json;

use crate::world::{Fte, shown};

/// Spends a little in each try, and fails in the first two; then as much as the task says.
const SPENDER: &str = r#"
import json, sys

def say(**message):
    print(json.dumps(message), flush=True)

start = json.loads(sys.stdin.readline())
say(type="cost", usd=0.1, tokens={"input": 30, "output": 10})
if start["attempt"] < 3:
    say(type="error", code="no_luck", message="again", retryable=True)
    sys.exit()
say(type="stage", name="spent")
for line in sys.stdin:
    break
"#;

#[tokio::test]
async fn tokens_and_dollars_count_over_all_tries_and_their_budget_is_the_end() {
    let agents = format!(
        "default = \"spender\"\n[agents.spender]\nkind = \"process\"\nsandbox = \"none\"\nbudget_tokens = 1000\ncommand = [\"python3\", \"-c\", {}]\n[agents.echo]\nkind = \"builtin\"\n",
        json!(SPENDER)
    );
    let fte = Fte::with_agents(&agents, &[]).await;
    // Three tries of 0.1 are 0.3, and 120 tokens: not more than may be.
    let within = fte.post(json!({ "task": "spend", "budget_usd": 0.3, "budget_tokens": 120 })).await;
    let seen = shown(&fte.api(), &within, |task| task["stage"] == "spent").await;
    assert_eq!((&seen["cost_usd"], &seen["tokens"]), (&json!(0.3), &json!({ "input": 90, "output": 30 })), "{seen}");

    let beyond = fte.post(json!({ "task": "spend", "budget_tokens": 119 })).await;
    let result = fte.result(&beyond).await;
    assert_eq!((&result["status"], &result["error"]["code"]), (&json!("budget_exceeded"), &json!("budget_exceeded")), "{result}");
    assert_eq!(result["tokens"], json!({ "input": 90, "output": 30 }));
    assert!(result["error"]["message"].as_str().unwrap().contains("119 tokens"), "{result}");

    let answer = fte.api().post("/v1/tasks", &json!({ "task": "x", "budget_tokens": 0 })).await.unwrap();
    answer.expect_status(422);
}
