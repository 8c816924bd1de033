//! What stands on the disk: it can be checked by anyone, an index can be made again from it, and damaged or older files do not start.

use std::fs;

use fte_tlog::{SignedNote, check_consistency, leaf_hash};

use super::*;

/// Gives the last checkpoint once it covers everything.
async fn sealed(log: &Engine, size: u64) -> Published {
    loop {
        match log.checkpoint(None).await.unwrap() {
            Some(published) if published.checkpoint.size >= size => return published,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

fn batch(from: usize, count: usize) -> Vec<NewEntry> {
    (from..from + count).map(|n| event(&numbered(n))).collect()
}

#[tokio::test]
async fn every_entry_is_proved_by_a_signed_checkpoint_that_only_grows() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(batch(0, 300)).await.unwrap();
    let first = sealed(&log, 301).await;
    log.append(batch(300, 700)).await.unwrap();
    let second = sealed(&log, 1001).await;
    let signed = SignedNote::parse(second.note.as_bytes()).unwrap();
    let key = test_key().renamed(format!("log.test/{}", second.shard), fte_tlog::KeyAlgorithm::Ed25519).unwrap();
    assert_eq!(signed.verify(&[key.verifier()]).unwrap().len(), 1);

    let proof = log.consistency(second.shard, 301, 1001).await.unwrap().unwrap();
    check_consistency(&proof, 301, &first.checkpoint.root, 1001, &second.checkpoint.root).unwrap();
    for index in [0, 1, 255, 256, 511, 767, 1000] {
        let at = Position { shard: second.shard, index };
        let proof = log.proof(at).await.unwrap().unwrap();
        let bundle =
            log.tile(at.shard, TilePath::in_tree(fte_tlog::TileLevel::Entries, index / 256, 1001).unwrap()).await.unwrap().unwrap();
        let width = u16::try_from((1001 - index / 256 * 256).min(256)).unwrap();
        let bundle = fte_tlog::Bundle::parse(&bundle, width).unwrap();
        let leaf = bundle.leaf(usize::try_from(index % 256).unwrap()).unwrap();
        fte_tlog::check_inclusion(&proof.proof, index, &leaf_hash(leaf), 1001, &second.checkpoint.root).unwrap();
        let entry = log.entry(at).await.unwrap().unwrap();
        assert_eq!(crate::entry::leaf::decode(leaf).unwrap().0, entry.header);
    }
    assert!(log.proof(Position { shard: second.shard, index: 1001 }).await.unwrap().is_none());
    // A partial tile of the older checkpoint can still be read, though only the newest are kept.
    let older: TilePath = "tile/0/001.p/45".parse().unwrap();
    assert_eq!(log.tile(second.shard, older).await.unwrap().unwrap().len(), 45 * 32);
    let older: TilePath = "tile/entries/001.p/45".parse().unwrap();
    fte_tlog::Bundle::parse(&log.tile(second.shard, older).await.unwrap().unwrap(), 45).unwrap();
}

#[tokio::test]
async fn p12_an_index_that_is_missing_or_damaged_or_of_another_log_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(batch(0, 2000)).await.unwrap();
    drop(log);
    let path = directory.path().join("audit/index.sqlite");
    let before = dump(&path);
    let other = tempfile::tempdir().unwrap();
    let log = open(other.path());
    log.append(batch(5000, 100)).await.unwrap();
    drop(log);
    for damage in ["missing", "damaged", "of another log"] {
        super::recover::remove_index(&path).unwrap();
        match damage {
            "damaged" => fs::write(&path, vec![b'x'; 8192]).unwrap(),
            "of another log" => drop(fs::copy(other.path().join("audit/index.sqlite"), &path).unwrap()),
            _ => {}
        }
        let log = open(directory.path());
        assert_eq!(all(&log, any()).await.len(), 2000, "{damage}");
        assert!(log.append(batch(0, 2000)).await.unwrap().iter().all(|outcome| *outcome == Appended::Known), "{damage}");
        drop(log);
        assert_eq!(dump(&path), before, "{damage}");
    }
}

/// Overwrites what is behind the first page of the index, as a failing disk may.
fn spoil(path: &Path) {
    // Out of SQLite's own log first.
    Connection::open(path).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let length = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
    assert!(length > 100 * 4096, "{length}");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![b'x'; length - 4096], 4096).unwrap();
}

/// A log whose writer keeps so few pages of the index that it meets what is on the disk.
fn forgetful(directory: &Path) -> EngineOptions {
    EngineOptions { cache_kib: 16, ..options(directory) }
}

