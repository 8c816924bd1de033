//! Keeps what agents made, by its SHA-256, in a directory or in an S3-compatible store; gives it back, checked; and removes what nobody names any more.
//!
//! Always true:
//! * What was kept is whole and durable before [`Artifacts::keep`] says so. The same content is kept once, however often and by whomever.
//! * What was read to its end has the size and the digest that were asked for.
//! * What is removed was relied on by nobody for eight days at least, since a copy is never relied on, nor made again, once it is old (see `epoch`).
//!   So a removal can come at any time, twice, late, or be cut short.
//! * How old a copy is says a clock that was not wrong for a moment ([`fte_service::SteadyClock`]).
//! * Nothing is in memory but a few chunks, or a few parts of uploads.
//!
//! Who may name which content is not decided here.

mod config;
mod digest;
mod directory;
mod epoch;
mod reading;
#[cfg(feature = "s3")]
mod s3;
mod spool;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use config::{ENV_ALLOW_HTTP, ENV_ARTIFACTS, ENV_PATH_STYLE, Place};
pub use digest::{Digest, NotADigest};
pub use epoch::EPOCH_SECONDS;
use fte_service::SteadyClock;
pub use reading::Reading;

use crate::directory::Directory;
use crate::epoch::Epoch;
use crate::reading::Source;
use crate::spool::Spooled;

/// What goes by its age here, for the log.
const AGES: &str = "artifacts";
/// So many bytes are read at once.
pub(crate) const CHUNK_BYTES: usize = 128 << 10;

/// A store that cannot be used now, or is not there.
#[derive(Debug, thiserror::Error)]
pub enum Away {
    /// The directory refuses.
    #[error("the artifacts' directory {} cannot be used", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of it cannot be read.
    #[error("an artifact's file cannot be read")]
    Reading(#[source] Arc<io::Error>),
    /// The S3 store refuses, or does not answer.
    #[cfg(feature = "s3")]
    #[error("the S3 store of the artifacts cannot be used")]
    Object(#[source] object_store::Error),
    /// It took too long.
    #[error("the store of the artifacts did not take it within {0:?}")]
    Slow(std::time::Duration),
    /// This process is about to end.
    #[error("it was broken off")]
    Stopped,
}

/// A content was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is too large; nothing was kept.
    #[error("it is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// It cannot be read, or has no room here.
    #[error("it cannot be copied")]
    Local(#[source] io::Error),
    /// The store did not take it.
    #[error(transparent)]
    Away(#[from] Away),
}

/// A content cannot be given back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not in the store.
    #[error("there is no artifact {digest} in the store")]
    Missing {
        /// Which.
        digest: Digest,
    },
    /// What is there is something else.
    #[error("the artifact {digest} is damaged: {why}")]
    Corrupt {
        /// Which.
        digest: Digest,
        /// How.
        why: String,
    },
    /// The store cannot be asked.
    #[error(transparent)]
    Away(#[from] Away),
}

/// The store cannot be opened with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection to S3 cannot be set up.
    #[cfg(feature = "s3")]
    #[error("the S3 store of FTE_ARTIFACTS cannot be set up")]
    S3(#[from] fte_s3::OpenError),
}

/// What was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
}

/// What became of an artifact that nobody names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// None of it is left.
    All,
    /// Somebody may rely on it since not long ago; ask again later.
    TooYoung,
}

/// One of the copies of a content. There is more than one only when the same was kept again after many days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) epoch: Epoch,
    /// Whether its epoch is in its name.
    pub(crate) named: bool,
    pub(crate) size: u64,
}

enum Home {
    Directory(Arc<Directory>),
    #[cfg(feature = "s3")]
    S3(s3::S3),
}

/// The store; cheap to clone.
#[derive(Clone)]
pub struct Artifacts {
    shared: Arc<Shared>,
}

struct Shared {
    home: Home,
    /// Where contents are gathered.
    tmp: PathBuf,
    /// Nobody else gathers there.
    alone: bool,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// By which a copy is old.
    ages: SteadyClock,
}

