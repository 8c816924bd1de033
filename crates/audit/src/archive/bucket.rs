//! Copies in a bucket, each object locked until its time by the store.

use std::io;

use fte_s3::{Bucket, Lock, OpenError};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tokio::runtime::Handle;

use super::Shelf;
use crate::files::WITNESSED;
use crate::verify::Source;

/// How often a call is repeated.
const RETRIES: usize = 5;
/// An upload waits for the network, not for a processor.
const LANES: usize = 16;

/// The part of a bucket that has the copy of a log. Its methods block, on threads that are not the runtime's own.
pub struct BucketShelf {
    bucket: Bucket,
    prefix: String,
    lock: Option<Lock>,
    reading: AmazonS3,
    writing: AmazonS3,
    runtime: Handle,
}

impl BucketShelf {
    /// `prefix` is that of the place; objects are locked if there is a lock, else as the bucket has it.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub fn new(bucket: &Bucket, prefix: &str, lock: Option<Lock>, runtime: Handle) -> Result<Self, OpenError> {
        let reading = bucket.client(RETRIES)?;
        let writing = bucket.keeping_client(RETRIES, lock)?;
        Ok(Self { bucket: bucket.clone(), prefix: prefix.to_owned(), lock, reading, writing, runtime })
    }
}

impl Shelf for BucketShelf {
    fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = key(&self.prefix, name);
        match self.runtime.block_on(self.writing.put_opts(&path, PutPayload::from(bytes.to_vec()), options)) {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        get(&self.runtime, &self.reading, &key(&self.prefix, name))
    }

    fn check_kept(&self, name: &str) -> io::Result<()> {
        let Some(lock) = self.lock else { return Ok(()) };
        self.runtime.block_on(self.bucket.check_lock(&self.reading, &key(&self.prefix, name), lock)).map_err(io::Error::other)
    }

    fn log(&self, year: u16) -> Box<dyn Source + Send + '_> {
        Box::new(BucketSource {
            client: self.reading.clone(),
            prefix: within(&self.prefix, &year.to_string()),
            runtime: self.runtime.clone(),
        })
    }

    fn lanes(&self) -> usize {
        LANES
    }
}

/// The copy of a year's log in a bucket.
pub struct BucketSource {
    client: AmazonS3,
    prefix: String,
    runtime: Handle,
}

impl BucketSource {
    /// Of a year below the prefix of a place.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub fn new(bucket: &Bucket, prefix: &str, year: u16, runtime: Handle) -> Result<Self, OpenError> {
        Ok(Self { client: bucket.client(RETRIES)?, prefix: within(prefix, &year.to_string()), runtime })
    }
}

impl Source for BucketSource {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let beside = name.starts_with("blobs/") || name == WITNESSED;
        let path = if beside { key(&self.prefix, name) } else { key(&self.prefix, &format!("log/{name}")) };
        get(&self.runtime, &self.client, &path)
    }

    fn list(&self, folder: &str, seen: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<bool> {
        use futures_util::TryStreamExt as _;

        let log = format!("{}/log", self.prefix);
        let mut objects = self.client.list(Some(&key(&log, folder)));
        while let Some(object) = self.runtime.block_on(objects.try_next()).map_err(io::Error::other)? {
            let name = object.location.as_ref();
            seen(name.strip_prefix(&log).map_or(name, |name| name.trim_start_matches('/')))?;
        }
        Ok(true)
    }
}

/// The years that have a copy below the prefix of a place, whole or not.
///
/// # Errors
/// The bucket cannot be listed.
pub async fn years_in(bucket: &Bucket, prefix: &str) -> Result<Vec<u16>, io::Error> {
    let client = bucket.client(RETRIES).map_err(io::Error::other)?;
    let place = (!prefix.is_empty()).then(|| Path::from(prefix));
    let listed = client.list_with_delimiter(place.as_ref()).await.map_err(io::Error::other)?;
    let year =
        |folder: &Path| folder.filename().filter(|name| name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok();
    let mut years: Vec<u16> = listed.common_prefixes.iter().filter_map(year).collect();
    years.sort_unstable();
    Ok(years)
}

fn get(runtime: &Handle, client: &AmazonS3, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let read = async { client.get(path).await?.bytes().await };
    match runtime.block_on(read) {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn within(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn key(prefix: &str, name: &str) -> Path {
    Path::from(within(prefix, name))
}
