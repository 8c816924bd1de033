//! `fte audit erase`: somebody is to be forgotten.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use serde::Deserialize;

use crate::client::{Client, escaped, query};
use crate::error::Error;
use crate::output::{Output, printable};

#[derive(Debug, Args)]
pub(crate) struct Erase {
    /// Whom: a person (`user:ada`, `customer:c-17`), a task (`task:ID`), or a key as an entry names it (`key:17-0a1b2c3d`)
    #[arg(long, value_name = "REF")]
    subject: String,
    /// Of this tenant, for who administers several
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Deserialize)]
struct Answer {
    erasure_id: String,
    keys: u64,
    tasks: u64,
    state: String,
}

impl Erase {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        if !self.yes && !confirmed(&self.subject)? {
            return Err(Error::usage("nothing was erased", "answer yes, or say --yes"));
        }
        let path = format!("/v1/audit/subjects/{}/erasure{}", escaped(&self.subject), query(&[("tenant", self.tenant.as_deref())]));
        let answer = client.post(&path, None::<&()>, &[]).await?;
        if output.json {
            return output.answer(&answer.body);
        }
        let Answer { erasure_id, keys, tasks, state } = answer.json()?;
        output.line(format!("{}  {keys} keys destroyed, {tasks} tasks", printable(&erasure_id)))?;
        if state != "told" {
            output.note("the other services have not been told yet; that goes on by itself");
        }
        Ok(())
    }
}

/// Asks a person at a terminal; a program has to say `--yes`.
#[expect(clippy::print_stderr, reason = "a question to whoever sits at the terminal")]
fn confirmed(subject: &str) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage("nobody is there to ask whether to erase", "say --yes"));
    }
    eprint!("Everything on record of {} becomes unreadable for ever. Type yes to go on: ", printable(subject));
    // A question that cannot be shown is answered by nobody.
    let _shown = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Error::usage(format!("the answer cannot be read: {error}"), "say --yes"))?;
    Ok(answer.trim() == "yes")
}
