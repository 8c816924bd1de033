//! How fast a log is verified here, and in how much memory: makes one of so many entries in a temporary directory, and verifies it.
//!
//! `cargo run --profile bench -p fte-audit --example audit_verify -- 2000000`

#![expect(clippy::print_stdout, reason = "a program that measures")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use fte_audit::entry::leaf::{Header, Kind, encode};
use fte_audit::verify::{Directory, Options, verify};
use fte_tlog::{Checkpoint, Frontier, KeyAlgorithm, Policy, SignedNote, SignerKey, TileLevel, TilePath, leaf_hash, push_entry};

fn main() -> Result<(), Box<dyn Error>> {
    let entries: u64 = std::env::args().nth(1).map_or(Ok(200_000), |count| count.parse())?;
    let directory = tempfile::tempdir()?;
    let key = SignerKey::new("bench.example/2026", KeyAlgorithm::Ed25519, &[7; 32])?;
    let bytes = make(directory.path(), entries, &key)?;
    println!("{entries} entries, {} bytes each with their header", bytes / entries.max(1));
    let options = Options::new(Policy::of_logs([key.verifier()]));
    for run in 1..=3 {
        let (started, before) = (Instant::now(), cpu_s()?);
        let reports = verify(&[&Directory::new(directory.path())], &options, &mut |_| {})?;
        let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_s()? - before);
        let rate = f64::from(u32::try_from(entries)?) / wall;
        println!("run {run}: {rate:.0} entries/s, {wall:.2} s, {cpu:.2} CPU s, peak {} KiB · {}", peak_kib()?, reports[0]);
        if !reports[0].findings.is_empty() {
            return Err(format!("{:?}", reports[0].findings).into());
        }
    }
    Ok(())
}

/// Writes a shard as the log does. Gives the bytes of all leaves.
fn make(directory: &Path, entries: u64, key: &SignerKey) -> Result<u64, Box<dyn Error>> {
    let put = |path: TilePath, bytes: &[u8]| {
        let path = directory.join(path.to_string());
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, bytes)
    };
    let (mut frontier, mut bundle, mut bytes) = (Frontier::default(), Vec::new(), 0);
    for index in 0..entries {
        let leaf = leaf(index)?;
        bytes += leaf.len() as u64;
        push_entry(&mut bundle, &leaf)?;
        let mut full = Vec::new();
        frontier.append(leaf_hash(&leaf), |tile| full.push(tile));
        for tile in full {
            put(tile.path, &tile.bytes())?;
        }
        if frontier.size() % 256 == 0 || index + 1 == entries {
            let path = TilePath::in_tree(TileLevel::Entries, index / 256, frontier.size()).ok_or("no bundle")?;
            put(path, &bundle)?;
            bundle.clear();
        }
    }
    for (path, bytes) in frontier.partial_tiles() {
        put(path, &bytes)?;
    }
    let text = Checkpoint { origin: key.name().to_owned(), size: entries, root: frontier.root() }.to_string();
    fs::write(directory.join("checkpoint"), SignedNote::new(&*text)?.with(key.sign(&text, 0)).to_string())?;
    Ok(bytes)
}

/// An event of a usual size, of tasks of eight.
fn leaf(index: u64) -> Result<Vec<u8>, Box<dyn Error>> {
    if index == 0 {
        return Ok(encode(&Header::new(Kind::ShardOpen, 0, b"{}"), b"{}")?);
    }
    let (task, seq) = (format!("01980000-0000-7000-8000-{:012x}", index / 8), index % 8 - u64::from(index < 8));
    let id = format!("01980000-0000-8000-8000-{index:012x}");
    let mut payload = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/fte/runner","type":"fte.status.changed","subject":"{task}","data":{{"text":""#
    );
    payload.extend(std::iter::repeat_n('x', 380_usize.saturating_sub(payload.len())));
    payload += r#""}}"#;
    let mut header = Header::new(Kind::Event, i64::try_from(index)?, payload.as_bytes());
    header.source = Some("/fte/runner".into());
    header.id = Some(id.into());
    header.event_type = Some("fte.status.changed".into());
    header.time = Some("2026-07-01T10:00:00Z".into());
    header.tenant = Some("default".into());
    (header.task, header.task_seq) = (Some(task.into()), Some(seq));
    header.sequence = Some(seq + 1);
    header.topic = Some("fte.status.updates".into());
    (header.partition, header.offset) = (Some(3), Some(i64::try_from(index)?));
    Ok(encode(&header, payload.as_bytes())?)
}

fn cpu_s() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("no stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
