//! Streams neither miss a key's newest state nor repeat one, however transactions commit and connections break.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use cornjacket::projection::store;
use cornjacket::query::Limits;

use crate::harness::{OwnPostgres, eventually, fresh_database, patient};
use crate::query_service::{Service, Stream, append, project, refusal};

const STREAM: &str = "/api/v1/projections/t/stream";

#[tokio::test]
async fn a_late_commit_is_delivered_and_nothing_is_repeated() {
    let service = Service::start().await;
    let mut stream = service.stream(STREAM, None).await;
    stream.first_id().await;
    // The older transaction is held open while younger ones commit.
    let mut held = service.pool.begin().await.unwrap();
    project(&mut held, "t", "held", &json!({"n": 1})).await;
    let mut middle = service.pool.begin().await.unwrap();
    project(&mut middle, "t", "middle", &json!({"n": 1})).await;
    service.project("t", "young", json!({"n": 1})).await;
    assert_eq!(stream.row().await.0, "young");
    middle.commit().await.unwrap();
    assert_eq!(stream.row().await.0, "middle");
    service.project("t", "young", json!({"n": 2})).await;
    let (key, state, before_held) = stream.row().await;
    assert_eq!((key.as_str(), state), ("young", json!({"n": 2})));
    held.commit().await.unwrap();
    let (key, _, after_held) = stream.row().await;
    assert_eq!(key, "held");

    let mut again = service.stream(STREAM, Some(&before_held)).await;
    assert_eq!(again.row().await.0, "held", "committed after the id, though begun before it");
    let mut after = service.stream(STREAM, Some(&after_held)).await;
    service.project("t", "last", json!({"n": 1})).await;
    assert_eq!(after.row().await.0, "last", "nothing comes twice");
    assert_eq!(again.row().await.0, "last");
    assert_eq!(stream.row().await.0, "last");
}

#[tokio::test]
async fn a_client_that_breaks_off_anywhere_gets_every_row_once() {
    let service = Service::start().await;
    write_many(&service, 1300).await;
    let mut seen = Vec::new();
    let mut id = None;
    // Rows of one transaction, first by the log, then, when the log has forgotten them, by the rows in pages of 500.
    for taken in [1, 399, 1, 499, 350, 50] {
        if seen.len() == 400 {
            store::forget_changes(&mut service.pool.acquire().await.unwrap(), -1).await.unwrap();
        }
        let mut stream = service.stream(&format!("{STREAM}?from=snapshot"), id.as_deref()).await;
        for _ in 0..taken {
            let (key, _, row_id) = stream.row().await;
            seen.push(key);
            id = Some(row_id);
        }
    }
    let mut stream = service.stream(STREAM, id.as_deref()).await;
    service.project("t", "end", json!({})).await;
    assert_eq!(stream.row().await.0, "end");
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (1300, 1300));
}

#[tokio::test]
async fn a_large_transaction_comes_in_pages_by_rows_and_by_bytes() {
    let service = Service::start().await;
    let mut open = service.stream(STREAM, None).await;
    let begin = open.first_id().await;
    write_many(&service, 1300).await;
    // Random text does not shrink: these are more bytes than three pages may have.
    let md5s = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 4000) n";
    let heavy: String = sqlx::query_scalar(md5s).fetch_one(&service.pool).await.unwrap();
    let mut transaction = service.pool.begin().await.unwrap();
    for n in 1..=200 {
        project(&mut transaction, "t", &format!("heavy{n}"), &json!({ "text": heavy })).await;
    }
    transaction.commit().await.unwrap();
    service.project("t", "last", json!({})).await;
    assert_eq!(keys_until_last(&mut open).await, 1500);
    let mut by_log = service.stream(STREAM, Some(&begin)).await;
    assert_eq!(keys_until_last(&mut by_log).await, 1500);
    store::forget_changes(&mut service.pool.acquire().await.unwrap(), -1).await.unwrap();
    let mut by_rows = service.stream(STREAM, Some(&begin)).await;
    let mut keys = BTreeSet::new();
    for _ in 0..1501 {
        assert!(keys.insert(by_rows.row().await.0), "no row twice");
    }
}

/// How many rows come before that of the key `last`, none of them twice.
async fn keys_until_last(stream: &mut Stream) -> usize {
    let mut keys = BTreeSet::new();
    loop {
        match stream.row().await.0 {
            key if key == "last" => return keys.len(),
            key => assert!(keys.insert(key), "no row twice"),
        }
    }
}

