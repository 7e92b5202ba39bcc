//! Signatures of requests as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`, written `v1,<base64>`.
//!
//! In: secrets, what is sent, and the time. Out: the value of the header, or whether a request is by who has a secret and of
//! now, and if not, why. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crds::secret::SecretSlice;
use crds::secret::signing::{SigningKeyError, signing_key};
use ring::hmac;
use secrecy::ExposeSecret;

/// Names a delivery: the same at every attempt.
pub const ID: &str = "webhook-id";
/// When the attempt was made, in seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// One signature for each secret, separated by spaces.
pub const SIGNATURE: &str = "webhook-signature";

/// How far a request's time may be from the receiver's, unless it is told otherwise.
pub const TOLERANCE: Duration = Duration::from_mins(5);

const VERSION: &str = "v1";
/// More than any sender has secrets: each costs the receiver a digest of the body.
const MOST_SIGNATURES: usize = 16;

/// A secret that requests are signed with. Its text for debugging does not show it.
#[derive(Clone, Debug)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// Reads a secret as people write it: `whsec_` and base64, or the bytes of the key.
    ///
    /// # Errors
    /// It is no key of 24 to 64 bytes.
    pub fn read(value: &[u8]) -> Result<Self, SigningKeyError> {
        signing_key(value).map(|key| Self::from(&key))
    }
}

impl From<&SecretSlice<u8>> for SigningKey {
    fn from(key: &SecretSlice<u8>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret()))
    }
}

/// What a request says of itself; `None`: it has no such header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    pub id: Option<&'a str>,
    pub timestamp: Option<&'a str>,
    pub signature: Option<&'a str>,
}

/// Why a request is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    #[error("the header {0} is missing")]
    Missing(&'static str),
    #[error("{ID} holds a full stop: what follows it could be taken for the time")]
    FullStop,
    #[error("{TIMESTAMP} '{0}' is no whole number of seconds since 1970")]
    NoTimestamp(String),
    #[error("{SIGNATURE} has no signature of version {VERSION}, which is `{VERSION},` and base64")]
    NoSignature,
    #[error("{SIGNATURE} has more than {MOST_SIGNATURES} signatures")]
    TooMany,
    #[error("no signature is by this secret: it was signed with another, or its id, time or body was changed")]
    NoMatch,
    #[error(
        "signed {age} s ago, and at most {tolerance} s are allowed: it was sent again by somebody, or a clock is wrong"
    )]
    Old { age: u64, tolerance: u64 },
    #[error("signed {ahead} s ahead of this clock, and at most {tolerance} s are allowed: a clock is wrong")]
    Ahead { ahead: u64, tolerance: u64 },
}

/// The value of [`SIGNATURE`] for an attempt: signed with each of the secrets. An id has no full stop in it.
pub fn sign(secrets: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    debug_assert!(!id.contains('.'), "receivers refuse the id '{id}'");
    let content = content(id, timestamp, body);
    let signature = |key: &SigningKey| format!("{VERSION},{}", STANDARD.encode(hmac::sign(&key.0, &content)));
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

/// Whether a request was signed with one of the secrets, within `tolerance` of `now`. Tells which of them, from 0.
///
/// # Errors
/// Why not. [`WhyNot::Old`] and [`WhyNot::Ahead`] are of requests whose signature is right.
pub fn verify(
    secrets: &[SigningKey],
    headers: Headers<'_>,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<usize, WhyNot> {
    let id = present(headers.id, ID)?;
    let timestamp = seconds(present(headers.timestamp, TIMESTAMP)?)?;
    let tags = tags(present(headers.signature, SIGNATURE)?)?;
    if id.contains('.') {
        return Err(WhyNot::FullStop);
    }
    let content = content(id, timestamp, body);
    // In constant time each.
    let by = |key: &SigningKey| tags.iter().any(|tag| hmac::verify(&key.0, &content, tag).is_ok());
    let which = secrets.iter().position(by).ok_or(WhyNot::NoMatch)?;
    in_time(timestamp, now, tolerance.as_secs())?;
    Ok(which)
}

fn content(id: &str, timestamp: i64, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body].concat()
}

fn present<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, WhyNot> {
    value.filter(|value| !value.is_empty()).ok_or(WhyNot::Missing(name))
}

/// Written in the one way in which it is signed.
fn seconds(text: &str) -> Result<i64, WhyNot> {
    let read = text.parse::<i64>().ok().filter(|seconds| seconds.to_string() == text);
    read.ok_or_else(|| WhyNot::NoTimestamp(text.chars().take(40).flat_map(char::escape_debug).collect()))
}

/// The signatures of our version; others are for receivers that know them.
fn tags(header: &str) -> Result<Vec<Vec<u8>>, WhyNot> {
    let ours = header.split(' ').filter_map(|part| part.split_once(',')).filter(|(version, _)| *version == VERSION);
    let ours: Vec<_> = ours.take(MOST_SIGNATURES + 1).collect();
    if ours.len() > MOST_SIGNATURES {
        return Err(WhyNot::TooMany);
    }
    let tags: Vec<_> = ours.into_iter().filter_map(|(_, signature)| STANDARD.decode(signature).ok()).collect();
    if tags.is_empty() { Err(WhyNot::NoSignature) } else { Ok(tags) }
}

fn in_time(timestamp: i64, now: i64, tolerance: u64) -> Result<(), WhyNot> {
    let apart = now.abs_diff(timestamp);
    if apart <= tolerance {
        Ok(())
    } else if timestamp < now {
        Err(WhyNot::Old { age: apart, tolerance })
    } else {
        Err(WhyNot::Ahead { ahead: apart, tolerance })
    }
}

#[cfg(test)]
mod tests;
