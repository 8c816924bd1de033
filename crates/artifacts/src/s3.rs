//! Copies in an S3-compatible store: `<prefix>/sha256/<first two digits>/<digest>/<epoch>`.
//!
//! Always true: an object is there whole or not at all (S3 shows an upload in parts when its last call succeeds); each part is signed with its digest, so
//! that what the server takes is what was read; a call is repeated a few times and for a bounded time, a removal never: one that came late would
//! be no harm (see `epoch`), but one that is not known to have come is asked for again by the next pass anyway.
//!
//! What a killed process leaves of an upload in parts is the store's to remove: a rule for the bucket (`AbortIncompleteMultipartUpload`) does.

use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::Duration;

use bytes::Bytes;
use fte_s3::Place;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutPayload};
use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::epoch::Epoch;
use crate::reading::Source;
use crate::spool::Spooled;
use crate::{Away, Copy, KeepError, OpenError};

/// What is larger is uploaded in parts of this size.
const PART_BYTES: u64 = 8 << 20;
/// Uploads at a time, each with a part in memory; more wait.
const UPLOADS_MAX: usize = 4;
/// Longest upload, with its repetitions and its wait for a place.
const UPLOAD_MAX: Duration = Duration::from_secs(300);
/// Copies of one content that are looked at.
const COPIES_MAX: usize = 1000;

pub(crate) struct S3 {
    store: AmazonS3,
    /// The same without repetitions.
    once: AmazonS3,
    place: Place,
    uploads: Semaphore,
}

impl S3 {
    pub(crate) fn new(place: &Place) -> Result<Self, OpenError> {
        let bucket = fte_s3::Bucket::new(place)?;
        Ok(Self { store: bucket.client(5)?, once: bucket.client(0)?, place: place.clone(), uploads: Semaphore::new(UPLOADS_MAX) })
    }

    fn directory(&self, digest: Digest) -> String {
        let (prefix, digest) = (&self.place.prefix, digest.to_string());
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{prefix}{slash}sha256/{}/{digest}", &digest[..2])
    }

    fn key(&self, digest: Digest, epoch: Epoch) -> Path {
        Path::from(format!("{}/{}", self.directory(digest), epoch.0))
    }

    pub(crate) async fn probe(&self) -> Result<(), Away> {
        self.copies(Digest::new([0; 32])).await.map(drop)
    }

    pub(crate) async fn copies(&self, digest: Digest) -> Result<Vec<Copy>, Away> {
        let directory = Path::from(self.directory(digest));
        let objects: Vec<_> =
            futures_util::StreamExt::take(self.store.list(Some(&directory)), COPIES_MAX).try_collect().await.map_err(Away::Object)?;
        let copy = |object: &object_store::ObjectMeta| {
            let epoch = object.location.filename()?.parse().ok()?;
            Some(Copy { epoch: Epoch(epoch), named: true, size: object.size })
        };
        Ok(objects.iter().filter_map(copy).collect())
    }

    pub(crate) async fn keep(&self, spooled: &Spooled, now: Epoch) -> Result<(), KeepError> {
        tokio::time::timeout(UPLOAD_MAX, self.upload(spooled, now)).await.unwrap_or(Err(Away::Slow(UPLOAD_MAX).into()))
    }

    async fn upload(&self, spooled: &Spooled, now: Epoch) -> Result<(), KeepError> {
        let is_there = self.copies(spooled.digest).await?.iter().any(|copy| copy.epoch.is_fresh(now) && copy.size == spooled.size);
        if is_there {
            return Ok(());
        }
        let _place = self.uploads.acquire().await.map_err(|_| Away::Stopped)?;
        let key = self.key(spooled.digest, now);
        if spooled.size <= PART_BYTES {
            let whole = part(spooled, 0).await?;
            self.store.put(&key, PutPayload::from_bytes(whole)).await.map_err(Away::Object)?;
            return Ok(());
        }
        let id = self.store.create_multipart(&key).await.map_err(Away::Object)?;
        match self.parts(&key, &id, spooled).await {
            Ok(parts) => self.store.complete_multipart(&key, &id, parts).await.map(drop).map_err(|error| Away::Object(error).into()),
            Err(error) => {
                if let Err(leftover) = self.store.abort_multipart(&key, &id).await {
                    tracing::debug!(error = %leftover, "a broken-off upload was left in the store");
                }
                Err(error)
            }
        }
    }

    async fn parts(&self, key: &Path, id: &String, spooled: &Spooled) -> Result<Vec<PartId>, KeepError> {
        let mut parts = Vec::new();
        for number in 0..spooled.size.div_ceil(PART_BYTES) {
            let bytes = part(spooled, number * PART_BYTES).await?;
            let place = usize::try_from(number).unwrap_or(usize::MAX);
            parts.push(self.store.put_part(key, id, place, PutPayload::from_bytes(bytes)).await.map_err(Away::Object)?);
        }
        Ok(parts)
    }

    /// Begins to read; none where the object was removed since it was seen.
    pub(crate) async fn open(&self, digest: Digest, copy: Copy) -> Result<Option<Source>, Away> {
        match self.store.get(&self.key(digest, copy.epoch)).await {
            Ok(found) => Ok(Some(Source::Object(found.into_stream()))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Away::Object(error)),
        }
    }

    pub(crate) async fn remove(&self, digest: Digest, copy: Copy) -> Result<(), Away> {
        match self.once.delete(&self.key(digest, copy.epoch)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Away::Object(error)),
        }
    }
}

/// The part of the file that begins here.
async fn part(spooled: &Spooled, from: u64) -> Result<Bytes, KeepError> {
    let path = spooled.file.0.clone();
    let size = (spooled.size - from).min(PART_BYTES);
    let read = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    });
    Ok(read.await.map_err(|_| Away::Stopped)?.map_err(KeepError::Local)?.into())
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.place.bucket, self.place.prefix)
    }
}
