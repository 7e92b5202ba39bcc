//! Dead letters that are worked through: listed, replayed by the consumer that failed, or discarded.

mod actions;
mod command;
mod everything;
mod folds;
mod history;
mod lists;
mod messages;
mod order;
mod relayed;
mod series;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Process, eventually, http};
use crate::projections::{SOON, World};

/// An event type whose `v` may be a number or a text.
pub const THING: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: EventType
metadata: {name: thing.seen}
spec: {versions: [{version: 1, schema: {type: object, properties: {v: {type: [integer, string]}}}}]}
";

/// What a request about dead letters is answered.
pub async fn ask(process: &Process, path: &str) -> http::Answer {
    http::get(&http::client(), &process.url(&format!("/api/v1/dead-letters{path}"))).await.expect("an answer")
}

pub async fn tell(process: &Process, path: &str, body: Value) -> http::Answer {
    http::post(&http::client(), &process.url(&format!("/api/v1/dead-letters{path}")), &body).await.expect("an answer")
}

/// A letter as the database has it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Letter {
    pub dlq_id: Uuid,
    pub status: String,
    pub error_message: String,
    pub retry_count: i32,
    pub requested: bool,
    pub reason: Option<String>,
}

impl World {
    /// Posts many events at once, in their order.
    pub async fn post_all(&self, events: &[Value]) {
        let url = self.ingest.url("/api/v1/events/batch");
        for part in events.chunks(500) {
            let answer = http::post(&http::client(), &url, &json!(part)).await.expect("an answer");
            assert_eq!(answer.status, 202, "{}", answer.body);
        }
    }

    pub async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&self.pool).await.expect("an answer")
    }

    /// Waits until a question about numbers has this answer.
    pub async fn until(&self, question: &'static str, wanted: i64) {
        eventually(SOON * 3, || async {
            let now = self.count(question).await;
            if now == wanted { Ok(()) } else { Err(format!("{now} instead of {wanted}: {question}")) }
        })
        .await;
    }

    pub async fn until_nothing_is_asked_for(&self) {
        self.until("SELECT count(*) FROM dlq WHERE status = 'pending' AND replay_requested_at IS NOT NULL", 0).await;
    }

    /// The letters about an aggregate, in the order of their events.
    pub async fn letters_of(&self, aggregate: &str) -> Vec<Letter> {
        let question =
            "SELECT dlq_id, status, error_message, retry_count, replay_requested_at IS NOT NULL AS requested,
                               reason FROM dlq WHERE aggregate_id = $1 ORDER BY subject, position NULLS FIRST, dlq_id";
        sqlx::query_as(question).bind(aggregate).fetch_all(&self.pool).await.expect("an answer")
    }

    /// Asks for a replay; returns of how many letters.
    pub async fn replay(&self, filters: Value) -> u64 {
        let answer = tell(&self.handle, "/replay", filters).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body["requested"].as_u64().expect("a count")
    }
}

/// An event of [`THING`].
pub fn thing(aggregate: &str, v: impl Into<Value>) -> Value {
    json!({"event_type": "thing.seen", "aggregate_id": aggregate, "payload": {"v": v.into()}})
}
