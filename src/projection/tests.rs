//! Folding, without a database.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use crds::registration::{Fold, OnError, Projection, Rebuild, Source, StartFrom};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::working::RowKey;
use super::{Folded, Late, Program, Row, Subject, Working};
use crate::event::{SHARDS, StoredEvent, shard_of};

fn spec(fold: Fold) -> Projection {
    Projection {
        projection_type: "p".to_owned(),
        source: Source { event_types: vec![], prefixes: vec!["t.".to_owned()] },
        filter: None,
        key: None,
        fold,
        start_from: StartFrom::Earliest,
        on_error: OnError::DeadLetter,
        rebuild: Rebuild::BlueGreen,
        retention_seconds: None,
        indexes: vec![],
        reads_event_store: false,
    }
}

fn sum() -> Projection {
    let fields =
        [("n", "(has(state.n) ? state.n : 0) + 1"), ("sum", "(has(state.sum) ? state.sum : 0) + event.payload.v")];
    spec(Fold::Fields(fields.map(|(name, text)| (name.to_owned(), text.to_owned())).into()))
}

fn subjects(spec: &Projection) -> [Subject; 1] {
    [Subject {
        projection_type: spec.projection_type.clone(),
        program: Arc::new(Program::compile(spec).expect("compiles")),
        applied_through: vec![0; SHARDS],
    }]
}

fn event(aggregate: &str, position: i64, seconds: i64, payload: Value) -> StoredEvent {
    let at = DateTime::<Utc>::from_timestamp(1_700_000_000 + seconds, 0).expect("a time");
    StoredEvent {
        shard: shard_of(aggregate),
        position,
        event_id: Uuid::from_u128(position.unsigned_abs().into()),
        event_type: "t.x".to_owned(),
        aggregate_id: aggregate.to_owned(),
        timestamp: at,
        payload,
        metadata: json!({}),
        ingested_at: at,
    }
}

/// Folds events in batches of the size given, each batch into what the ones before left.
fn fold(subjects: &[Subject], events: &[StoredEvent], batch: usize) -> HashMap<RowKey, Row> {
    let mut rows = HashMap::new();
    for events in events.chunks(batch) {
        let mut working = Working::plan(subjects, events);
        working.fold(rows.clone());
        assert!(working.failures.is_empty(), "{:?}", working.failures);
        for (key, row) in working.changed() {
            rows.insert(key.clone(), row.clone());
        }
    }
    rows
}

fn states(rows: &HashMap<RowKey, Row>) -> BTreeMap<String, Value> {
    rows.iter().map(|(key, row)| (key.1.clone(), row.state.clone())).collect()
}

#[test]
fn latest_keeps_the_newest_by_time_not_by_arrival() {
    let subjects = subjects(&spec(Fold::Latest));
    let events = [
        event("a", 1, 10, json!(1)),
        event("a", 2, 5, json!(2)),
        event("a", 3, 11, json!(3)),
        event("a", 4, 11, json!(4)),
    ];
    let mut working = Working::plan(&subjects, &events);
    working.fold(HashMap::new());
    assert_eq!(working.tally.stale, 1);
    assert_eq!(working.changed()[0].1.state, json!(4), "of one time, the higher event id is newer");
}

#[test]
fn merge_follows_rfc_7396() {
    let subjects = subjects(&spec(Fold::Merge));
    let events =
        [event("a", 1, 1, json!({"x": 1, "y": {"z": 2}})), event("a", 2, 2, json!({"x": null, "y": {"w": 3}}))];
    assert_eq!(states(&fold(&subjects, &events, 10))["a"], json!({"y": {"z": 2, "w": 3}}));
}

#[test]
fn fields_fold_each_event_once_however_often_it_is_read() {
    let subjects = subjects(&sum());
    let events = [event("a", 1, 1, json!({"v": 5})), event("a", 2, 0, json!({"v": 7}))];
    let once = fold(&subjects, &events, 1);
    assert_eq!(states(&once)["a"], json!({"n": 2, "sum": 12}));
    let mut again = Working::plan(&subjects, &events);
    again.fold(once);
    assert!(again.changed().is_empty());
    assert_eq!(again.tally.seen, 2);
}

