//! `fte dead-letters replay`: the event again, for the service that gave up on it.

use clap::Args;
use serde::Deserialize;

use super::path;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The letter's id
    id: String,
}

#[derive(Deserialize)]
struct Replayed {
    #[serde(default)]
    task_id: Option<String>,
}

impl Replay {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let answer = client.post(&path(&self.id, "/replay"), None::<&()>, &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let replayed: Replayed = answer.json()?;
        let task = replayed.task_id.map(|task| format!("; its task: {task}")).unwrap_or_default();
        output.line(format!("{} is replayed{}", printable(&self.id), printable(&task)))
    }
}
