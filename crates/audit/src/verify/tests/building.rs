//! Makes a shard in memory, by the specification and not by the service's writer.

use std::collections::BTreeMap;

use fte_tlog::{Checkpoint, Frontier, KeyAlgorithm, SignedNote, SignerKey, TileLevel, TilePath, leaf_hash, push_entry};

use super::*;
use crate::entry::leaf::{Header, Kind, encode};

/// A shard's files by name.
#[derive(Clone, Default)]
pub(super) struct Files(pub(super) BTreeMap<String, Vec<u8>>);

impl Source for Files {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(name).cloned())
    }

    fn list(&self, folder: &str, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        self.0.keys().filter(|name| name.starts_with(folder)).try_for_each(|name| seen(name))?;
        Ok(true)
    }
}

/// A log that is being written.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) key: SignerKey,
    pub(super) leaves: Vec<Vec<u8>>,
    pub(super) blobs: Vec<Vec<u8>>,
}

pub(super) const ORIGIN: &str = "log.example/2026";

pub(super) fn key(origin: &str, seed: u8) -> SignerKey {
    SignerKey::new(origin, KeyAlgorithm::Ed25519, &[seed; 32]).unwrap()
}

impl Log {
    /// A shard with nothing in it.
    pub(super) fn empty() -> Self {
        Self { key: key(ORIGIN, 1), leaves: Vec::new(), blobs: Vec::new() }
    }

    /// A shard of so many entries: it is opened, and then events of tasks of three follow, each task closed.
    pub(super) fn of(size: u64) -> Self {
        let mut log = Self::empty();
        for index in 0..size {
            match index {
                0 => log.open(None),
                index => log.event(index),
            }
        }
        log
    }

    pub(super) fn push(&mut self, header: &Header<'_>, payload: &[u8]) {
        self.leaves.push(encode(header, payload).unwrap());
    }

    pub(super) fn open(&mut self, previous: Option<&str>) {
        let mut payload = serde_json::json!({"policy": "for ever"});
        if let Some(previous) = previous {
            payload["previous"] = serde_json::json!({"checkpoint": previous});
        }
        self.own(Kind::ShardOpen, "open", &payload.to_string(), 0);
    }

    pub(super) fn own(&mut self, kind: Kind, id: &str, payload: &str, logged_time: i64) {
        let source = Some("/fte/audit".into());
        let header = Header { source, id: Some(id.into()), ..Header::new(kind, logged_time, payload.as_bytes()) };
        self.push(&header, payload.as_bytes());
    }

    /// The event that stands at this index.
    pub(super) fn event(&mut self, index: u64) {
        let (task, seq) = (format!("task-{}", (index - 1) / 4), (index - 1) % 4);
        let payload = match seq {
            3 => r#"{"entries":3}"#.to_owned(),
            _ => serde_json::json!({"id": index, "source": "/test", "task": task}).to_string(),
        };
        let kind = if seq == 3 { Kind::TaskClosed } else { Kind::Event };
        let header = Header {
            source: Some("/test".into()),
            id: Some(index.to_string().into()),
            task: Some(task.into()),
            task_seq: Some(seq),
            epoch: Some("e".into()),
            sequence: (seq == 0).then_some((index - 1) / 4 + 1),
            ..Header::new(kind, i64::try_from(index).unwrap(), payload.as_bytes())
        };
        self.push(&header, payload.as_bytes());
    }

    pub(super) fn blob(&mut self, payload: &[u8]) {
        let mut header = Header::new(Kind::Event, 1 << 40, payload);
        header.payload_ref = Some(header.payload_sha256);
        self.push(&header, payload);
        self.blobs.push(payload.to_vec());
    }

    pub(super) fn frontier(&self) -> Frontier {
        let mut frontier = Frontier::default();
        self.leaves.iter().for_each(|leaf| frontier.append(leaf_hash(leaf), |_| {}));
        frontier
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        let frontier = self.frontier();
        Checkpoint { origin: self.key.name().to_owned(), size: frontier.size(), root: frontier.root() }
    }

    /// The signed checkpoint.
    pub(super) fn note(&self) -> String {
        let text = self.checkpoint().to_string();
        SignedNote::new(&*text).unwrap().with(self.key.sign(&text, 0)).to_string()
    }

    /// The first entries of the log.
    pub(super) fn until(&self, size: usize) -> Self {
        Self { leaves: self.leaves[..size].to_vec(), ..self.clone() }
    }

    pub(super) fn files(&self) -> Files {
        let mut files = BTreeMap::from([("checkpoint".to_owned(), self.note().into_bytes())]);
        let mut frontier = Frontier::default();
        for leaf in &self.leaves {
            frontier.append(leaf_hash(leaf), |tile| drop(files.insert(tile.path.to_string(), tile.bytes())));
        }
        files.extend(frontier.partial_tiles().map(|(path, bytes)| (path.to_string(), bytes)));
        for (index, leaves) in (0..).zip(self.leaves.chunks(256)) {
            let mut bundle = Vec::new();
            leaves.iter().for_each(|leaf| push_entry(&mut bundle, leaf).unwrap());
            let path = TilePath { level: TileLevel::Entries, index, width: u16::try_from(leaves.len()).unwrap() };
            files.insert(path.to_string(), bundle);
        }
        for blob in &self.blobs {
            files.insert(source::blob_name(&fte_events::hex(&Header::new(Kind::Event, 0, blob).payload_sha256)), blob.clone());
        }
        Files(files)
    }
}
