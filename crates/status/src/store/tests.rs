//! The store's promises: it converges, lists what there is, and what is removed is what is old. This file is two modules: on SQLite, and on PostgreSQL.

use fte_bus::Delivery;
use fte_events::{ResultKind, Status, TENANT, TaskId};
use fte_service::keys::Scope;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::tenant::Tenant;
use crate::test_support::{History, delivery, fresh, incoming, on_server};
use crate::view::TaskView;

const ON_SERVER: bool = on_server(module_path!());

/// All that can be seen of the store: its tasks, newest first, whether each is complete, and its events by id.
pub(super) async fn seen(store: &Store) -> Vec<(Value, bool, Vec<String>)> {
    let mut seen = Vec::new();
    for row in store.tasks(ListQuery { limit: 1000, ..ListQuery::default() }).await.unwrap().rows {
        let whole = store.task(row.id, Scope::One(row.tenant.as_ref().into())).await.unwrap().unwrap();
        let (id, tenant, complete) = (whole.id, whole.tenant.clone(), whole.record.is_complete());
        let mut ids: Vec<_> = events_under(store, id, tenant).await;
        ids.sort();
        seen.push((serde_json::to_value(TaskView::new(whole)).unwrap(), complete, ids));
    }
    seen
}

pub(super) async fn events(store: &Store, task: TaskId) -> Vec<String> {
    events_under(store, task, TENANT.into()).await
}

async fn events_under(store: &Store, task: TaskId, tenant: Tenant) -> Vec<String> {
    store.events_of(task, tenant, 0, 1000, BYTES_MAX).await.unwrap().events.into_iter().map(|event| event.id.to_string()).collect()
}

/// Some tasks with tries, parkings and every kind of end, some without one.
fn histories(seed: u64) -> Vec<History> {
    let mut random = fastrand::Rng::with_seed(seed);
    let tasks = random.usize(1..4);
    let mut histories: Vec<_> = (0..tasks).map(|number| history(&mut random, number as i64)).collect();
    if random.bool() {
        // Somebody else speaks of the same task.
        let of_others = History::of(histories[0].task).of_tenant("acme");
        histories.push(of_others.requested("say goodbye").claimed().step(Status::Running).ended(ResultKind::Failed).said_elsewhere());
    }
    histories
}

fn history(random: &mut fastrand::Rng, number: i64) -> History {
    let minted = Timestamp::from_millisecond(1_782_900_000_000 + number).unwrap();
    let mut history = History::of(TaskId::mint(minted, random.u128(..)));
    if random.u8(..8) > 0 {
        history = history.requested("say hello");
    }
    if random.u8(..8) == 0 {
        return history.ended(ResultKind::Rejected);
    }
    for _ in 0..random.usize(..2) {
        history = history.step(Status::Queued).claimed().step(Status::Running).failed_try();
    }
    history = history.claimed().step(Status::Running);
    for pct in 0..random.u8(..4) {
        history = history.step_with(Status::Running, |change| {
            change.stage = (pct % 2 == 0).then(|| format!("stage {pct}"));
            change.progress_pct = Some(pct);
            change.agent = (pct == 1).then(|| "writer".to_owned());
            change.message = Some(format!("at {pct}"));
        });
    }
    if random.bool() {
        history = history.parked();
    }
    match random.u8(..8) {
        0 => history,
        1 => history.taken_over(),
        kind => history.ended(ResultKind::ALL[usize::from(kind - 2)]),
    }
}

