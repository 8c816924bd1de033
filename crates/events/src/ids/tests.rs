//! Ids against vectors computed by another program, and for any input.

use proptest::prelude::*;

use super::*;

fn task() -> TaskId {
    "01980000-0000-7000-8000-000000000001".parse().unwrap()
}

#[test]
fn event_ids_are_those_that_another_implementation_computes() {
    let check = |name: EventName<'_>, expected: &str| assert_eq!(event_id(task(), name).to_string(), expected, "{name}");
    let claim = ClaimId::of(task(), 0, 1);

    assert_eq!(claim.to_string(), "01980000-0000-8bf7-a0ad-090771c9caeb");
    check(EventName::Trigger { turn: 0 }, "01980000-0000-8860-ad0e-0f7db5719f78");
    check(EventName::Status { sequence: 3 }, "01980000-0000-88c8-9a3e-32dc5488da12");
    check(EventName::Claimed(claim), "01980000-0000-8ef0-b8d3-aa231ff5089c");
    check(EventName::Released(claim), "01980000-0000-8e7c-848d-4e404e37f14c");
    check(EventName::Result, "01980000-0000-883f-b2bc-4791467e177b");
    check(EventName::Handoff { ordinal: 2 }, "01980000-0000-885b-acd8-442d56b3a22b");
    let letter = |replay| EventName::Letter { consumer: "fte-runner", original_id: "abc", replay };
    check(letter(None), "01980000-0000-8fb6-8a8e-759303890c97");
    check(letter(Some("def")), "01980000-0000-81a6-98bb-e8e817ef2faa");
}

#[test]
fn a_bare_event_always_starts_the_same_task() {
    assert_eq!(TaskId::from_source("/shop", "order-1").to_string(), "0ed97baa-78a9-5d34-b96b-cb0a9d30faf3");
    assert_eq!(BARE_EVENT_NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:fte:bare-event"));
    assert_ne!(TaskId::from_source("ab", "c"), TaskId::from_source("a", "bc"));
}

#[test]
fn only_the_hyphenated_form_is_an_id() {
    for text in ["", "01980000000070008000000000000001", "{01980000-0000-7000-8000-000000000001}", "01980000-0000-7000-8000-00000000000g"] {
        assert_eq!(text.parse::<TaskId>(), Err(IdError::NotUuid(text.to_owned())));
        assert!(serde_json::from_value::<TaskId>(text.into()).is_err(), "{text}");
    }
}

#[test]
fn ids_minted_in_a_row_ascend() {
    let ids: Vec<_> = (0..1_000).map(|_| TaskId::now()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn only_a_uuid_v7_knows_when_it_was_minted() {
    assert_eq!(TaskId::from_source("/shop", "1").minted_at(), None);
    let at = Timestamp::from_millisecond(1_782_900_000_123).unwrap();
    assert_eq!(TaskId::mint(at, 9).minted_at(), Some(at));
}

fn any_name() -> impl Strategy<Value = (u8, u64, String, String, Option<String>)> {
    (0..10_u8, any::<u64>(), "[a-z-]{1,12}", "[a-z0-9-]{1,12}", proptest::option::of("[a-z0-9-]{1,12}"))
}

fn name((kind, number, consumer, original_id, replay): &(u8, u64, String, String, Option<String>)) -> EventName<'_> {
    let small = u32::try_from(number & 0xffff_ffff).unwrap();
    let claim = ClaimId::from_uuid(Uuid::from_u128(u128::from(*number)));
    match kind {
        0 => EventName::Trigger { turn: small },
        1 => EventName::Status { sequence: *number },
        2 => EventName::Claimed(claim),
        3 => EventName::Released(claim),
        4 => EventName::ClaimFailed(claim),
        5 => EventName::Result,
        6 => EventName::Handoff { ordinal: small },
        7 => EventName::Action { ordinal: *number },
        8 => EventName::HandoffWithdrawn { ordinal: small },
        _ => EventName::Letter { consumer, original_id, replay: replay.as_deref() },
    }
}

proptest! {
    #[test]
    fn a_minted_id_has_its_time_its_order_and_its_text(early in 0..1_u64 << 47, later in 1..1_u64 << 40, random: u128) {
        let at = |millis: u64| Timestamp::from_millisecond(i64::try_from(millis).unwrap().min(Timestamp::MAX.as_millisecond())).unwrap();
        let id = TaskId::mint(at(early), random);
        prop_assert_eq!(id.as_uuid().get_version_num(), 7);
        prop_assert_eq!(id.minted_at(), Some(at(early)));
        prop_assert!(id < TaskId::mint(at(early + later), 0));
        prop_assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(&json, &format!("\"{id}\""));
        prop_assert_eq!(serde_json::from_str::<TaskId>(&json).unwrap(), id);
    }

    #[test]
    fn an_event_id_is_a_uuid_v8_that_sorts_with_its_task(task: u128, named in any_name()) {
        let task = TaskId::from_uuid(Uuid::from_u128(task));
        let id = event_id(task, name(&named));
        prop_assert_eq!(&id.as_bytes()[..6], &task.as_bytes()[..6]);
        prop_assert_eq!(id.get_version_num(), 8);
        prop_assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        prop_assert_eq!(id, event_id(task, name(&named)));
    }

    #[test]
    fn different_happenings_have_different_ids(task: u128, other_task: u128, a in any_name(), b in any_name()) {
        let (task, other) = (TaskId::from_uuid(Uuid::from_u128(task)), TaskId::from_uuid(Uuid::from_u128(other_task)));
        prop_assert_eq!(name(&a) == name(&b), event_id(task, name(&a)) == event_id(task, name(&b)));
        prop_assert_eq!(task == other, event_id(task, name(&a)) == event_id(other, name(&a)));
    }

    #[test]
    fn an_agents_name_fits_a_topics_name(text in "[a-zA-Z0-9_.é -]{0,45}") {
        let fits = !text.is_empty() && text.len() <= 40 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        prop_assert_eq!(text.parse::<AgentName>().is_ok(), fits);
        prop_assert_eq!(serde_json::from_value::<AgentName>(text.into()).is_ok(), fits);
    }
}
