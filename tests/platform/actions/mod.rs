//! Deliveries of WebhookActions, to a real HTTP server that does what it is told.

mod answers;
mod breaker;
mod crashes;
mod dialled;
mod limits;
mod operators;
mod requests;
mod several;
mod state;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::controllers_world::manifest;
use crate::harness::{Bus, Launch, Platform, Process, Receiver, eventually, fresh_database, http};

pub const SOON: Duration = Duration::from_secs(30);

/// Signs requests.
pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A platform whose actions deliver to a receiver.
pub struct World {
    pub receiver: Receiver,
    pub platform: Platform,
    pub pool: PgPool,
    pub ingest: Process,
    _controllers: Process,
    _relay: Process,
}

impl World {
    pub async fn new(name: &str) -> Self {
        Self::on(name, Bus::Embedded, Receiver::start().await).await
    }

    pub async fn on(name: &str, bus: Bus, receiver: Receiver) -> Self {
        Self::of(Platform::new(&format!("actions-{name}"), fresh_database().await, bus), receiver).await
    }

    pub async fn of(platform: Platform, receiver: Receiver) -> Self {
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: hooks}}\nstringData: {{signing: '{SECRET}', token: 'Bearer xyzzy'}}\n"
        );
        std::fs::write(platform.resources().join("secret.yaml"), secret).unwrap();
        let controllers = with_key(platform.controllers()).ready().await;
        let (relay, ingest) = (platform.relay("").ready().await, platform.ingest().ready().await);
        let pool = platform.database().pool().await;
        Self { receiver, platform, pool, ingest, _controllers: controllers, _relay: relay }
    }

    /// Who delivers.
    pub fn launch(&self, instance: &str) -> Launch {
        with_key(self.platform.act(instance))
    }

    /// Declares an action that delivers readings to a path of the receiver, without a limit and without looking for duplicates
    /// unless `more` says otherwise; and waits until it runs.
    pub async fn declare(&self, name: &str, path: &str, more: &str) {
        self.declare_at(name, &self.receiver.url(path), more).await;
    }

    pub async fn declare_at(&self, name: &str, url: &str, more: &str) {
        let mut fields = vec!["source: {eventTypes: [sensor.reading]}".to_owned(), format!("url: '{url}'")];
        for (field, default) in [
            ("rateLimit", "{deliveries: 1000000, per: 1s}"),
            ("deduplication", "{key: event.event_id}"),
            ("circuitBreaker", "{failures: 1000}"),
        ] {
            if !more.contains(field) {
                fields.push(format!("{field}: {default}"));
            }
        }
        fields.extend(Some(more.to_owned()).filter(|more| !more.is_empty()));
        let spec = format!("{{{}}}", fields.join(", "));
        let file = self.platform.resources().join(format!("{name}.yaml"));
        std::fs::write(file, manifest("WebhookAction", name, &spec)).unwrap();
        self.until_runs(name).await;
    }

    /// Waits until the newest form of an action is what is delivered by.
    pub async fn until_runs(&self, name: &str) {
        eventually(SOON, || async {
            let status: Option<Value> =
                sqlx::query_scalar("SELECT status FROM resource_status WHERE kind = 'WebhookAction' AND name = $1")
                    .bind(name)
                    .fetch_optional(&self.pool)
                    .await
                    .unwrap();
            let Some(status) = status else { return Err("no status yet".to_owned()) };
            let ready = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
            let file = self.platform.resources().join(format!("{name}.yaml"));
            let declared = std::fs::read_to_string(file).unwrap();
            let registered: Option<Value> =
                sqlx::query_scalar("SELECT spec FROM registration WHERE kind = 'WebhookAction' AND name = $1")
                    .bind(name)
                    .fetch_optional(&self.pool)
                    .await
                    .unwrap();
            let url = registered.as_ref().and_then(|spec| spec["url"].as_str().map(str::to_owned)).unwrap_or_default();
            match ready {
                Some(ready) if ready["status"] == "True" && declared.contains(&url) => Ok(()),
                other => Err(format!("{other:?}, registered for '{url}'")),
            }
        })
        .await;
    }

    /// Takes an event in; its id.
    pub async fn send(&self, aggregate_id: &str, value: i64) -> String {
        let event = json!({"event_type": "sensor.reading", "aggregate_id": aggregate_id, "payload": {"value": value}});
        let answer = http::post(&http::client(), &self.ingest.url("/api/v1/events"), &event).await.expect("an answer");
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        answer.body["event_id"].as_str().expect("an id").to_owned()
    }

    /// Takes many in at a time: `count` of each aggregate, with the values 1, 2, 3, …
    pub async fn send_many(&self, aggregates: &[&str], count: i64) {
        for values in (1..=count).collect::<Vec<_>>().chunks(100) {
            let event = |aggregate: &&str, value: i64| json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": {"value": value}});
            let events: Vec<Value> = values
                .iter()
                .flat_map(|value| aggregates.iter().map(move |aggregate| event(aggregate, *value)))
                .collect();
            for batch in events.chunks(1_000) {
                let answer = http::post(&http::client(), &self.ingest.url("/api/v1/events/batch"), &json!(batch)).await;
                assert_eq!(answer.expect("an answer").status, 202);
            }
        }
    }

    /// How many deliveries of an action have this status.
    pub async fn count(&self, action: &str, status: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM delivery WHERE action = $1 AND status = $2")
            .bind(action)
            .bind(status)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until so many deliveries of an action have this status.
    pub async fn until(&self, action: &str, status: &str, count: i64) {
        self.until_within(SOON, action, status, count).await;
    }

    pub async fn until_within(&self, deadline: Duration, action: &str, status: &str, count: i64) {
        eventually(deadline, || async {
            let now = self.count(action, status).await;
            if now == count { Ok(()) } else { Err(format!("{now} of {count} are {status}")) }
        })
        .await;
    }

    /// The attempts of an action's deliveries in order: status and error.
    pub async fn attempts(&self, action: &str) -> Vec<(Option<i16>, Option<String>)> {
        sqlx::query_as(
            "SELECT a.status, a.error FROM delivery_attempt a JOIN delivery d USING (delivery_id)
              WHERE d.action = $1 ORDER BY a.started_at, a.number",
        )
        .bind(action)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// What is known of an endpoint: state, reason, healthy and message.
    pub async fn endpoint(&self, action: &str) -> (String, Option<String>, Option<bool>, Option<String>) {
        sqlx::query_as("SELECT state, reason, healthy, message FROM action_config WHERE action = $1")
            .bind(action)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// The platform's key, for who seals values of Secrets and who opens them.
fn with_key(launch: Launch) -> Launch {
    launch.env("CORNJACKET_SECRETS_KEY", STANDARD.encode([7; 32]))
}
