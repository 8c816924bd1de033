//! The operator's steps, each of them cut off anywhere, and starts in between.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::engine::{Engine, EngineOptions};
use crate::log::Log;

/// What the service does with the keys that are there; gives the newest checkpoint once `enough` of them have signed it.
async fn start(places: &Places, enough: usize) -> Result<SignedNote, String> {
    let place = KeyPlace::File(places.key.clone());
    let next = Some(KeyPlace::File(places.next.clone())).filter(|_| places.next.exists());
    let given = given(&place, next, None, &places.directory).map_err(|error| fte_service::chain(&error))?;
    run(places, given, enough).await
}

async fn run(places: &Places, Given { present, next, former }: Given, enough: usize) -> Result<SignedNote, String> {
    let options = EngineOptions { next_key: next.map(Arc::new), former, ..EngineOptions::at(&places.directory, Arc::new(present)) };
    let log = Engine::open(options).map_err(|error| fte_service::chain(&error))?;
    let record = fte_bus::Record { topic: "t".into(), body: "x".into(), partition: None, offset: None, key: None };
    log.append(vec![crate::entry::NewEntry::read(record)]).await.map_err(|error| fte_service::chain(&error))?;
    loop {
        if let Some(published) = log.checkpoint(None).await.unwrap() {
            let note = SignedNote::parse(published.note.as_bytes()).unwrap();
            if note.signatures().len() == enough {
                return Ok(note);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What whoever checks the directory takes for the log's key.
fn public_of(places: &Places) -> VerifierKey {
    fs::read_to_string(public::path_in(&places.directory)).unwrap().trim().parse().unwrap()
}

fn files(places: &Places) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(places.directory.join("keys")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_key_is_changed_step_by_step_and_each_step_may_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places::at(directory.path());
    assert!(matches!(begin(&places), Err(RotationError::NothingSigned { .. })));
    fs::remove_dir_all(directory.path().join("state")).unwrap();
    start(&places, 1).await.unwrap();
    let old = read_key(&places.key).unwrap().unwrap().verifier();
    assert!(matches!(finish(&places), Err(RotationError::NothingBegun { .. })));

    let begun = begin(&places).unwrap();
    assert!(!begun.is_old && begun.next.name() == old.name() && begun.next != old);
    assert_eq!(fs::metadata(&places.next).unwrap().permissions().mode() & 0o777, 0o600);
    let again = begin(&places).unwrap();
    assert!(again.is_old && again.next == begun.next);
    // The log has not said it yet.
    assert!(matches!(finish(&places), Err(RotationError::NotYet { .. })));
    assert_eq!(files(&places), ["log.key", "log.next.key", "log.next.pub", "log.pub"]);

    let both = start(&places, 2).await.unwrap();
    assert!(has_signed(&both, &old) && has_signed(&both, &begun.next));
    assert!(begin(&places).unwrap().is_old);
    let finished = finish(&places).unwrap();
    assert_eq!((finished.present, finished.former), (begun.next.clone(), Some(old.clone())));
    assert_eq!(files(&places), ["former.pub", "log.key", "log.pub"]);
    let finished = finish(&places).unwrap();
    assert_eq!((finished.present, finished.former), (begun.next.clone(), None));
    let one = start(&places, 1).await.unwrap();
    assert!(has_signed(&one, &begun.next) && !has_signed(&one, &old));
    assert_eq!(finish(&places).unwrap().former, None);

    // And once more.
    let third = begin(&places).unwrap().next;
    start(&places, 2).await.unwrap();
    assert_eq!(finish(&places).unwrap().former, Some(begun.next.clone()));
    assert!(has_signed(&start(&places, 1).await.unwrap(), &third));
    assert_eq!(fs::read_to_string(places.directory.join("keys/former.pub")).unwrap(), format!("{old}\n{}\n", begun.next));
}

#[tokio::test]
async fn a_change_that_is_cut_off_anywhere_starts_and_is_finished_by_doing_it_again() {
    for cut in ["before former.pub", "before the rename", "before log.pub", "before log.next.pub goes"] {
        for starts_between in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let places = Places::at(directory.path());
            start(&places, 1).await.unwrap();
            let old = read_key(&places.key).unwrap().unwrap().verifier();
            let next = begin(&places).unwrap().next;
            start(&places, 2).await.unwrap();
            let steps = ["before former.pub", "before the rename", "before log.pub", "before log.next.pub goes"];
            let done = steps.iter().position(|step| *step == cut).unwrap();
            if done > 0 {
                remember(&places.directory, &old).unwrap();
            }
            if done > 1 {
                fs::rename(&places.next, &places.key).unwrap();
            }
            if done > 2 {
                public::write(&public::path_in(&places.directory), &next).unwrap();
            }
            if starts_between {
                start(&places, if done > 1 { 1 } else { 2 }).await.unwrap();
            }
            assert_eq!(finish(&places).unwrap().present, next, "{cut}");
            assert_eq!(files(&places), ["former.pub", "log.key", "log.pub"], "{cut}");
            assert_eq!(public_of(&places), next, "{cut}");
            assert!(has_signed(&start(&places, 1).await.unwrap(), &next), "{cut}");
        }
    }
}

#[tokio::test]
async fn lost_keys_are_replaced_where_the_log_can_show_who_may() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places::at(directory.path());
    start(&places, 1).await.unwrap();
    // The next one, before it took over.
    let lost = begin(&places).unwrap().next;
    start(&places, 2).await.unwrap();
    fs::remove_file(&places.next).unwrap();
    assert!(start(&places, 1).await.unwrap_err().contains("has announced the key that follows"));
    let next = begin(&places).unwrap().next;
    assert!(next != lost);
    // The present one, while its successor is there and both have signed.
    start(&places, 2).await.unwrap();
    fs::remove_file(&places.key).unwrap();
    assert!(start(&places, 1).await.unwrap_err().contains("is gone, and the log was signed with it"));
    assert_eq!(finish(&places).unwrap().present, next);
    start(&places, 1).await.unwrap();
}

/// A key that somebody else keeps is handed over by configuration alone: the first start with it is what changes `log.pub`.
#[tokio::test]
async fn a_key_that_is_given_has_its_public_half_beside_the_log_before_it_signs_and_a_wrong_one_never() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places::at(directory.path());
    start(&places, 1).await.unwrap();
    let old = public_of(&places);
    let key = places.directory.join("keys/log.key");
    let text = KeyPlace::Text(fs::read_to_string(&key).unwrap());
    fs::remove_file(&key).unwrap();
    let given = |present: &KeyPlace, next| given(present, next, None, &places.directory).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let away = Places { next: elsewhere.path().join("next.key"), ..places.clone() };
    let next = begin(&away).unwrap().next;
    let next_text = KeyPlace::Text(fs::read_to_string(&away.next).unwrap());
    // Too early: the log refuses it, and what is there verifies as before.
    given(&next_text, None);
    assert_eq!(public_of(&places), old);

    run(&places, given(&text, Some(next_text.clone())), 2).await.unwrap();
    assert_eq!((public_of(&places), read_former(&places.directory).unwrap()), (old.clone(), vec![old.clone()]));
    // A crash before the log is opened, and so before the new one signs alone, has both.
    let taken_over = given(&next_text, None);
    assert_eq!((public_of(&places), read_former(&places.directory).unwrap()), (next.clone(), vec![old.clone()]));
    run(&places, taken_over, 1).await.unwrap();
    // The former one again, by mistake.
    let refused = run(&places, given(&text, None), 1).await.unwrap_err();
    assert!(refused.contains("was signed by another key"), "{refused}");
    assert_eq!(public_of(&places), next);
    // One that was lost, or is of another.
    fs::remove_file(public::path_in(&places.directory)).unwrap();
    given(&next_text, None);
    assert_eq!(public_of(&places), next);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_no_reason_not_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places::at(directory.path());
    start(&places, 1).await.unwrap();
    let own = public::path_in(&places.directory);
    fs::remove_file(&own).unwrap();
    // Whoever may write everything, too, cannot put a file in the place of a directory.
    fs::create_dir(&own).unwrap();
    start(&places, 1).await.unwrap();
}

#[test]
fn a_log_that_runs_keeps_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places::at(directory.path());
    let _running = Stopped::lock(&places.directory).unwrap();
    for error in [begin(&places).err().unwrap(), finish(&places).err().unwrap()] {
        assert!(fte_service::chain(&error).contains("only one may write the log"), "{error}");
    }
}
