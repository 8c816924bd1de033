//! Reading a content, and believing nothing: its last bytes are given away only once all of it had the right size and digest.
//!
//! A part is read like the whole, from the beginning to the end. It costs reading what nobody asked for, at most an artifact; in turn whatever is
//! given away to its end has been checked.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::directory::chunk;
use crate::{Away, ReadError};

/// Where the bytes come from.
pub(crate) enum Source {
    File(Option<File>),
    #[cfg(feature = "s3")]
    Object(futures_util::stream::BoxStream<'static, Result<Bytes, object_store::Error>>),
}

/// A content as it is read, with about two chunks of it in memory.
pub struct Reading {
    source: Source,
    digest: Digest,
    size: u64,
    wanted: Range<u64>,
    read: u64,
    hasher: Sha256,
    held: Option<Bytes>,
    over: bool,
}

impl Reading {
    pub(crate) fn new(source: Source, digest: Digest, size: u64, wanted: Range<u64>) -> Self {
        Self { source, digest, size, wanted, read: 0, hasher: Sha256::new(), held: None, over: false }
    }

    /// The next bytes of what was asked for; none when it is over, which it is only if all of the content was as it should be.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        while !self.over {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                self.over = true;
                self.check()?;
                return Ok(self.held.take());
            }
            let from = self.read;
            self.read += chunk.len() as u64;
            if self.read > self.size {
                return Err(self.corrupt(format!("it is longer than {} bytes", self.size)));
            }
            self.hasher.update(&chunk);
            let start = self.wanted.start.clamp(from, self.read) - from;
            let end = self.wanted.end.clamp(from, self.read) - from;
            if start < end {
                let part = chunk.slice(usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(chunk.len()));
                if let Some(before) = self.held.replace(part) {
                    return Ok(Some(before));
                }
            }
        }
        Ok(None)
    }

    fn check(&mut self) -> Result<(), ReadError> {
        if self.read < self.size {
            return Err(self.corrupt(format!("it ends after {} of {} bytes", self.read, self.size)));
        }
        let found = Digest::new(std::mem::take(&mut self.hasher).finalize().into());
        if found == self.digest { Ok(()) } else { Err(self.corrupt(format!("its SHA-256 is {found}"))) }
    }

    fn corrupt(&mut self, why: String) -> ReadError {
        self.over = true;
        ReadError::Corrupt { digest: self.digest, why }
    }

    async fn chunk(&mut self) -> Result<Bytes, ReadError> {
        match &mut self.source {
            Source::File(file) => {
                let Some(mut open) = file.take() else { return Ok(Bytes::new()) };
                let reading = tokio::task::spawn_blocking(move || (chunk(&mut open), open));
                let (read, open) = reading.await.map_err(|_| ReadError::Away(Away::Stopped))?;
                *file = Some(open);
                read.map_err(|source| ReadError::Away(Away::Reading(Arc::new(source))))
            }
            #[cfg(feature = "s3")]
            Source::Object(stream) => {
                use futures_util::StreamExt as _;
                loop {
                    match stream.next().await {
                        None => return Ok(Bytes::new()),
                        Some(Ok(chunk)) if chunk.is_empty() => {}
                        Some(Ok(chunk)) => return Ok(chunk),
                        Some(Err(error)) => return Err(ReadError::Away(Away::Object(error))),
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("digest", &self.digest).field("read", &self.read).field("size", &self.size).finish_non_exhaustive()
    }
}
