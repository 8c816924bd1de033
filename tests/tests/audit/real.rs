//! The log of a real instance and the files that the real command writes of it, under the eyes of the checkers.

use std::fs;
use std::path::Path;
use std::process::Command;

use fte_testkit::{Dir, FteProcess, built_binary, eventually};
use serde_json::Value;

use super::checkers::{of_logs, of_proofs};

/// The files of a proof.
struct Proof {
    proof: String,
    leaf: String,
    key: String,
}

/// An instance with more in its log than one bundle holds.
struct Instance {
    process: FteProcess,
    dir: Dir,
    year: u64,
    size: u64,
}

impl Instance {
    async fn start() -> Self {
        let dir = Dir::new();
        let process = FteProcess::start_with(built_binary(), dir.join("data"), ["--quiet"], [] as [(&str, &str); 0]).await;
        let tasks = Command::new(built_binary()).args(["bench", "--tasks", "60", "--url", &process.ready().api]).output().unwrap();
        assert!(tasks.status.success(), "{tasks:?}");
        let api = process.api();
        let checkpoint = || async {
            let list: Value = api.get("/v1/audit/entries?limit=1").await.unwrap().json();
            let checkpoint = &list["checkpoint"];
            match (checkpoint["shard"].as_u64(), checkpoint["size"].as_u64()) {
                (Some(year), Some(size)) if size > 300 => Ok((year, size)),
                _ => Err(list.to_string()),
            }
        };
        let (year, size) = eventually(checkpoint).await;
        Self { process, dir, year, size }
    }

    /// Runs `fte audit prove` on an entry, as it is served or as it is in the files.
    fn prove(&self, index: u64, is_offline: bool) -> Proof {
        let data = self.process.data();
        let out = self.dir.join(if is_offline { "offline" } else { "served" });
        let mut prove = Command::new(built_binary());
        prove.args(["audit", "prove", &format!("{}/{index}", self.year), "--json", "--url", &self.process.ready().api, "--out"]).arg(out);
        if is_offline {
            prove.arg("--data").arg(data);
        } else {
            prove.arg("--public-key").arg(data.join("audit/keys/log.pub"));
        }
        let ran = prove.output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        let files: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let [proof, leaf, key] = ["proof", "leaf", "key"].map(|file| files[file].as_str().unwrap().to_owned());
        Proof { proof, leaf, key }
    }
}

fn flip(path: &Path, at: usize) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    bytes
}

