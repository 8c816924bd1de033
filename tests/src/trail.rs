//! The invariants, read from the audit trail: what everybody may check from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use fte_testkit::{Client, eventually, eventually_within};
use serde_json::{Value, json};

use crate::load::Doors;
use crate::tasks::{LOAD_PATIENCE, look};

/// Everything the audit has recorded, in log order.
pub async fn entries(api: &Client) -> Vec<Value> {
    let mut trail = Trail::default();
    trail.read_on(api).await.unwrap();
    trail.entries
}

/// The audit's records of an action on a task, once there are so many. What is recorded about a task may come after all else is told.
pub async fn actions(audit: &Client, task: &str, action: &str, count: usize) -> Vec<Value> {
    eventually(|| async {
        let page = look(audit, &format!("/v1/audit/entries?task_id={task}&action={action}&limit=1000")).await?;
        let records = page["items"].as_array().unwrap();
        if records.len() >= count { Ok(records.clone()) } else { Err(page.to_string()) }
    })
    .await
}

/// The trail as far as it has been read: the log only grows.
#[derive(Debug, Default)]
struct Trail {
    entries: Vec<Value>,
}

impl Trail {
    /// Reads on to the end of the log.
    async fn read_on(&mut self, api: &Client) -> Result<(), String> {
        loop {
            let after = self.entries.last().map_or_else(String::new, |last| format!("&after={}-{}", last["shard"], last["index"]));
            let page = look(api, &format!("/v1/audit/entries?limit=1000{after}")).await?;
            self.entries.extend(page["items"].as_array().unwrap().iter().cloned());
            if page["next_cursor"].is_null() {
                return Ok(());
            }
        }
    }
}

/// Waits until all is told, and holds it to the invariants: each accepted task, and every other that came to be, has a whole history with exactly one
/// result; the read model tells the same; nothing was dead-lettered.
pub async fn settled(doors: &Doors, accepted: &[String]) -> BTreeMap<String, History> {
    let (audit, status) = (&doors.audit, &doors.status);
    let began = std::time::Instant::now();
    let (trail, last) = (Mutex::new(Trail::default()), Mutex::new(String::new()));
    let last = &last;
    eventually_within(patience(accepted.len()), || async {
        let told = whole(&trail, audit).await;
        if let Err(state) = &told {
            state.clone_into(&mut last.lock().unwrap());
        }
        let told = told?;
        let missing: Vec<_> = accepted.iter().filter(|task| !told.contains_key(*task)).take(5).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("accepted, and not in the trail: {missing:?}")) }
    })
    .await;
    println!("settled in {:?}; waited last for: {}", began.elapsed(), last.lock().unwrap());
    let told = agreed(status, audit, &trail, patience(accepted.len())).await;
    println!("{} tasks settled", told.len());
    let letters: Value = status.get("/v1/dead-letters").await.unwrap().expect_status(200).json();
    assert_eq!(letters["items"], json!([]), "good work was dead-lettered");
    told
}

/// How long a look at the trail of so many tasks may take: all of it is read, a page at a time.
fn patience(tasks: usize) -> Duration {
    LOAD_PATIENCE + Duration::from_millis(10 * tasks as u64)
}

/// The histories of all tasks as far as the log goes now, if every one is whole.
async fn whole(trail: &Mutex<Trail>, audit: &Client) -> Result<BTreeMap<String, History>, String> {
    let mut reading = std::mem::take(&mut *trail.lock().unwrap());
    let read = reading.read_on(audit).await;
    let told = histories(&reading.entries);
    *trail.lock().unwrap() = reading;
    read?;
    let faults: Vec<_> = told.iter().map(|(task, history)| (task, history.faults())).filter(|(_, faults)| !faults.is_empty()).collect();
    if faults.is_empty() {
        return Ok(told);
    }
    let late: Vec<_> = faults.iter().take(5).map(|(task, faults)| (task, faults, &told[*task].types)).collect();
    Err(format!("{} tasks are not whole: {late:?}", faults.len()))
}

