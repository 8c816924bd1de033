//! Shards that have had their time: what the log says of them, and how they are removed.
//!
//! | step | what is durable | after a crash |
//! |---|---|---|
//! | 1 | an entry `shard_retired` of the log's own, in a signed checkpoint | the next command goes on from here |
//! | 2 | the keys that only this shard's entries needed are forgotten | they are looked for again, and forgotten again |
//! | 3 | the index is gone, and the file `retired` says that the shard is being removed | the rest is removed; the shard is not read any more |
//! | 4 | its files are gone, but for its final checkpoint | the index is made again from what is left |
//!
//! The command does step 1 and opens the log anew; all others are done there, where the log is opened by a command. So there is one path, and a crash takes no
//! other.
//!
//! **What is believed.** Neither the file `retired` nor missing files prove anything: a shard is taken for retired when an entry of the log says so, with the
//! checkpoint that is kept. That of the newest such entry names all that were retired before it as well, since the shard that it stands in has its time,
//! too. Without one, a shard that is not whole is what it always was: a log that does not start.
//!
//! **Who signed it.** A retired shard's final checkpoint is not judged by its signature: it is the one that the log itself names, in a tree that the present key
//! has signed or that is tied to it. An entry `key_rotated` may go with its shard. It was needed for shards after it that a former key has signed; those
//! are believed through the chain then ([`super::signers`]). Keeping such entries with proofs was the other way: it would help who knows only a key of
//! seven years ago and learns the next from the log, and they can be told the present one. The one shard that stays is that in which the successor of the
//! *present* key was announced: without it the log would forget that a second key has to sign.
//!
//! **Who removes.** The command alone, and only shards of which it has seen that they have had their time and that nobody holds them, whatever the log says of
//! them: an entry in the tail of the write-ahead log was put there by who could write files, and the next start signs it. A service that starts in
//! between leaves what is there: a shard is whole for it, or, once the file `retired` stands there, not read any more. To have each start carry on was the other way.
//!
//! **The index** is made again, and not cut: what counters and numbers of tasks were is then a function of the entries that are left, as for everybody who
//! compares it. A replay of an event of a retired shard is a new entry therefore; the topic keeps no event for longer than the log does, but for a segment that
//! it has not closed yet.

mod clearing;
mod retirer;
mod survey;

use std::collections::{BTreeMap, HashSet};

use fte_tlog::{Checkpoint, SignedNote, check_inclusion, leaf_hash};
use serde::Deserialize;
use serde_json::json;

use self::clearing::clear;
pub(crate) use self::retirer::{Retirer, Standing, Wanted};
pub(crate) use self::survey::Ended;
use super::core::Means;
use super::disk::{Disk, Durability, install};
use super::fault::Fault;
use super::index::Index;
use super::own::SOURCE;
use super::recover::{caught_up, remove_index};
use super::view::{Files, Layout};
use crate::entry::leaf::{self, Header, Kind};
use crate::entry::{Key, Position};

/// The file that says that a shard was retired, beside its `log`.
pub const FILE: &str = "retired";

/// A shard of which only the final checkpoint is left.
#[derive(Clone, Debug)]
pub struct Retired {
    pub shard: u16,
    pub checkpoint: Checkpoint,
    /// By the log's time.
    pub since_ms: i64,
    /// The entry that says so.
    pub record: Position,
}

/// The id of what the log says of a shard's end.
pub(crate) fn record_id(shard: u16) -> String {
    format!("shard-retired/{shard}")
}

/// What an entry `shard_retired` says.
#[derive(Deserialize)]
struct Event {
    data: Said,
}

#[derive(Deserialize)]
struct Said {
    checkpoint: String,
    #[serde(default)]
    earlier: Vec<SaidEarlier>,
}

/// What a shard's first entry says.
#[derive(Deserialize)]
struct ShardOpen {
    previous: Option<Previous>,
}

#[derive(Deserialize)]
struct Previous {
    shard: u16,
}

