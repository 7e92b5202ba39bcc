//! One attempt of a delivery: a request, what was answered within bounds, and nothing else.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::{Client, Response};
use tokio::time::{Instant, timeout};
use url::Url;
use uuid::Uuid;

use super::client::check_literal;
use super::endpoint::Endpoint;
use super::guard::{Guard, Refused};
use super::signature;
use super::verdict::Answer;
use crate::database::storable;

/// Bytes of an answer that are kept, and those that are read so that its connection can be used again.
const KEPT_BYTES: usize = 2 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// Longest error that is kept, in characters.
const MAX_ERROR_CHARS: usize = 500;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What is sent, and where in its life it is.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
#[expect(clippy::struct_field_names, reason = "it is a column's name")]
pub struct Delivery {
    pub delivery_id: Uuid,
    /// Whose it is now.
    pub claim_id: Uuid,
    pub action: String,
    #[sqlx(try_from = "String")]
    pub body: Bytes,
    pub traceparent: Option<String>,
    /// Attempts before this one.
    pub attempts: i32,
    /// Attempts after which it is given up, where that is not as the action says.
    pub max_attempts: Option<i32>,
    pub created_at: DateTime<Utc>,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub started_at: DateTime<Utc>,
    pub duration: Duration,
    pub answer: Answer,
    /// The first bytes of the answer's body, as text.
    pub head: Option<String>,
}

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    pub client: Client,
    pub guard: Arc<Guard>,
    /// Redirects (307 and 308) that are followed.
    pub redirects: u8,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    #[error("redirected to {0}")]
    Redirect(&'static str),
}

impl Sender {
    /// Makes one attempt. It takes no longer than the action's timeout.
    pub async fn attempt(&self, endpoint: &Endpoint, delivery: &Delivery) -> Attempt {
        let (started_at, begun) = (Utc::now(), Instant::now());
        let limit = Duration::from_millis(u64::try_from(endpoint.spec.timeout_ms).unwrap_or(0));
        let mut seen = Answer::default();
        let mut head = None;
        let exchange = async {
            let response = self.send(endpoint, delivery, started_at).await?;
            seen.status = Some(response.status().as_u16());
            seen.retry_after_ms = retry_after(response.headers(), started_at);
            head = Some(read_head(response).await?);
            Ok::<_, SendError>(())
        };
        match timeout(limit, exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => seen.error = Some(told(&error)),
            Err(_) => seen.error = Some(late(&seen, limit)),
        }
        Attempt { started_at, duration: begun.elapsed(), answer: seen, head }
    }

    async fn send(&self, endpoint: &Endpoint, delivery: &Delivery, now: DateTime<Utc>) -> Result<Response, SendError> {
        let mut url = endpoint.url.clone();
        let mut headers = headers(endpoint, delivery, now);
        for _ in 0..self.redirects {
            let response = self.post(&url, &headers, delivery).await?;
            let Some(next) = redirect(&url, &response)? else { return Ok(response) };
            if next.origin() != url.origin() {
                // What the action says is for its own endpoint; the signature tells who sent it, and nothing more.
                headers = headers_of_ours(endpoint, delivery, now);
            }
            url = next;
        }
        self.post(&url, &headers, delivery).await
    }

    async fn post(&self, url: &Url, headers: &HeaderMap, delivery: &Delivery) -> Result<Response, SendError> {
        check_literal(&self.guard, url)?;
        let request = self.client.post(url.clone()).headers(headers.clone()).body(delivery.body.clone());
        Ok(request.send().await?)
    }
}

/// Where a request that can be made again unchanged is to be made instead.
fn redirect(from: &Url, response: &Response) -> Result<Option<Url>, SendError> {
    if !matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let to = location.to_str().ok().and_then(|to| from.join(to).ok()).ok_or(SendError::Redirect("what is no URL"))?;
    match to.scheme() {
        "https" => Ok(Some(to)),
        "http" if from.scheme() == "http" => Ok(Some(to)),
        "http" => Err(SendError::Redirect("http, where the action says https: what is sent could be read on the way")),
        _ => Err(SendError::Redirect("what is neither http nor https")),
    }
}

fn headers(endpoint: &Endpoint, delivery: &Delivery, now: DateTime<Utc>) -> HeaderMap {
    let mut headers = headers_of_ours(endpoint, delivery, now);
    for (name, value) in &endpoint.headers {
        headers.insert(name, value.clone());
    }
    headers
}

fn headers_of_ours(endpoint: &Endpoint, delivery: &Delivery, now: DateTime<Utc>) -> HeaderMap {
    let (id, timestamp) = (delivery.delivery_id.to_string(), now.timestamp());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut insert = |name: HeaderName, value: &str| {
        // Digits, base64 and what came in by a header: each is a value that a header can have.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    insert(HeaderName::from_static(signature::ID), &id);
    insert(HeaderName::from_static(signature::TIMESTAMP), &timestamp.to_string());
    if let Some(traceparent) = &delivery.traceparent {
        insert(TRACEPARENT, traceparent);
    }
    if !endpoint.signing.is_empty() {
        let signed = signature::sign(&endpoint.signing, &id, timestamp, &delivery.body);
        insert(HeaderName::from_static(signature::SIGNATURE), &signed);
    }
    headers
}

/// Reads as much of the answer as is kept, and a little more, so that its connection can be used again. What is longer costs
/// the endpoint its connection.
async fn read_head(response: Response) -> Result<String, reqwest::Error> {
    let (mut kept, mut read) = (Vec::new(), 0);
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        let room = KEPT_BYTES.saturating_sub(kept.len()).min(chunk.len());
        kept.extend_from_slice(&chunk[..room]);
        read += chunk.len();
        if read > READ_BYTES {
            break;
        }
    }
    Ok(storable(&String::from_utf8_lossy(&kept), KEPT_BYTES))
}

/// What Retry-After asks for, in milliseconds: seconds, or a time.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<i64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(i64::from(seconds) * 1_000);
    }
    let at = DateTime::<Utc>::from(httpdate::parse_http_date(text).ok()?);
    Some((at - now).num_milliseconds().max(0))
}

fn late(seen: &Answer, limit: Duration) -> String {
    let what = if seen.status.is_some() { "the answer did not end" } else { "no answer" };
    format!("{what} within {} ms", limit.as_millis())
}

/// The cause, without the URL, which people know and which may hold a token.
fn told(error: &SendError) -> String {
    let text = match error {
        SendError::Request(error) => causes(error),
        other => other.to_string(),
    };
    storable(&text, MAX_ERROR_CHARS)
}

fn causes(error: &reqwest::Error) -> String {
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the request failed"
    };
    // What is between says where in the library it was noticed.
    let mut innermost: &dyn Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    format!("{what}: {innermost}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let asked = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now)
        };
        assert_eq!(asked("120"), Some(120_000));
        assert_eq!(asked("Tue, 14 Nov 2023 22:14:20 GMT"), Some(60_000));
        assert_eq!(asked("Tue, 14 Nov 2023 22:12:20 GMT"), Some(0), "past");
        for nonsense in ["soon", "-1", "", "1.5"] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
    }
}
