//! May the agent use its tool? The configuration answers, or asks a person.
//!
//! Always true: an answer is one of the options that the agent offered, by its kind and never by its place or name; the narrowest that does. Where none does,
//! the wish is cancelled, which allows nothing. A question is the same after a restart when the agent wants the same: it holds no id of a call.

use agent_client_protocol_schema::v1::{
    PermissionOption, PermissionOptionId, PermissionOptionKind, RequestId, RequestPermissionOutcome, RequestPermissionResponse,
    SelectedPermissionOutcome, ToolCallUpdateFields, ToolKind,
};
use fte_events::json_sha256;
use fte_events::limits::json_bytes;
use fte_service::agents::{Permission, Permissions};
use serde_json::{Map, Value, json};

use super::super::limits::{TEXT_BYTES_MAX, clip};
use super::updates::{Known, kind_name};
use crate::ports::Said;

/// Longest id of an option, in bytes: it is kept until a person decides. One that is longer is never chosen.
const OPTION_BYTES_MAX: usize = 1024;
/// What an agent would hand to its tool is shown up to this size, past it as size and digest.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Files shown to who decides.
const LOCATIONS_MAX: usize = 20;

/// What the configuration says.
pub(super) fn policy(permissions: &Permissions, kind: ToolKind) -> Permission {
    match kind {
        ToolKind::Read => permissions.read,
        ToolKind::Edit => permissions.edit,
        ToolKind::Delete => permissions.delete,
        ToolKind::Move => permissions.r#move,
        ToolKind::Search => permissions.search,
        ToolKind::Execute => permissions.execute,
        ToolKind::Think => permissions.think,
        ToolKind::Fetch => permissions.fetch,
        ToolKind::SwitchMode => permissions.switch_mode,
        // With kinds that a later version of the protocol may know.
        _ => permissions.other,
    }
}

/// A wish that waits for a person.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) id: RequestId,
    pub(super) answers: Answers,
    /// The question, not yet asked.
    pub(super) question: Option<Said>,
}

/// Yes and no, as the agent offered them.
#[derive(Debug, PartialEq)]
pub(super) struct Answers {
    yes: Option<PermissionOptionId>,
    no: Option<PermissionOptionId>,
}

impl Answers {
    pub(super) fn of(options: &[PermissionOption]) -> Self {
        let first = |kinds: [PermissionOptionKind; 2]| {
            let fits = |kind| options.iter().find(|option| option.kind == kind && option.option_id.0.len() <= OPTION_BYTES_MAX);
            kinds.into_iter().find_map(fits).map(|option| option.option_id.clone())
        };
        Self {
            yes: first([PermissionOptionKind::AllowOnce, PermissionOptionKind::AllowAlways]),
            no: first([PermissionOptionKind::RejectOnce, PermissionOptionKind::RejectAlways]),
        }
    }

    pub(super) fn answer(&self, approved: bool) -> RequestPermissionResponse {
        let option = if approved { &self.yes } else { &self.no };
        RequestPermissionResponse::new(match option {
            Some(option) => RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(option.clone())),
            None => RequestPermissionOutcome::Cancelled,
        })
    }

    pub(super) fn cancelled() -> RequestPermissionResponse {
        RequestPermissionResponse::new(RequestPermissionOutcome::Cancelled)
    }
}

/// What the configuration answered, for the audit trail.
pub(super) fn answered(allowed: bool, tool: &Known) -> Said {
    let kind = kind_name(tool.kind);
    let action = kind.as_str().unwrap_or("other").to_owned();
    let mut data = Map::new();
    data.insert("kind".to_owned(), kind);
    data.insert("title".to_owned(), Value::from(tool.title.as_str()));
    Said::ByPolicy { allowed, action, data }
}

