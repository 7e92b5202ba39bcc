//! A request as it came, and what is to be said of it. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::actions::signature::{self, Headers, ID, SIGNATURE, SigningKey, TIMESTAMP, WhyNot};

/// A request, with what is answered.
pub struct Received {
    /// From 1, in order of arrival.
    pub number: u64,
    pub at: DateTime<Utc>,
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Result<Vec<u8>, NoBody>,
    /// How often this delivery came, this time included.
    pub times: u32,
    pub verdict: Verdict,
    pub status: u16,
}

impl Received {
    /// A header, of several of a name the first.
    pub fn header(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }
}

/// The value of a header, of several of a name the first.
pub fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBody {
    #[error("the body is longer than {0} bytes: allow more by --body-bytes")]
    TooLarge(usize),
    #[error("the body did not come within {} s: allow more by --read-seconds", .0.as_secs())]
    Slow(Duration),
    #[error("the connection ended before the body did")]
    Broken,
}

impl NoBody {
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge(_) => 413,
            Self::Slow(_) => 408,
            Self::Broken => 400,
        }
    }
}

/// What the signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By the secret of this place, from 0.
    Right(usize),
    Wrong(WhyNot),
    /// There is a signature, and no secret to verify it with.
    Unchecked,
    /// There is no signature, and none was asked for.
    Unsigned,
    /// There is no whole body.
    Unknown,
}

/// Judges the signature of a request.
pub fn judge(
    keys: &[SigningKey],
    headers: &[(String, String)],
    body: Result<&[u8], NoBody>,
    now: i64,
    tolerance: Duration,
) -> Verdict {
    let Ok(body) = body else { return Verdict::Unknown };
    let headers =
        Headers { id: value(headers, ID), timestamp: value(headers, TIMESTAMP), signature: value(headers, SIGNATURE) };
    if keys.is_empty() {
        return if headers.signature.is_some() { Verdict::Unchecked } else { Verdict::Unsigned };
    }
    match signature::verify(keys, headers, body, now, tolerance) {
        Ok(which) => Verdict::Right(which),
        Err(why) => Verdict::Wrong(why),
    }
}
