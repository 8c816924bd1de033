//! Years that are retired: believed where the log says so, and only then.

use fte_tlog::SignerKey;
use serde_json::{Value, json};

use super::building::key;
use super::*;
use crate::entry::leaf::{Header, Kind};
use crate::retention::KEPT_MS;

/// 10:00:00 UTC on the first of July 2026.
const JULY_2026: i64 = 1_782_900_000_000;
const YEAR: i64 = 366 * 24 * 3600 * 1000;

/// Shards of 2026, 2027 and 2034, each saying how the one before ended.
struct World {
    logs: Vec<Log>,
}

fn shard(year: u16, seed: u8, before: Option<&Log>, at_ms: i64) -> Log {
    let mut log = Log { key: key(&format!("log.example/{year}"), seed), ..Log::empty() };
    let previous = before.map_or_else(|| json!({}), |before| json!({"previous": {"checkpoint": before.note()}}));
    log.own(Kind::ShardOpen, "open", &previous.to_string(), at_ms);
    for number in 0..5 {
        let id = format!("{year}-{number}");
        log.push(&Header { source: Some("/test".into()), id: Some(id.into()), ..Header::new(Kind::Event, at_ms + number, b"x") }, b"x");
    }
    log
}

impl World {
    fn new(seeds: [u8; 3]) -> Self {
        let first = shard(2026, seeds[0], None, JULY_2026);
        let second = shard(2027, seeds[1], Some(&first), JULY_2026 + YEAR);
        let third = shard(2034, seeds[2], Some(&second), JULY_2026 + 8 * YEAR);
        Self { logs: vec![first, second, third] }
    }

    fn said(&self, shard: usize, last_ms: i64) -> Value {
        let earlier: Vec<_> =
            (0..shard).map(|of| json!({"shard": 2026 + of, "checkpoint": self.logs[of].note(), "retired_ms": 0})).collect();
        json!({"data": {"shard": 2026 + shard, "last_logged_ms": last_ms, "checkpoint": self.logs[shard].note(), "earlier": earlier}})
    }

    /// The last shard says that one was retired.
    fn record(mut self, said: &Value, logged_ms: i64) -> Self {
        let id = format!("shard-retired/{}", said["data"]["shard"]);
        self.logs[2].own(Kind::ShardRetired, &id, &said.to_string(), logged_ms);
        self
    }

    /// What is there once so many shards are gone.
    fn files(&self, gone: usize) -> Vec<Files> {
        let mut files: Vec<Files> = self.logs.iter().map(Log::files).collect();
        for files in &mut files[..gone] {
            files.0.retain(|name, _| name == "checkpoint");
        }
        files
    }
}

fn check(files: &[Files], keys: &[u8]) -> Vec<Report> {
    let keys = keys.iter().map(|seed| SignerKey::verifier(&key("log.example", *seed)));
    let options = Options { is_whole: true, ..Options::new(Policy::of_logs(keys)) };
    let sources: Vec<&dyn Source> = files.iter().map(|files| files as &dyn Source).collect();
    verify(&sources, &options, &mut |_| {}).unwrap()
}

fn findings(reports: &[Report]) -> Vec<String> {
    reports.iter().flat_map(|report| report.findings.iter().map(move |finding| format!("{}: {finding}", report.origin))).collect()
}

/// When the last entry of 2026 was logged, and when it has its time.
const LAST: i64 = JULY_2026 + 4;
const DUE: i64 = JULY_2026 + 8 * YEAR + 10;

