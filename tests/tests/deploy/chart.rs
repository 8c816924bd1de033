//! The chart, as Helm renders it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use fte_testkit::Dir;
use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The directory of what `tests/deploy/tools` fetches.
pub(crate) fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let out = Command::new(root().join("tests/deploy/tools")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        PathBuf::from(String::from_utf8(out.stdout).unwrap().trim())
    })
}

/// Runs Helm on the chart.
pub(crate) fn helm(command: &[&str], more: &[&str]) -> Output {
    let chart = root().join("deploy/helm/fte");
    Command::new(tools().join("helm")).args(command).arg(chart).args(["--namespace", "fte"]).args(more).output().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test, not configuration")]
pub(crate) fn is_update() -> bool {
    std::env::var_os("FTE_UPDATE_GOLDEN").is_some()
}

/// The names of the matrix: the files of `tests/deploy/values`.
pub(crate) fn cases() -> Vec<String> {
    let files = std::fs::read_dir(root().join("tests/deploy/values")).unwrap();
    let mut names: Vec<String> = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert!(names.len() > 3);
    names
}

pub(crate) fn values(case: &str) -> String {
    root().join(format!("tests/deploy/values/{case}.yaml")).to_str().unwrap().to_owned()
}

/// An object that Helm renders.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) text: String,
    pub(crate) value: Value,
}

impl Object {
    /// `Kind/name`.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.value["kind"].as_str().unwrap(), self.value["metadata"]["name"].as_str().unwrap())
    }

    /// The pod's template, of a workload.
    pub(crate) fn template(&self) -> Option<&Value> {
        self.value["spec"].get("template")
    }
}

/// Everything of one case, by its id.
pub(crate) type Rendered = BTreeMap<String, Object>;

pub(crate) fn render(case: &str) -> Rendered {
    let out = helm(&["template", "fte"], &["--values", &values(case)]);
    assert!(out.status.success(), "{case}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut objects = BTreeMap::new();
    for text in text.split("---\n").filter(|text| !text.trim().is_empty()) {
        let value: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{case}: {error}\n{text}"));
        let object = Object { text: text.to_owned(), value };
        let id = object.id();
        assert!(objects.insert(id.clone(), object).is_none(), "{case}: two of {id}");
    }
    objects
}

/// What Helm says after it has installed a case. It does so to a cluster only; here an object of a copy of the chart carries the text.
pub(crate) fn notes(case: &str) -> String {
    let dir = Dir::new();
    let copied = Command::new("cp").arg("-r").arg(root().join("deploy/helm/fte")).arg(dir.join("fte")).status().unwrap();
    assert!(copied.success());
    dir.write("fte/templates/notes.yaml", "notes: {{ include (print .Template.BasePath \"/NOTES.txt\") . | toJson }}\n");
    let mut template = Command::new(tools().join("helm"));
    template.args(["template", "fte", "--namespace", "fte", "--show-only", "templates/notes.yaml", "--values", &values(case)]);
    let out = template.arg(dir.join("fte")).output().unwrap();
    assert!(out.status.success(), "{case}: {}", String::from_utf8_lossy(&out.stderr));
    let document: Value = serde_saphyr::from_str(String::from_utf8(out.stdout).unwrap().trim_start_matches("---\n")).unwrap();
    text(&document, "notes").to_owned()
}

/// The text at a path of names and numbers, such as `spec/rules/0/host`.
pub(crate) fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(&format!("/{path}")).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {path} in {value:#}"))
}
