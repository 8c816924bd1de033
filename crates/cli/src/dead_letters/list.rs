//! `fte dead-letters list`.

use clap::Args;
use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::listing::Listing;
use crate::output::{Output, shortened};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those with this status
    #[arg(long, value_parser = ["open", "replayed", "discarded"])]
    status: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Where an earlier list ended (its `next_cursor`)
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Letter {
    #[serde(default)]
    id: String,
    #[serde(default)]
    consumer: String,
    #[serde(default)]
    original_topic: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    error: Reason,
    #[serde(default)]
    failed_at: String,
}

#[derive(Debug, Default, Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl List {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let filters = [("status", self.status.as_deref())];
        let listing = Listing::read(&client, "/v1/dead-letters", &filters, ("cursor", self.cursor), self.limit).await?;
        listing.print(output, ("dead letters", "--cursor"), ["ID", "STATUS", "BY", "REASON", "TOPIC", "FAILED"], row)
    }
}

fn row(letter: Letter) -> [String; 6] {
    let reason = format!("{}: {}", letter.error.code, letter.error.message);
    let Letter { id, failed_at, consumer, original_topic, status, .. } = letter;
    [id, status.unwrap_or_default(), consumer, shortened(&reason, 80), original_topic.unwrap_or_default(), failed_at]
}