#[test]
fn p14_a_retired_year_is_known_by_its_final_checkpoint_and_its_neighbours_verify() {
    let world = World::new([1, 1, 1]);
    let said = world.said(0, LAST);
    let world = world.record(&said, DUE);
    // All of it there still, and gone.
    assert_eq!(findings(&check(&world.files(0), &[1])), [] as [String; 0]);
    let reports = check(&world.files(1), &[1]);
    assert_eq!(findings(&reports), [] as [String; 0]);
    let retired = reports[0].retired.clone().unwrap();
    assert_eq!((retired.entry.as_str(), retired.since_ms, reports[0].size, reports[0].entries), ("2034-6", DUE, 6, Tally::default()));
    assert!(summary(&reports).ends_with("entries 13/13 · gaps 0 · witnesses 0/0 · anchor none · first bad entry: none · retired 2026"));
    // What was kept of it, at its end and before; and another end.
    let given = |note: String| {
        let files = world.files(1);
        let options = Options { given: vec![note.into_bytes()], ..Options::new(Policy::of_logs([key("log.example", 1).verifier()])) };
        let sources: Vec<&dyn Source> = files.iter().map(|files| files as &dyn Source).collect();
        findings(&verify(&sources, &options, &mut |_| {}).unwrap())
    };
    assert_eq!(given(world.logs[0].note()), [] as [String; 0]);
    assert_eq!(given(world.logs[0].until(3).note()), [] as [String; 0]);
    let [longer, other] = changed(&world.logs[0]);
    assert!(given(longer)[0].contains("the newest were cut off"));
    assert!(given(other)[0].contains("does not continue that of the given checkpoint"));
}

/// The checkpoints of a log that goes on, and of one as long with another end.
fn changed(log: &Log) -> [String; 2] {
    let mut longer = log.clone();
    longer.event(1);
    let mut other = log.until(log.leaves.len() - 1);
    other.event(1);
    [longer.note(), other.note()]
}

#[test]
fn p14_a_retired_year_ended_as_its_witnesses_have_signed() {
    let world = World::new([1, 1, 1]);
    let said = world.said(0, LAST);
    let world = world.record(&said, DUE);
    let witnessed = |note: &str| {
        let mut files = world.files(1);
        files[0].0.insert(WITNESSED.to_owned(), note.as_bytes().to_vec());
        let reports = check(&files, &[1]);
        (findings(&reports), reports[0].checkpoints.all)
    };
    assert_eq!(witnessed(&world.logs[0].note()), (vec![], 2));
    // That it grew from an earlier one nobody can show any more.
    assert_eq!(witnessed(&world.logs[0].until(3).note()), (vec![], 1));
    let [longer, other] = changed(&world.logs[0]);
    assert!(witnessed(&longer).0[0].contains("the newest were cut off"));
    assert!(witnessed(&other).0[0].contains("does not continue that of the witnessed checkpoint"));
    assert!(witnessed(&world.logs[1].note()).0[0].contains("it is a checkpoint of another log"));
    assert!(witnessed("no note").0[0].contains("witnessed: "));
}

#[test]
fn p14_what_is_gone_and_not_on_record_is_named() {
    let world = World::new([1, 1, 1]);
    let named = findings(&check(&world.files(1), &[1]));
    assert!(
        named.len() == 1 && named[0].contains("log.example/2026") && named[0].contains("no entry that was read says that it was retired")
    );
    // The next one, too, of which nothing is said.
    let said = world.said(0, LAST);
    let world = world.record(&said, DUE);
    let named = findings(&check(&world.files(2), &[1]));
    assert!(named.len() == 1 && named[0].contains("log.example/2027"), "{named:?}");
    // Not even the checkpoint: of one that is on record, and of one that is not.
    let named = findings(&check(&world.files(1)[1..], &[1]));
    assert!(named.len() == 1 && named[0].contains("its final checkpoint, which is kept for ever, is not there"), "{named:?}");
    let named = findings(&check(&World::new([1, 1, 1]).files(0)[1..], &[1]));
    assert!(named.len() == 1 && named[0].contains("nothing of it is there, and no entry says that it was retired"), "{named:?}");
    // Another end than the one that was retired.
    let mut files = world.files(1);
    files[0].0.insert("checkpoint".to_owned(), world.logs[0].until(4).note().into_bytes());
    let named = findings(&check(&files, &[1]));
    assert!(named.iter().any(|named| named.contains("with 6 entries, or with another root")), "{named:?}");
    // A year that says of itself that it was retired.
    let mut files = world.files(0);
    files[1].0.insert("retired".to_owned(), b"{}".to_vec());
    assert!(findings(&check(&files, &[1]))[0].contains("log.example/2027: entry 0, tile: nothing of the shard is there"));
}