#[derive(Deserialize)]
struct SaidEarlier {
    shard: u16,
    checkpoint: String,
    retired_ms: i64,
}

/// What the log says of a shard that was retired, and of those before it.
struct Record {
    at: Position,
    shards: BTreeMap<u16, Retired>,
}

/// Whether a shard that has ended is no more, or may be: whether that is so, the log says.
pub(super) fn is_candidate(disk: &dyn Disk, layout: &Layout, shard: u16) -> Result<bool, Fault> {
    let path = layout.retired(shard);
    match disk.read(&path) {
        Ok(_) => return Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Fault::io(&path)(error)),
    }
    let log = layout.log(shard);
    // One that never got an entry has no more either.
    Ok(disk.list(&log).map_err(Fault::io(&log))? == ["checkpoint"] && kept(disk, layout, shard).map_or(true, |kept| kept.size > 0))
}

/// The shards at the beginning of the log that may be retired, and the others. None may be behind one that is whole.
pub(super) fn part(disk: &dyn Disk, layout: &Layout, ended: &[u16]) -> Result<(BTreeMap<u16, Retired>, Vec<u16>), Fault> {
    let (mut retired, mut whole) = (BTreeMap::new(), Vec::new());
    for shard in ended {
        match (is_candidate(disk, layout, *shard)?, whole.first()) {
            (false, _) => whole.push(*shard),
            (true, None) => {
                let checkpoint = kept(disk, layout, *shard)?;
                // Until the log was asked.
                let record = Position { shard: *shard, index: 0 };
                retired.insert(*shard, Retired { shard: *shard, checkpoint, since_ms: 0, record });
            }
            (true, Some(older)) => {
                return Err(Fault::Refused(format!(
                    "shard {shard} is not whole, and the older shard {older} is: shards are retired oldest first. Restore it from a copy"
                )));
            }
        }
    }
    Ok((retired, whole))
}

/// The checkpoint that is left of a shard.
fn kept(disk: &dyn Disk, layout: &Layout, shard: u16) -> Result<Checkpoint, Fault> {
    let path = layout.log(shard).join("checkpoint");
    let note = disk.read(&path).map_err(Fault::io(&path))?;
    note_checkpoint(&note).ok_or_else(|| Fault::Refused(format!("{} is no checkpoint: restore it from a copy", path.display())))
}

fn note_checkpoint(note: &[u8]) -> Option<Checkpoint> {
    Checkpoint::parse(SignedNote::parse(note).ok()?.text()).ok()
}

/// What the log says of a shard's end, if it does.
fn record_of(files: &Files, index: &Index, shard: u16) -> Result<Option<Record>, Fault> {
    let id = record_id(shard);
    let named =
        Header { source: Some(SOURCE.into()), id: Some(id.as_str().into()), ..Header::of_digest(Kind::ShardRetired, 0, 0, [0; 32]) };
    let Some(key) = Key::of_header(&named) else { return Ok(None) };
    let Some(at) = index.find(&key)? else { return Ok(None) };
    let mut leaves = files.leaves();
    let leaf = leaves.leaf(at)?.ok_or(Fault::Astray(at))?;
    let (header, held) = leaf::decode(&leaf)?;
    if header.kind != Kind::ShardRetired || header.id.as_deref() != Some(&*id) || at.shard <= shard {
        return Err(Fault::Astray(at));
    }
    check_signed(files, at, &leaf)?;
    let payload = leaves.payload(at.shard, &header, held)?;
    let unreadable = || Fault::Refused(format!("the entry {at} says of a retired shard what cannot be read"));
    let Event { data } = serde_json::from_slice(&payload).map_err(|_| unreadable())?;
    let mut shards = BTreeMap::new();
    let own = SaidEarlier { shard, checkpoint: data.checkpoint, retired_ms: header.logged_time };
    for SaidEarlier { shard, checkpoint, retired_ms } in data.earlier.into_iter().chain([own]) {
        let checkpoint = note_checkpoint(checkpoint.as_bytes()).ok_or_else(unreadable)?;
        shards.insert(shard, Retired { shard, checkpoint, since_ms: retired_ms, record: at });
    }
    Ok(Some(Record { at, shards }))
}

