//! The programs of `examples/audit`, in the languages that `tests/all` installs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program and what precedes its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    program: PathBuf,
    before: Vec<String>,
}

pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/audit")
}

impl Checker {
    /// What it prints, or what it complains of.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.program).args(&self.before).args(args).output().unwrap();
        let (stream, is_ok) = if output.status.success() { (output.stdout, true) } else { (output.stderr, false) };
        let text = String::from_utf8_lossy(&stream).into_owned();
        if is_ok { Ok(text) } else { Err(text) }
    }
}

/// Those that check one proof.
pub(crate) fn of_proofs() -> impl Iterator<Item = Checker> {
    [go("proof"), python()].into_iter()
}

/// That which checks a whole shard.
pub(crate) fn of_logs() -> Checker {
    go("log")
}

/// Go's `tlog` and `note`. Built once; the module comes from the Go proxy the first time.
fn go(name: &str) -> Checker {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let programs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("audit-checkers");
        std::fs::create_dir_all(&programs).unwrap();
        let build = || {
            let mut go = Command::new("go");
            go.args(["build", "-o"]).arg(&programs).arg("./...").current_dir(examples().join("go")).output().expect("Go is installed")
        };
        let mut built = build();
        // The proxy may be away for a moment.
        for _ in 0..2 {
            if !built.status.success() {
                built = build();
            }
        }
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        programs
    });
    Checker { program: built.join(name), before: Vec::new() }
}

/// Nothing but the standard library.
fn python() -> Checker {
    let script = examples().join("check.py").to_str().unwrap().to_owned();
    // It leaves nothing in the sources.
    Checker { program: "python3".into(), before: vec!["-B".to_owned(), script] }
}
