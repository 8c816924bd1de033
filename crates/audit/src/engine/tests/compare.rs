//! What the verifier finds in an index that is not what the log says.

use std::fs;
use std::num::NonZero;

use fte_tlog::Policy;

use super::*;
use crate::verify::{Directory, Options, Report, Source, verify};

/// What `fte audit verify` finds in a data directory.
fn reports(directory: &Path) -> Vec<Report> {
    let audit = directory.join("audit");
    let mut years: Vec<u16> = fs::read_dir(&audit).unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    years.sort_unstable();
    let shards: Vec<Directory> = years.iter().map(|year| Directory::new(audit.join(format!("{year}/log")))).collect();
    let shards: Vec<&dyn Source> = shards.iter().map(|shard| shard as &dyn Source).collect();
    let policy = Policy::of_logs([test_key().verifier()]);
    let options = Options { index: Some(audit.join("index.sqlite")), threads: NonZero::<usize>::MIN, ..Options::new(policy) };
    verify(&shards, &options, &mut |_| {}).unwrap()
}

/// The last shard's report, with the findings of all.
fn verified(directory: &Path) -> Report {
    let mut reports = reports(directory);
    let findings = reports.iter().flat_map(|report| report.findings.clone()).collect();
    Report { findings, ..reports.pop().unwrap() }
}

/// A log whose index has rows in every table, of two years.
async fn make(directory: &Path) {
    let now = Arc::new(AtomicI64::new(JULY_2026));
    let clock = Arc::clone(&now);
    let clock: Clock = Arc::new(move || clock.load(Ordering::Relaxed));
    let options =
        EngineOptions { clock, close_after: Duration::from_secs(3600), gap_grace: Duration::from_millis(1), ..options(directory) };
    let log = Engine::open(options).unwrap();
    log.append((0..700).map(|n| event(&numbered(n))).collect()).await.unwrap();
    now.fetch_add(400 * 24 * 3_600_000, Ordering::Relaxed);
    let action = |sequence: u64| {
        let body = json!({"id": sequence.to_string(), "source": "/fte/intake", "type": "fte.action.recorded",
            "sequence": format!("{sequence:020}"), "fteepoch": "e", "data": {"agent": "a", "actor": {"id": "ada"}, "outcome": "denied"}});
        record("fte.audit.actions", body.to_string())
    };
    log.append(vec![action(1), action(9)]).await.unwrap();
    for (later, sequence) in [(5, 12), (5, 4)] {
        now.fetch_add(later, Ordering::Relaxed);
        log.append(vec![action(sequence)]).await.unwrap();
    }
    let result = json!({"id": "r", "source": "/fte/runner", "type": "fte.result.completed", "subject": TaskId::now(), "data": {}});
    log.append(vec![event(&result), event(&json!({"id": "r", "source": "/fte/runner", "data": 1}))]).await.unwrap();
    log.append((700..1000).map(|n| event(&numbered(n))).collect()).await.unwrap();
}

fn columns(connection: &Connection, table: &str) -> Vec<(String, bool)> {
    let mut statement = connection.prepare(&format!("PRAGMA table_info({table})")).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(1)?, row.get::<_, i64>(5)? > 0))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Verifies a log after its index was changed.