async fn taken(batches: impl IntoIterator<Item = Vec<Delivery>>) -> Vec<(Value, bool, Vec<String>)> {
    let (_dir, store) = fresh(ON_SERVER).await;
    for batch in batches {
        store.record(incoming(batch)).await.unwrap();
    }
    seen(&store).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if ON_SERVER { 24 } else { 96 }, ..ProptestConfig::default() })]

    /// Late, doubled and crosswise deliveries, in any batches, add up to the same tasks.
    #[test]
    fn any_order_of_the_same_events_makes_the_same_tasks(
        (seed, order, doubled, cut) in (any::<u64>(), any::<u64>(), 0_usize..8, 1_usize..12)
    ) {
        let in_order: Vec<Delivery> = histories(seed).into_iter().flat_map(|history| history.events).collect();
        let mut random = fastrand::Rng::with_seed(order);
        let mut shuffled = in_order.clone();
        for _ in 0..doubled {
            shuffled.push(in_order[random.usize(..in_order.len())].clone());
        }
        random.shuffle(&mut shuffled);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let expected = taken([in_order.clone()]).await;
            let found = taken(shuffled.chunks(cut).map(<[_]>::to_vec)).await;
            assert_eq!(found, expected);
        });
    }
}

#[tokio::test]
async fn an_event_delivered_twice_at_once_is_there_once() {
    let (_dir, store) = fresh(ON_SERVER).await;
    let history = History::whole(TaskId::now());
    let at_once = (0..16).map(|_| store.record(incoming(history.events.clone())));
    for outcome in futures_util::future::join_all(at_once).await {
        outcome.unwrap();
    }
    assert_eq!(events(&store, history.task).await, history.ids());
    assert!(store.task(history.task, Scope::All).await.unwrap().unwrap().record.is_complete());
}

#[tokio::test]
async fn the_same_task_of_two_tenants_is_two_tasks_that_know_nothing_of_each_other() {
    let (_dir, store) = fresh(ON_SERVER).await;
    let task = TaskId::now();
    let ours = History::of(task).of_tenant("ours").requested("say hello");
    let theirs = History::of(task).of_tenant("theirs").step(Status::Running).said_elsewhere();
    store.record(incoming(theirs.events.clone())).await.unwrap();
    store.record(incoming(ours.events.clone())).await.unwrap();
    for (scope, tenant, status) in [
        (Scope::One("ours".into()), "ours", Status::Accepted),
        (Scope::One("theirs".into()), "theirs", Status::Running),
        // Who sees both is shown what was asked for.
        (Scope::All, "ours", Status::Accepted),
    ] {
        let row = store.task(task, scope).await.unwrap().unwrap();
        assert_eq!((&*row.tenant, row.record.status()), (tenant, status));
    }
    assert!(store.task(task, Scope::One("third".into())).await.unwrap().is_none());
    assert_eq!(events_under(&store, task, "ours".into()).await, ours.ids());
    assert_eq!(events_under(&store, task, "theirs".into()).await, theirs.ids());
}

#[tokio::test]
async fn events_without_a_task_are_kept_and_make_no_task() {
    let (_dir, store) = fresh(ON_SERVER).await;
    let event = br#"{"id":"1","source":"/shop","type":"fte.invented.later","subject":"no task"}"#;
    for _ in 0..2 {
        store.record(incoming([delivery("fte.status.updates", bytes::Bytes::from_static(event))])).await.unwrap();
    }
    assert_eq!(seen(&store).await.len(), 0);
    assert!(store.row_of(None, Scope::All, crate::reading::EventId::Text("1".into())).await.unwrap().is_some());
}

mod lists {
    use super::*;

