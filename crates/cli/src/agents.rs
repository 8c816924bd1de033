//! `fte agents`: who can be given a task, and how busy they are.

use clap::Args;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Agents {}

#[derive(Debug, Deserialize)]
struct Agent {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    capacity: u32,
    #[serde(default)]
    in_use: u32,
    #[serde(default)]
    queued: u32,
    queue: Option<u32>,
    rate: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Agent>,
}

impl Agents {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let answer = client.get("/v1/agents").await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let page: Page = answer.json()?;
        output.table(["AGENT", "KIND", "DEFAULT", "IN USE", "QUEUED", "RATE"], page.items.into_iter().map(row))
    }
}

fn row(agent: Agent) -> [String; 6] {
    let default = if agent.default { "yes" } else { "" };
    let of = |count: u32, most: Option<u32>| most.map_or_else(|| count.to_string(), |most| format!("{count}/{most}"));
    let (in_use, queued) = (of(agent.in_use, Some(agent.capacity)), of(agent.queued, agent.queue));
    [agent.name, agent.kind, default.to_owned(), in_use, queued, agent.rate.unwrap_or_default()]
}
