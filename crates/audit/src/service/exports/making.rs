//! How an export is made: find the entries, wait for the checkpoint that covers them, write the archive, record it, and only then publish it.

use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::time::Duration;

use fte_events::unhex;
use fte_tlog::{Policy, TilePath};
use jiff::Timestamp;
use serde_json::json;
use tokio::runtime::Handle;

use super::keeping::Kept;
use super::{ExportedShard, Failure, Inner, Request};
use crate::entry::leaf::{Header, Kind};
use crate::entry::{NewEntry, Position};
use crate::export::{self, Archive, ENTRIES_MAX, ExportError, Opened, Origin};
use crate::history;
use crate::log::{Log, Query};
use crate::notes::{Note, nameless};
use crate::subjects::ALG;
use crate::verify::Source;

/// Entries that are looked for at once.
const PAGE: usize = 1000;
/// Entries are in a checkpoint within a second; after so many looks something is wrong.
const LOOKS_MAX: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Makes an export and records it.
pub(super) async fn make(inner: &Arc<Inner>, request: Request) -> Result<Kept, Failure> {
    let places = find(&*inner.log, &request.query).await?;
    let complete = completeness(&*inner.log, &request.query).await?;
    let mut shards = Vec::new();
    for (shard, indexes) in places {
        let last = indexes.last().copied().unwrap_or_default();
        let note = checkpoint_over(&*inner.log, Position { shard, index: last }).await?;
        shards.push(Part { shard, indexes, note });
    }
    let made_at = Timestamp::now();
    let kept = Kept { complete, ..Kept::new(request.id, request.query.tenant.clone(), made_at) };
    let (inner, runtime) = (Arc::clone(inner), Handle::current());
    // Reading, compressing hashes and writing files block.
    let making = tokio::task::spawn_blocking(move || write(&inner, &runtime, &request, kept, &shards));
    making.await.map_err(|_| Failure::Ended)?
}

/// What is exported of one year.
struct Part {
    shard: u16,
    indexes: Vec<u64>,
    /// The signed checkpoint that covers them.
    note: String,
}

async fn find(log: &dyn Log, query: &Query) -> Result<BTreeMap<u16, Vec<u64>>, Failure> {
    let mut places: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    let (mut after, mut count) = (None, 0);
    loop {
        let page = log.entries(Query { after, limit: PAGE, ..query.clone() }).await?;
        count += page.entries.len();
        if count > ENTRIES_MAX {
            return Err(Failure::TooMany);
        }
        for entry in page.entries {
            places.entry(entry.position.shard).or_default().push(entry.position.index);
        }
        match page.next {
            Some(next) => after = Some(next),
            None if count == 0 => return Err(Failure::Nothing),
            None => return Ok(places),
        }
    }
}

/// Whether a task's history is whole, where all of a task was asked for.
async fn completeness(log: &dyn Log, query: &Query) -> Result<Option<bool>, Failure> {
    let Some(task) = &query.task else { return Ok(None) };
    let filtered = [&query.agent, &query.action, &query.actor, &query.outcome].iter().any(|filter| filter.is_some());
    if filtered || query.from_ms.is_some() || query.to_ms.is_some() {
        return Ok(None);
    }
    let history = history::of(log, task.clone(), query.tenant.clone(), None, 1).await?;
    Ok(history.map(|history| history.missing.is_empty()))
}

