//! What programs in other languages say of our logs and proofs: those of `examples/audit`, which share no code with the verifier.

#![expect(clippy::unwrap_used, reason = "a test that fails here shows where")]

mod checkers;
mod real;
mod tree;

use std::fs;

use fte_tlog::{Hash, ProofFile, TileHashes, TilePath, leaf_hash, prove_inclusion};

use self::checkers::{examples, of_logs, of_proofs};
use self::tree::Tree;

/// Who is to believe a proof has to read what checks it first. Words about the program count as code; what comes with the language, or stands in for that, does not.
#[test]
fn a_checker_of_proofs_has_at_most_fifty_lines() {
    for (name, comment) in [("check.py", "#"), ("go/proof/main.go", "//")] {
        let text = fs::read_to_string(examples().join(name)).unwrap();
        let code: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(comment)).collect();
        assert!((20..=50).contains(&code.len()), "{name} has {} lines", code.len());
        let longest = text.lines().filter(|line| !line.starts_with(comment)).map(|line| line.chars().count()).max();
        assert!(longest <= Some(120), "{name} has a line of {longest:?}");
    }
}

/// P8: Go's own implementation reads logs of every size there is trouble with.
#[test]
fn p08_go_verifies_logs_of_every_size() {
    let go = of_logs();
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree::in_directory(directory.path());
    let sizes = (0..=1025).chain([65_535, 65_536, 65_537, 70_000]);
    for size in sizes {
        tree.grow_to(size);
        tree.publish();
        let said = go.run(&[&tree.path(""), &tree.key_path()]);
        assert_eq!(said, Ok(format!("{size} entries of {}\n", tree.origin())), "{size}");
    }
    // It would say so if it were not.
    let name = "tile/entries/007";
    let mut bundle = fs::read(tree.path(name)).unwrap();
    bundle[100] ^= 1;
    fs::write(tree.path(name), bundle).unwrap();
    assert!(go.run(&[&tree.path(""), &tree.key_path()]).unwrap_err().starts_with("entry 17"), "the entry is named");
}

/// P8: a proof file convinces Go and Python of its leaf, and of no other.
#[test]
fn p08_proof_files_are_checked_in_two_languages() {
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree::in_directory(directory.path());
    for (size, indexes) in [(1, vec![0]), (2, vec![0, 1]), (257, vec![0, 255, 256]), (1025, vec![0, 511, 512, 1023, 1024])] {
        tree.grow_to(size);
        tree.publish();
        for index in indexes {
            let mut hashes = TileHashes::new(size, |path: TilePath| fs::read(tree.path(&path.to_string())));
            let proof: Vec<Hash> = prove_inclusion(&mut hashes, index, size).unwrap();
            let file = ProofFile { extra: Some(b"more".to_vec()), index, proof, checkpoint: tree.note() };
            let (proof, leaf, other) = (tree.path("proof"), tree.path("leaf"), tree.path("other"));
            fs::write(&proof, file.to_string()).unwrap();
            fs::write(&leaf, Tree::leaf(index)).unwrap();
            fs::write(&other, Tree::leaf(index + 1)).unwrap();
            file.verify(&leaf_hash(&Tree::leaf(index)), &tree.policy()).unwrap();
            let key = tree.key_path();
            for checker in of_proofs() {
                assert_eq!(checker.run(&[&proof, &leaf, &key]), Ok(format!("entry {index} of {size} entries of {}\n", tree.origin())));
                assert!(checker.run(&[&proof, &other, &key]).is_err(), "{checker:?} takes another leaf");
                fs::write(tree.path("forged"), file.to_string().replace(&format!("\n{size}\n"), &format!("\n{}\n", size + 1))).unwrap();
                assert!(checker.run(&[&tree.path("forged"), &leaf, &key]).is_err(), "{checker:?} takes a checkpoint that nobody signed");
            }
        }
    }
}
