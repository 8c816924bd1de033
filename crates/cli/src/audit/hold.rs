//! `fte audit hold`: what must not be erased.

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::error::Error;
use crate::input;
use crate::output::{Output, shortened};

const HEADER: [&str; 5] = ["HOLD", "PLACED", "BY", "COVERS", "REASON"];
const REASON_CHARS_MAX: usize = 60;

#[derive(Debug, Args)]
pub(crate) struct Holds {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Forbid to erase or retire something, until it is lifted
    Place(Place),
    /// Lift a hold
    Lift(Lift),
    /// List the holds in force
    List,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("covers").required(true).args(["subject", "task", "of_tenant", "from"]))]
struct Place {
    /// A person, as `user:ada`
    #[arg(long, value_name = "REF")]
    subject: Option<String>,
    /// The person's tenant
    #[arg(long, value_name = "NAME", default_value = fte_events::TENANT, requires = "subject")]
    tenant: String,
    /// A task
    #[arg(long, value_name = "ID", value_parser = input::task_id)]
    task: Option<fte_events::TaskId>,
    /// Everything of a tenant
    #[arg(long, value_name = "NAME")]
    of_tenant: Option<String>,
    /// What was logged from here on: RFC 3339, or a duration like 1h
    #[arg(long, value_name = "TIME", value_parser = input::time_ago, requires = "to")]
    from: Option<Timestamp>,
    /// And before
    #[arg(long, value_name = "TIME", value_parser = input::time_ago, requires = "from")]
    to: Option<Timestamp>,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
struct Lift {
    /// The hold's id
    #[arg(value_parser = hold_id)]
    id: Uuid,
}

fn hold_id(text: &str) -> Result<Uuid, String> {
    text.trim()
        .parse()
        .map_err(|_| "a hold's id looks like 01980000-0000-7000-8000-000000000001; `fte audit hold list` shows it".to_owned())
}

impl Holds {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        match self.verb {
            Verb::Place(verb) => verb.run(client, output).await,
            Verb::Lift(verb) => verb.run(client, output).await,
            Verb::List => list(client, output).await,
        }
    }
}

impl Place {
    async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let mut body = match (self.subject, self.task, self.of_tenant, self.from.zip(self.to)) {
            (Some(subject), ..) => json!({"covers": "subject", "tenant": self.tenant, "subject": subject}),
            (None, Some(task), ..) => json!({"covers": "task", "task_id": task}),
            (None, None, Some(tenant), _) => json!({"covers": "tenant", "tenant": tenant}),
            (None, None, None, Some((from, to))) => {
                json!({"covers": "range", "from_ms": from.as_millisecond(), "to_ms": to.as_millisecond()})
            }
            (None, None, None, None) => {
                return Err(Error::usage("nothing to hold", "say --subject, --task, --of-tenant, or --from and --to"));
            }
        };
        body["reason"] = self.reason.into();
        let answer = client.post("/v1/audit/holds", Some(&body), &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let placed: Value = answer.json()?;
        output.line(placed["id"].as_str().unwrap_or_default())
    }
}

impl Lift {
    async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        client.delete(&format!("/v1/audit/holds/{}", self.id)).await?;
        if output.json { output.json_line(&json!({"id": self.id, "lifted": true})) } else { output.line(format!("{}  lifted", self.id)) }
    }
}

#[derive(Debug, Deserialize)]
struct Listed {
    items: Vec<Value>,
}

async fn list(client: Client, output: Output) -> Result<(), Error> {
    let answer = client.get("/v1/audit/holds").await?;
    if output.json {
        return output.answer(&answer.body);
    }
    let Listed { items } = answer.json()?;
    if items.is_empty() {
        output.note("no holds");
        return Ok(());
    }
    output.table(HEADER, items.iter().map(row))
}

fn row(hold: &Value) -> [String; 5] {
    let text = |name: &str| hold[name].as_str().unwrap_or_default().to_owned();
    let time =
        |name: &str| hold[name].as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok()).map_or_else(String::new, fte_bus::time::text);
    let covers = match hold["covers"].as_str().unwrap_or_default() {
        "subject" => format!("{} of {}", text("subject"), text("tenant")),
        "task" => format!("task {}", text("task_id")),
        "tenant" => format!("tenant {}", text("tenant")),
        _ => format!("{} to {}", time("from_ms"), time("to_ms")),
    };
    [text("id"), time("placed_ms"), text("placed_by"), covers, shortened(&text("reason"), REASON_CHARS_MAX)]
}