/// Whether an entry is the one that was signed. Where the log is opened it may be in no checkpoint yet, and after a power cut the newest one may be half written:
/// before anything is removed there is one that has it.
fn check_signed(files: &Files, at: Position, leaf: &[u8]) -> Result<(), Fault> {
    let published = files.checkpoint(Some(at.shard)).ok().flatten();
    let Some(published) = published.filter(|published| published.checkpoint.size > at.index) else { return Ok(()) };
    let absent = || Fault::Refused(format!("the proof of {at} is not there: restore shard {} from a copy", at.shard));
    let Checkpoint { size, root, .. } = published.checkpoint;
    check_inclusion(&files.proof(at)?.ok_or_else(absent)?.proof, at.index, &leaf_hash(leaf), size, &root).map_err(|error| {
        Fault::Refused(format!(
            "the entry {at}, which says that a shard is retired, is not the one that was signed ({error}): verify the log, and restore that shard from a copy"
        ))
    })
}

/// Compares the shards that are not whole with what the log says of them.
pub(super) fn confirm(files: &Files, index: &Index) -> Result<(), Fault> {
    let candidates = files.shared.view().retired.clone();
    let Some((newest, _)) = candidates.last_key_value() else { return Ok(()) };
    let said = record_of(files, index, *newest)?.map(|record| record.shards).unwrap_or_default();
    let mut retired = BTreeMap::new();
    for (shard, candidate) in candidates {
        let said = said.get(&shard).ok_or_else(|| {
            Fault::Refused(format!(
                "shard {shard} has ended and is not whole, and no entry of the log says that it was retired: restore it from a copy"
            ))
        })?;
        if said.checkpoint != candidate.checkpoint {
            let path = files.layout.log(shard).join("checkpoint");
            return Err(Fault::Refused(format!(
                "{} is not the final checkpoint of the shard that was retired, which the entry {} has: restore it from a copy",
                path.display(),
                said.record
            )));
        }
        retired.insert(shard, said.clone());
    }
    if let Some(gone) = said.keys().find(|shard| !retired.contains_key(shard)) {
        let path = files.layout.log(*gone).join("checkpoint");
        return Err(Fault::Refused(format!(
            "{} is not there, which is kept of a retired shard for ever: restore it from a copy",
            path.display()
        )));
    }
    files.shared.view().retired = retired;
    Ok(())
}

/// The shard that each one names as the one before it is there, whole or retired: else somebody took a year away.
pub(super) fn check_chain(files: &Files) -> Result<(), Fault> {
    let (shards, retired) = {
        let view = files.shared.view();
        (view.shards.clone(), view.retired.clone())
    };
    for (shard, _) in shards.iter().filter(|(_, size)| **size > 0) {
        let at = Position { shard: *shard, index: 0 };
        let leaf = files
            .leaves()
            .leaf(at)?
            .ok_or_else(|| Fault::Refused(format!("the entry {at} is not there: restore the shard from a copy")))?;
        let (header, payload) = leaf::decode(&leaf)?;
        let opened = serde_json::from_slice::<ShardOpen>(payload).ok().filter(|_| header.kind == Kind::ShardOpen);
        let named = opened.and_then(|opened| opened.previous).map(|previous| previous.shard);
        if let Some(named) = named.filter(|named| !shards.contains_key(named) && !retired.contains_key(named)) {
            return Err(Fault::Refused(format!(
                "shard {shard} continues shard {named}, of which not even the final checkpoint is there: restore it from a copy"
            )));
        }
    }
    Ok(())
}

/// The newest entry about a retired shard in the first shard that is left: what comes after it began after that shard had.
pub(super) fn is_recorded_in(files: &Files, index: &Index, shard: u16) -> Result<bool, Fault> {
    let newest = files.shared.view().retired.last_key_value().map(|(shard, _)| *shard);
    let Some(newest) = newest else { return Ok(false) };
    Ok(record_of(files, index, newest)?.is_some_and(|record| record.at.shard == shard))
}

