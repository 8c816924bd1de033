//! `fte tree`: a task and what it handed off.

use clap::Args;
use fte_events::TaskId;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::{Output, printable, shortened, took};

#[derive(Debug, Args)]
pub(crate) struct Tree {
    /// The task's id
    #[arg(value_parser = input::task_id)]
    id: TaskId,
}

/// A task of the tree, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Node {
    task_id: String,
    status: String,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    task: Value,
    #[serde(default)]
    cost_usd: Option<f64>,
    #[serde(default)]
    duration_ms: Option<u64>,
    #[serde(default)]
    children: Vec<Node>,
    #[serde(default)]
    truncated: bool,
}

impl Tree {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let answer = client.get(&format!("/v1/tasks/{}/tree", self.id)).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let root: Node = answer.json()?;
        let mut lines = Vec::new();
        root.draw("", "", &mut lines);
        lines.iter().try_for_each(|line| output.line(line))
    }
}

impl Node {
    /// `before` stands before its own line, `below` before those of its children.
    fn draw(&self, before: &str, below: &str, lines: &mut Vec<String>) {
        let cost = self.cost_usd.map_or_else(String::new, |usd| format!("  {usd} USD"));
        // One that never began has ended as it would have begun.
        let time = self.duration_ms.filter(|ms| *ms > 0).map_or_else(String::new, |ms| format!("  {}", took(ms)));
        let agent = self.agent.as_deref().unwrap_or("?");
        let task = shortened(self.task.as_str().unwrap_or_default(), 60);
        let line = format!("{before}{}  {agent}  {}{time}{cost}  {task}", self.task_id, self.status);
        lines.push(printable(line.trim_end()).into_owned());
        for (n, child) in self.children.iter().enumerate() {
            let is_last = n + 1 == self.children.len() && !self.truncated;
            let (branch, on) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            child.draw(&format!("{below}{branch}"), &format!("{below}{on}"), lines);
        }
        if self.truncated {
            lines.push(format!("{below}└─ and more"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_drawn_with_its_branches() {
        let leaf =
            |id: &str| json!({"task_id": id, "status": "completed", "agent": "writer", "task": "t", "cost_usd": 0.5, "duration_ms": 7});
        let root = json!({"task_id": "1", "status": "running", "agent": "lead", "task": "all", "truncated": true,
            "children": [{"task_id": "2", "status": "rejected", "duration_ms": 0, "children": [leaf("3")]}, leaf("4")]});
        let mut lines = Vec::new();
        serde_json::from_value::<Node>(root).unwrap().draw("", "", &mut lines);
        let expected = [
            "1  lead  running  all",
            "├─ 2  ?  rejected",
            "│  └─ 3  writer  completed  7 ms  0.5 USD  t",
            "├─ 4  writer  completed  7 ms  0.5 USD  t",
            "└─ and more",
        ];
        assert_eq!(lines, expected);
    }
}