/// Writes rows k1, k2, … in one transaction, as the handler does.
async fn write_many(service: &Service, count: usize) {
    let mut transaction = service.pool.begin().await.unwrap();
    for n in 1..=count {
        project(&mut transaction, "t", &format!("k{n}"), &json!({})).await;
    }
    transaction.commit().await.unwrap();
}

/// What a reader that now and then reconnects has had: every (key, version), in order.
async fn read_with_breaks(service: &Service, until: i64) -> Vec<(String, i64)> {
    let mut had = Vec::new();
    let mut id: Option<String> = None;
    let mut ended: BTreeSet<String> = BTreeSet::new();
    let mut length: u32 = 1;
    while ended.len() < KEYS {
        let mut stream = service.stream(&format!("{STREAM}?from=snapshot"), id.as_deref()).await;
        length = length * 7 % 97 + 1;
        if length.is_multiple_of(3) {
            store::forget_changes(&mut service.pool.acquire().await.unwrap(), -1).await.unwrap();
        }
        for _ in 0..length {
            if ended.len() == KEYS {
                break;
            }
            let (key, state, row_id) = stream.row().await;
            let version = state["v"].as_i64().unwrap();
            if version == until {
                ended.insert(key.clone());
            }
            had.push((key, version));
            id = Some(row_id);
        }
    }
    had
}

const KEYS: usize = 24;
const WRITERS: usize = 6;

/// Each writer owns a few keys and raises their versions, several keys in a transaction, some held open for a while.
async fn write_versions(service: &Service, writer: usize, versions: i64) {
    let keys: Vec<String> = (0..KEYS).filter(|k| k % WRITERS == writer).map(|k| format!("k{k:02}")).collect();
    for version in 1..=versions {
        let mut transaction = service.pool.begin().await.unwrap();
        for key in &keys {
            if version == versions || (version + i64::try_from(key.len() + writer).unwrap()) % 3 != 0 {
                project(&mut transaction, "t", key, &json!({"v": version})).await;
            }
        }
        let held = (writer * 13 + usize::try_from(version).unwrap() * 7) % 23;
        tokio::time::sleep(Duration::from_millis(held as u64)).await;
        if version != versions && held.is_multiple_of(5) {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
        }
    }
}

#[tokio::test]
async fn under_concurrent_writers_and_reconnects_versions_only_grow_and_the_last_arrives() {
    let service = Service::start().await;
    let versions = 60;
    let writers = futures::future::join_all((0..WRITERS).map(|w| write_versions(&service, w, versions)));
    let (one, other, _) =
        tokio::join!(read_with_breaks(&service, versions), read_with_breaks(&service, versions), writers);
    for had in [one, other] {
        let mut last: BTreeMap<&str, i64> = BTreeMap::new();
        for (key, version) in &had {
            let before = last.insert(key, *version);
            assert!(before < Some(*version), "{key}: {version} after {before:?}");
        }
        assert_eq!(last.len(), KEYS);
        assert!(last.values().all(|v| *v == versions));
    }
}

#[tokio::test]
async fn filters_and_a_key_narrow_a_stream() {
    let service = Service::start().await;
    let mut high = service.stream(&format!("{STREAM}?filter=n:gt:5"), None).await;
    let mut key = service.stream(&format!("{STREAM}?aggregate_id=b"), None).await;
    let id = high.first_id().await;
    key.first_id().await;
    for (k, n) in [("a", 1), ("b", 2), ("c", 7), ("a", 8)] {
        service.project("t", k, json!({"n": n})).await;
    }
    service.project("u", "b", json!({"n": 9})).await;
    assert_eq!(key.row().await.0, "b");
    let mut narrowed = BTreeSet::new();
    for _ in 0..2 {
        narrowed.insert(high.row().await.0);
    }
    assert_eq!(narrowed, BTreeSet::from(["a".to_owned(), "c".to_owned()]));
    let elsewhere = http_with_id(&service, STREAM, &id).await;
    assert_eq!(elsewhere.0, 400, "an id is of the stream that gave it out");
}

async fn http_with_id(service: &Service, path: &str, id: &str) -> (u16, String) {
    let request = service.client.get(format!("{}{path}", service.url)).header("Last-Event-ID", id);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    refusal(&crate::harness::http::Answer { status, body })
}