impl Artifacts {
    /// The store that is configured; `data` is the directory of everything that is kept on this machine. Nothing is read or written yet.
    pub fn open(place: &Place, data: &Path) -> Result<Self, OpenError> {
        let own = data.join("artifacts");
        let (home, tmp, alone) = match place {
            Place::Data => (Home::directory(own.clone()), own.join("tmp"), true),
            Place::Directory(root) => (Home::directory(root.clone()), root.join("tmp"), *root == own),
            #[cfg(feature = "s3")]
            Place::S3(place) => (Home::S3(s3::S3::new(place)?), own.join("tmp"), true),
        };
        Ok(Self { shared: Arc::new(Shared { home, tmp, alone, clock: Box::new(unix_seconds), ages: SteadyClock::new(AGES) }) })
    }

    /// The same store, by another clock: seconds since 1970. It is never wrong.
    pub fn with_clock(self, clock: impl Fn() -> u64 + Clone + Send + Sync + 'static) -> Self {
        let monotonic = clock.clone();
        self.with_clocks(clock, move || Duration::from_secs(monotonic()))
    }

    /// The same store, by another clock, in seconds since 1970, and a monotonic one, which says whether that can be.
    pub fn with_clocks(
        self,
        clock: impl Fn() -> u64 + Clone + Send + Sync + 'static,
        monotonic: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let wall = clock.clone();
        let ages = SteadyClock::of(AGES, move || i64::try_from(wall().saturating_mul(1000)).unwrap_or(i64::MAX), monotonic);
        let Ok(shared) = Arc::try_unwrap(self.shared).map(|shared| Shared { clock: Box::new(clock), ages, ..shared }) else {
            unreachable!("the clock is set before the store is shared");
        };
        Self { shared: Arc::new(shared) }
    }

    /// Finds out whether artifacts can be kept, before a task finds out. An S3 store that is away is an error here, and none for who starts: it heals.
    pub async fn probe(&self) -> Result<(), Away> {
        match &self.shared.home {
            Home::Directory(directory) => {
                let directory = Arc::clone(directory);
                blocking(move || directory.probe()).await?
            }
            #[cfg(feature = "s3")]
            Home::S3(s3) => s3.probe().await,
        }
    }

    /// Removes what a killed predecessor left half-written. Only for who knows that no other process uses this data directory.
    pub fn sweep(&self) -> io::Result<()> {
        spool::sweep(&self.shared.tmp, self.shared.alone)
    }

    /// Keeps what can be read, at most `bytes_max` bytes.
    pub async fn keep(&self, content: impl Read + Send + 'static, bytes_max: u64) -> Result<Kept, KeepError> {
        let (tmp, mut content) = (self.shared.tmp.clone(), content);
        let spooled = blocking(move || spool::spool(&tmp, &mut content, bytes_max)).await??;
        let kept = Kept { digest: spooled.digest, size: spooled.size };
        let now = self.epoch();
        match &self.shared.home {
            Home::Directory(directory) => {
                let directory = Arc::clone(directory);
                blocking(move || keep_in(&directory, &spooled, now)).await??;
            }
            #[cfg(feature = "s3")]
            Home::S3(s3) => s3.keep(&spooled, now).await?,
        }
        Ok(kept)
    }

    /// Whether a content of this size is there, without reading it.
    pub async fn look(&self, digest: Digest, size: u64) -> Result<(), ReadError> {
        self.newest(digest, size).await.map(drop)
    }