#[tokio::test]
async fn p12_an_index_that_is_damaged_while_it_is_used_is_made_again_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = Engine::open(forgetful(directory.path())).unwrap();
    for from in (0..6000).step_by(500) {
        log.append(batch(from, 500)).await.unwrap();
    }
    let path = directory.path().join("audit/index.sqlite");
    spoil(&path);
    let error = log.append(batch(0, 500)).await.unwrap_err();
    assert!(error.to_string().contains("its index is damaged and is made again"), "{error}");
    assert!(log.append(batch(0, 500)).await.unwrap().iter().all(|outcome| *outcome == Appended::Known));
    log.ready().unwrap();
    assert_eq!(all(&log, any()).await.len(), 6000);
    // Damaged again at once: that is not the index's fault, and making it again would not end.
    spoil(&path);
    let error = fte_service::chain(&log.append(batch(0, 500)).await.unwrap_err());
    assert!(error.contains("is damaged again") && error.contains("check the disk"), "{error}");
    assert!(log.append(batch(6000, 1)).await.is_err());
    assert!(fte_service::chain(&log.ready().unwrap_err()).contains("is damaged again"));
    drop(log);
    // A person has looked: whatever is wrong with the index shows, and it is made again.
    let log = Engine::open(forgetful(directory.path())).unwrap();
    while log.append(batch(0, 6000)).await.is_err() {}
    assert_eq!(all(&log, any()).await.len(), 6000);
}

#[tokio::test]
async fn p12_a_damaged_index_that_only_a_reader_meets_is_made_again_too() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    for from in (0..6000).step_by(500) {
        log.append(batch(from, 500)).await.unwrap();
    }
    spoil(&directory.path().join("audit/index.sqlite"));
    let by_type = Query { action: Some("fte.status.changed".to_owned()), ..any() };
    assert!(log.entries(by_type.clone()).await.is_err());
    while log.entries(by_type.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(all(&log, by_type).await.len(), 6000);
}

#[tokio::test]
async fn p12_an_index_that_names_what_is_not_there_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(batch(0, 100)).await.unwrap();
    let path = directory.path().join("audit/index.sqlite");
    Connection::open(&path).unwrap().execute("UPDATE identity SET pos = pos + 1000", []).unwrap();
    assert!(log.append(batch(0, 1)).await.unwrap_err().to_string().contains("is made again"));
    assert_eq!(log.append(batch(0, 1)).await.unwrap(), [Appended::Known]);
}

#[tokio::test]
async fn who_reads_while_the_index_is_made_again_reads_no_index_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(open(directory.path()));
    log.append(batch(0, 100)).await.unwrap();
    let (reading, is_reading) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let reader = Arc::clone(&log);
    let under_way = tokio::spawn(async move {
        let count = |connection: &Connection| Ok(connection.query_row("SELECT count(*) FROM identity", [], |row| row.get::<_, i64>(0))?);
        let read = move |connection: &Connection, _: &super::super::view::Files| {
            count(connection)?;
            reading.send(()).unwrap();
            may_go_on.recv().unwrap();
            count(connection)
        };
        reader.readers.read(read).await
    });
    tokio::task::spawn_blocking(move || is_reading.recv().unwrap()).await.unwrap();
    log.shared.damage_index();
    log.append(batch(100, 100)).await.unwrap();
    go_on.send(()).unwrap();
    let error = under_way.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("is being made again"), "{error}");
    // Its connection is not kept: whoever reads next finds what there is.
    log.append(batch(200, 100)).await.unwrap();
    assert_eq!(all(&log, any()).await.len(), 300);
}

#[tokio::test]
async fn p12_an_index_is_made_again_by_hand_while_nobody_writes() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit");
    assert!(fte_service::chain(&reindex(&audit, &mut |_, _| {}).unwrap_err()).contains("no shard"));
    let now = Arc::new(AtomicI64::new(JULY_2026));
    let clock = Arc::clone(&now);
    let options = EngineOptions { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..options(directory.path()) };
    let log = Engine::open(options.clone()).unwrap();
    log.append(batch(0, 5000)).await.unwrap();
    now.store(JULY_2026 + 400 * 24 * 3_600_000, Ordering::Relaxed);
    log.append(batch(5000, 300)).await.unwrap();
    let error = fte_service::chain(&reindex(&audit, &mut |_, _| {}).unwrap_err());
    assert!(error.contains("another process") && error.contains("stop it first"), "{error}");
    drop(log);
    let path = audit.join("index.sqlite");
    let before = dump(&path);
    fs::write(&path, vec![b'x'; 8192]).unwrap();
    let mut told = Vec::new();
    assert_eq!(reindex(&audit, &mut |done, all| told.push((done, all))).unwrap(), 5302);
    assert!(told.iter().all(|(_, all)| *all == 5302) && told.is_sorted() && told.last() == Some(&(5302, 5302)), "{told:?}");
    assert_eq!(dump(&path), before);
    drop(Engine::open(options).unwrap());
    assert_eq!(dump(&path), before);
}

