//! Who may have what erased.

use super::*;
use crate::service::desk::tests::{World, seal};

async fn erased(desk: &Desk, caller: Caller, reference: &str) -> Result<u64, Problem> {
    let whose = Query(Whose { tenant: None });
    erase(State(desk.clone()), caller, Path(reference.to_owned()), whose).await.map(|erasure| erasure.0.keys)
}

#[tokio::test]
async fn a_tenant_s_administrator_erases_no_key_by_its_name_since_keys_do_not_say_whose_they_are() {
    let world = World::new().await;
    let desk = world.desk();
    let key = seal(&desk, 1).unwrap();
    let of_acme = Caller::of_key("root".to_owned(), Some("acme".to_owned()));
    let refused = erased(&desk, of_acme, &format!("key:{key}")).await.unwrap_err();
    assert_eq!((refused.status, refused.code), (StatusCode::FORBIDDEN, "tenant_foreign"));
    assert_eq!(erased(&desk, Caller::anonymous(), &format!("key:{key}")).await.unwrap(), 1, "it was still there");
}

#[tokio::test]
async fn a_key_that_there_is_not_is_not_found_and_not_to_be_tried_again() {
    let world = World::new().await;
    let refused = erased(&world.desk(), Caller::anonymous(), "key:999-0a1b2c3d").await.unwrap_err();
    assert_eq!((refused.status, refused.code), (StatusCode::NOT_FOUND, "key_unknown"));
}
