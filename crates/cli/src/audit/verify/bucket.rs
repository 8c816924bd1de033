//! The years that a bucket has copies of.

use fte_audit::archive::{BucketSource, years_in};
use fte_audit::verify::Source;
use fte_service::chain;
use tokio::runtime::Handle;

use super::local::Found;
use crate::audit::archive::bucket;
use crate::error::Error;

/// Finds the copies below `s3://bucket/prefix`.
pub(super) async fn shards(target: &str) -> Result<Found, Error> {
    let advice = "name what `fte audit archive --to` named, as s3://bucket/prefix";
    let Some((bucket, prefix)) = bucket(target, "DIR|URL")? else { return Err(Error::usage(format!("{target} is no bucket"), advice)) };
    let failed = |error: &dyn std::error::Error| Error::Broken {
        what: format!("{target} cannot be read"),
        why: chain(error).to_string(),
        advice: "this says nothing about the log: mend the access and run it again".to_owned(),
    };
    let years = years_in(&bucket, &prefix).await.map_err(|error| failed(&error))?;
    if years.is_empty() {
        return Err(Error::usage(format!("{target} has no copy of an audit log"), advice));
    }
    let shards: Result<Vec<_>, _> = years.into_iter().map(|year| BucketSource::new(&bucket, &prefix, year, Handle::current())).collect();
    let shards = shards.map_err(|error| failed(&error))?.into_iter().map(|shard| Box::new(shard) as Box<dyn Source + Send>).collect();
    Ok(Found { shards, key_files: Vec::new(), index: None, is_whole: false })
}
