//! How long the log is kept, and retiring what has had its time: the operator's command, with the service stopped.
//!
//! A shard, which is a year, is retired whole: at the earliest seven years after its **last** entry, by the log's own time and by the clock of this machine;
//! the oldest first; never the one that is written; and nothing that a legal hold covers. What a hold covers is taken widely: where it is not certain that
//! a shard has nothing of it, the shard stays.
//!
//! | a hold on | keeps a shard that |
//! |---|---|
//! | a span of time | has a moment of it between its first and its last entry |
//! | a tenant, a task | has an entry of it |
//! | a person | had its last entry after a key of theirs or of one of their tasks was made, or any where they are not known |
//!
//! The holds are those that stand beside the keys. One that the log says was placed and that is not known there keeps everything: the keys are an older copy then.
//!
//! What is put on record first, and how a retirement that was cut off is carried on, [`crate::engine`] says (`engine/retiring.rs`).

use std::path::PathBuf;
use std::sync::Arc;

use fte_events::hex;
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::engine::{self, Clock, Ended, EngineOptions, POLICY, Retired, Retirer, Sealing, Standing, Wanted, record_id};
use crate::entry::leaf::Kind;
use crate::entry::{NewEntry, Task};
use crate::keys::rotation::{self, Given};
use crate::keys::signing::{self, KeyPlace};
use crate::log::LogError;
use crate::notes::{self, Note};
use crate::subjects::holds::{Blocked, Covers, Hold};
use crate::subjects::{self, Subjects, SubjectsOptions};

/// How long a shard is kept after its last entry: seven years, of which two may be leap years. The topic of actions is kept as long.
pub const KEPT_DAYS: i64 = 2557;
/// The same in milliseconds.
pub const KEPT_MS: i64 = KEPT_DAYS * 24 * 3600 * 1000;

/// Why nothing was retired.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Key(#[from] signing::KeyError),
    #[error(transparent)]
    Subjects(#[from] subjects::KeyError),
    #[error("there are no keys of personal data in {}, so the legal holds are not known: restore subjects.sqlite from a copy", directory.display())]
    NoHolds { directory: PathBuf },
    #[error("the log has no shard {shard}")]
    Absent { shard: u16 },
    #[error("shard {shard} is kept: {why}")]
    Kept { shard: u16, why: Why },
}

/// Why a shard is kept.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error("its last entry was logged at {last:.3}, and it has its time at {until:.3}")]
    Young { last: Timestamp, until: Timestamp },
    #[error("it is the one that is written, or the last that was")]
    Newest,
    #[error("shard {oldest} is older and still there, and shards are retired oldest first")]
    NotOldest { oldest: u16 },
    #[error(transparent)]
    Held(#[from] Blocked),
    #[error(
        "the log says that the legal hold {id} was placed and not that it was lifted, and the keys beside the log do not know it: they are an older copy. \
         Restore the newest; or place the hold again, and lift it"
    )]
    HoldUnknown { id: Uuid },
    #[error("the log announces there the key that is to follow the present one: change the key first, see `fte audit rotate-key`")]
    Rotation,
}

/// What is retired, of which log.
#[derive(Clone)]
pub struct Options {
    /// `<data>/audit`.
    pub directory: PathBuf,
    /// The file of the log's key, of the next one, and of the master key, where they are not in the directory.
    pub key: Option<PathBuf>,
    pub next_key: Option<PathBuf>,
    pub master_key: Option<PathBuf>,
    /// This shard alone; every one that has had its time if there is none.
    pub shard: Option<u16>,
    /// Who does it.
    pub by: String,
    pub clock: Clock,
}

impl Options {
    /// All that has had its time of the log in a directory.
    pub fn at(directory: impl Into<PathBuf>, by: impl Into<String>) -> Self {
        let (key, next_key, master_key) = (None, None, None);
        Self { directory: directory.into(), key, next_key, master_key, shard: None, by: by.into(), clock: engine::wall_clock() }
    }
}

/// A shard that is to be retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub shard: u16,
    pub entries: u64,
    /// When its last entry was logged, in milliseconds since 1970.
    pub last_ms: i64,
    /// Its final checkpoint, signed.
    pub checkpoint: String,
}

/// What can be retired now, and what keeps the next shard.
#[derive(Debug, Default)]
pub struct Plan {
    pub due: Vec<Due>,
    pub kept: Option<(u16, Why)>,
    /// What was retired already.
    pub retired: Vec<u16>,
    /// Something that was retired is still there in part.
    pub is_unfinished: bool,
}

/// Looks what can be retired. Nothing is changed.
///
/// # Errors
/// The shard that was asked for is to be kept; a process writes the log or works with its keys; a file cannot be read.
pub fn plan(options: &Options) -> Result<Plan, RetireError> {
    let standing = Standing::of(&options.directory)?;
    let subjects = open_subjects(options)?;
    look(options, &standing, &subjects)
}

