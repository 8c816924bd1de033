//! The rules of the fold, one by one. That any order converges is tested through the store, with real events.

use super::*;

fn said(row: i64) -> Said {
    Said { row, at_us: Some(row * 1_000), mark: row }
}

fn moved(status: Status, sequence: u64, attempt: u32) -> Step {
    Step { status, sequence, attempt, stage: None, progress_pct: None, agent: None, has_request: false }
}

fn step(status: Status, sequence: u64, attempt: u32) -> Change {
    Change::Moved(moved(status, sequence, attempt))
}

fn claim(number: u128, half: Half) -> Change {
    Change::Claim { claim: ClaimId::from_uuid(uuid::Uuid::from_u128(number)), half }
}

fn folded(changes: &[Change]) -> TaskRecord {
    let mut record = TaskRecord::default();
    for (row, change) in changes.iter().enumerate() {
        record.fold(change, said(i64::try_from(row).unwrap() + 1));
    }
    record
}

#[test]
fn the_highest_sequence_gives_the_status() {
    let record = folded(&[step(Status::Running, 2, 1), step(Status::Queued, 1, 1)]);
    assert_eq!(record.status(), Status::Running);
}

#[test]
fn a_terminal_status_is_final() {
    let record = folded(&[step(Status::Cancelled, 2, 1), step(Status::Running, 3, 1), step(Status::Completed, 4, 1)]);
    assert_eq!(record.status(), Status::Cancelled);
}

#[test]
fn a_result_that_overtakes_the_steps_is_final() {
    let ended = Change::Ended { status: Status::Failed, attempt: 2, agent: "writer".into() };
    let record = folded(&[ended, step(Status::Running, 1, 1)]);
    assert_eq!((record.status(), record.attempt, record.agent()), (Status::Failed, 2, Some("writer")));
}

#[test]
fn stage_and_progress_last_through_steps_that_do_not_say_them_but_not_into_the_next_try() {
    let drafting = Change::Moved(Step {
        status: Status::Running,
        sequence: 1,
        attempt: 1,
        stage: Some("draft".into()),
        progress_pct: Some(40),
        agent: None,
        has_request: false,
    });
    let record = folded(&[drafting.clone(), step(Status::AwaitingApproval, 2, 1)]);
    assert_eq!((record.stage(), record.progress_pct()), (Some("draft"), Some(40)));
    let record = folded(&[drafting, step(Status::Queued, 2, 2)]);
    assert_eq!((record.stage(), record.progress_pct()), (None, None));
}

#[test]
fn the_requested_agent_gives_way_to_the_one_that_works() {
    let requested = Change::Requested { agent: Some("default".into()) };
    let taken = Change::Moved(Step {
        status: Status::Running,
        sequence: 1,
        attempt: 1,
        stage: None,
        progress_pct: None,
        agent: Some("writer".into()),
        has_request: false,
    });
    assert_eq!(folded(&[requested.clone(), taken.clone()]).agent(), Some("writer"));
    assert_eq!(folded(&[taken, requested]).agent(), Some("writer"));
}

#[test]
fn a_request_in_the_first_step_counts_unless_there_is_one_before() {
    let first = Change::Moved(Step { has_request: true, ..moved(Status::Running, 1, 1) });
    let later = step(Status::Completed, 2, 1);
    assert_eq!(folded(&[first.clone(), later.clone()]).request.map(|request| request.row), Some(1));
    assert_eq!(folded(&[later, first.clone()]).request.map(|request| request.row), Some(2));
    assert_eq!(folded(&[Change::Requested { agent: None }, first]).request.map(|request| request.row), Some(1));
}

#[test]
fn a_task_is_complete_only_with_every_step_and_both_halves_of_each_claim() {
    let ended = Change::Ended { status: Status::Completed, attempt: 1, agent: "echo".into() };
    let all = [step(Status::Running, 1, 1), step(Status::Completed, 2, 1), ended, claim(1, Half::Claimed), claim(1, Half::Ended)];
    assert!(folded(&all).is_complete());
    for missing in 0..all.len() {
        let mut some = all.to_vec();
        some.remove(missing);
        assert!(!folded(&some).is_complete(), "complete without {:?}", all[missing]);
    }
    let mut reversed = all.to_vec();
    reversed.reverse();
    assert!(folded(&reversed).is_complete());
}

#[test]
fn a_task_refused_before_it_ran_is_complete_without_a_claim() {
    let ended = Change::Ended { status: Status::Rejected, attempt: 1, agent: "echo".into() };
    assert!(folded(&[step(Status::AwaitingApproval, 1, 1), step(Status::Rejected, 2, 1), ended]).is_complete());
}

#[test]
fn a_record_survives_its_stored_form() {
    let ended = Change::Ended { status: Status::Completed, attempt: 1, agent: "echo".into() };
    let record = folded(&[
        Change::Requested { agent: Some("echo".into()) },
        Change::Moved(Step {
            status: Status::Running,
            sequence: 1,
            attempt: 1,
            stage: Some("a \"stage\"".into()),
            progress_pct: Some(1),
            agent: None,
            has_request: true,
        }),
        claim(1, Half::Claimed),
        ended,
    ]);
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<TaskRecord>(&text).unwrap(), record);
}
