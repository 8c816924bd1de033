//! `fte audit reindex`: makes the index of a stopped log again. It is derived from the log, so nothing is lost with it.

use std::path::PathBuf;

use clap::Args;
use fte_audit::engine::reindex;
use fte_service::chain;
use serde_json::json;

use super::verify::progress_bar;
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Reindex {
    /// The data directory of an instance that is stopped
    #[arg(long, value_name = "DIR", env = "FTE_DATA", hide_env_values = true)]
    data: PathBuf,
}

impl Reindex {
    pub(crate) async fn run(self, output: Output) -> Result<(), Error> {
        let audit = self.data.join("audit");
        if !audit.is_dir() {
            return Err(Error::usage(
                format!("{} is no directory", audit.display()),
                "name the data directory of an instance that keeps a log",
            ));
        }
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
        let entries = made.map_err(|error| Error::Failed(chain(&error).to_string()))?;
        if output.json {
            return output.json_line(&json!({"entries": entries}));
        }
        output.line(format!("the index has {entries} entries"))
    }
}