/// Removes what the log says is retired and may be removed now, and is there in whole or in part. Gives the index, which is another one then.
pub(super) fn carry_on(means: &Means, files: &Files, index: Index) -> Result<Index, Fault> {
    let may_go = |shards: Vec<u16>| shards.into_iter().filter(|shard| means.removable.contains(shard));
    let begun: Vec<u16> = files.shared.view().retired.keys().copied().collect();
    for shard in may_go(begun) {
        clear(&*files.disk, &files.layout, shard)?;
    }
    let standing: Vec<u16> = files.shared.view().shards.keys().copied().collect();
    let mut due = Vec::new();
    for shard in may_go(standing) {
        let Some(record) = record_of(files, &index, shard)? else { break };
        let there = files.checkpoint(Some(shard))?.map(|published| published.checkpoint);
        let said = record.shards.get(&shard).filter(|said| there.as_ref() == Some(&said.checkpoint)).ok_or_else(|| {
            Fault::Refused(format!(
                "the entry {} says that shard {shard} is retired, and names another final checkpoint than it has",
                record.at
            ))
        })?;
        due.push(said.clone());
    }
    if due.is_empty() {
        return Ok(index);
    }
    // It would name entries that are not there any more.
    drop(index);
    files.shared.begin_index();
    for retired in due {
        forget(means, files, retired.shard)?;
        remove_index(&files.layout.index())?;
        let marker = json!({"shard": retired.shard, "entry": retired.record.to_string(), "since_ms": retired.since_ms});
        let path = files.layout.retired(retired.shard);
        install(&*files.disk, &files.layout.temporary(), &path, format!("{marker}\n").as_bytes(), Durability::Synced)
            .map_err(Fault::io(&path))?;
        {
            let mut view = files.shared.view();
            view.shards.remove(&retired.shard);
            view.retired.insert(retired.shard, retired.clone());
        }
        clear(&*files.disk, &files.layout, retired.shard)?;
        tracing::info!(shard = retired.shard, entry = %retired.record, "the shard was retired: of its entries nothing is left but its final checkpoint");
    }
    caught_up(means, files)
}

/// Forgets the keys that only the oldest shard's entries needed. A key may seal entries of several years, and a person is found by it in others.
fn forget(means: &Means, files: &Files, shard: u16) -> Result<(), Fault> {
    let (mut keys, mut values) = (HashSet::new(), HashSet::new());
    survey::headers(files, shard, &mut |header, _| {
        if let Some(enc) = &header.enc
            && !keys.contains(&*enc.key)
        {
            keys.insert(enc.key.to_string());
        }
        if let Some(actor) = header.actor.as_deref()
            && !values.contains(actor)
        {
            values.insert(actor.to_owned());
        }
        Ok(())
    })?;
    let persons = means.sealing.persons(&keys, &values)?;
    keys.extend(persons.values().cloned());
    let later: Vec<u16> = files.shared.view().shards.keys().copied().filter(|later| *later > shard).collect();
    for later in later {
        if keys.is_empty() {
            break;
        }
        survey::headers(files, later, &mut |header, _| {
            if let Some(enc) = &header.enc {
                keys.remove(&*enc.key);
            }
            if let Some(key) = header.actor.as_deref().and_then(|actor| persons.get(actor)) {
                keys.remove(key);
            }
            Ok(())
        })?;
    }
    let count = if keys.is_empty() { 0 } else { means.sealing.forget(&keys)? };
    tracing::info!(shard, keys = count, "keys that nothing needs any more are forgotten");
    Ok(())
}

/// What a removal leaves, without one.
#[cfg(test)]
pub(super) fn clear_for_tests(disk: &dyn Disk, layout: &Layout, shard: u16) {
    clear(disk, layout, shard).unwrap();
}
