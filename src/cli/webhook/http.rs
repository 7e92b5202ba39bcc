//! Takes requests of any kind at any path, has them printed, and answers what it was told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use chrono::Utc;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::answers::{Seen, scripted};
use super::request::{NoBody, Received, Verdict, judge, value};
use super::show;
use crate::actions::signature::{ID, SigningKey};
use crate::cli::output::Output;

/// How long a request waits for those before it to be printed.
const PRINTING: Duration = Duration::from_secs(5);

/// What the command was told, and what it remembers.
pub struct Receiver {
    pub keys: Vec<SigningKey>,
    pub tolerance: Duration,
    /// What is answered to the first attempt of a delivery, the second, …
    pub script: Vec<u16>,
    /// Whether a wrong signature is answered by 401.
    pub strict: bool,
    pub delay: Duration,
    /// In seconds.
    pub retry_after: Option<u32>,
    /// Longest body.
    pub body_bytes: usize,
    /// How long a body may take to come.
    pub read: Duration,
    /// How much of a body people are shown.
    pub print_bytes: usize,
    pub output: Output,
    pub seen: Mutex<(u64, Seen)>,
    pub out: mpsc::Sender<String>,
    pub stopping: CancellationToken,
}

/// Every path, every method.
pub fn routes(receiver: Arc<Receiver>) -> Router {
    Router::new().route("/", any(receive)).route("/{*path}", any(receive)).with_state(receiver)
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match timeout(receiver.read, whole(body, receiver.body_bytes)).await {
        Ok(body) => body,
        Err(_) => Err(NoBody::Slow(receiver.read)),
    };
    let seen = receiver.received(&parts, body);
    receiver.tell(&seen).await;
    if !receiver.delay.is_zero() {
        // Who waits for the end of this command does not wait for the answer.
        let _ = receiver.stopping.run_until_cancelled(tokio::time::sleep(receiver.delay)).await;
    }
    receiver.answer(seen.status)
}

async fn whole(body: Body, most: usize) -> Result<Vec<u8>, NoBody> {
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| NoBody::Broken)?;
        if whole.len() + piece.len() > most {
            return Err(NoBody::TooLarge(most));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

impl Receiver {
    fn received(&self, parts: &Parts, body: Result<Vec<u8>, NoBody>) -> Received {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers: Vec<_> =
            parts.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        let at = Utc::now();
        let verdict = judge(&self.keys, &headers, body.as_deref().map_err(|why| *why), at.timestamp(), self.tolerance);
        let (number, times) = {
            let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            seen.0 += 1;
            (seen.0, seen.1.note(value(&headers, ID)))
        };
        let status = match (&body, &verdict) {
            (Err(why), _) => why.status(),
            (_, Verdict::Wrong(_)) if self.strict => 401,
            _ => scripted(&self.script, times),
        };
        let target = parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string);
        Received { number, at, method: parts.method.to_string(), target, headers, body, times, verdict, status }
    }

    /// Has it printed.
    async fn tell(&self, received: &Received) {
        let text = match self.output {
            Output::Text => show::text(received, self.keys.len(), self.print_bytes),
            Output::Json => show::json(received, self.keys.len()),
        };
        if self.out.send_timeout(text, PRINTING).await.is_err() {
            warn!("request {} is not printed: standard output does not take it", received.number);
        }
    }

    fn answer(&self, status: u16) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = status.into_response();
        if !status.is_success()
            && let Some(seconds) = self.retry_after
        {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
