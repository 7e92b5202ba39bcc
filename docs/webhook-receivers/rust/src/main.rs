//! Receives webhooks on 127.0.0.1:$PORT, verified with $WEBHOOK_SECRET.

use std::collections::HashSet;
use std::env;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use standardwebhooks::Webhook;

const MOST_BYTES: usize = 1 << 20;

struct Receiver {
    webhook: Webhook,
    handled: Mutex<HashSet<String>>,
}

impl Receiver {
    /// Does the work once. In your service: a row with the delivery as its unique key, in the work's own transaction.
    fn handle(&self, delivery: &str, event: &Value) {
        if self.handled.lock().expect("no panic").insert(delivery.to_owned()) {
            println!("handled {delivery} {}", event["event_type"].as_str().unwrap_or_default());
        }
    }
}

/// `body` are the bytes as they came: verified before they are parsed.
async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if receiver.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let (Some(Ok(delivery)), Ok(event)) =
        (headers.get("webhook-id").map(|id| id.to_str()), serde_json::from_slice(&body))
    else {
        return StatusCode::BAD_REQUEST;
    };
    receiver.handle(delivery, &event);
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let webhook = Webhook::new(&env::var("WEBHOOK_SECRET")?)?;
    let receiver = Arc::new(Receiver { webhook, handled: Mutex::default() });
    let routes = Router::new().fallback(receive).layer(DefaultBodyLimit::max(MOST_BYTES)).with_state(receiver);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", env::var("PORT")?)).await?;
    Ok(axum::serve(listener, routes).await?)
}