/// Every row of every table.
fn dump(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut rows = Vec::new();
    for table in ["done", "identity", "task", "block", "facet", "epoch", "gap", "filled", "closing", "place"] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let row: Vec<_> = (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column).unwrap()).collect();
            rows.push(format!("{table} {row:?}"));
        }
    }
    rows
}

#[tokio::test]
async fn p10_a_log_that_is_older_or_other_than_what_was_signed_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(batch(0, 100)).await.unwrap();
    sealed(&log, 101).await;
    drop(log);
    let older = tempfile::tempdir().unwrap();
    copy_tree(directory.path(), older.path());
    let log = open(directory.path());
    log.append(batch(100, 100)).await.unwrap();
    let published = sealed(&log, 201).await;
    drop(log);
    let audit = directory.path().join("audit");
    let wal = audit.join(format!("{}/wal/{:020}.wal", published.shard, 0));

    let why = |directory: &Path| Engine::open(options(directory)).err().map(|error| fte_service::chain(&error)).unwrap_or_default();
    // The newest entries are gone, as in a copy from before.
    let whole = fs::read(&wal).unwrap();
    fs::copy(older.path().join("audit").join(wal.strip_prefix(&audit).unwrap()), &wal).unwrap();
    assert!(why(directory.path()).contains("has 101 entries, and 201 were signed"), "{}", why(directory.path()));
    // A bad frame before a good one.
    let mut damaged = whole.clone();
    damaged[5000] ^= 1;
    fs::write(&wal, &damaged).unwrap();
    assert!(why(directory.path()).contains("is damaged at byte"), "{}", why(directory.path()));
    // The whole of it is gone.
    fs::remove_file(&wal).unwrap();
    assert!(why(directory.path()).contains("201 entries were signed"), "{}", why(directory.path()));
    // Another log with the same key.
    let other = tempfile::tempdir().unwrap();
    let log = open(other.path());
    log.append(batch(1000, 300)).await.unwrap();
    drop(log);
    fs::copy(other.path().join("audit").join(wal.strip_prefix(&audit).unwrap()), &wal).unwrap();
    assert!(why(directory.path()).contains("is not what was signed"), "{}", why(directory.path()));
    fs::write(&wal, whole).unwrap();
    drop(Engine::open(options(directory.path())).unwrap());
}

#[tokio::test]
async fn p10_a_log_that_another_key_signed_is_refused_and_nothing_of_it_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(batch(0, 100)).await.unwrap();
    let published = sealed(&log, 101).await;
    drop(log);
    let state = directory.path().join("audit/state");
    let shard = directory.path().join(format!("audit/{}/log/checkpoint", published.shard));
    let before = fs::read(&shard).unwrap();
    let under = |key: SignerKey| EngineOptions { key: Arc::new(key), ..options(directory.path()) };
    let why = |options: EngineOptions| Engine::open(options).err().map(|error| fte_service::chain(&error)).unwrap_or_default();
    let other = |name: &str| SignerKey::new(name, fte_tlog::KeyAlgorithm::Ed25519, &[8; 32]).unwrap();
    for key in [other("log.test"), other("log.other")] {
        let why = why(under(key));
        assert!(why.contains("was signed by another key") && why.contains("log.test/") && why.contains("restore that key"), "{why}");
    }
    // Nor where what it signed is remembered nowhere else, or is published alone.
    fs::remove_file(state.join("checkpoint-1")).ok();
    assert!(why(under(other("log.test"))).contains("was signed by another key"));
    let slot = fs::read(state.join("checkpoint-0")).unwrap();
    fs::remove_file(state.join("checkpoint-0")).unwrap();
    assert!(why(under(other("log.test"))).contains("was signed by another key"));
    assert_eq!(fs::read(&shard).unwrap(), before);

    // What cannot be read is not the same as what is not there.
    for damaged in [vec![b'x'; 4096], Vec::new(), vec![0; 4096]] {
        fs::write(state.join("checkpoint-0"), damaged).unwrap();
        assert!(why(options(directory.path())).contains("no checkpoint of this log"), "{}", why(options(directory.path())));
    }
    fs::remove_file(state.join("checkpoint-0")).unwrap();
    fs::create_dir(state.join("checkpoint-0")).unwrap();
    assert!(why(options(directory.path())).contains("checkpoint-0"), "{}", why(options(directory.path())));
    fs::remove_dir(state.join("checkpoint-0")).unwrap();
    // One of the two may be torn: the other is what was signed last.
    fs::write(state.join("checkpoint-0"), slot).unwrap();
    fs::write(state.join("checkpoint-1"), vec![b'x'; 100]).unwrap();
    drop(Engine::open(options(directory.path())).unwrap());
}

