//! `fte submit`: a task in; with `--wait`, its result out.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::follow::{Known, Order, follow};
use super::lines::{Story, result_text};
use super::teller::Teller;
use crate::client::Client;
use crate::error::Error;
use crate::hints::Hints;
use crate::input;
use crate::output::{Output, printable};

/// More than any task: intake has its own limit, and says it.
const TASK_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// What to do; `-` reads it from standard input
    task: String,
    /// Who does it, as `fte agents` lists them [default: the instance's]
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Wait for the result and print it; 0 only when the task completed
    #[arg(long)]
    wait: bool,
    /// Stop waiting after this, as 30s or 15m (exit code 6); the task goes on
    #[arg(long, requires = "wait", value_name = "DURATION", value_parser = input::duration)]
    timeout: Option<Duration>,
    /// A person has to approve before it starts
    #[arg(long)]
    require_approval: bool,
    /// A JSON object for the agent
    #[arg(long, value_name = "JSON", value_parser = input::object)]
    context: Option<Map<String, Value>>,
    /// The same key gives the same task for 24 hours
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// P1 before P2 before P3
    #[arg(long, ignore_case = true, value_parser = ["P1", "P2", "P3"])]
    priority: Option<String>,
    /// It times out after this: 2026-01-31T09:00:00Z, or a duration from now like 2h
    #[arg(long, value_name = "TIME", value_parser = input::time_ahead)]
    deadline: Option<Timestamp>,
    /// It starts only after this, as 30s or 15m
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    delay: Option<Duration>,
}

#[derive(Serialize)]
struct Request<'a> {
    task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    require_approval: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<String>,
}

#[derive(Deserialize)]
struct Accepted {
    task_id: String,
}

impl Submit {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let task = self.text()?;
        let priority = self.priority.as_deref().map(str::to_ascii_uppercase);
        let request = Request {
            task: &task,
            agent: self.agent.as_deref(),
            context: self.context.as_ref(),
            require_approval: self.require_approval,
            priority: priority.as_deref(),
            deadline: self.deadline,
            delay: self.delay.map(input::duration_text),
        };
        let mut headers = Vec::new();
        if let Some(key) = &self.idempotency_key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| Error::usage("the idempotency key has characters that no header can carry", "use letters and digits"))?;
            headers.push((HeaderName::from_static("idempotency-key"), value));
        }
        let teller = if self.wait { Some(Teller::of(&client).await) } else { None };
        let watching = match &teller {
            Some(Teller::There(url)) if !client.has_key() => client.at(url)?.named(),
            Some(Teller::There(_) | Teller::Unknown) => return Err(nobody_tells(&client)),
            Some(Teller::Here) | None => client.clone(),
        };
        let answer = client.post("/v1/tasks", Some(&request), &headers).await?;
        let accepted: Accepted = answer.json()?;
        let id = printable(&accepted.task_id);
        if !self.wait {
            output.note(format!("accepted; {}", how_to_follow(&client, &id).await));
            return if output.json { output.answer(&answer.body) } else { output.line(&id) };
        }
        output.note(format!("task {id}"));
        let mut story = Story::new(&id, watching.hints());
        let ended = follow(&watching, &accepted.task_id, self.timeout, (Known::Accepted, Order::ByTime), |told| {
            story.lines(told.iter().map(|told| &told.event)).iter().for_each(|line| output.note(line));
            Ok(())
        })
        .await?;
        if output.json {
            output.json_line(&ended.data)?
        } else {
            output.line(result_text(&ended.data))?
        }
        ended.into_outcome(&id)
    }

    fn text(&self) -> Result<String, Error> {
        if self.task != "-" {
            return Ok(self.task.clone());
        }
        let mut text = String::new();
        std::io::stdin()
            .take(TASK_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| Error::usage(format!("standard input cannot be read: {error}"), "give the task as UTF-8 text"))?;
        Ok(text.trim_end().to_owned())
    }
}

async fn how_to_follow(client: &Client, id: &str) -> String {
    let watch = format_args!("watch {id}");
    match Teller::of(client).await {
        Teller::Here => format!("follow it with {}", client.hints().command(watch)),
        Teller::There(url) => format!("follow it with {}", Hints::new(Some(url)).command(watch)),
        Teller::Unknown => {
            let watch = Hints::new(Some("URL".to_owned())).command(watch);
            format!(
                "{} only takes tasks: {watch} follows it, with the URL of the service status, or of a proxy before all services",
                client.base()
            )
        }
    }
}

fn nobody_tells(client: &Client) -> Error {
    Error::usage(
        format!("{} only takes tasks, and --wait asks for what becomes of them, too", client.base()),
        "name the URL of a proxy before all services; or leave --wait out, and follow the task at the service status",
    )
}