#[test]
fn filter_and_key_decide_the_row() {
    let mut spec = sum();
    spec.filter = Some("event.payload.v > 0".to_owned());
    spec.key = Some("event.payload.room".to_owned());
    let subjects = subjects(&spec);
    let events = [
        event("a", 1, 1, json!({"v": 1, "room": "r"})),
        event("b", 1, 2, json!({"v": 2, "room": "r"})),
        event("b", 2, 3, json!({"v": -1, "room": "r"})),
    ];
    let rows = fold(&subjects, &events, 2);
    assert_eq!(states(&rows)["r"], json!({"n": 2, "sum": 3}));
    let positions = rows.values().next().and_then(|row| row.positions.clone()).expect("several shards");
    assert_eq!(positions, BTreeMap::from([(shard_of("a"), 1), (shard_of("b"), 1)]));
}

#[test]
fn what_is_applied_through_another_path_is_not_folded() {
    let mut subjects = subjects(&sum());
    subjects[0].applied_through[usize::try_from(shard_of("a")).expect("small")] = 1;
    let events = [event("a", 1, 1, json!({"v": 5})), event("a", 2, 2, json!({"v": 7}))];
    assert_eq!(states(&fold(&subjects, &events, 10))["a"], json!({"n": 1, "sum": 7}));
}

#[test]
fn a_failing_event_leaves_its_row_and_its_neighbours_alone() {
    let subjects = subjects(&sum());
    let events =
        [event("a", 1, 1, json!({"v": 5})), event("a", 2, 2, json!({"v": "x"})), event("a", 3, 3, json!({"v": 1}))];
    let mut working = Working::plan(&subjects, &events);
    working.fold(HashMap::new());
    assert_eq!(working.failures.len(), 1);
    assert!(working.failures[0].error.to_string().starts_with("fields.sum: "), "{}", working.failures[0].error);
    assert_eq!(working.changed()[0].1.state, json!({"n": 2, "sum": 6}));
}

#[test]
fn a_state_that_cannot_be_stored_is_a_failure() {
    let fields = BTreeMap::from([("s".to_owned(), r#""a\u0000b""#.to_owned())]);
    let subjects = subjects(&spec(Fold::Fields(fields)));
    let events = [event("a", 1, 1, json!({}))];
    let mut working = Working::plan(&subjects, &events);
    working.fold(HashMap::new());
    assert_eq!(working.failures.len(), 1);
    assert!(working.failures[0].error.to_string().contains("\\u0000"));
}

fn any_fold() -> impl Strategy<Value = Projection> {
    prop_oneof![Just(spec(Fold::Latest)), Just(spec(Fold::Merge)), Just(sum())]
}

/// Each row lists the numbers of the events folded into it.
fn list(own_key: bool) -> Projection {
    let text = "(has(state.list) ? state.list : []) + [event.payload.number]";
    let fold = Fold::Fields(BTreeMap::from([("list".to_owned(), text.to_owned())]));
    Projection { key: own_key.then(|| "'one row for all'".to_owned()), ..spec(fold) }
}

/// Events numbered in the order in which their shards hold them, and the numbers of each aggregate's.
fn numbered(aggregates: &[u8]) -> (Vec<StoredEvent>, BTreeMap<String, Vec<u64>>) {
    let (mut positions, mut numbers) = (HashMap::new(), BTreeMap::<_, Vec<_>>::new());
    let events = (0..).zip(aggregates).map(|(number, aggregate)| {
        let aggregate = format!("aggregate-{aggregate}");
        let position = positions.entry(shard_of(&aggregate)).or_insert(0);
        *position += 1;
        let event = event(&aggregate, *position, 0, json!({"number": number}));
        numbers.entry(aggregate).or_default().push(number);
        event
    });
    (events.collect(), numbers)
}

/// Payloads that `merge` has something to do with: nested objects, nulls, arrays, scalars in the place of objects.
fn any_payload() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), (0..5_i64).prop_map(Value::from), Just(json!([1, null]))];
    let nested = leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect()))
    });
    (nested, 0..3_i64).prop_map(|(tree, room)| json!({"tree": tree, "room": format!("room-{room}")}))
}

