//! HTTP as the commands need it: one client, `Retry-After` honoured, refusals in the service's own words.

use std::sync::Once;
use std::time::Duration;

use anyhow::Context;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// Longest pause that a service may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A client without a time limit for whole answers: streams have no end.
///
/// # Errors
/// TLS cannot be set up.
pub fn client() -> anyhow::Result<Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails only where one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().connect_timeout(Duration::from_secs(5)).build().context("cannot set up HTTP")
}

/// Whether the same request may be answered otherwise later, and after which pause.
pub fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    Some(seconds.map_or(Duration::from_secs(1), Duration::from_secs).min(LONGEST_PAUSE))
}

/// What a refusal says: its `error`, else the start of its text.
pub fn reason(status: StatusCode, body: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    let error = parsed.as_ref().and_then(|v| v["error"].as_str()).map(str::to_owned);
    error.unwrap_or_else(|| format!("{status}: {}", body.chars().take(120).collect::<String>()))
}

/// Where nothing answers, and what to do about it.
pub fn unreachable(url: &str, error: &reqwest::Error) -> anyhow::Error {
    let cause = innermost(error);
    let hint = if error.is_connect() { "; is the platform running, and is --url its address?" } else { "" };
    anyhow::anyhow!("cannot reach {}: {cause}{hint}", shown(url))
}

/// An address without the user and password that it may hold.
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
    if scheme.is_empty() { rest[host..].to_owned() } else { format!("{scheme}://{}", &rest[host..]) }
}

/// The cause that people can act on: `Connection refused`, not `error sending request`.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_as_asked_for_and_bounded() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(StatusCode::TOO_MANY_REQUESTS, &headers), Some(Duration::from_secs(1)));
        assert_eq!(retry_after(StatusCode::BAD_REQUEST, &headers), None);
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers), Some(Duration::from_secs(7)));
        headers.insert(RETRY_AFTER, "86400".parse().unwrap());
        assert_eq!(retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers), Some(LONGEST_PAUSE));
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(shown("http://u:p@a@h:1/x?y=u@v"), "http://h:1/x?y=u@v");
        assert_eq!(shown("u:p@h:1"), "h:1");
        assert_eq!(shown("http://h:1/a@b"), "http://h:1/a@b");
    }

    #[test]
    fn a_refusal_is_told_in_the_services_words() {
        assert_eq!(reason(StatusCode::BAD_REQUEST, r#"{"error":"limit: '0' …"}"#), "limit: '0' …");
        assert_eq!(reason(StatusCode::BAD_GATEWAY, "<html>"), "502 Bad Gateway: <html>");
    }
}