#[test]
fn p14_a_retirement_that_was_too_early_or_is_no_retirement_is_named_with_its_entry() {
    let refused = |of: usize, last_ms: i64, logged_ms: i64, change: &dyn Fn(&mut Value)| {
        let world = World::new([1, 1, 1]);
        let mut said = world.said(of, last_ms);
        change(&mut said);
        let found = findings(&check(&world.record(&said, logged_ms).files(0), &[1]));
        assert!(found.len() == 1 && found[0].contains("log.example/2034: entry 6, tile/entries/000.p/7, byte "), "{found:?}");
        found[0].clone()
    };
    let nothing = |_: &mut Value| {};
    // By the log's own times, to the millisecond.
    let last_2027 = DUE - KEPT_MS + 1;
    assert!(refused(1, last_2027, DUE, &nothing).contains("it was to be kept for 2557 days"));
    let world = World::new([1, 1, 1]);
    let said = world.said(1, last_2027);
    assert_eq!(findings(&check(&world.record(&said, DUE + 1).files(2), &[1])), [] as [String; 0]);
    // A last entry that was not in its year would let it be younger.
    assert!(refused(1, LAST, DUE, &nothing).contains("at 2026-07-01T10:00:00.004Z, which is not in that year"));
    assert!(refused(0, LAST, DUE, &|said| said["data"]["shard"] = 2034.into()).contains("cannot be read"));
    assert!(
        refused(0, LAST, DUE, &|said| said["data"]["earlier"] =
            json!([{"shard": 2027, "checkpoint": World::new([1, 1, 1]).logs[1].note()}]))
        .contains("later shards were before it")
    );
    assert!(refused(0, LAST, DUE, &|said| said["data"]["checkpoint"] = "x".into()).contains("cannot be read"));
    assert!(refused(0, LAST, DUE, &|said| *said = json!({"data": {"shard": 2026}})).contains("cannot be read"));
}

#[test]
fn p14_a_retired_years_key_is_believed_through_the_chain() {
    // 2026 is of a key that was followed then; who knows the newest one alone believes what the log says of it.
    let world = World::new([3, 2, 1]);
    let said = world.said(0, LAST);
    let world = world.record(&said, DUE);
    for known in [&[1][..], &[1, 2], &[1, 2, 3]] {
        assert_eq!(findings(&check(&world.files(1), known)), [] as [String; 0], "{known:?}");
    }
    let reports = check(&world.files(1), &[1]);
    assert_eq!(reports[0].checkpoints, Tally { good: 1, all: 1 });
    // A key of then alone does not show what signs now.
    assert!(findings(&check(&world.files(1), &[3])).iter().any(|named| named.contains("no signature is of a key that is known")));
    // And without a record nobody answers for it.
    let named = findings(&check(&World::new([3, 2, 1]).files(1), &[1]));
    assert!(named.iter().any(|named| named.contains("no signature is of a key that is known")), "{named:?}");
}

#[test]
fn p14_a_shard_of_which_one_file_is_left_is_not_gone() {
    let first = Log::of(512);
    let second = shard(2027, 1, Some(&first), JULY_2026 + YEAR).files();
    let with = |left: &[&str]| {
        let mut files = first.files();
        files.0.retain(|name, _| name == "checkpoint" || left.contains(&&**name));
        findings(&check(&[files, second.clone()], &[1]))
    };
    assert!(with(&[])[0].contains("nothing of the shard is there but its checkpoint"));
    for left in ["tile/entries/000", "tile/0/000", "tile/0/001"] {
        let named = with(&[left]);
        assert!(named[0].contains("the file is not there") && !named[0].contains("nothing of the shard"), "{left}: {named:?}");
    }
}

#[test]
fn p14_every_entry_names_the_same_final_checkpoint_of_a_year() {
    let last_2027 = DUE - KEPT_MS + 1;
    let twice = |change: &dyn Fn(&mut Value)| {
        let world = World::new([1, 1, 1]);
        let (first, mut second) = (world.said(0, LAST), world.said(1, last_2027));
        change(&mut second);
        findings(&check(&world.record(&first, DUE).record(&second, DUE + 1).files(2), &[1]))
    };
    assert_eq!(twice(&|_| {}), [] as [String; 0]);
    let other = World::new([1, 1, 1]).logs[0].until(3).note();
    let named = twice(&|said| said["data"]["earlier"][0]["checkpoint"] = other.as_str().into());
    assert!(
        named.iter().any(|named| named.contains("entry 7, ") && named.contains("it names another final checkpoint of 2026")),
        "{named:?}"
    );
}
