//! The help of every command is committed, so that a change of the command line shows in review.
//!
//! `FTE_UPDATE_GOLDEN=1 cargo test -p fte` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::run::fte;

#[expect(clippy::disallowed_methods, reason = "a switch of this test, not configuration")]
fn is_update() -> bool {
    std::env::var_os("FTE_UPDATE_GOLDEN").is_some()
}

/// The names under `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = commands.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Each command's words and its help; of those that have commands below them, too.
async fn all() -> Vec<(Vec<String>, String)> {
    let mut all = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let ran = fte("", &args).await;
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        open.extend(subcommands(&ran.out).into_iter().map(|name| path.iter().cloned().chain([name]).collect()));
        all.push((path, ran.out));
    }
    all
}

/// The commands that do something, as they are typed.
pub(crate) async fn commands() -> BTreeSet<String> {
    let all = all().await;
    all.into_iter().filter(|(_, help)| subcommands(help).is_empty()).map(|(path, _)| path.join(" ")).collect()
}

#[tokio::test]
async fn the_help_of_every_command_is_as_committed() {
    let name = |path: &[String]| if path.is_empty() { "fte.txt".to_owned() } else { format!("fte-{}.txt", path.join("-")) };
    let helps: BTreeMap<String, String> = all().await.into_iter().map(|(path, help)| (name(&path), help)).collect();
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let committed: BTreeSet<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for (file, help) in &helps {
        let path = directory.join(file);
        if is_update() {
            fs::write(&path, help).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), *help, "{file}: run with FTE_UPDATE_GOLDEN=1 and read the diff");
    }
    for file in committed.iter().filter(|file| !helps.contains_key(*file)) {
        if is_update() {
            fs::remove_file(directory.join(file)).unwrap();
        } else {
            panic!("{file} is the help of no command");
        }
    }
}
