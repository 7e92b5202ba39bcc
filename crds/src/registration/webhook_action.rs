//! The compiled form of a WebhookAction: everything that a delivery needs, defaults applied, but for the values of Secrets.

use serde::{Deserialize, Serialize};

use super::Source;
use crate::webhook_action::{Jitter, Ordering};

/// A registered webhook action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAction {
    pub source: Source,
    /// CEL over `event`: only events for which it is true are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// `http` or `https`, with a host and without user, password or fragment.
    pub url: String,
    /// Beside those of the signature; none of those that belong to the connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// CEL over `event` that gives the body. Absent: the event as it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What each request is signed with: none, one, or two while they are exchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing: Vec<SecretVersion>,
    /// How long one attempt may take.
    pub timeout_ms: i64,
    pub retry: Retry,
    pub rate_limit: RateLimit,
    pub deduplication: Deduplication,
    pub circuit_breaker: CircuitBreaker,
    pub ordering: Ordering,
}

impl WebhookAction {
    /// The values of Secrets that it needs, those of the headers first.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretVersion> {
        let of_headers = self.headers.iter().filter_map(|header| match &header.value {
            HeaderValue::Secret(version) => Some(version),
            HeaderValue::Plain(_) => None,
        });
        of_headers.chain(&self.signing)
    }
}

/// One header of each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub name: String,
    #[serde(flatten)]
    pub value: HeaderValue,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderValue {
    #[serde(rename = "value")]
    Plain(String),
    #[serde(rename = "secret")]
    Secret(SecretVersion),
}

/// One value of a Secret, as it was when the action was compiled. The value itself is in the table `registration_secret`,
/// sealed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretVersion {
    /// Name of the Secret.
    pub name: String,
    /// Key within the Secret.
    pub key: String,
    /// Of the value and its place, under the platform's key: another value is another registration.
    pub digest: String,
}

/// What happens after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The first included.
    pub max_attempts: i32,
    /// Before the second attempt, the third, and so on; the last is repeated. Never empty.
    pub backoff_ms: Vec<i64>,
    pub jitter: Jitter,
}

/// How many deliveries may start, and how long the others wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// That may start in each `per_ms`.
    pub deliveries: i32,
    pub per_ms: i64,
    /// That may wait; the oldest above it expire.
    pub max_waiting: i32,
    /// How long one may wait before it expires.
    pub max_wait_ms: i64,
}

/// Which deliveries are left out as duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deduplication {
    /// How long a key is remembered.
    pub window_ms: i64,
    /// CEL over `event` that gives the key. Absent: the event type and the aggregate id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// When the endpoint is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// In a row, that open it.
    pub failures: i32,
    /// How long it stays open before one delivery is tried.
    pub cooldown_ms: i64,
}
