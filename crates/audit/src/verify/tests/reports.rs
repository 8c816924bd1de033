//! What a report says of what was found.

use super::*;

fn tally(good: u64, all: u64) -> Tally {
    Tally { good, all }
}

fn report(origin: &str, findings: Vec<Finding>) -> Report {
    Report { origin: origin.to_owned(), findings, ..Report::default() }
}

#[test]
fn a_finding_is_told_with_entry_file_and_byte_as_far_as_they_are_known() {
    let finding = Finding::tampered("tile/0/000", "it was changed");
    assert_eq!(finding.to_string(), "tile/0/000: it was changed");
    assert_eq!(finding.clone().at(17, None).to_string(), "entry 17, tile/0/000: it was changed");
    assert_eq!(finding.at(17, 64).to_string(), "entry 17, tile/0/000, byte 64: it was changed");
}

#[test]
fn the_first_bad_entry_is_the_first_that_was_changed_and_not_one_that_is_missing() {
    let tampered = |entry: Option<u64>| Finding::tampered("tile/0/000", "").at(entry, None);
    let missing = Finding::incomplete("tile/0/001", "").at(1, None);
    let of = |findings: &[Finding]| report("log.example/2026", findings.to_vec());
    let all = of(&[missing.clone(), tampered(None), tampered(Some(9)), tampered(Some(3))]);
    assert_eq!((all.first_bad().unwrap().entry, all.is_tampered(), all.is_incomplete()), (Some(3), true, true));
    let one = of(&[tampered(None)]);
    assert_eq!((one.first_bad().unwrap().entry, one.is_tampered(), one.is_incomplete()), (None, true, false));
    let absent = of(&[missing]);
    assert_eq!((absent.first_bad(), absent.is_tampered(), absent.is_incomplete()), (None, false, true));
    let gap = Report { gaps: 1, ..of(&[]) };
    assert_eq!((gap.is_tampered(), gap.is_incomplete(), of(&[]).is_incomplete()), (false, true, false));
}

#[test]
fn so_many_findings_are_kept_and_no_more() {
    let mut report = report("log.example/2026", Vec::new());
    for entry in 0..300 {
        report.find(Finding::tampered("tile/0/000", "").at(entry, None));
    }
    assert_eq!((report.findings.len(), report.findings[99].entry), (FINDINGS_MAX, Some(99)));
}

#[test]
fn the_index_alone_is_wrong_where_nothing_of_the_log_was_changed() {
    let (index, tile) = (Finding::tampered(index::NAME, ""), Finding::tampered("tile/0/000", ""));
    let (no_index, no_tile) = (Finding::incomplete(index::NAME, ""), Finding::incomplete("tile/0/000", ""));
    let alone = |findings: &[&Finding]| report("", findings.iter().map(|finding| (*finding).clone()).collect()).is_index_alone();
    assert!(alone(&[&index]) && alone(&[&index, &no_tile]) && alone(&[&no_index, &no_tile]));
    assert!(!alone(&[&tile]) && !alone(&[&index, &tile]) && !alone(&[&no_tile, &tile]));
}

#[test]
fn one_line_sums_several_shards_up() {
    let first = Report {
        checkpoints: tally(1, 2),
        bundles: tally(3, 4),
        entries: tally(500, 600),
        gaps: 7,
        witnesses: tally(8, 8),
        anchor: Anchor::Remembered,
        ..report("log.example/2026", Vec::new())
    };
    let last = Report {
        checkpoints: tally(10, 20),
        bundles: tally(30, 40),
        entries: tally(5000, 6000),
        gaps: 70,
        witnesses: tally(1, 2),
        anchor: Anchor::Given,
        ..report("log.example/2027", Vec::new())
    };
    let sums = "checkpoints 11/22 · bundles 33/44 · entries 5500/6600 · gaps 77 · witnesses 1/2 · anchor given · first bad entry: ";
    let line = |findings: Vec<Finding>| summary(&[first.clone(), Report { findings, ..last.clone() }]);
    let finding = Finding::tampered("tile/entries/000", "");
    assert_eq!(line(Vec::new()), format!("{sums}none"));
    assert_eq!(line(vec![finding.clone()]), format!("{sums}unknown (tile/entries/000) of log.example/2027"));
    assert_eq!(line(vec![finding.clone().at(17, None)]), format!("{sums}17 (tile/entries/000) of log.example/2027"));
    assert_eq!(line(vec![finding.at(17, 64)]), format!("{sums}17 (tile/entries/000 byte 64) of log.example/2027"));
    assert_eq!(summary(std::slice::from_ref(&first)), first.to_string());
    assert_eq!(summary(&[]), "");
    // The first years are retired.
    let gone = |year: u16| Report {
        retired: Some(RetiredReport { entry: "2034-6".to_owned(), since_ms: 0 }),
        ..report(&format!("log.example/{year}"), Vec::new())
    };
    assert_eq!(retired(&[gone(2024), gone(2025), gone(2026), last.clone()]).as_deref(), Some("2024–2026"));
    assert_eq!(retired(&[gone(2026), last.clone()]).as_deref(), Some("2026"));
    assert_eq!(retired(&[last]), None);
}
