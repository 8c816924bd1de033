//! A stopped log in the hands of who retires shards of it: first only looked at, then opened as the service opens it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::super::EngineOptions;
use super::super::core::Core;
use super::super::disk::{Disk, RealDisk};
use super::super::fault::Fault;
use super::super::reindex;
use super::super::state::lock;
use super::super::view::{Files, Layout, Shared};
use super::{Ended, Retired, survey};
use crate::entry::leaf::Kind;
use crate::entry::{NewEntry, Task};
use crate::log::LogError;

/// What is there of a log, as its published checkpoints say.
pub(crate) struct Standing {
    files: Files,
    _lock: Option<Box<dyn Send>>,
}

/// What a legal hold looks for.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) tenants: HashSet<String>,
    pub(crate) tasks: HashSet<Task>,
}

#[derive(Deserialize)]
struct Event {
    data: SaidHold,
}

#[derive(Deserialize)]
struct SaidHold {
    hold_id: Uuid,
}

impl Standing {
    /// Looks at the log in a directory, which nobody writes for as long as this is there. Nothing is changed.
    ///
    /// # Errors
    /// A process writes it now; a file cannot be read.
    pub(crate) fn of(directory: &Path) -> Result<Self, LogError> {
        let look = || -> Result<Self, Fault> {
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            let layout = Layout { root: directory.to_owned() };
            let lock = lock(&*disk, &layout.state())?;
            let shared = Arc::new(Shared::default());
            let (retired, shards) = reindex::standing(&*disk, &layout)?;
            {
                let mut view = shared.view();
                (view.shards, view.retired, view.tail_from) = (shards.into_iter().collect(), retired, u64::MAX);
            }
            Ok(Self { files: Files { disk, layout, shared }, _lock: Some(lock) })
        };
        look().map_err(|fault| fault.explained(directory))
    }

    fn explained<T>(&self, result: Result<T, Fault>) -> Result<T, LogError> {
        result.map_err(|fault| fault.explained(&self.files.layout.root))
    }

    /// The shards that have ended, the oldest first, and the one that is written.
    pub(crate) fn shards(&self) -> (Vec<u16>, Option<u16>) {
        let mut shards: Vec<u16> = self.files.shared.view().shards.keys().copied().collect();
        let newest = shards.pop();
        (shards, newest)
    }

    /// Those that were retired, each with its final checkpoint as it was signed.
    pub(crate) fn final_notes(&self) -> Result<Vec<(Retired, Arc<str>)>, LogError> {
        let note = |retired: Retired| {
            let published = self.files.checkpoint(Some(retired.shard))?;
            let absent = || Fault::Refused(format!("the final checkpoint of shard {} is not there: restore it from a copy", retired.shard));
            published.map(|published| (retired.clone(), published.note)).ok_or_else(absent)
        };
        self.explained(self.retired().into_iter().map(note).collect())
    }

    /// Those that were retired.
    pub(crate) fn retired(&self) -> Vec<Retired> {
        self.files.shared.view().retired.values().cloned().collect()
    }

    /// Whether something of a shard is still there that was to be removed.
    pub(crate) fn is_unfinished(&self) -> Result<bool, LogError> {
        let look = || {
            for retired in self.retired() {
                let log = self.files.layout.log(retired.shard);
                let directory = self.files.layout.shard(retired.shard);
                let names = |path: &Path| self.files.disk.list(path).map_err(Fault::io(path));
                let is_kept = |name: &String| ["log", super::FILE, crate::files::WITNESSED].contains(&name.as_str());
                if names(&log)? != ["checkpoint"] || !names(&directory)?.iter().all(is_kept) {
                    return Ok(true);
                }
            }
            // Without that file it is retired as far as its files tell; the log says whether it is.
            Ok(false)
        };
        self.explained(look())
    }

    /// A shard that has ended.
    pub(crate) fn ended(&self, shard: u16) -> Result<Ended, LogError> {
        self.explained(Ended::read(&self.files, shard))
    }

