//! The second wall around files: should something be seen in the sandbox that was not meant to be, it still cannot be touched.
//!
//! The newest rules that this kernel knows are used; that it knows any was found out before, by [`crate::Holds`].

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::spec::Spec;

const NEWEST: ABI = ABI::V9;

/// Why the wall does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel refused a rule.
    #[error("landlock: {0}")]
    Refused(#[from] RulesetError),
    /// The kernel has no landlock, or it is switched off.
    #[error("landlock: this kernel does not enforce it")]
    Absent,
}

/// Whether this kernel has landlock. Asks by making a ruleset, which changes nothing.
pub(crate) fn is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Binds this process and all it will start.
pub(crate) fn bind(spec: &Spec) -> Result<(), Error> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let look: BitFlags<AccessFs> = AccessFs::ReadDir.into();
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default().handle_access(all)?.scope(Scope::from_all(NEWEST))?.create()?;
    rules = allow(rules, Path::new("/"), look)?;
    rules = allow(rules, Path::new("/proc"), AccessFs::ReadFile | AccessFs::ReadDir)?;
    rules = allow(rules, Path::new("/dev"), device | AccessFs::ReadDir)?;
    rules = allow(rules, Path::new("/dev/shm"), all & !AccessFs::Execute)?;
    for path in &spec.readable {
        rules = allow(rules, path, read)?;
    }
    for path in &spec.writable {
        rules = allow(rules, path, all)?;
    }
    let RestrictionStatus { ruleset, .. } = rules.restrict_self()?;
    if ruleset == RulesetStatus::NotEnforced { Err(Error::Absent) } else { Ok(()) }
}

/// What is not there needs no rule.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, Error> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    // Rights to directories mean nothing to a file, and the kernel refuses them there.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    Ok(rules.add_rule(PathBeneath::new(opened, access))?)
}