/// Retires what can be.
///
/// # Errors
/// As for [`plan`], and that a legal hold covers the shard that was asked for is on record then; the log cannot be written, or does not start. What is on record by
/// then is carried on by the next command.
pub fn retire(options: &Options) -> Result<Plan, RetireError> {
    let looked = match plan(options) {
        Err(RetireError::Kept { shard, why: Why::Held(blocked) }) => {
            let (_, mut retirer) = open(options, Vec::new())?;
            retirer.record(vec![refusal(shard, &blocked, &options.by, (options.clock)())])?;
            return Err(RetireError::Kept { shard, why: Why::Held(blocked) });
        }
        looked => looked?,
    };
    if looked.due.is_empty() && !looked.is_unfinished {
        return Ok(looked);
    }
    // What is on record already, too, goes only if it may go; and what is left of those that went.
    let removable = looked.due.iter().map(|due| due.shard).chain(looked.retired.iter().copied()).collect();
    let (subjects, mut retirer) = open(options, removable)?;
    // What was cut off before is done by now. Nobody else could touch the log or its keys since.
    let mut plan = look(options, &retirer.standing(), &subjects)?;
    if let Some(announced) = retirer.announced_in()?
        && let Some(at) = plan.due.iter().position(|due| due.shard == announced)
    {
        plan.due.truncate(at);
        plan.kept = Some((announced, Why::Rotation));
    }
    plan.check(options)?;
    if !plan.due.is_empty() {
        let records = records(&plan.due, &retirer.standing().final_notes()?, &options.by, (options.clock)());
        retirer.retire(plan.due.iter().map(|due| due.shard).collect::<Vec<_>>(), records)?;
    }
    // What was on record already, and is done now.
    let carried: Vec<Due> = looked.due.into_iter().filter(|due| plan.retired.contains(&due.shard)).collect();
    plan.due.splice(..0, carried);
    plan.is_unfinished = looked.is_unfinished;
    Ok(plan)
}

/// The log as a command opens it, with what may be removed of it.
fn open(options: &Options, removable: Vec<u16>) -> Result<(Arc<Subjects>, Retirer), RetireError> {
    let key = options.key.clone().unwrap_or_else(|| options.directory.join("keys").join(signing::KEY));
    let next_key = options.next_key.clone().map(KeyPlace::File);
    let Given { present, next, former } = rotation::given(&KeyPlace::File(key), next_key, None, &options.directory)?;
    let subjects = Arc::new(open_subjects(options)?);
    let sealing: Arc<dyn Sealing> = Arc::clone(&subjects) as _;
    let retirer = Retirer::open(EngineOptions {
        next_key: next.map(Arc::new),
        former,
        sealing,
        clock: Arc::clone(&options.clock),
        removable,
        ..EngineOptions::at(&*options.directory, Arc::new(present))
    })?;
    Ok((subjects, retirer))
}

fn open_subjects(options: &Options) -> Result<Subjects, RetireError> {
    let directory = options.directory.join("keys");
    if !directory.join("subjects.sqlite").exists() {
        return Err(RetireError::NoHolds { directory });
    }
    let mut places = SubjectsOptions::at(directory);
    if let Some(path) = &options.master_key {
        places.master_key.clone_from(path);
    }
    Ok(Subjects::open(places)?)
}

impl Plan {
    /// Refuses if the shard that was asked for is kept.
    fn check(&mut self, options: &Options) -> Result<(), RetireError> {
        let Some(asked) = options.shard.filter(|asked| !self.retired.contains(asked)) else { return Ok(()) };
        match self.kept.take() {
            Some((shard, why)) if shard == asked => Err(RetireError::Kept { shard, why }),
            kept => {
                self.kept = kept;
                Ok(())
            }
        }
    }
}

