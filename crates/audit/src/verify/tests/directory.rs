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
    // What is there and cannot be read is not passed over.
    assert!(log.read("tile").is_err());
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