/// Every kind of fold, with and without a filter and a key of its own.
fn any_program() -> impl Strategy<Value = Projection> {
    let fields = [
        ("n", "has(state.n) ? state.n + 1 : 1"),
        ("trees", "(has(state.trees) ? state.trees : []) + [event.payload.tree]"),
    ];
    let fields = Fold::Fields(fields.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    let fold = prop_oneof![Just(Fold::Latest), Just(Fold::Merge), Just(fields)];
    (fold, any::<bool>(), any::<bool>()).prop_map(|(fold, own_key, filtered)| Projection {
        key: own_key.then(|| "event.payload.room".to_owned()),
        filter: filtered.then(|| "event.payload.room != 'room-2'".to_owned()),
        ..spec(fold)
    })
}

/// Writes a row as the database does: it never goes back.
fn upsert(rows: &mut HashMap<RowKey, Row>, key: &RowKey, row: &Row) {
    let older = |there: &Row| there.position < row.position || there.shard != row.shard || row.positions.is_some();
    if rows.get(key).is_none_or(older) {
        rows.insert(key.clone(), row.clone());
    }
}

proptest! {
    /// Batches of any size, each begun anywhere before the end of the last (what was read already comes again, several
    /// times within one batch too), leave exactly the rows of folding one event after the other.
    #[test]
    fn batches_with_repetitions_equal_one_event_after_the_other(
        spec in any_program(),
        raw in prop::collection::vec((0..5_u8, -20..20_i64, any_payload()), 1..60),
        reads in prop::collection::vec((1..20_usize, 0..20_usize, 1..3_usize), 60),
    ) {
        let mut positions: HashMap<i16, i64> = HashMap::new();
        let events: Vec<StoredEvent> = raw
            .into_iter()
            .map(|(aggregate, seconds, payload)| {
                let aggregate = format!("aggregate-{aggregate}");
                let position = positions.entry(shard_of(&aggregate)).or_insert(0);
                *position += 1;
                event(&aggregate, *position, seconds, payload)
            })
            .collect();
        let subjects = subjects(&spec);
        let one_by_one = fold(&subjects, &events, 1);
        let (mut rows, mut read) = (HashMap::new(), 0);
        for (new, again, times) in reads {
            let end = events.len().min(read + new);
            let batch = vec![&events[read.saturating_sub(again)..end]; times].concat();
            let mut working = Working::plan(&subjects, &batch);
            working.fold(rows.clone());
            prop_assert!(working.failures.is_empty(), "{:?}", working.failures);
            for (key, row) in working.changed() {
                upsert(&mut rows, key, row);
            }
            read = end;
        }
        prop_assert_eq!(rows, one_by_one);
    }

    /// However shards are interleaved, cut into batches and read again, each aggregate's events are folded once and in
    /// order, whether they have rows of their own or share one.
    #[test]
    fn each_aggregate_is_folded_once_and_in_order(
        own_key: bool,
        aggregates in prop::collection::vec(0..12_u8, 1..80),
        reads in prop::collection::vec((1..20_usize, 0..20_usize, any::<bool>()), 80),
    ) {
        let subjects = subjects(&list(own_key));
        let (events, numbers) = numbered(&aggregates);
        let (mut rows, mut read) = (HashMap::new(), 0);
        for (new, again, by_shard) in reads {
            let end = events.len().min(read + new);
            let mut batch = events[read.saturating_sub(again)..end].to_vec();
            if by_shard {
                batch.sort_by_key(|event| event.shard);
            }
            let mut working = Working::plan(&subjects, &batch);
            working.fold(rows.clone());
            prop_assert!(working.failures.is_empty(), "{:?}", working.failures);
            rows.extend(working.changed().into_iter().map(|(key, row)| (key.clone(), row.clone())));
            read = end;
        }
        let mut folded = BTreeMap::<_, Vec<_>>::new();
        for number in states(&rows).values().flat_map(|state| state["list"].as_array().expect("a list")) {
            let number = number.as_u64().expect("a number");
            let at = usize::try_from(number).expect("an index");
            folded.entry(events[at].aggregate_id.clone()).or_default().push(number);
        }
        prop_assert_eq!(folded, numbers);
    }

    /// Incremental folding in batches of any size, with any part read twice, equals one fold of all events.
    #[test]
    fn fold_equals_rebuild(
        spec in any_fold(),
        raw in prop::collection::vec((0..4_u8, -20..20_i64, -100..100_i64), 1..60),
        batch in 1..20_usize,
        from in 0..60_usize,
    ) {
        let mut positions: HashMap<i16, i64> = HashMap::new();
        let events: Vec<StoredEvent> = raw
            .into_iter()
            .map(|(aggregate, seconds, v)| {
                let aggregate = format!("aggregate-{aggregate}");
                let position = positions.entry(shard_of(&aggregate)).or_insert(0);
                *position += 1;
                event(&aggregate, *position, seconds, json!({"v": v}))
            })
            .collect();
        let subjects = subjects(&spec);
        let rebuilt = fold(&subjects, &events, events.len());
        let incremental = fold(&subjects, &events, batch);
        prop_assert_eq!(&incremental, &rebuilt);
        let mut again = Working::plan(&subjects, &events[from.min(events.len() - 1)..]);
        again.fold(rebuilt);
        prop_assert!(again.changed().is_empty());
    }
}

fn after(program: &Program, row: Option<&Row>, event: &StoredEvent, late: Late) -> Option<Row> {
    match program.fold_late(row, event, late).expect("folds") {
        Folded::Changed(row) => Some(row),
        _ => None,
    }
}

#[test]
fn an_event_that_comes_late_counts_where_it_is_newer_and_what_was_seen_stays_seen() {
    let latest = Program::compile(&spec(Fold::Latest)).expect("compiles");
    let row = after(&latest, None, &event("a", 9, 100, json!(9)), Late::IfNewer).expect("a row");
    assert_eq!(after(&latest, Some(&row), &event("a", 5, 50, json!(5)), Late::IfNewer), None, "the row is newer");
    let newer = after(&latest, Some(&row), &event("a", 5, 200, json!(5)), Late::IfNewer).expect("it is newer");
    assert_eq!((&newer.state, newer.position), (&json!(5), 9));
    assert_eq!(newer.last_event_id, Uuid::from_u128(5));
    let anyhow = after(&latest, Some(&row), &event("a", 5, 50, json!(5)), Late::Anyhow).expect("it was asked for");
    assert_eq!((&anyhow.state, anyhow.position, anyhow.last_event_id), (&json!(5), 9, Uuid::from_u128(9)));
}

#[test]
fn a_late_event_moves_no_position_back_of_a_row_that_several_shards_feed() {
    let keyed = Program::compile(&Projection { key: Some("'all'".to_owned()), ..sum() }).expect("compiles");
    let first = after(&keyed, None, &event("a", 7, 1, json!({"v": 1})), Late::Anyhow).expect("a row");
    let second = after(&keyed, Some(&first), &event("b", 4, 2, json!({"v": 2})), Late::Anyhow).expect("changed");
    let late = after(&keyed, Some(&second), &event("a", 3, 3, json!({"v": 4})), Late::Anyhow).expect("changed");
    assert_eq!(late.state, json!({"n": 3, "sum": 7}));
    assert_eq!(late.all_positions(), BTreeMap::from([(shard_of("a"), 7), (shard_of("b"), 4)]));
}