/// A log of ten entries that was signed and has stopped, and its shard.
async fn stopped() -> (tempfile::TempDir, u16) {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(batch(0, 10)).await.unwrap();
    let shard = sealed(&log, 11).await.shard;
    drop(log);
    (directory, shard)
}

/// Why it does not start.
fn refused(directory: &Path) -> String {
    Engine::open(options(directory)).err().map(|error| fte_service::chain(&error)).unwrap_or_default()
}

#[tokio::test]
async fn a_directory_that_holds_nothing_is_no_year_and_none_takes_the_place_of_what_was_signed() {
    let (directory, shard) = stopped().await;
    let audit = directory.path().join("audit");
    for name in ["9999", "65535", "0", "99999"] {
        fs::create_dir(audit.join(name)).unwrap();
    }
    let log = open(directory.path());
    let appended = log.append(batch(10, 1)).await.unwrap();
    assert!(matches!(&appended[..], [crate::log::Appended::New(at)] if at.shard == shard), "{appended:?}");
    drop(log);
    let why = || refused(directory.path());
    let away = directory.path().join("away");
    fs::rename(audit.join(shard.to_string()), &away).unwrap();
    assert!(why().contains("restore"), "{}", why());
    // Under another year's name, and with an empty one.
    fs::rename(&away, audit.join((shard + 1).to_string())).unwrap();
    assert!(why().contains(&format!("nothing is there of shard {shard}")), "{}", why());
    fs::rename(audit.join((shard + 1).to_string()), &away).unwrap();
    for name in [shard, shard + 1] {
        fs::create_dir(audit.join(name.to_string())).unwrap();
        assert!(why().contains("restore"), "{}", why());
        fs::remove_dir_all(audit.join(name.to_string())).unwrap();
    }
}

#[tokio::test]
async fn an_ended_year_under_a_later_years_name_begins_no_other_log() {
    let (directory, shard) = stopped().await;
    let audit = directory.path().join("audit");
    // Whole, and without the write-ahead log that an ended year does not have.
    let later = audit.join((shard + 1).to_string());
    fs::create_dir_all(later.join("log")).unwrap();
    fs::copy(audit.join(format!("{shard}/log/checkpoint")), later.join("log/checkpoint")).unwrap();
    let why = refused(directory.path());
    assert!(why.contains("stands under the name of another year"), "{why}");
    fs::remove_dir_all(later).unwrap();
    assert_eq!(refused(directory.path()), "");
}

#[tokio::test]
async fn where_an_index_is_all_that_is_left_no_other_log_begins() {
    let (directory, shard) = stopped().await;
    let audit = directory.path().join("audit");
    fs::remove_dir_all(audit.join(shard.to_string())).unwrap();
    fs::remove_dir_all(audit.join("state")).unwrap();
    let why = refused(directory.path());
    assert!(why.contains("nothing of the log is there"), "{why}");
}

#[tokio::test]
async fn an_index_with_damage_in_any_page_stops_no_start() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    for group in 0..10 {
        log.append(batch(group * 100, 100)).await.unwrap();
    }
    sealed(&log, 1001).await;
    drop(log);
    let path = directory.path().join("audit/index.sqlite");
    let whole = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    for round in 0..48 {
        let mut damaged = whole.clone();
        match round {
            // Everything behind a place.
            0..12 => {
                let (step, from) = (random.usize(7..500), random.usize(0..whole.len() / 2));
                damaged[from..].iter_mut().step_by(step).for_each(|byte| *byte ^= random.u8(1..));
            }
            // The first page's header, cell count and cells, which say what tables there are; then any page's.
            12..36 => damaged[100 + (round - 12)] ^= random.u8(1..),
            _ => damaged[random.usize(1..whole.len() / page) * page + random.usize(0..16)] ^= random.u8(1..),
        }
        fs::write(&path, damaged).unwrap();
        for more in ["index.sqlite-wal", "index.sqlite-shm"] {
            let _absent = fs::remove_file(directory.path().join("audit").join(more));
        }
        let log = Engine::open(options(directory.path())).unwrap_or_else(|error| panic!("round {round}: {}", fte_service::chain(&error)));
        drop(log);
    }
}

