//! The tree as others see it: checkpoints, tiles, proofs. What is not in a checkpoint is not there.

use bytes::Bytes;
use fte_tlog::{Bundle, Hash, ProofFile, TILE_WIDTH, TileHashes, TileLevel, TilePath, prove_consistency, prove_inclusion};

use super::fault::Fault;
use super::state::Published;
use super::view::Files;
use crate::entry::Position;

impl Files {
    /// The last checkpoint of a shard, or of the newest that has one.
    pub(super) fn checkpoint(&self, shard: Option<u16>) -> Result<Option<Published>, Fault> {
        let (published, ended) = {
            let view = self.shared.view();
            (view.published.clone(), shard.filter(|shard| view.shards.contains_key(shard) || view.retired.contains_key(shard)))
        };
        let Some(shard) = shard else { return Ok(published) };
        if let Some(published) = published.filter(|published| published.shard == shard) {
            return Ok(Some(published));
        }
        let Some(ended) = ended else { return Ok(None) };
        let path = self.layout.log(ended).join("checkpoint");
        match self.disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => {
                let note = read.map_err(Fault::io(&path))?;
                let damaged = || Fault::Refused(format!("{} is no checkpoint", path.display()));
                let note = String::from_utf8(note).map_err(|_| damaged())?;
                let signed = fte_tlog::SignedNote::parse(note.as_bytes()).map_err(|_| damaged())?;
                let checkpoint = fte_tlog::Checkpoint::parse(signed.text()).map_err(|_| damaged())?;
                Ok(Some(Published { shard: ended, checkpoint, note: note.into() }))
            }
        }
    }

    /// A tile as far as the last checkpoint reaches. A partial one is the beginning of what is there.
    pub(super) fn tile(&self, shard: u16, tile: TilePath) -> Result<Option<Bytes>, Fault> {
        if self.shared.view().retired.contains_key(&shard) {
            return Ok(None);
        }
        // The newest partial tile gives way to a newer one at any time.
        for _ in 0..10 {
            let Some(published) = self.checkpoint(Some(shard))? else { return Ok(None) };
            let there = TilePath::in_tree(tile.level, tile.index, published.checkpoint.size);
            let Some(there) = there.filter(|there| there.width >= tile.width) else { return Ok(None) };
            let path = self.layout.tile(shard, there);
            match self.disk.read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                read => return beginning(read.map_err(Fault::io(&path))?, there, tile.width).map(Some),
            }
        }
        Err(Fault::Refused(format!("{tile} of shard {shard} is not there")))
    }

    /// A payload by its digest.
    pub(super) fn blob(&self, shard: u16, digest: &[u8; 32]) -> Result<Option<Bytes>, Fault> {
        let path = self.layout.blob(shard, digest);
        match self.disk.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(Bytes::from(read.map_err(Fault::io(&path))?))),
        }
    }

    pub(super) fn proof(&self, at: Position) -> Result<Option<ProofFile>, Fault> {
        let Some(published) = self.checkpoint(Some(at.shard))?.filter(|published| at.index < published.checkpoint.size) else {
            return Ok(None);
        };
        let size = published.checkpoint.size;
        let proof = prove_inclusion(&mut self.hashes(at.shard, size), at.index, size).map_err(|error| Fault::Refused(error.to_string()))?;
        Ok(Some(ProofFile { extra: None, index: at.index, proof, checkpoint: published.note.to_string() }))
    }

    pub(super) fn consistency(&self, shard: u16, from: u64, to: u64) -> Result<Option<Vec<Hash>>, Fault> {
        if self.checkpoint(Some(shard))?.is_none_or(|published| to > published.checkpoint.size) {
            return Ok(None);
        }
        let proof = prove_consistency(&mut self.hashes(shard, to), from, to);
        proof.map(Some).map_err(|error| Fault::Refused(error.to_string()))
    }

    fn hashes(&self, shard: u16, size: u64) -> TileHashes<impl FnMut(TilePath) -> Result<Vec<u8>, Fault>> {
        TileHashes::new(size, move |tile| {
            let bytes = self.tile(shard, tile)?;
            bytes.map(|bytes| bytes.to_vec()).ok_or_else(|| Fault::Refused(format!("{tile} of shard {shard} is not there")))
        })
    }
}

/// The first `width` hashes or entries of a tile.
fn beginning(bytes: Vec<u8>, there: TilePath, width: u16) -> Result<Bytes, Fault> {
    if there.width == width || width == TILE_WIDTH {
        return Ok(Bytes::from(bytes));
    }
    let end = match there.level {
        TileLevel::Hashes(_) => usize::from(width) * 32,
        TileLevel::Entries => {
            let bundle = Bundle::parse(&bytes, there.width).map_err(|error| Fault::Refused(format!("{there}: {error}")))?;
            // Where the next entry's length begins.
            bundle.offset(usize::from(width)).map_or(bytes.len(), |leaf| leaf - 2)
        }
    };
    let mut bytes = bytes;
    bytes.truncate(end);
    Ok(Bytes::from(bytes))
}