fn after(directory: &Path, change: impl FnOnce(&Connection)) -> Report {
    let path = directory.join("audit/index.sqlite");
    // Everything is in one file then.
    Connection::open(&path).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let whole = fs::read(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    change(&connection);
    connection.close().unwrap();
    let report = verified(directory);
    fs::write(&path, whole).unwrap();
    report
}

const TABLES: [&str; 10] = ["done", "identity", "task", "block", "facet", "epoch", "gap", "filled", "closing", "place"];

#[tokio::test]
async fn p09_every_column_of_every_table_of_the_index_counts() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let report = verified(directory.path());
    assert_eq!(report.findings, []);
    let index = report.index.unwrap();
    assert!(index.rows > 2000 && index.last.as_deref().is_some_and(|last| last.starts_with("2027-")), "{index:?}");

    let mut changes = 0;
    for table in TABLES {
        let connection = Connection::open(directory.path().join("audit/index.sqlite")).unwrap();
        let columns = columns(&connection, table);
        drop(connection);
        let key = columns.iter().filter(|(_, is_key)| *is_key).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let chosen = format!("({key}) = (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET (SELECT count(*) / 2 FROM {table}))");
        let caught = |sql: &str| {
            let report = after(directory.path(), |connection| {
                connection.execute_batch("PRAGMA ignore_check_constraints = 1").unwrap();
                assert_eq!(connection.execute(sql, []).unwrap(), 1, "{sql}");
            });
            let bad = report.first_bad().unwrap_or_else(|| panic!("{sql} was missed"));
            assert!(bad.file == "index.sqlite" && report.is_index_alone(), "{sql}: {bad}");
            bad.clone()
        };
        for (column, _) in &columns {
            let changed = format!(
                "CASE typeof({column}) WHEN 'integer' THEN {column} + 1000003 WHEN 'text' THEN {column} || 'x' WHEN 'blob' THEN randomblob(length({column})) ELSE 5 END"
            );
            let bad = caught(&format!("UPDATE {table} SET {column} = {changed} WHERE {chosen}"));
            assert!(bad.what.contains(&format!("`{table}`")), "{table}.{column}: {bad}");
            // Rows that are about an entry name it.
            assert_eq!(
                bad.entry.is_some(),
                matches!(table, "done" | "identity" | "task" | "block" | "facet" | "filled"),
                "{table}.{column}: {bad}"
            );
            changes += 1;
        }
        if table == "done" {
            continue;
        }
        let bad = caught(&format!("DELETE FROM {table} WHERE {chosen}"));
        assert!(bad.what.contains(&format!("`{table}` lacks")), "{bad}");
        // A copy of a row under a key of its own.
        let names = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let own = |(place, (name, _)): (usize, &(String, bool))| match (place, table) {
            (0, _) if matches!(table, "identity" | "task" | "closing") => "x'00112233445566778899aabbccddeeff'".to_owned(),
            (0, _) => format!("CASE typeof({name}) WHEN 'integer' THEN {name} + 7 ELSE {name} || 'x' END"),
            _ => name.clone(),
        };
        let values = columns.iter().enumerate().map(own).collect::<Vec<_>>().join(", ");
        let bad = caught(&format!("INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE {chosen}"));
        assert!(bad.what.contains("no entry made"), "{bad}");
    }
    assert!(changes > 25, "{changes}");
}

#[tokio::test]
async fn p09_a_row_that_points_elsewhere_is_named_with_its_entry() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let key = event(&numbered(300)).key;
    let report = after(directory.path(), |connection| {
        connection.execute("UPDATE identity SET pos = pos + 2 WHERE key = ?1", [&key.0[..]]).unwrap();
    });
    let bad = report.first_bad().unwrap();
    assert_eq!(
        bad.to_string(),
        "entry 301, index.sqlite: in its row of `identity` `pos` is not what the log says: it points to entry 2026-303"
    );
    let report = after(directory.path(), |connection| {
        connection.execute("UPDATE task SET pos = pos + 2 WHERE pos = (SELECT max(pos) FROM task)", []).unwrap();
    });
    let bad = report.first_bad().unwrap();
    let last = bad.entry.unwrap();
    assert_eq!(
        bad.to_string(),
        format!("entry {last}, index.sqlite: in its row of `task` `pos` is not what the log says: it points to entry 2027-{}", last + 2)
    );
    // It is told with the shard that the entry is of.
    for (number, expected) in [(300, [true, false]), (900, [false, true])] {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(directory.path(), copy.path());
        let key = event(&numbered(number)).key;
        let connection = Connection::open(copy.path().join("audit/index.sqlite")).unwrap();
        connection.execute("UPDATE identity SET pos = pos + 2 WHERE key = ?1", [&key.0[..]]).unwrap();
        drop(connection);
        assert_eq!(reports(copy.path()).iter().map(Report::is_tampered).collect::<Vec<_>>(), expected, "{number}");
    }
}