#[tokio::test]
async fn a_malformed_id_is_refused_and_one_of_another_database_starts_over() {
    let service = Service::start().await;
    let other = Service::start().await;
    service.project("t", "k", json!({"n": 1})).await;
    for bad in ["x", "AAAAAAAAAAAA", "%00", "ä"] {
        assert_eq!(http_with_id(&service, STREAM, bad).await.0, 400, "{bad}");
    }
    other.project("t", "o", json!({})).await;
    let foreign = other.stream(&format!("{STREAM}?from=snapshot"), None).await.row().await.2;
    let mut stream = service.stream(STREAM, Some(&foreign)).await;
    let reset = stream.next().await.unwrap();
    assert_eq!((reset.event.as_str(), reset.data.as_str()), ("reset", "{}"));
    assert_eq!(stream.row().await.0, "k");
}

#[tokio::test]
async fn streams_go_on_or_start_over_by_themselves_after_a_crash_of_postgresql() {
    let mut cluster = OwnPostgres::start_new("query-restart");
    let database = cluster.fresh_database().await;
    let service = Service::on(&database, Limits::default()).await;
    let mut stream = service.stream(STREAM, None).await;
    let mut events = service.stream("/api/v1/events/stream", None).await;
    stream.first_id().await;
    events.first_id().await;
    service.project("t", "before", json!({})).await;
    assert_eq!(stream.row().await.0, "before");
    // Numbers of transactions that came to nothing may be given out again after a crash.
    for _ in 0..20 {
        let mut transaction = service.pool.begin().await.unwrap();
        project(&mut transaction, "t", "nothing", &json!({})).await;
        transaction.rollback().await.unwrap();
    }
    let mut cluster = tokio::task::spawn_blocking(move || {
        cluster.crash();
        cluster.start();
        cluster
    })
    .await
    .unwrap();
    eventually(Duration::from_secs(10), || sqlx::query("SELECT 1").execute(&service.pool)).await;
    service.project("t", "after", json!({})).await;
    append(&service.pool, "e", "a").await;
    // The last commits before a crash may be lost, and their numbers given out again: nothing older is relied on.
    assert_eq!(stream.next().await.unwrap().event, "reset");
    let rows = BTreeSet::from([stream.row().await.0, stream.row().await.0]);
    assert_eq!(rows, BTreeSet::from(["after".to_owned(), "before".to_owned()]));
    assert_eq!(events.next().await.unwrap().event, "event");
    drop(service);
    cluster.stop();
}

#[tokio::test]
async fn what_is_written_first_after_a_crash_is_news_for_a_stream_that_was_open_before_it() {
    let service = Service::start().await;
    // As a crash of PostgreSQL leaves it.
    sqlx::query("DELETE FROM projection_epoch").execute(&service.pool).await.unwrap();
    let mut stream = service.stream(STREAM, None).await;
    service.project("t", "first", json!({})).await;
    assert_eq!(stream.row().await.0, "first");
}

#[tokio::test]
async fn a_notification_wakes_a_stream_before_it_polls() {
    let service = Service::start().await;
    let mut stream = service.stream(STREAM, None).await;
    stream.first_id().await;
    let mut fast = 0;
    for n in 0..10 {
        let start = std::time::Instant::now();
        service.project("t", "k", json!({"n": n})).await;
        sqlx::query("SELECT pg_notify('cornjacket_projection', 's t')").execute(&service.pool).await.unwrap();
        stream.row().await;
        fast += u32::from(start.elapsed() < Duration::from_millis(400));
    }
    assert!(fast >= 8, "only {fast} of 10 came by notification");
}

#[tokio::test]
async fn streams_are_bounded_and_end_at_once_when_the_service_stops() {
    let service = Service::on(&fresh_database().await, Limits { streams: 2, waiters: 1, ..Limits::default() }).await;
    let mut one: Stream = service.stream(STREAM, None).await;
    let two = service.stream("/api/v1/events/stream", None).await;
    let (status, error) = refusal(&service.get(STREAM).await);
    assert_eq!((status, error.as_str()), (503, "all 2 streams are taken: try again in a few seconds"));
    drop(two);
    eventually(Duration::from_secs(5), || async {
        service.client.get(format!("{}{STREAM}", service.url)).send().await.is_ok_and(|r| r.status() == 200)
    })
    .await;
    let start = std::time::Instant::now();
    service.lifecycle.stop();
    let ended = tokio::join!(service.lifecycle.clone().run(Duration::from_secs(5)), async {
        while one.next().await.is_some() {}
    });
    ended.0.unwrap();
    assert!(start.elapsed() < patient(Duration::from_secs(1)), "{:?}", start.elapsed());
}
