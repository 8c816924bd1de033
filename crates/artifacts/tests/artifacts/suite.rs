//! What every store promises.

use fte_artifacts::{Away, Digest, EPOCH_SECONDS, KeepError, Kept, ReadError, Removed};

use crate::kit::{BYTES_MAX, Kit};

macro_rules! on_every_store {
    ($($name:ident),+ $(,)?) => {
        mod directory {
            $(#[tokio::test] async fn $name() { super::$name(crate::kit::Kit::directory()).await; })+
        }
        mod s3 {
            $(#[tokio::test] async fn $name() { super::$name(crate::kit::Kit::s3().await).await; })+
        }
    };
}

on_every_store![
    what_was_kept_is_given_back_whole_and_in_parts,
    the_same_content_is_kept_once,
    many_who_keep_the_same_at_once_keep_it_once,
    what_is_too_large_leaves_nothing_behind,
    a_damaged_content_is_never_given_to_its_end,
    a_content_that_is_not_there_is_missing,
    an_old_copy_is_relied_on_no_more_and_can_be_removed,
    of_the_old_copies_of_a_named_content_the_newest_stays,
    what_was_kept_not_long_ago_survives_every_removal,
];

/// Bytes that no part of it can be taken for another.
fn bytes(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(size as u64);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

async fn what_was_kept_is_given_back_whole_and_in_parts(kit: Kit) {
    // Around a chunk, and more than a part of an upload.
    for size in [0, 1, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, (8 << 20) + 1, 20 << 20] {
        let content = bytes(size);
        let kept = kit.keep(&content).await.unwrap();
        assert_eq!((kept.size, kept.digest.to_string()), (size as u64, fte_events::sha256_hex(&content)));
        kit.store.look(kept.digest, kept.size).await.unwrap();
        assert!(kit.whole(kept).await == content, "{size}");
        for part in [0..1, 0..kept.size / 2, kept.size / 2..kept.size, kept.size.saturating_sub(1)..kept.size] {
            let part = part.start.min(kept.size)..part.end.min(kept.size);
            let (given, outcome) = kit.read(kept, part.clone()).await;
            outcome.unwrap();
            assert!(given == content[usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap()], "{size} {part:?}");
        }
    }
    assert_eq!(kit.leftovers().len(), 0);
}

async fn the_same_content_is_kept_once(kit: Kit) {
    let kept = kit.keep(b"the same").await.unwrap();
    let file = || std::fs::metadata(&kit.copies(kept.digest)[0]).unwrap();
    let before = std::os::unix::fs::MetadataExt::ino(&file());
    for _ in 0..3 {
        assert_eq!(kit.keep(b"the same").await.unwrap(), kept);
    }
    kit.epochs_pass(1);
    kit.keep(b"the same").await.unwrap();
    assert_eq!((kit.all().len(), std::os::unix::fs::MetadataExt::ino(&file())), (1, before), "it was not written again");
}

async fn many_who_keep_the_same_at_once_keep_it_once(kit: Kit) {
    let keeping = (0..8).map(|_| kit.keep(b"crowd"));
    let kept: Vec<Kept> = futures_util::future::try_join_all(keeping).await.unwrap();
    assert_eq!(kit.all().len(), 1);
    assert_eq!(kit.whole(kept[0]).await, b"crowd");
}

async fn what_is_too_large_leaves_nothing_behind(kit: Kit) {
    let endless = std::io::Read::take(std::io::repeat(7), BYTES_MAX + 1);
    let error = kit.store.keep(endless, BYTES_MAX).await.unwrap_err();
    assert!(matches!(error, KeepError::TooLarge { bytes_max: BYTES_MAX }), "{error}");
    assert_eq!((kit.all().len(), kit.leftovers().len()), (0, 0));
}

async fn a_damaged_content_is_never_given_to_its_end(kit: Kit) {
    let content = bytes(400 << 10);
    let damages: [fn(&mut Vec<u8>); 5] =
        [|bytes| bytes[0] ^= 1, |bytes| *bytes.last_mut().unwrap() ^= 1, |bytes| bytes.truncate(100), |bytes| bytes.push(0), Vec::clear];
    for damage in damages {
        let kept = kit.keep(&content).await.unwrap();
        let file = &kit.copies(kept.digest)[0];
        let mut damaged = content.clone();
        damage(&mut damaged);
        std::fs::write(file, &damaged).unwrap();
        for part in [0..kept.size, 0..1, kept.size - 1..kept.size] {
            let (given, outcome) = kit.read(kept, part.clone()).await;
            assert!(matches!(outcome, Err(ReadError::Corrupt { .. })), "{outcome:?}");
            assert!((given.len() as u64) < part.end - part.start, "{part:?}");
        }
        std::fs::remove_file(file).unwrap();
    }
}

async fn a_content_that_is_not_there_is_missing(kit: Kit) {
    let kept = kit.keep(b"there").await.unwrap();
    let other = Digest::new([7; 32]);
    assert!(matches!(kit.store.look(other, 5).await, Err(ReadError::Missing { digest }) if digest == other));
    std::fs::remove_file(&kit.copies(kept.digest)[0]).unwrap();
    assert!(matches!(kit.read(kept, 0..5).await.1, Err(ReadError::Missing { .. })));
    assert_eq!(kit.store.remove(kept.digest).await.unwrap(), Removed::All);
}

async fn an_old_copy_is_relied_on_no_more_and_can_be_removed(kit: Kit) {
    let kept = kit.keep(b"old").await.unwrap();
    for _ in 0..3 {
        assert_eq!(kit.store.remove(kept.digest).await.unwrap(), Removed::TooYoung);
        kit.epochs_pass(1);
    }
    assert_eq!(kit.keep(b"old").await.unwrap(), kept);
    assert_eq!(kit.copies(kept.digest).len(), 2, "whoever keeps it now relies on a copy of its own");
    assert_eq!(kit.store.remove(kept.digest).await.unwrap(), Removed::TooYoung);
    assert_eq!((kit.copies(kept.digest).len(), kit.whole(kept).await.as_slice()), (1, b"old".as_slice()));
    kit.epochs_pass(3);
    assert_eq!(kit.store.remove(kept.digest).await.unwrap(), Removed::All);
    assert_eq!(kit.all().len(), 0);
}

async fn of_the_old_copies_of_a_named_content_the_newest_stays(kit: Kit) {
    let kept = kit.keep(b"named").await.unwrap();
    for copies in 1..4 {
        assert_eq!(kit.copies(kept.digest).len(), copies);
        kit.epochs_pass(2);
        kit.keep(b"named").await.unwrap();
    }
    kit.epochs_pass(50);
    kit.store.trim(kept.digest).await.unwrap();
    assert_eq!((kit.copies(kept.digest).len(), kit.whole(kept).await.as_slice()), (1, b"named".as_slice()));
}

/// Schedules by seed: contents are kept and removed in any order and at any distance. Whoever kept one less than an epoch ago finds it.
async fn what_was_kept_not_long_ago_survives_every_removal(kit: Kit) {
    for seed in 0..if kit.network.is_some() { 4 } else { 40 } {
        let mut random = fastrand::Rng::with_seed(seed);
        let contents = [format!("a{seed}"), format!("b{seed}")];
        let mut relied: [Option<(u64, Kept)>; 2] = [None, None];
        for _ in 0..60 {
            let place = random.usize(..2);
            let now = kit.seconds_pass(random.u64(..EPOCH_SECONDS / 2));
            match random.u8(..4) {
                0 | 1 => relied[place] = Some((now, kit.keep(contents[place].as_bytes()).await.unwrap())),
                other => {
                    let Some((at, kept)) = relied[place] else { continue };
                    match other {
                        2 => assert_eq!(kit.store.remove(kept.digest).await.unwrap() == Removed::All, kit.copies(kept.digest).is_empty()),
                        _ => kit.store.trim(kept.digest).await.unwrap(),
                    }
                    if now - at <= EPOCH_SECONDS {
                        assert_eq!(kit.whole(kept).await, contents[place].as_bytes(), "seed {seed}");
                    } else if kit.copies(kept.digest).is_empty() {
                        relied[place] = None;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_content_from_before_copies_had_epochs_is_read_and_removed() {
    let kit = Kit::directory();
    let kept = kit.keep(b"before").await.unwrap();
    let now = kit.copies(kept.digest).remove(0);
    let plain = now.with_file_name(kept.digest.to_string());
    std::fs::rename(&now, &plain).unwrap();
    assert_eq!(kit.whole(kept).await, b"before");
    kit.keep(b"before").await.unwrap();
    assert_eq!(kit.copies(kept.digest), [plain, now]);
    assert_eq!(kit.store.remove(kept.digest).await.unwrap(), Removed::TooYoung);
    assert_eq!(kit.copies(kept.digest).len(), 1);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_away_and_not_made_by_readers() {
    let kit = Kit::directory();
    let outcome = kit.store.look(Digest::new([1; 32]), 1).await;
    assert!(matches!(outcome, Err(ReadError::Away(Away::Directory { .. }))), "{outcome:?}");
    assert!(!kit.root.exists());
    kit.store.probe().await.unwrap();
    assert!(matches!(kit.store.look(Digest::new([1; 32]), 1).await, Err(ReadError::Missing { .. })));
}

#[tokio::test]
async fn a_directory_that_refuses_keeps_nothing_and_says_so() {
    let kit = Kit::directory();
    kit.store.probe().await.unwrap();
    std::fs::write(kit.root.join("sha256"), "in the way").unwrap();
    let error = kit.keep(b"x").await.unwrap_err();
    assert!(matches!(error, KeepError::Away(_) | KeepError::Local(_)), "{error:?}");
    assert_eq!(kit.leftovers().len(), 0);
}

#[tokio::test]
async fn a_sweep_takes_what_a_killed_process_left() {
    let kit = Kit::directory();
    let kept = kit.keep(b"whole").await.unwrap();
    std::fs::write(kit.root.join("tmp/half"), "left").unwrap();
    kit.store.sweep().unwrap();
    assert_eq!((kit.leftovers().len(), kit.whole(kept).await.as_slice()), (0, b"whole".as_slice()));
    kit.store.sweep().unwrap();
}

/// Tells the second process of this test from the first.
const WITHOUT_ROOM: &str = "FTE_TEST_ARTIFACTS_WITHOUT_ROOM";

/// This test runs itself in a second process, whose files may not grow for a while: what a full disk is to a file.
#[tokio::test]
async fn a_directory_without_room_keeps_nothing_and_heals_by_itself() {
    use fte_service::Env as _;
    if fte_service::ProcessEnv.get(WITHOUT_ROOM).is_none() {
        let mut again = std::process::Command::new("sh");
        again.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
        again.args(["--exact", "suite::a_directory_without_room_keeps_nothing_and_heals_by_itself"]);
        let ran = again.env(WITHOUT_ROOM, "yes").output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"));
        return;
    }
    let (kit, content) = (Kit::directory(), bytes(300 << 10));
    let room = |bytes: Option<u64>| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        rustix::process::setrlimit(rustix::process::Resource::Fsize, rustix::process::Rlimit { current: bytes, ..limit }).unwrap();
    };
    room(Some(200 << 10));
    let error = kit.keep(&content).await.unwrap_err();
    assert!(matches!(error, KeepError::Local(_)), "{error:?}");
    assert_eq!((kit.all().len(), kit.leftovers().len()), (0, 0));
    room(None);
    let kept = kit.keep(&content).await.unwrap();
    assert!(kit.whole(kept).await == content);
}
