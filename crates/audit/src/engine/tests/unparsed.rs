//! What is no event: recognised when it comes again, and not to be guessed from what the log says of it.

use fte_events::hex;
use sha2::{Digest, Sha256};

use super::*;
use crate::entry::leaf::Header;
use crate::subjects::{Subject, Subjects, SubjectsOptions};

const SECRET: &[u8] = b"pin 4711";

fn subjects(directory: &Path) -> Arc<Subjects> {
    Arc::new(Subjects::open(SubjectsOptions::at(directory.join("keys"))).unwrap())
}

fn open_sealed(directory: &Path, sealing: Arc<dyn Sealing>) -> Engine {
    Engine::open(EngineOptions { sealing, ..options(directory) }).unwrap()
}

/// As sealing was before identities were keyed.
struct Earlier(Arc<Subjects>);

impl Sealing for Earlier {
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<Sealed>, LogError> {
        Sealing::seal(&*self.0, group)
    }
    fn open(&self, header: &Header<'_>, payload: Vec<u8>) -> Result<Option<Vec<u8>>, LogError> {
        self.0.open(header, payload)
    }
    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError> {
        self.0.is_same(header, payload, entry)
    }
    fn actor_values(&self, actor: &str) -> Result<Vec<String>, LogError> {
        self.0.actor_values(actor)
    }
}

async fn append(log: &Engine, bodies: &[(&str, &'static [u8])]) -> Vec<bool> {
    let entries = bodies.iter().map(|(topic, body)| record(topic, *body)).collect();
    log.append(entries).await.unwrap().into_iter().map(|appended| matches!(appended, Appended::New(_))).collect()
}

#[tokio::test]
async fn it_is_one_entry_whatever_is_repeated_and_no_digest_of_it_is_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let keys = subjects(directory.path());
    let log = open_sealed(directory.path(), Arc::clone(&keys) as _);
    assert_eq!(append(&log, &[("a", SECRET), ("a", SECRET), ("b", SECRET), ("a", b"other")]).await, [true, false, true, true]);
    assert_eq!(append(&log, &[("b", SECRET), ("a", SECRET)]).await, [false, false]);
    drop(log);
    // After a restart, and with an index that is made again from the log alone.
    for remade in [false, true] {
        if remade {
            std::fs::remove_file(directory.path().join("audit/index.sqlite")).unwrap();
        }
        let log = open_sealed(directory.path(), Arc::clone(&keys) as _);
        assert_eq!(append(&log, &[("a", SECRET), ("b", SECRET), ("a", b"other")]).await, [false; 3], "remade: {remade}");
    }
    let log = open_sealed(directory.path(), Arc::clone(&keys) as _);
    let entries = all(&log, any()).await;
    assert!(entries.iter().all(|entry| entry.header.kind == Kind::Unparsed && entry.header.enc.is_some()));
    assert_eq!(entries[0].bytes.as_deref(), Some(SECRET));
    // Once it is erased, neither the bytes nor their digest is in a file of the log, so a guess can be compared with nothing.
    let key = entries[0].header.enc.as_ref().unwrap().key.clone();
    keys.erase(&Subject::parse("default", &format!("key:{key}")).unwrap()).unwrap();
    drop(log);
    let digest: [u8; 32] = Sha256::digest(SECRET).into();
    let content = crate::entry::canonical::content_digest(SECRET);
    for told in [SECRET, &digest[..], hex(&digest).as_bytes(), &content[..], hex(&content).as_bytes()] {
        assert!(!is_under(&directory.path().join("audit"), told), "{}", String::from_utf8_lossy(told));
    }
    let log = open_sealed(directory.path(), keys);
    assert_eq!(all(&log, any()).await[0].bytes, None);
    assert_eq!(append(&log, &[("a", SECRET)]).await, [false], "it brings nothing back");
}

#[tokio::test]
async fn what_an_earlier_version_logged_is_still_the_same_record() {
    let directory = tempfile::tempdir().unwrap();
    let keys = subjects(directory.path());
    let log = open_sealed(directory.path(), Arc::new(Earlier(Arc::clone(&keys))));
    assert_eq!(append(&log, &[("a", SECRET)]).await, [true]);
    let plain = hex(&Sha256::digest(SECRET));
    assert_eq!(all(&log, any()).await[0].header.id.as_deref(), Some(&*plain));
    drop(log);
    let log = open_sealed(directory.path(), keys);
    assert_eq!(append(&log, &[("a", SECRET), ("b", SECRET), ("b", SECRET)]).await, [false, true, false]);
    let entries = all(&log, any()).await;
    assert_eq!(entries.len(), 2);
    assert_ne!(entries[1].header.id.as_deref(), Some(&*plain));
}

fn is_under(directory: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().map(Result::unwrap).any(|entry| {
        if entry.file_type().unwrap().is_dir() {
            return is_under(&entry.path(), bytes);
        }
        std::fs::read(entry.path()).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}