    #[tokio::test]
    async fn pages_of_any_size_and_filter_show_each_task_once_newest_first() {
        let (_dir, store) = fresh(ON_SERVER).await;
        let mut all = Vec::new();
        for number in 0..60_u32 {
            // Some are asked for at the same time.
            let minted = Timestamp::from_millisecond(1_782_900_000_000 + i64::from(number / 4)).unwrap();
            let tenant = ["default", "acme", "zeta"][number as usize % 5 % 3];
            let history = History::of(TaskId::mint(minted, u128::from(number) << 32)).of_tenant(tenant).requested("say hello");
            let history = match number % 3 {
                0 => history,
                1 => history.claimed().step(Status::Running),
                _ => history.ended(ResultKind::Failed),
            };
            all.push((minted, history.task, number % 3));
            store.record(incoming(history.events)).await.unwrap();
        }
        all.sort_by_key(|task| std::cmp::Reverse((task.0, task.1)));
        for (scope, status, agent, since) in [
            (Scope::All, None, None, None),
            (Scope::All, Some(Status::Running), None, None),
            (Scope::One("acme".into()), None, None, None),
            (Scope::One("default".into()), Some(Status::Failed), Some("demo"), None),
            (Scope::One("zeta".into()), None, Some("writer"), None),
            (Scope::One("nobody".into()), None, None, None),
            (Scope::All, None, Some("writer"), Some(1_782_900_000_005_000)),
            (Scope::All, Some(Status::Failed), Some("demo"), None),
            (Scope::All, None, Some("nobody"), None),
        ] {
            let expected: Vec<TaskId> = {
                let rows = store.tasks(ListQuery { limit: 1000, ..ListQuery::default() }).await.unwrap().rows;
                assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), all.iter().map(|task| task.1).collect::<Vec<_>>());
                let fits = |row: &TaskRow| {
                    scope.sees(&row.tenant)
                        && status.is_none_or(|status| row.record.status() == status)
                        && agent.is_none_or(|agent| row.record.agent() == Some(agent))
                        && since.is_none_or(|since| row.record.created_us(row.id) >= since)
                };
                rows.iter().filter(|row| fits(row)).map(|row| row.id).collect()
            };
            for limit in [1, 7, 1000] {
                let (mut found, mut before) = (Vec::new(), None);
                loop {
                    let query = ListQuery { scope: scope.clone(), status, agent: agent.map(str::to_owned), since_us: since, before, limit };
                    let page = store.tasks(query).await.unwrap();
                    assert!(page.rows.len() <= limit);
                    found.extend(page.rows.iter().map(|row| row.id));
                    let Some(next) = page.next else { break };
                    before = Some(next);
                }
                assert_eq!(found, expected, "{status:?} {agent:?} {since:?} by {limit}");
            }
        }
    }

    #[tokio::test]
    async fn a_page_is_bounded_in_bytes_and_goes_on() {
        let (_dir, store) = fresh(ON_SERVER).await;
        for _ in 0..40 {
            let history = History::of(TaskId::now()).requested(&"x".repeat(100_000));
            store.record(incoming(history.events)).await.unwrap();
        }
        let page = store.tasks(ListQuery { limit: 1000, ..ListQuery::default() }).await.unwrap();
        assert!(page.rows.len() < 15, "{}", page.rows.len());
        let rest = store.tasks(ListQuery { limit: 1000, before: page.next, ..ListQuery::default() }).await.unwrap();
        assert!(!rest.rows.is_empty());
    }
}

mod sweeps {
    use super::*;

    async fn sweep(store: &Store, cutoff: Timestamp) -> usize {
        let (mut step, mut steps) = (Sweep::start(), 0);
        while step != Sweep::Finished {
            let swept = store.sweep(step, Cutoff::at(cutoff, std::time::Duration::ZERO)).await.unwrap();
            assert!(swept.events <= 500 && swept.tasks <= 64, "{swept:?}");
            step = swept.next;
            steps += 1;
        }
        steps
    }