/// P8: what the command wrote convinces both, and nothing that was falsified in it does.
#[tokio::test]
async fn p08_proofs_of_a_real_instance_are_checked_in_two_languages() {
    let instance = Instance::start().await;
    let origin = |key: &str| key.split('+').next().unwrap().to_owned();
    for (index, is_offline) in [(0, false), (1, true), (255, false), (256, true), (instance.size - 1, false)] {
        let Proof { proof, leaf, key } = instance.prove(index, is_offline);
        let (text, name) = (fs::read_to_string(&proof).unwrap(), origin(&fs::read_to_string(&key).unwrap()));
        // What the checkers are asked next, beside the files as they are.
        let (forged, other) = (instance.dir.join("forged").display().to_string(), instance.prove(index / 2 + 2, true));
        let (_, checkpoint) = text.split_once("\n\n").unwrap();
        let size = checkpoint.lines().nth(1).unwrap().to_owned();
        let signature = checkpoint.trim_end().rsplit(' ').next().unwrap();
        let mut signed_anew = signature.to_owned().into_bytes();
        let middle = signed_anew.len() / 2;
        signed_anew[middle] = if signed_anew[middle] == b'A' { b'B' } else { b'A' };
        let hash = text.lines().nth(2).unwrap();
        let texts = [
            ("another index", text.replacen(&format!("index {index}\n"), &format!("index {}\n", index + 1), 1)),
            ("a hash less", text.replacen(&format!("{hash}\n"), "", 1)),
            ("a hash twice", text.replacen(&format!("{hash}\n"), &format!("{hash}\n{hash}\n"), 1)),
            ("another size", text.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size.parse::<u64>().unwrap() + 1), 1)),
            ("another signature", text.replacen(signature, std::str::from_utf8(&signed_anew).unwrap(), 1)),
            ("another log", text.replacen(&format!("\n\n{name}\n"), &format!("\n\n{name}0\n"), 1)),
            ("no signature", text.rsplit_once("\n\u{2014}").unwrap().0.to_owned() + "\n"),
            ("no proof", checkpoint.to_owned()),
        ];
        for checker in of_proofs() {
            let said = checker.run(&[&proof, &leaf, &key]);
            assert_eq!(said, Ok(format!("entry {index} of {size} entries of {name}\n")), "{checker:?}");
            for (what, falsified) in &texts {
                assert_ne!(*falsified, text, "{what}");
                fs::write(&forged, falsified).unwrap();
                assert!(checker.run(&[&forged, &leaf, &key]).is_err(), "{checker:?} takes {what} for entry {index}");
            }
            for at in [0, fs::metadata(&leaf).unwrap().len() - 1] {
                fs::write(&forged, flip(Path::new(&leaf), usize::try_from(at).unwrap())).unwrap();
                assert!(checker.run(&[&proof, &forged, &key]).is_err(), "{checker:?} takes another byte {at} of entry {index}");
            }
            assert!(checker.run(&[&proof, &other.leaf, &key]).is_err(), "{checker:?} takes another entry for {index}");
            let stranger = format!("{name}+4a0b5a9c+AVn0VD3lMZzQ4A7i2q7o6b1Vd1c5F8V5p1d8j2Z0y3Xq");
            fs::write(&forged, stranger).unwrap();
            assert!(checker.run(&[&proof, &leaf, &forged]).is_err(), "{checker:?} takes another key");
        }
        for file in [other.proof, other.leaf, other.key] {
            fs::remove_file(file).unwrap();
        }
    }
}

/// P8: the files of an instance are a log to Go's own implementation, and it names what was touched in them.
#[tokio::test]
async fn p08_go_verifies_the_shard_of_a_real_instance() {
    let go = of_logs();
    let mut instance = Instance::start().await;
    let key = instance.prove(0, false).key;
    assert!(instance.process.stop().await.success());
    let shard = instance.process.data().join("audit").join(instance.year.to_string()).join("log");
    let check = || go.run(&[shard.to_str().unwrap(), &key]);
    let size = |note: &str| note.lines().nth(1).unwrap().parse::<u64>().unwrap();
    let signed = size(&fs::read_to_string(shard.join("checkpoint")).unwrap());
    let name = fs::read_to_string(&key).unwrap().split('+').next().unwrap().to_owned();
    assert!(signed >= instance.size);
    assert_eq!(check(), Ok(format!("{signed} entries of {name}\n")));

    let bundle = shard.join("tile/entries/000");
    let whole = fs::read(&bundle).unwrap();
    fs::write(&bundle, flip(&bundle, 100)).unwrap();
    assert_eq!(check(), Err("entry 0 is not the one that was logged\n".to_owned()));
    fs::write(&bundle, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(check(), Err("entry 255: its bundle ends before it\n".to_owned()));
    fs::write(&bundle, &whole).unwrap();
    let tile = shard.join("tile/0/000");
    fs::write(&tile, flip(&tile, 0)).unwrap();
    assert!(check().is_err(), "a hash was changed");
    fs::write(&tile, flip(&tile, 0)).unwrap();
    let checkpoint = shard.join("checkpoint");
    let note = fs::read_to_string(&checkpoint).unwrap();
    fs::write(&checkpoint, note.replacen(&format!("\n{signed}\n"), &format!("\n{}\n", signed - 1), 1)).unwrap();
    assert!(check().is_err(), "nobody has signed it");
    fs::write(&checkpoint, note).unwrap();
    assert_eq!(check(), Ok(format!("{signed} entries of {name}\n")));
}
