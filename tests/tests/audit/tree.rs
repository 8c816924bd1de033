//! A log in a directory, with leaves that mean nothing.

use std::fs;
use std::path::{Path, PathBuf};

use fte_tlog::{Checkpoint, Frontier, KeyAlgorithm, Policy, SignedNote, SignerKey, TileLevel, TilePath, leaf_hash, push_entry};

pub(crate) struct Tree {
    directory: PathBuf,
    key: SignerKey,
    frontier: Frontier,
    /// The leaves of the bundle at the right edge.
    edge: Vec<Vec<u8>>,
}

impl Tree {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        let key = SignerKey::new("log.example/2026", KeyAlgorithm::Ed25519, &[1; 32]).unwrap();
        let tree = Self { directory: directory.to_owned(), key, frontier: Frontier::default(), edge: Vec::new() };
        fs::write(tree.key_path(), tree.key.verifier().to_string()).unwrap();
        tree
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn key_path(&self) -> String {
        self.path("key")
    }

    pub(crate) fn origin(&self) -> &str {
        self.key.name()
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy::of_logs([self.key.verifier()])
    }

    /// Of lengths from 0 to 600 bytes.
    pub(crate) fn leaf(index: u64) -> Vec<u8> {
        let length = usize::try_from(index * 37 % 601).unwrap();
        index.to_be_bytes().into_iter().cycle().take(length).collect()
    }

    fn write(&self, path: TilePath, bytes: &[u8]) {
        let path = self.directory.join(path.to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn grow_to(&mut self, size: u64) {
        while self.frontier.size() < size {
            let leaf = Self::leaf(self.frontier.size());
            let mut full = Vec::new();
            self.frontier.append(leaf_hash(&leaf), |tile| full.push(tile));
            self.edge.push(leaf);
            for tile in full {
                self.write(tile.path, &tile.bytes());
                if tile.path.level == TileLevel::Hashes(0) {
                    self.write_bundle();
                    self.edge.clear();
                }
            }
        }
    }

    fn write_bundle(&self) {
        let mut bundle = Vec::new();
        self.edge.iter().for_each(|leaf| push_entry(&mut bundle, leaf).unwrap());
        let (index, width) = ((self.frontier.size() - 1) / 256, u16::try_from(self.edge.len()).unwrap());
        self.write(TilePath { level: TileLevel::Entries, index, width }, &bundle);
    }

    pub(crate) fn note(&self) -> String {
        let checkpoint = Checkpoint { origin: self.origin().to_owned(), size: self.frontier.size(), root: self.frontier.root() };
        let text = checkpoint.to_string();
        SignedNote::new(&*text).unwrap().with(self.key.sign(&text, 0)).to_string()
    }

    pub(crate) fn publish(&self) {
        if !self.edge.is_empty() {
            self.write_bundle();
        }
        self.frontier.partial_tiles().for_each(|(path, bytes)| self.write(path, &bytes));
        fs::write(self.path("checkpoint"), self.note()).unwrap();
    }
}