#[tokio::test]
async fn p10_a_second_writer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let error = Engine::open(options(directory.path())).err().unwrap();
    assert!(fte_service::chain(&error).contains("another process"), "{}", fte_service::chain(&error));
    drop(log);
    // Where the lock does not reach, the epoch does: once another has started, the first one acknowledges nothing, long before it would sign.
    let log = Engine::open(EngineOptions { seal_every: Duration::from_secs(3600), ..options(directory.path()) }).unwrap();
    log.append(batch(0, 1)).await.unwrap();
    let epoch = directory.path().join("audit/state/epoch");
    let mine = fs::read_to_string(&epoch).unwrap();
    // Also one that started at the same moment, and so with the same number.
    fs::write(&epoch, format!("{} other\n", mine.split(' ').next().unwrap())).unwrap();
    for _ in 0..2 {
        let error = fte_service::chain(&log.append(batch(1, 1)).await.unwrap_err());
        assert!(error.contains("raised by another process"), "{error}");
    }
    assert!(fte_service::chain(&log.ready().unwrap_err()).contains("raised by another process"));
    // It writes nothing more, so whoever took over is alone.
    drop(log);
    assert_eq!(all(&open(directory.path()), any()).await.len(), 2, "what was synced and not acknowledged is there, and comes again");
}

#[tokio::test]
async fn a_place_that_cannot_hold_the_log_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("audit"), "").unwrap();
    let error = Engine::open(options(directory.path())).err().unwrap();
    assert!(error.to_string().contains("is none"), "{}", fte_service::chain(&error));
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_recovers_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("audit")).unwrap();
    let disk = super::sim::SimDisk::new(3);
    disk.set_room(Some(1_500_000));
    let options = EngineOptions { disk: Arc::new(disk.clone()), ..options(directory.path()) };
    let log = Engine::open(options).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match log.append(batch(acknowledged * 20, 20)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1000, "the disk is not full");
    };
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(log.ready().unwrap_err().to_string().contains("the disk is full"));
    disk.set_room(None);
    log.append(batch(acknowledged * 20, 20)).await.unwrap();
    log.ready().unwrap();
    assert_gapless(&every(&log, any()).await);
    assert_eq!(all(&log, any()).await.len(), (acknowledged + 1) * 20);
}

#[tokio::test]
async fn a_payload_that_is_too_large_for_a_leaf_is_a_blob() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let body = json!({"id": "1", "source": "/s", "data": {"text": "x".repeat(100_000)}}).to_string();
    let outcome = log.append(vec![record(TOPIC, body.clone())]).await.unwrap();
    let Appended::New(at) = outcome[0] else { panic!("{outcome:?}") };
    let entry = log.entry(at).await.unwrap().unwrap();
    assert_eq!(entry.bytes.as_deref(), Some(body.as_bytes()));
    let digest = entry.header.payload_ref.unwrap();
    assert_eq!(log.blob(at.shard, digest).await.unwrap().unwrap(), body.as_bytes());
    assert_eq!(log.append(vec![record(TOPIC, body)]).await.unwrap(), [Appended::Known]);
}

#[tokio::test]
async fn segments_of_the_write_ahead_log_go_once_their_bundles_are_durable() {
    let directory = tempfile::tempdir().unwrap();
    let options = EngineOptions { segment_bytes: 64 * 1024, seal_every: Duration::ZERO, ..options(directory.path()) };
    let log = Engine::open(options.clone()).unwrap();
    for round in 0..40 {
        log.append(batch(round * 100, 100)).await.unwrap();
    }
    let shard = sealed(&log, 4001).await.shard;
    let segments = || fs::read_dir(directory.path().join(format!("audit/{shard}/wal"))).unwrap().count();
    let mut more = 4000;
    while segments() > 4 {
        log.append(batch(more, 1)).await.unwrap();
        more += 1;
    }
    drop(log);
    let log = Engine::open(options).unwrap();
    assert_eq!(all(&log, any()).await.len(), more);
    assert!(log.append(batch(0, more)).await.unwrap().iter().all(|outcome| *outcome == Appended::Known));
}
