//! A server that goes away, and connections that break.

use fte_artifacts::{Away, KeepError, ReadError};

use crate::kit::{Kit, Weather};

const ALWAYS: u32 = u32::MAX;

fn content(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

#[tokio::test]
async fn an_upload_is_tried_again_when_its_connection_breaks() {
    // In the head of a request, in one part, and in a later one.
    for (size, after) in [(1000, 10), (1000, 900), (20 << 20, 5 << 20), (20 << 20, 8 << 20)] {
        let (kit, content) = (Kit::s3().await, content(size));
        kit.network.as_ref().unwrap().set(Weather::CutsRequests(after), 2);
        let kept = kit.keep(&content).await.unwrap();
        assert!(kit.whole(kept).await == content);
        assert_eq!(kit.leftovers().len(), 0);
    }
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_error_and_nothing_is_half_there() {
    for (size, weather) in [(1000, Weather::Away), (20 << 20, Weather::CutsRequests(6 << 20))] {
        let (kit, content) = (Kit::s3().await, content(size));
        kit.network.as_ref().unwrap().set(weather, ALWAYS);
        let error = kit.keep(&content).await.unwrap_err();
        assert!(matches!(error, KeepError::Away(Away::Object(_))), "{error:?}");
        assert_eq!((kit.all().len(), kit.leftovers().len()), (0, 0));
        kit.network.as_ref().unwrap().set(Weather::Fine, 0);
        let kept = kit.keep(&content).await.unwrap();
        assert!(kit.whole(kept).await == content, "it heals by itself");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_gone_on_with_or_an_error_and_never_an_end() {
    for times in [1, ALWAYS] {
        let (kit, content) = (Kit::s3().await, content(3 << 20));
        let kept = kit.keep(&content).await.unwrap();
        kit.network.as_ref().unwrap().set(Weather::CutsAnswers(1 << 20), times);
        let (given, outcome) = kit.read(kept, 0..kept.size).await;
        assert!(content.starts_with(&given));
        match outcome {
            Ok(()) => assert_eq!(given.len(), content.len()),
            Err(error) => {
                assert!(matches!(error, ReadError::Away(_)), "{error:?}");
                assert!(given.len() < content.len() && times == ALWAYS, "{times}");
            }
        }
    }
}

#[tokio::test]
async fn who_asks_a_server_that_is_away_hears_so() {
    let kit = Kit::s3().await;
    let kept = kit.keep(b"x").await.unwrap();
    kit.network.as_ref().unwrap().set(Weather::Away, ALWAYS);
    assert!(matches!(kit.store.look(kept.digest, 1).await, Err(ReadError::Away(Away::Object(_)))));
    assert!(kit.store.remove(kept.digest).await.is_err());
    assert!(kit.store.probe().await.is_err());
}