    /// Begins to read a content of this size, or a part of it.
    pub async fn read(&self, digest: Digest, size: u64, wanted: Range<u64>) -> Result<Reading, ReadError> {
        let mut again = true;
        loop {
            let copy = self.newest(digest, size).await?;
            let source = match &self.shared.home {
                Home::Directory(directory) => {
                    let directory = Arc::clone(directory);
                    match blocking(move || directory.open(digest, copy)).await? {
                        Ok(file) => Some(Source::File(Some(file))),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                        Err(error) => return Err(Away::Reading(Arc::new(error)).into()),
                    }
                }
                #[cfg(feature = "s3")]
                Home::S3(s3) => s3.open(digest, copy).await?,
            };
            match source {
                Some(source) => return Ok(Reading::new(source, digest, size, wanted)),
                // That copy was removed between the look and now; there may be another.
                None if again => again = false,
                None => return Err(ReadError::Missing { digest }),
            }
        }
    }

    /// Removes the old copies of a content that nobody names.
    pub async fn remove(&self, digest: Digest) -> Result<Removed, Away> {
        let now = self.epoch_of_removals();
        let (old, young): (Vec<_>, Vec<_>) = self.copies(digest).await?.into_iter().partition(|copy| copy.epoch.is_old(now));
        for copy in old {
            self.remove_copy(digest, copy).await?;
        }
        Ok(if young.is_empty() { Removed::All } else { Removed::TooYoung })
    }

    /// Removes the old copies of a content that somebody names, but for the newest.
    pub async fn trim(&self, digest: Digest) -> Result<(), Away> {
        let now = self.epoch_of_removals();
        let mut copies = self.copies(digest).await?;
        copies.sort_unstable_by_key(|copy| (copy.epoch, copy.named));
        copies.pop();
        for copy in copies.into_iter().filter(|copy| copy.epoch.is_old(now)) {
            self.remove_copy(digest, copy).await?;
        }
        Ok(())
    }

    async fn newest(&self, digest: Digest, size: u64) -> Result<Copy, ReadError> {
        let copies = self.copies(digest).await?;
        let newest = copies.into_iter().max_by_key(|copy| (copy.epoch, copy.named)).ok_or(ReadError::Missing { digest })?;
        if newest.size == size {
            Ok(newest)
        } else {
            Err(ReadError::Corrupt { digest, why: format!("it has {} bytes instead of {size}", newest.size) })
        }
    }

    async fn copies(&self, digest: Digest) -> Result<Vec<Copy>, Away> {
        match &self.shared.home {
            Home::Directory(directory) => {
                let directory = Arc::clone(directory);
                blocking(move || directory.copies(digest)).await?
            }
            #[cfg(feature = "s3")]
            Home::S3(s3) => s3.copies(digest).await,
        }
    }

    async fn remove_copy(&self, digest: Digest, copy: Copy) -> Result<(), Away> {
        match &self.shared.home {
            Home::Directory(directory) => {
                let directory = Arc::clone(directory);
                blocking(move || directory.remove(digest, copy)).await?
            }
            #[cfg(feature = "s3")]
            Home::S3(s3) => s3.remove(digest, copy).await,
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch::at((self.shared.clock)())
    }

    /// Never later than the other: a clock that was wrong removes nothing.
    fn epoch_of_removals(&self) -> Epoch {
        Epoch::at(u64::try_from(self.shared.ages.now_ms() / 1000).unwrap_or(0))
    }
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shared.home {
            Home::Directory(directory) => write!(f, "Artifacts({})", directory.root().display()),
            #[cfg(feature = "s3")]
            Home::S3(s3) => write!(f, "Artifacts({s3:?})"),
        }
    }
}

impl Home {
    fn directory(root: PathBuf) -> Self {
        Self::Directory(Arc::new(Directory { root }))
    }
}

fn keep_in(directory: &Directory, spooled: &Spooled, now: Epoch) -> Result<(), KeepError> {
    // One that is there has the same content by its name; of another size, it is damaged and is replaced.
    let is_there = directory.copies(spooled.digest)?.iter().any(|copy| copy.epoch.is_fresh(now) && copy.size == spooled.size);
    if is_there { directory.sync(spooled.digest) } else { directory.put(spooled, now) }.map_err(KeepError::Local)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Away> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Away::Stopped)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
