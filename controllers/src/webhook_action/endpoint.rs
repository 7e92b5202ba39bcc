//! Where requests go and what stands above them: what the schema of the kind cannot say. Pure.

use crds::reason::Reason;
use crds::secret::signing::signing_key;
use http::{HeaderName, HeaderValue};
use url::Url;

use crate::resolve::Failure;

/// Headers that belong to the connection or to the signature.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Begins the names of the signature's headers.
const SIGNATURE: &str = "webhook-";

fn invalid(message: String) -> Failure {
    Failure::new(Reason::InvalidSpec, message)
}

/// Not repeated in what is said of it: it may hold a password.
pub fn check_url(text: &str) -> Result<(), Failure> {
    let refused = |why: &str| Err(invalid(format!("spec.url: {why}")));
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return refused(&format!("it is no URL: {error}; write it as https://host/path")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refused("only http and https are delivered to: write https://…");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("it names a user: give credentials by a header with a secretRef instead");
    }
    if url.fragment().is_some() {
        return refused("what follows '#' is never sent: remove it");
    }
    Ok(())
}

/// Whether a header of this name may be given.
pub fn check_header(index: usize, name: &str) -> Result<(), Failure> {
    let refused = |why: &str| Err(invalid(format!("spec.headers[{index}].name: '{name}' {why}")));
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else { return refused("is no name of a header") };
    if RESERVED.contains(&parsed.as_str()) {
        return refused("belongs to the connection: remove it");
    }
    if parsed.as_str().starts_with(SIGNATURE) {
        return refused("belongs to the signature: remove it, and see spec.signing");
    }
    Ok(())
}

/// Whether a header may have this value.
pub fn check_value(index: usize, value: &str) -> Result<(), Failure> {
    let refused = |why: String| invalid(format!("spec.headers[{index}].value: {why}"));
    can_be_header(value.as_bytes()).map_err(refused)
}

/// Says nothing of the value.
pub fn can_be_header(value: &[u8]) -> Result<(), String> {
    if value.is_empty() {
        return Err("it is empty".to_owned());
    }
    if value.ends_with(b"\n") {
        return Err(
            "it ends with a line break, which no header can have: make it by `printf` or `--from-literal`".to_owned()
        );
    }
    HeaderValue::from_bytes(value)
        .map(drop)
        .map_err(|_| "it has control characters, which no header can have".to_owned())
}

/// Says nothing of the value.
pub fn can_sign(value: &[u8]) -> Result<(), String> {
    signing_key(value).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_a_user_a_fragment_or_without_a_host_are_refused_and_not_repeated() {
        for good in
            ["https://example.com", "http://10.0.0.1:8080/hook?a=b", "https://[::1]/", "https://bücher.example/"]
        {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("https://ada:xyzzy@example.com/", "spec.url: it names a user"),
            ("https://ada@example.com/", "spec.url: it names a user"),
            ("https://example.com/#xyzzy", "spec.url: what follows '#'"),
            ("https://", "spec.url: it is no URL"),
            ("https://exa mple.com/xyzzy", "spec.url: it is no URL"),
            ("http://example.com:xyzzy/", "spec.url: it is no URL"),
            ("ftp://example.com/xyzzy", "spec.url: only http and https"),
        ] {
            let failure = check_url(bad).expect_err(bad);
            assert!(failure.message.starts_with(expected) && !failure.message.contains("xyzzy"), "{failure:?}");
            assert_eq!(failure.reason, Reason::InvalidSpec);
        }
    }

    #[test]
    fn headers_of_the_connection_and_the_signature_are_refused() {
        for good in ["Authorization", "content-type", "X-Api-Key", "User-Agent"] {
            assert_eq!(check_header(0, good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("Host", "spec.headers[2].name: 'Host' belongs to the connection"),
            ("CONTENT-LENGTH", "spec.headers[2].name: 'CONTENT-LENGTH' belongs to the connection"),
            ("transfer-encoding", "spec.headers[2].name: 'transfer-encoding' belongs"),
            ("Webhook-Id", "spec.headers[2].name: 'Webhook-Id' belongs to the signature"),
            ("a b", "spec.headers[2].name: 'a b' is no name"),
        ] {
            let message = check_header(2, bad).map_err(|failure| failure.message);
            assert!(message.clone().is_err_and(|m| m.starts_with(expected)), "{message:?}");
        }
    }

    #[test]
    fn a_value_that_no_header_can_have_is_refused_and_not_repeated() {
        assert_eq!(check_value(1, "Bearer xyzzy"), Ok(()));
        assert_eq!(can_be_header("grün".as_bytes()), Ok(()));
        for (bad, expected) in
            [("", "empty"), ("xyzzy\n", "line break"), ("xyzzy\r\nHost: a", "control"), ("x\0", "control")]
        {
            let message = check_value(1, bad).map_err(|failure| failure.message).expect_err(bad);
            assert!(message.starts_with("spec.headers[1].value: it") && message.contains(expected), "{message}");
            assert!(!message.contains("xyzzy"), "{message}");
        }
    }
}