    /// Which of these a shard has entries of.
    pub(crate) fn touched(&self, shard: u16, wanted: &Wanted) -> Result<Wanted, LogError> {
        let mut found = Wanted::default();
        if wanted.tenants.is_empty() && wanted.tasks.is_empty() {
            return Ok(found);
        }
        self.explained(survey::headers(&self.files, shard, &mut |header, _| {
            let tenant = header.tenant.as_deref().unwrap_or(fte_events::TENANT);
            if wanted.tenants.contains(tenant) && !found.tenants.contains(tenant) {
                found.tenants.insert(tenant.to_owned());
            }
            if let Some(task) = header.task.as_deref().map(Task::from).filter(|task| wanted.tasks.contains(task)) {
                found.tasks.insert(task);
            }
            Ok(())
        }))?;
        Ok(found)
    }

    /// The holds that the log says were placed, and not that they were lifted.
    pub(crate) fn holds(&self) -> Result<Vec<Uuid>, LogError> {
        let look = || {
            let mut placed: BTreeMap<Uuid, bool> = BTreeMap::new();
            let shards: Vec<u16> = self.files.shared.view().shards.keys().copied().collect();
            for shard in shards {
                survey::headers(&self.files, shard, &mut |header, payload| {
                    if !matches!(header.kind, Kind::HoldPlaced | Kind::HoldLifted) {
                        return Ok(());
                    }
                    let Ok(Event { data }) = serde_json::from_slice(payload) else {
                        return Err(Fault::Refused(format!("an entry of {shard} about a legal hold cannot be read")));
                    };
                    let is_lifted = placed.entry(data.hold_id).or_default();
                    *is_lifted |= header.kind == Kind::HoldLifted;
                    Ok(())
                })?;
            }
            Ok(placed.into_iter().filter(|(_, is_lifted)| !is_lifted).map(|(id, _)| id).collect())
        };
        self.explained(look())
    }
}

/// A stopped log that was opened to be written.
pub(crate) struct Retirer {
    options: EngineOptions,
    core: Option<Core>,
    shared: Arc<Shared>,
}

impl Retirer {
    /// Opens the log with the checks of a start. What an earlier retirement left is removed with that, as far as that may be removed now.
    ///
    /// # Errors
    /// Those of every start.
    pub(crate) fn open(options: EngineOptions) -> Result<Self, LogError> {
        let shared = Arc::new(Shared::default());
        let core = Core::open(options.means(&shared)).map_err(|fault| fault.explained(&options.directory))?;
        Ok(Self { options, core: Some(core), shared })
    }

    /// The log as it stands now.
    pub(crate) fn standing(&self) -> Standing {
        let layout = Layout { root: self.options.directory.clone() };
        Standing { files: Files { disk: Arc::clone(&self.options.disk), layout, shared: Arc::clone(&self.shared) }, _lock: None }
    }

    /// The shard in which the key that is to follow the present one was announced.
    pub(crate) fn announced_in(&self) -> Result<Option<u16>, LogError> {
        let core = self.core.as_ref().ok_or(LogError::Closed)?;
        core.announced_in().map_err(|fault| fault.explained(&self.options.directory))
    }

    /// Puts on record that shards are retired, which is durable and signed before anything is removed; then removes them.
    ///
    /// # Errors
    /// What was put on record is carried on by the next command.
    pub(crate) fn retire(&mut self, shards: impl IntoIterator<Item = u16>, records: Vec<NewEntry>) -> Result<(), LogError> {
        self.options.removable.extend(shards);
        self.record(records)?;
        self.core = None;
        let opened = Core::open(self.options.means(&self.shared));
        self.core = Some(opened.map_err(|fault| fault.explained(&self.options.directory))?);
        Ok(())
    }

    /// Puts something on record, which is durable and signed on return.
    ///
    /// # Errors
    /// The log cannot be written; it has to be opened again.
    pub(crate) fn record(&mut self, records: Vec<NewEntry>) -> Result<(), LogError> {
        let mut core = self.core.take().ok_or(LogError::Closed)?;
        let now_ms = (self.options.clock)();
        core.append(&[records], now_ms).and_then(|_| core.seal()).map_err(|fault| fault.explained(&self.options.directory))?;
        self.core = Some(core);
        Ok(())
    }
}