/// The question to a person.
pub(super) fn question(tool: &Known, fields: &ToolCallUpdateFields) -> Said {
    let kind = kind_name(tool.kind);
    let about = kind.as_str().unwrap_or("other").to_owned();
    let reason = format!("May the agent do this ({about})? {}", tool.title);
    let mut data = json!({ "kind": kind, "title": tool.title });
    let files = fields.locations.iter().flatten().take(LOCATIONS_MAX);
    let files: Vec<String> = files.map(|location| clip(location.path.to_string_lossy().into_owned(), TEXT_BYTES_MAX)).collect();
    if !files.is_empty() {
        data["files"] = json!(files);
    }
    if let Some(input) = &fields.raw_input {
        let bytes = json_bytes(input);
        if bytes <= INPUT_BYTES_MAX {
            data["input"] = input.clone();
        } else {
            data["input_bytes"] = json!(bytes);
            data["input_sha256"] = json!(json_sha256(input));
        }
    }
    Said::Approval { action: Some(about), reason: Some(clip(reason, TEXT_BYTES_MAX)), data: Some(data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(of: &[(&str, PermissionOptionKind)]) -> Vec<PermissionOption> {
        of.iter().map(|(id, kind)| PermissionOption::new(id.to_string(), "Any name", *kind)).collect()
    }

    fn chosen(answers: &Answers, approved: bool) -> Option<String> {
        match answers.answer(approved).outcome {
            RequestPermissionOutcome::Selected(selected) => Some(selected.option_id.0.to_string()),
            _ => None,
        }
    }

    #[test]
    fn an_answer_is_chosen_by_its_kind_and_is_the_narrowest() {
        use PermissionOptionKind::{AllowAlways, AllowOnce, RejectAlways, RejectOnce};
        let check = |of: &[(&str, PermissionOptionKind)], yes: Option<&str>, no: Option<&str>| {
            let answers = Answers::of(&options(of));
            assert_eq!((chosen(&answers, true).as_deref(), chosen(&answers, false).as_deref()), (yes, no), "{of:?}");
        };
        check(&[("a", AllowAlways), ("b", RejectAlways), ("c", RejectOnce), ("d", AllowOnce)], Some("d"), Some("c"));
        check(&[("yes", RejectOnce), ("no", AllowOnce)], Some("no"), Some("yes"));
        check(&[("a", AllowAlways)], Some("a"), None);
        check(&[("b", RejectAlways)], None, Some("b"));
        check(&[], None, None);
        let long = "x".repeat(OPTION_BYTES_MAX + 1);
        check(&[(&long, AllowOnce), ("a", AllowAlways)], Some("a"), None);
    }

    #[test]
    fn every_kind_of_tool_has_its_own_word() {
        let allow = |kind: &str| {
            let permission = Permission::Allow;
            let none = Permissions {
                read: Permission::Deny,
                edit: Permission::Deny,
                delete: Permission::Deny,
                r#move: Permission::Deny,
                search: Permission::Deny,
                execute: Permission::Deny,
                think: Permission::Deny,
                fetch: Permission::Deny,
                switch_mode: Permission::Deny,
                other: Permission::Deny,
            };
            match kind {
                "read" => Permissions { read: permission, ..none },
                "edit" => Permissions { edit: permission, ..none },
                "delete" => Permissions { delete: permission, ..none },
                "move" => Permissions { r#move: permission, ..none },
                "search" => Permissions { search: permission, ..none },
                "execute" => Permissions { execute: permission, ..none },
                "think" => Permissions { think: permission, ..none },
                "fetch" => Permissions { fetch: permission, ..none },
                "switch_mode" => Permissions { switch_mode: permission, ..none },
                "other" => Permissions { other: permission, ..none },
                kind => panic!("{kind}"),
            }
        };
        let kinds = ["read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"];
        for kind in kinds {
            for asked in kinds {
                let tool: ToolKind = serde_json::from_value(json!(asked)).unwrap();
                assert_eq!(policy(&allow(kind), tool) == Permission::Allow, kind == asked, "{asked} where {kind} is allowed");
            }
        }
        let later: ToolKind = serde_json::from_value(json!("teleport")).unwrap();
        assert_eq!(policy(&allow("other"), later), Permission::Allow);
    }

    #[test]
    fn a_question_shows_what_would_happen_but_no_book() {
        let tool = Known { kind: ToolKind::Execute, title: "make".to_owned(), status: Default::default() };
        let small = ToolCallUpdateFields::new().raw_input(json!({"command": "make", "cwd": "/w"}));
        let Said::Approval { reason, data, .. } = question(&tool, &small) else { panic!("expected a question") };
        assert_eq!(reason.as_deref(), Some("May the agent do this (execute)? make"));
        assert_eq!(data, Some(json!({"kind": "execute", "title": "make", "input": {"command": "make", "cwd": "/w"}})));
        let large = ToolCallUpdateFields::new().raw_input(json!({"content": "x".repeat(INPUT_BYTES_MAX)}));
        let Said::Approval { data: Some(data), .. } = question(&tool, &large) else { panic!("expected a question") };
        assert_eq!((data.get("input"), data["input_bytes"].as_u64()), (None, Some(INPUT_BYTES_MAX as u64 + 14)));
        assert_eq!(data["input_sha256"].as_str().map(str::len), Some(64));
        // The same wish after a restart is the same question.
        assert_eq!(question(&tool, &large), question(&tool, &large));
    }
}
