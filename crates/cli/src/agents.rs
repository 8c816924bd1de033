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
        output.table(["AGENT", "KIND", "DEFAULT", "IN USE", "QUEUED"], page.items.into_iter().map(row))
    }
}

fn row(agent: Agent) -> [String; 5] {
    let default = if agent.default { "yes" } else { "" };
    [agent.name, agent.kind, default.to_owned(), format!("{}/{}", agent.in_use, agent.capacity), agent.queued.to_string()]
}
