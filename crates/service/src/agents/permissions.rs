//! What an agent of kind `acp` may do without a person: `permissions` of `agents.toml`, one word for each kind of tool that the Agent Client Protocol knows.
//!
//! Always true: what nobody spoke about has the default; a kind or a word that does not exist is refused by name.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Wrong, wrong};

/// What becomes of an agent's wish to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// It may.
    Allow,
    /// A person decides.
    Ask,
    /// It may not.
    Deny,
}

/// A [`Permission`] for each kind of tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Reading files or data. Default `allow`.
    pub read: Permission,
    /// Changing files. Default `allow`.
    pub edit: Permission,
    /// Removing files or data. Default `ask`.
    pub delete: Permission,
    /// Moving or renaming files. Default `allow`.
    pub r#move: Permission,
    /// Looking for something. Default `allow`.
    pub search: Permission,
    /// Running commands. Default `ask`.
    pub execute: Permission,
    /// Reasoning and planning. Default `allow`.
    pub think: Permission,
    /// Getting data from outside. Default `ask`.
    pub fetch: Permission,
    /// Changing the mode of the session, and with it what the agent asks for at all. Default `ask`.
    pub switch_mode: Permission,
    /// Everything else. Default `ask`.
    pub other: Permission,
}

impl Default for Permissions {
    fn default() -> Self {
        use Permission::{Allow, Ask};
        Self {
            read: Allow,
            edit: Allow,
            delete: Ask,
            r#move: Allow,
            search: Allow,
            execute: Ask,
            think: Allow,
            fetch: Ask,
            switch_mode: Ask,
            other: Ask,
        }
    }
}

/// The table as it stands in the file.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct RawPermissions(BTreeMap<Spanned<String>, Spanned<String>>);

const KEY: &str = "permissions";

/// The permissions, or what is wrong with them.
pub(super) fn check(raw: Option<Spanned<RawPermissions>>) -> Result<Permissions, Wrong> {
    let mut permissions = Permissions::default();
    for (kind, word) in raw.into_iter().flat_map(|raw| raw.into_inner().0) {
        let place = match kind.get_ref().as_str() {
            "read" => &mut permissions.read,
            "edit" => &mut permissions.edit,
            "delete" => &mut permissions.delete,
            "move" => &mut permissions.r#move,
            "search" => &mut permissions.search,
            "execute" => &mut permissions.execute,
            "think" => &mut permissions.think,
            "fetch" => &mut permissions.fetch,
            "switch_mode" => &mut permissions.switch_mode,
            "other" => &mut permissions.other,
            unknown => {
                let kinds = "read, edit, delete, move, search, execute, think, fetch, switch_mode or other";
                return Err(wrong(KEY, Some(&kind), format!("{unknown}: expected a kind of tool: {kinds}")));
            }
        };
        *place = match word.get_ref().as_str() {
            "allow" => Permission::Allow,
            "ask" => Permission::Ask,
            "deny" => Permission::Deny,
            bad => return Err(wrong(KEY, Some(&word), format!(r#"{} = {bad:?}: expected "allow", "ask" or "deny""#, kind.get_ref()))),
        };
    }
    Ok(permissions)
}
