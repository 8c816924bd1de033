//! The invariants, read from the audit trail: what everybody may check from outside.

use std::collections::{BTreeMap, BTreeSet};

use fte_testkit::Client;
use serde_json::Value;

/// Everything the audit has recorded, in log order.
pub(crate) async fn entries(api: &Client) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = None::<String>;
    loop {
        let path = match &after {
            Some(cursor) => format!("/v1/audit/entries?limit=1000&after={cursor}"),
            None => "/v1/audit/entries?limit=1000".to_owned(),
        };
        let page: Value = api.get(&path).await.unwrap().expect_status(200).json();
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => after = Some(cursor.to_owned()),
            None => return all,
        }
    }
}

/// A task's history as the trail tells it.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) types: Vec<String>,
    pub(crate) statuses: BTreeMap<u64, String>,
    pub(crate) results: Vec<String>,
    pub(crate) claimed: BTreeSet<String>,
    pub(crate) given_back: BTreeMap<String, usize>,
    pub(crate) requested: usize,
}

/// Reads the trail by task, and checks on the way that no event is in it twice.
pub(crate) fn histories(entries: &[Value]) -> BTreeMap<String, History> {
    let mut seen = BTreeSet::new();
    let mut tasks: BTreeMap<String, History> = BTreeMap::new();
    for entry in entries {
        let (source, id) = (entry["source"].as_str().unwrap_or_default(), entry["id"].as_str().unwrap_or_default());
        assert!(seen.insert((source, id)), "the audit has {source} {id} twice");
        assert_eq!(entry["kind"], "event", "{entry}");
        let Some(task) = entry["task_id"].as_str() else { continue };
        let kind = entry["type"].as_str().unwrap().to_owned();
        let data = &entry["event"]["data"];
        let history = tasks.entry(task.to_owned()).or_default();
        match kind.as_str() {
            "fte.task.requested" => history.requested += 1,
            "fte.status.changed" => {
                let before = history.statuses.insert(data["sequence"].as_u64().unwrap(), data["status"].as_str().unwrap().to_owned());
                assert_eq!(before, None, "{task} has a status sequence twice");
            }
            "fte.sandbox.claimed" => {
                history.claimed.insert(data["claim_id"].as_str().unwrap().to_owned());
            }
            "fte.sandbox.released" | "fte.sandbox.expired" => {
                *history.given_back.entry(data["claim_id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            result if result.starts_with("fte.result.") => history.results.push(data["status"].as_str().unwrap().to_owned()),
            _ => {}
        }
        history.types.push(kind);
    }
    tasks
}

impl History {
    /// What is wrong with it, if anything: an ended task's invariants.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        check(self.requested == 1, format!("{} requests", self.requested));
        check(self.results.len() == 1, format!("{} results", self.results.len()));
        let gapless = self.statuses.keys().copied().eq(1..=self.statuses.len() as u64);
        check(gapless, format!("status sequences {:?}", self.statuses.keys()));
        let last = self.statuses.values().next_back();
        check(last == self.results.first(), format!("the last status is {last:?}, the result {:?}", self.results));
        let terminal = self.statuses.values().filter(|status| is_terminal(status)).count();
        check(terminal == 1, format!("{terminal} terminal statuses"));
        let balanced = self.given_back.len() == self.claimed.len()
            && self.claimed.iter().all(|claim| self.given_back.get(claim) == Some(&1));
        check(balanced, format!("claimed {:?}, given back {:?}", self.claimed, self.given_back));
        faults
    }
}

fn is_terminal(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "rejected" | "cancelled" | "timed_out" | "budget_exceeded")
}
