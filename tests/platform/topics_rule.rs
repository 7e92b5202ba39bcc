//! A broker knows nothing of who rules: who lost the seat at the database has to leave it alone.

use std::collections::BTreeMap;

use controllers::effects::kafka::Kafka;
use controllers::effects::postgres::guard::Guard;
use controllers::effects::postgres::{DatabaseError, Seat, seat_options};
use controllers::effects::rule::{Rule, RuleError};
use controllers::topic::plan::Alteration;
use controllers::topic::wanted::{Rules, Wanted};
use serde_json::{from_value, json};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Mutex;

use crate::controllers_world::SOON;
use crate::harness::{eventually, fresh_database, shared_kafka, topic_prefix};

#[tokio::test]
async fn who_lost_the_seat_changes_nothing_at_the_broker() {
    let database = fresh_database().await;
    let options: PgConnectOptions = database.url.parse().unwrap();
    let mut seat = Seat::connect(&seat_options(options.clone()), "lost").await.unwrap();
    assert!(seat.take().await.unwrap());
    let badge = seat.badge().await.unwrap();
    let settings = BTreeMap::from([("bootstrap.servers".to_owned(), shared_kafka().await)]);
    let kafka = Kafka::new(&settings).unwrap();
    let watching = Mutex::new(Guard::new(options.clone(), badge.clone()));
    let mut rule = Rule::new(kafka.clone(), Guard::new(options, badge));
    let [kept, lost] = ["kept", "lost"].map(|name| format!("{}-{name}", topic_prefix()));
    let wanted = |name: &str| Wanted {
        resource: "t".to_owned(),
        generation: 1,
        spec: from_value(json!({"topicName": name, "partitions": 1, "replicationFactor": 1})).unwrap(),
        rules: Rules { writes: true, ..Rules::default() },
        claimed: true,
    };
    assert_eq!(rule.create(&[&wanted(&kept)]).await.unwrap()[&kept], Ok(()));
    drop(seat);
    eventually(SOON, || async { watching.lock().await.still_seated().await.is_err() }).await;
    let deleted = rule.delete(&kept).await;
    assert!(matches!(deleted, Err(RuleError::Seat(DatabaseError::SeatLost))), "{deleted:?}");
    assert!(matches!(rule.create(&[&wanted(&lost)]).await, Err(RuleError::Seat(DatabaseError::SeatLost))));
    let more = rule.add_partitions(&[(kept.clone(), 2)]).await;
    assert!(matches!(more, Err(RuleError::Seat(DatabaseError::SeatLost))), "{more:?}");
    let change = Alteration::Set { key: "retention.ms".to_owned(), value: "7000".to_owned() };
    let altered = rule.alter(&[(kept.clone(), vec![change])]).await;
    assert!(matches!(altered, Err(RuleError::Seat(DatabaseError::SeatLost))), "{altered:?}");
    let topics =
        eventually(SOON, || async { kafka.topics().await.ok().filter(|topics| topics.contains_key(&kept)) }).await;
    assert_eq!(topics.get(&kept).map(|size| size.partitions), Some(1));
    assert!(!topics.contains_key(&lost));
}
