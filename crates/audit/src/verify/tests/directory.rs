//! A shard that is read from a directory.

use std::fs;

use super::*;

/// Files below a shard's directory, which has its log in `log`; each says where it stands.
fn shard(names: &[&str]) -> tempfile::TempDir {
    let shard = tempfile::tempdir().unwrap();
    for name in names {
        let path = shard.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    shard
}

#[test]
fn a_file_is_read_from_the_log_or_is_not_there() {
    let shard = shard(&["log/checkpoint", "log/tile/0/000", "checkpoint", "other"]);
    let log = Directory::new(shard.path().join("log"));
    let read = |name: &str| log.read(name).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(read("checkpoint").as_deref(), Some("log/checkpoint"));
    assert_eq!(read("tile/0/000").as_deref(), Some("log/tile/0/000"));
    for none in ["other", "tile/0/001", "checkpoint/000", "blobs/ab/abcd", "witnessed", "retired"] {
        assert_eq!(read(none), None, "{none}");
    }
    // What is there and cannot be read is not passed over, nor waited for, nor read without an end.
    assert!(log.read("tile").is_err());
    rustix::fs::mkfifoat(rustix::fs::CWD, shard.path().join("log/witnessed"), rustix::fs::Mode::RWXU).unwrap();
    assert!(log.read("witnessed").is_err());
    std::os::unix::fs::symlink("/dev/zero", shard.path().join("log/retired")).unwrap();
    assert!(log.read("retired").is_err());
    for (name, most) in [("checkpoint", 1 << 20), ("tile/0/001", 8192), ("tile/entries/000", 256 * 65_537)] {
        let path = shard.path().join("log").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(log.read(name).unwrap().unwrap().len(), most + 1, "{name}");
    }
}

#[test]
fn what_is_no_part_of_the_log_stands_beside_or_within_it() {
    let beside = shard(&["blobs/ab/abcd", "witnessed", "retired"]);
    let within = shard(&["blobs/ab/abcd", "witnessed", "retired", "log/blobs/ab/abcd", "log/witnessed", "log/retired"]);
    for (shard, place) in [(beside, ""), (within, "log/")] {
        let log = Directory::new(shard.path().join("log"));
        for name in ["blobs/ab/abcd", "witnessed", "retired"] {
            assert_eq!(log.read(name).unwrap(), Some(format!("{place}{name}").into_bytes()));
        }
        assert_eq!(log.blob("abcd").unwrap(), Some(format!("{place}blobs/ab/abcd").into_bytes()));
    }
}

#[test]
fn a_shard_is_of_the_year_that_its_directory_is_named_by_and_the_newest_was_never_retired() {
    let top = tempfile::tempdir().unwrap();
    let log = Log::of(300);
    let checked = |year: &str, is_whole| {
        let directory = Directory::new(top.path().join(year).join("log"));
        verify(&[&directory], &Options { is_whole, ..options(&log) }, &mut |_| {}).unwrap().remove(0)
    };
    for year in ["2026", "2027", "copy"] {
        for (name, bytes) in &log.files().0 {
            let path = top.path().join(year).join("log").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    assert_eq!((checked("2026", true).findings.len(), checked("copy", false).findings.len()), (0, 0));
    let report = checked("2027", false);
    assert!(report.first_bad().unwrap().what.contains("stands in the directory of 2027"), "{report:?}");
    fs::write(top.path().join("2026/retired"), "x").unwrap();
    let report = checked("2026", true);
    assert_eq!((report.first_bad().unwrap().file.as_str(), report.entries), ("retired", Tally { good: 300, all: 300 }));
    // It hides nothing.
    let bundle = top.path().join("2026/log/tile/entries/000");
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[100] ^= 1;
    fs::write(bundle, bytes).unwrap();
    assert!(checked("2026", true).findings.iter().any(|finding| finding.file.contains("entries/000")));
}

#[test]
fn every_file_of_the_log_is_listed_and_none_beside_it() {
    let shard = shard(&["log/checkpoint", "log/tile/0/000", "log/tile/entries/000", "witnessed"]);
    let log = Directory::new(shard.path().join("log"));
    let listed = |folder: &str| {
        let mut names = Vec::new();
        let has_list = log.list(folder, &mut |name| {
            names.push(name.to_owned());
            Ok(())
        });
        assert!(has_list.unwrap());
        names.sort_unstable();
        names
    };
    assert_eq!(listed(""), ["checkpoint", "tile/0/000", "tile/entries/000"]);
    assert_eq!(listed("tile/0"), ["tile/0/000"]);
    assert_eq!(listed("blobs"), [] as [String; 0]);
    assert!(log.list("checkpoint", &mut |_| Ok(())).is_err());
    // Who is given the files ends the walk.
    let mut seen = 0;
    let ended = log.list("", &mut |_| {
        seen += 1;
        Err(io::Error::other("enough"))
    });
    assert_eq!((ended.is_err(), seen), (true, 1));
}
