//! `fte audit reindex`: makes the index of a stopped log again. It is derived from the log, so nothing is lost with it.

use clap::Args;
use fte_audit::engine::reindex;
use serde_json::json;

use super::data::{Data, failed};
use super::verify::progress_bar;
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Reindex {
    #[command(flatten)]
    data: Data,
}

impl Reindex {
    pub(crate) async fn run(self, output: Output) -> Result<(), Error> {
        let audit = self.data.log()?;
        let is_json = output.json;
        let making = tokio::task::spawn_blocking(move || {
            let bar = progress_bar(is_json);
            bar.set_message("index");
            let made = reindex(&audit, &mut |done, all| {
                bar.set_length(all);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            made
        });
        let made = making.await.map_err(|error| Error::Failed(format!("the index was not made: {error}")))?;
        let entries = made.map_err(|error| failed(&error))?;
        if output.json {
            return output.json_line(&json!({"entries": entries}));
        }
        output.line(format!("the index has {entries} entries"))
    }
}