    #[tokio::test]
    async fn only_what_ended_before_the_cutoff_is_removed_whole_in_small_steps() {
        let (_dir, store) = fresh(ON_SERVER).await;
        let at = |day: i64, number: u128| TaskId::mint(Timestamp::from_second(1_700_000_000 + day * 86_400).unwrap(), number << 40);
        let mut old = History::of(at(0, 0)).requested("long").claimed();
        for pct in 0..100 {
            for _ in 0..13 {
                old = old.step_with(Status::Running, |change| change.progress_pct = Some(pct));
            }
        }
        let old_ended = old.ended(ResultKind::Completed);
        let unfinished = History::of(at(0, 1)).requested("still").claimed().step(Status::Running);
        let recent = History::whole(at(10, 2));
        store.record(incoming(old_ended.events.clone())).await.unwrap();
        store.record(incoming(unfinished.events.clone())).await.unwrap();
        store.record(incoming(recent.events.clone())).await.unwrap();
        for number in 3..150 {
            store.record(incoming(History::of(at(1, number)).requested("x").ended(ResultKind::Failed).events)).await.unwrap();
        }

        sweep(&store, Timestamp::from_second(1_700_000_000 + 5 * 86_400).unwrap()).await;
        let left = seen(&store).await;
        let ids: Vec<_> = left.iter().map(|task| task.0["task_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, [recent.task.to_string(), unfinished.task.to_string()]);
        assert!(events(&store, old_ended.task).await.is_empty());
        assert_eq!(events(&store, recent.task).await, recent.ids());
    }

    #[tokio::test]
    async fn letters_and_events_of_no_task_go_by_when_they_came() {
        let (_dir, store) = fresh(ON_SERVER).await;
        let letter = NewLetter {
            task: None,
            id: "l".into(),
            tenant: TENANT.into(),
            topic: "fte.deadletter.runner".into(),
            record: bytes::Bytes::from_static(b"x"),
        };
        assert_eq!(store.record_letters(vec![letter.clone(), letter]).await.unwrap(), 1);
        let event = br#"{"id":"1","source":"/shop","type":"fte.invented.later"}"#;
        store.record(incoming([delivery("fte.status.updates", bytes::Bytes::from_static(event))])).await.unwrap();
        let unfinished = History::of(TaskId::now()).requested("x");
        store.record(incoming(unfinished.events.clone())).await.unwrap();

        let hour = jiff::SignedDuration::from_hours(1);
        let stray = || store.row_of(None, Scope::All, crate::reading::EventId::Text("1".into()));
        sweep(&store, Timestamp::now() - hour).await;
        assert!(store.letter("l".into(), Scope::All).await.unwrap().is_some() && stray().await.unwrap().is_some());
        sweep(&store, Timestamp::now() + hour).await;
        assert!(store.letter("l".into(), Scope::All).await.unwrap().is_none() && stray().await.unwrap().is_none());
        assert_eq!(events(&store, unfinished.task).await, unfinished.ids());
    }

    #[tokio::test]
    async fn what_is_kept_of_a_forgotten_task_is_gone_and_none_of_it_comes_back() {
        let (_dir, store) = fresh(ON_SERVER).await;
        let (gone, kept) = (History::whole(TaskId::now()), History::whole(TaskId::now()));
        let of_others = History::of(gone.task).of_tenant("acme").requested("theirs").said_elsewhere();
        for history in [&gone, &kept, &of_others] {
            store.record(incoming(history.events.clone())).await.unwrap();
        }
        let letter = |id: &str, task: TaskId| NewLetter {
            task: Some(task),
            id: id.into(),
            tenant: TENANT.into(),
            topic: "fte.deadletter.runner".into(),
            record: bytes::Bytes::from(format!(r#"{{"subject":"{task}"}}"#)),
        };
        assert_eq!(store.record_letters(vec![letter("gone", gone.task), letter("kept", kept.task)]).await.unwrap(), 2);
        for _ in 0..2 {
            store.forget(Forgotten { tenant: TENANT.into(), tasks: vec![gone.task, TaskId::now()] }).await.unwrap();
            assert!(events(&store, gone.task).await.is_empty());
            assert!(store.task(gone.task, Scope::One(TENANT.into())).await.unwrap().is_none());
            assert!(store.letter("gone".into(), Scope::All).await.unwrap().is_none());
            assert!(store.artifacts_of(gone.task, TENANT.into()).await.unwrap().is_empty());
            // All of it is delivered again, and a letter about it comes late.
            store.record(incoming(gone.events.clone())).await.unwrap();
            assert_eq!(store.record_letters(vec![letter("late", gone.task)]).await.unwrap(), 0);
        }
        assert!(store.letter("kept".into(), Scope::All).await.unwrap().is_some());
        assert_eq!(events(&store, kept.task).await, kept.ids());
        assert!(
            store.task(gone.task, Scope::One("acme".into())).await.unwrap().is_some(),
            "another tenant's task of that id is another task"
        );
        // New events still get new numbers, and whoever reads on misses none of them.
        let new = History::whole(TaskId::now());
        store.record(incoming(new.events.clone())).await.unwrap();
        assert_eq!(events(&store, new.task).await, new.ids());
    }
}