fn look(options: &Options, standing: &Standing, subjects: &Subjects) -> Result<Plan, RetireError> {
    let (mut shards, newest) = standing.shards();
    let retired = standing.retired().iter().map(|retired| retired.shard).collect();
    let mut plan = Plan { retired, is_unfinished: standing.is_unfinished()?, ..Plan::default() };
    if let Some(asked) = options.shard.filter(|asked| !plan.retired.contains(asked)) {
        let why = match shards.first() {
            _ if newest == Some(asked) => Some(Why::Newest),
            _ if !shards.contains(&asked) => return Err(RetireError::Absent { shard: asked }),
            Some(oldest) if *oldest < asked => Some(Why::NotOldest { oldest: *oldest }),
            _ => None,
        };
        if let Some(why) = why {
            return Err(RetireError::Kept { shard: asked, why });
        }
    }
    shards.truncate(options.shard.map_or(shards.len(), |asked| usize::from(!plan.retired.contains(&asked))));
    let now_ms = (options.clock)();
    let mut holds = None;
    for shard in shards {
        let ended = standing.ended(shard)?;
        let until_ms = ended.last_ms.saturating_add(KEPT_MS);
        if now_ms < until_ms {
            plan.kept = Some((shard, Why::Young { last: time(ended.last_ms), until: time(until_ms) }));
            break;
        }
        let holds = match &mut holds {
            Some(holds) => holds,
            none => none.insert(Holds::read(standing, subjects)?),
        };
        if let Some(why) = holds.keeps(standing, subjects, shard, &ended)? {
            plan.kept = Some((shard, why));
            break;
        }
        let (entries, checkpoint) = (ended.published.checkpoint.size, ended.published.note.to_string());
        plan.due.push(Due { shard, entries, last_ms: ended.last_ms, checkpoint });
    }
    if plan.due.is_empty() && plan.kept.is_none() {
        plan.kept = newest.map(|newest| (newest, Why::Newest));
    }
    plan.check(options)?;
    Ok(plan)
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

/// The legal holds in force.
struct Holds {
    known: Vec<Hold>,
    /// The log has it, and nobody knows what it covers.
    unknown: Option<Uuid>,
}

impl Holds {
    fn read(standing: &Standing, subjects: &Subjects) -> Result<Self, RetireError> {
        let mut unknown = None;
        for id in standing.holds()? {
            if unknown.is_none() && !subjects.knows_hold(id)? {
                unknown = Some(id);
            }
        }
        Ok(Self { known: subjects.holds()?, unknown })
    }

    /// What keeps a shard.
    fn keeps(&self, standing: &Standing, subjects: &Subjects, shard: u16, ended: &Ended) -> Result<Option<Why>, RetireError> {
        if let Some(id) = self.unknown {
            return Ok(Some(Why::HoldUnknown { id }));
        }
        let mut wanted = Wanted::default();
        for hold in &self.known {
            match &hold.covers {
                Covers::Tenant { tenant } => drop(wanted.tenants.insert(tenant.clone())),
                Covers::Task { task_id } => drop(wanted.tasks.insert(Task::Id(*task_id))),
                Covers::Subject { .. } | Covers::Range { .. } => {}
            }
        }
        let found = standing.touched(shard, &wanted)?;
        for hold in &self.known {
            let keeps = match &hold.covers {
                Covers::Tenant { tenant } => found.tenants.contains(tenant),
                Covers::Task { task_id } => found.tasks.contains(&Task::Id(*task_id)),
                Covers::Subject { tenant, subject } => subjects.may_be_before(tenant, subject, ended.last_ms)?,
                Covers::Range { from_ms, to_ms } => *from_ms <= ended.last_ms && *to_ms > ended.first_ms,
            };
            if keeps {
                return Ok(Some(Blocked(Box::new(hold.clone())).into()));
            }
        }
        Ok(None)
    }
}

/// What the log keeps of it: what each shard was, and who retired it. The first names nobody, the second is sealed as all that people do.
pub(crate) fn records(due: &[Due], before: &[(Retired, Arc<str>)], by: &str, now_ms: i64) -> Vec<NewEntry> {
    let named =
        |(retired, note): &(Retired, Arc<str>)| json!({"shard": retired.shard, "checkpoint": &**note, "retired_ms": retired.since_ms});
    let mut earlier: Vec<_> = before.iter().map(named).collect();
    let mut records = Vec::new();
    for Due { shard, entries, last_ms, checkpoint } in due {
        let sha256 = hex(&<[u8; 32]>::from(Sha256::digest(checkpoint)));
        let payload = json!({
            "shard": shard, "entries": entries, "last_logged_ms": last_ms, "checkpoint": checkpoint, "checkpoint_sha256": sha256,
            "policy": POLICY, "kept_days": KEPT_DAYS, "retired_at": time(now_ms), "earlier": earlier,
        });
        let note = Note { kind: Kind::ShardRetired, id: record_id(*shard), tenant: None, payload };
        records.extend(note.entries("audit.shard-retired", by, &format!("shard/{shard}"), time(now_ms)));
        earlier.push(json!({"shard": shard, "checkpoint": checkpoint, "retired_ms": now_ms}));
    }
    records
}

/// Somebody wanted to retire what is held.
fn refusal(shard: u16, Blocked(hold): &Blocked, by: &str, now_ms: i64) -> NewEntry {
    let data = json!({
        "action": "audit.shard-retired", "actor": {"type": "user", "id": by}, "outcome": "denied", "resource": format!("shard/{shard}"),
        "data": {"code": "legal_hold", "hold_id": hold.id}, "occurred_at": time(now_ms),
    });
    // As often as it is tried.
    notes::action(&format!("{}/refused/{}", record_id(shard), Uuid::now_v7()), None, time(now_ms), &data)
}

#[cfg(test)]
mod tests;
