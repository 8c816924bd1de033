//! The image, as far as it can be seen without building it.

use std::path::PathBuf;

use crate::chart::{render, root};

fn dockerfile() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("deploy/docker/Dockerfile")).unwrap();
    let joined = text.replace("\\\n", " ");
    joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn argument<'d>(lines: &'d [String], instruction: &str) -> Vec<&'d str> {
    lines.iter().filter_map(|line| line.strip_prefix(instruction)).map(str::trim).collect()
}

#[test]
fn it_is_built_with_the_pinned_toolchain() {
    let toolchain: toml::Table = std::fs::read_to_string(root().join("rust-toolchain.toml")).unwrap().parse().unwrap();
    let version = toolchain["toolchain"]["channel"].as_str().unwrap();
    let lines = dockerfile();
    assert!(argument(&lines, "FROM")[0].starts_with(&format!("rust:{version}-")), "{:?}", argument(&lines, "FROM"));
}

#[test]
fn it_runs_as_the_user_that_the_chart_says() {
    let lines = dockerfile();
    let (user, group) = argument(&lines, "USER").last().unwrap().split_once(':').unwrap();
    let rendered = render("default");
    let context = &rendered["Deployment/fte-intake"].template().unwrap()["spec"]["securityContext"];
    assert_eq!((context["runAsUser"].to_string(), context["runAsGroup"].to_string()), (user.to_owned(), group.to_owned()));
    assert_eq!(argument(&lines, "ENTRYPOINT"), [r#"["/usr/local/bin/fte"]"#]);
}

/// What the build reads: the sources that it copies, and the files that they include.
#[test]
fn everything_that_the_build_reads_is_copied() {
    let lines = dockerfile();
    let from_here = argument(&lines, "COPY").into_iter().filter(|line| !line.starts_with("--from"));
    let copied: Vec<PathBuf> = from_here.flat_map(|line| line.split_whitespace().rev().skip(1)).map(|source| root().join(source)).collect();
    let ignored = std::fs::read_to_string(root().join("deploy/docker/Dockerfile.dockerignore")).unwrap();
    for source in &copied {
        assert!(source.exists(), "{} is not there", source.display());
        let name = source.strip_prefix(root()).unwrap().display();
        assert!(ignored.lines().any(|line| line == format!("!{name}")), "{name} is kept from the build");
    }
    assert!(copied.contains(&root().join(".cargo")), "how SQLite is built stands there");
    let mut included = 0;
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text =
                if path.extension().is_some_and(|kind| kind == "rs") { std::fs::read_to_string(&path).unwrap() } else { String::new() };
            for name in text.split("include_str!(\"").skip(1).map(|rest| rest.split_once('"').unwrap().0) {
                let file = folder.join(name).canonicalize().unwrap();
                assert!(copied.iter().any(|source| file.starts_with(source)), "{} includes {}", path.display(), file.display());
                included += 1;
            }
        }
    }
    assert!(included > 0);
}