/// The checkpoint of a shard, once it has this entry.
async fn checkpoint_over(log: &dyn Log, place: Position) -> Result<String, Failure> {
    for _ in 0..LOOKS_MAX {
        match log.checkpoint(Some(place.shard)).await? {
            Some(published) if published.checkpoint.size > place.index => return Ok(published.note.to_string()),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    Err(Failure::NotYet)
}

fn write(inner: &Inner, runtime: &Handle, request: &Request, mut kept: Kept, shards: &[Part]) -> Result<Kept, Failure> {
    let keeping = &inner.keeping;
    let (part, file) = keeping.begin(request.id)?;
    let mut archive = Archive::new(BufWriter::new(file), kept.made_at);
    let policy = Policy::of_logs(inner.signers.known.iter().cloned());
    let open = |header: &Header<'_>, stored: &[u8]| {
        if part.is_outdated() {
            return Err(ExportError::Outdated);
        }
        let Some(event) = inner.sealing.open(header, stored.to_vec())? else { return Ok(None) };
        let digest_key = inner.sealing.digest_key(header)?;
        // Its contents had their time between the two.
        let is_gone = digest_key.is_none() && header.enc.as_ref().is_some_and(|enc| enc.alg == ALG);
        Ok((!is_gone).then_some(Opened { event, digest_key }))
    };
    let years: Vec<u16> = shards.iter().map(|part| part.shard).collect();
    for Part { shard, indexes, note } in shards {
        let source = Served { log: &*inner.log, shard: *shard, note, runtime };
        let from = Origin { source: &source, policy: &policy, signer: &inner.signers.key, open: &open };
        let query = export::Query {
            export_id: request.id.to_string(),
            made_by: request.by.clone(),
            query: request.words.clone(),
            indexes: indexes.clone(),
            shards: years.clone(),
            retired: inner.log.retired().into_iter().map(|retired| retired.shard).collect(),
            complete: kept.complete,
            made_at: kept.made_at,
        };
        let folder = format!("{}/{shard}", folder(request));
        let (manifest, manifest_sha256) = export::write(&mut archive, &folder, keeping.directory(), &from, &query)?;
        kept.shards.push(ExportedShard { shard: *shard, entries: manifest.entries, size: manifest.size, manifest_sha256 });
    }
    let (file, bytes) = archive.finish()?;
    let synced = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    synced.map_err(|source| keeping.failed(source))?;
    kept.bytes = bytes;
    // From here on it is on record, whatever becomes of the archive.
    let entries = entries(inner, request, &kept)?;
    runtime.block_on(inner.log.append(entries))?;
    part.publish(&kept)?;
    Ok(kept)
}

/// The name of what the archive unpacks to.
fn folder(request: &Request) -> String {
    let id = request.id.simple().to_string();
    format!("export-{}", &id[id.len() - 12..])
}

/// What the log keeps of it: that there was an export of what, and who made it. The first names nobody, the second is sealed as all that people do.
fn entries(inner: &Inner, request: &Request, kept: &Kept) -> Result<Vec<NewEntry>, Failure> {
    let query = nameless(request.words.clone(), request.query.actor.as_deref(), &*inner.sealing)?;
    let id = request.id;
    // An export that is made again after a crash is another archive: its digests differ, and so does its entry.
    let made = kept.shards.first().map(|shard| shard.manifest_sha256.get(..16).unwrap_or_default().to_owned()).unwrap_or_default();
    let payload = json!({
        "export_id": id, "query": query, "entries": kept.entries(), "complete": kept.complete, "shards": kept.shards, "made_at": kept.made_at,
    });
    let note = Note { kind: Kind::Export, id: format!("export/{id}/{made}"), tenant: request.query.tenant.clone(), payload };
    Ok(note.entries("audit.exported", &request.by, &format!("export/{id}"), kept.made_at).into())
}

/// A shard as the log serves it, at one checkpoint.
struct Served<'a> {
    log: &'a dyn Log,
    shard: u16,
    note: &'a str,
    runtime: &'a Handle,
}

impl Source for Served<'_> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if name == "checkpoint" {
            return Ok(Some(self.note.as_bytes().to_vec()));
        }
        let Ok(tile) = name.parse::<TilePath>() else { return Ok(None) };
        let read = self.runtime.block_on(self.log.tile(self.shard, tile)).map_err(io::Error::other)?;
        Ok(read.map(|bytes| bytes.to_vec()))
    }

    fn blob(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(digest) = unhex(digest) else { return Ok(None) };
        let read = self.runtime.block_on(self.log.blob(self.shard, digest)).map_err(io::Error::other)?;
        Ok(read.map(|bytes| bytes.to_vec()))
    }

    fn list(&self, _: &str, _: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        Ok(false)
    }
}