/// Waits until the read model knows the same tasks as the trail, with the same results and the same events. A task whose 202 was lost may come to
/// both at any time.
async fn agreed(status: &Client, audit: &Client, trail: &Mutex<Trail>, patience: Duration) -> BTreeMap<String, History> {
    let (listed, told) = eventually_within(patience, || async {
        let listed = tasks(status).await?;
        let told = whole(trail, audit).await?;
        let ended = listed.iter().filter(|(_, status)| is_terminal(status)).count();
        if ended == told.len() { Ok((listed, told)) } else { Err(format!("{ended} of {} tasks have ended in the read model", told.len())) }
    })
    .await;
    let expected: BTreeMap<String, String> = told.iter().map(|(task, history)| (task.clone(), history.results[0].clone())).collect();
    assert_eq!(listed, expected, "the read model and the audit disagree about the tasks");
    for (task, history) in &told {
        let shown = eventually(|| async move {
            let page = look(status, &format!("/v1/tasks/{task}/events?limit=1000")).await?;
            let events = page["items"].as_array().unwrap();
            let ids: BTreeSet<String> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(ids.len(), events.len(), "the read model has an event of {task} twice");
            // What the audit was told since then counts, too.
            let later: Value = audit.get(&format!("/v1/audit/tasks/{task}")).await.map_err(|error| error.to_string())?.json();
            let later = histories(later["entries"].as_array().map_or(&[][..], Vec::as_slice)).remove(task).unwrap_or_default();
            if ids == history.shown || ids == later.shown {
                Ok(ids)
            } else {
                Err(format!("{task}: the read model has {ids:?}, the audit {:?}", history.shown))
            }
        });
        shown.await;
    }
    told
}

/// Every task of the read model with its status.
async fn tasks(status: &Client) -> Result<BTreeMap<String, String>, String> {
    let mut tasks = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = look(status, &format!("/v1/tasks?limit=1000{cursor}")).await?;
        for task in page["items"].as_array().unwrap() {
            tasks.insert(task["task_id"].as_str().unwrap().to_owned(), task["status"].as_str().unwrap().to_owned());
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(tasks),
        }
    }
}

/// A task's history as the trail tells it.
#[derive(Debug, Default)]
pub struct History {
    pub types: Vec<String>,
    pub statuses: BTreeMap<u64, String>,
    pub results: Vec<String>,
    pub claimed: BTreeSet<String>,
    pub given_back: BTreeMap<String, usize>,
    pub requested: usize,
    /// Ids of the events that the read model has, too.
    pub shown: BTreeSet<String>,
}

/// Reads the trail by task, and checks on the way that no event is in it twice.
pub fn histories(entries: &[Value]) -> BTreeMap<String, History> {
    let mut seen = BTreeSet::new();
    let mut tasks: BTreeMap<String, History> = BTreeMap::new();
    for entry in entries {
        let (source, id) = (entry["source"].as_str().unwrap_or_default(), entry["id"].as_str().unwrap_or_default());
        assert!(seen.insert((source, id)), "the audit has {source} {id} twice");
        // What the log says by itself, such as that a task is closed.
        if entry["source"] == "/fte/audit" && entry["kind"] != "event" {
            continue;
        }
        assert_eq!(entry["kind"], "event", "{entry}");
        let Some(task) = entry["task_id"].as_str() else { continue };
        let kind = entry["type"].as_str().unwrap().to_owned();
        let data = &entry["event"]["data"];
        let history = tasks.entry(task.to_owned()).or_default();
        match kind.as_str() {
            "fte.task.requested" | "fte.handoff.requested" => history.requested += 1,
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
        if kind != "fte.action.recorded" {
            history.shown.insert(id.to_owned());
        }
        history.types.push(kind);
    }
    tasks
}

impl History {
    /// What is wrong with it, if anything: an ended task's invariants.
    pub fn faults(&self) -> Vec<String> {
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
        let balanced =
            self.given_back.len() == self.claimed.len() && self.claimed.iter().all(|claim| self.given_back.get(claim) == Some(&1));
        check(balanced, format!("claimed {:?}, given back {:?}", self.claimed, self.given_back));
        faults
    }
}

fn is_terminal(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "rejected" | "cancelled" | "timed_out" | "budget_exceeded")
}