#[tokio::test]
async fn p09_an_index_is_compared_with_a_whole_log_and_with_no_other() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let changed = |change: &dyn Fn(&Path)| {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(directory.path(), copy.path());
        change(&copy.path().join("audit/2026/log"));
        let report = verified(copy.path());
        assert!(report.findings.iter().all(|finding| finding.file != "index.sqlite"), "{report:?}");
        (report.index.is_some(), report.is_tampered(), report.findings.len())
    };
    assert_eq!(changed(&|_| {}), (true, false, 0));
    // A bundle is missing; every entry is there and another file, too; and nothing of a year that the log does not say is retired.
    assert_eq!(changed(&|log| fs::remove_file(log.join("tile/entries/001")).unwrap()), (false, false, 1));
    assert_eq!(changed(&|log| fs::write(log.join("notes.txt"), "").unwrap()), (false, true, 1));
    assert_eq!(changed(&|log| fs::remove_dir_all(log.join("tile")).unwrap()), (false, false, 1));
}

#[tokio::test]
async fn p09_an_index_that_lags_is_whole_as_of_its_end_and_one_that_is_no_index_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append((0..300).map(|n| event(&numbered(n))).collect()).await.unwrap();
    drop(log);
    let path = directory.path().join("audit/index.sqlite");
    let older = fs::read(&path).unwrap();
    let log = open(directory.path());
    log.append((300..600).map(|n| event(&numbered(n))).collect()).await.unwrap();
    drop(log);
    fs::write(&path, &older).unwrap();
    let report = verified(directory.path());
    assert_eq!((report.findings.as_slice(), report.index.unwrap().last.map(|last| last.ends_with("-300"))), (&[][..], Some(true)));
    // One that says it ends before it does has rows that no entry made.
    let report = after(directory.path(), |connection| {
        connection.execute("UPDATE done SET pos = pos - 1", []).unwrap();
    });
    assert!(
        report.findings.iter().any(|finding| finding.entry == Some(299) && finding.what.contains("hash of another")),
        "{:?}",
        report.findings
    );
    assert!(report.findings.iter().any(|finding| finding.entry == Some(300)), "{:?}", report.findings);

    for (sql, what) in
        [("DROP INDEX closing_since", "sqlite_schema"), ("CREATE TRIGGER t AFTER INSERT ON task BEGIN SELECT 1; END", "sqlite_schema")]
    {
        let report = after(directory.path(), |connection| connection.execute_batch(sql).unwrap());
        assert!(report.first_bad().unwrap().what.contains(what), "{sql}");
    }
    let report = after(directory.path(), |connection| connection.execute_batch("DROP TABLE facet").unwrap());
    assert!(report.is_tampered() && report.is_index_alone(), "{report:?}");
    fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert_eq!(verified(directory.path()).first_bad().unwrap().file, "index.sqlite");
    // One that is missing, or of another version, is made again at the next start: nothing is wrong with the log.
    fs::remove_file(&path).unwrap();
    let report = verified(directory.path());
    assert!(!report.is_tampered() && report.is_incomplete(), "{report:?}");
    fs::write(&path, &older).unwrap();
    let report = after(directory.path(), |connection| connection.pragma_update(None, "user_version", 1).unwrap());
    assert!(!report.is_tampered() && report.findings[0].what.contains("another version"), "{report:?}");
}

#[tokio::test]
async fn p09_entries_that_are_not_signed_yet_count_in_the_index_too() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append((0..300).map(|n| event(&numbered(n))).collect()).await.unwrap();
    drop(log);
    let log = Engine::open(EngineOptions { seal_every: Duration::from_secs(3600), ..options(directory.path()) }).unwrap();
    log.append((300..600).map(|n| event(&numbered(n))).collect()).await.unwrap();
    // The service runs; and as after a kill.
    let killed = tempfile::tempdir().unwrap();
    copy_tree(directory.path(), killed.path());
    for directory in [directory.path(), killed.path()] {
        let report = verified(directory);
        assert_eq!((report.findings.as_slice(), report.size), (&[][..], 301));
        assert!(report.index.unwrap().last.unwrap().ends_with("-600"));
    }
    let report = after(killed.path(), |connection| {
        connection.execute("UPDATE identity SET pos = pos + 1 WHERE key = ?1", [&event(&numbered(450)).key.0[..]]).unwrap();
    });
    assert_eq!(report.first_bad().unwrap().entry, Some(451));
    let report = after(killed.path(), |connection| {
        connection.execute("UPDATE done SET pos = pos + 1", []).unwrap();
    });
    assert!(report.first_bad().unwrap().what.contains("not in the log"), "{report:?}");
}
