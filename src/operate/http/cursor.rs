//! Opaque tokens: cursors and the event ids of streams.
//!
//! A token carries a value as JSON and a check over it and its scope (the endpoint, the projection, the filters), so
//! that a token that was cut short, edited or taken from another request is refused instead of misread. The check is
//! no secret: a token grants nothing that the request without it would not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of the check in front of the value.
const CHECK: usize = 8;

/// A token that this request did not give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was not given out by this request")]
pub struct BadToken;

/// Makes a token of a value. URL-safe.
pub fn encode<T: Serialize>(scope: &str, value: &T) -> String {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut token = check(scope, &body).to_vec();
    token.extend(body);
    URL_SAFE_NO_PAD.encode(token)
}

/// Reads a token made by [`encode`] for the same scope.
///
/// # Errors
/// It is none.
pub fn decode<T: DeserializeOwned>(scope: &str, token: &str) -> Result<T, BadToken> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken)?;
    let (head, body) = bytes.split_at_checked(CHECK).ok_or(BadToken)?;
    if head != check(scope, body) {
        return Err(BadToken);
    }
    serde_json::from_slice(body).map_err(|_| BadToken)
}

fn check(scope: &str, body: &[u8]) -> [u8; CHECK] {
    xxh3_64_with_seed(body, xxh3_64_with_seed(scope.as_bytes(), 1)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_comes_back_in_its_scope_only(value: (u64, String), scope: String, other: String) {
            let token = encode(&scope, &value);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(decode::<(u64, String)>(&scope, &token), Ok(value));
            if scope != other {
                prop_assert_eq!(decode::<(u64, String)>(&other, &token), Err(BadToken));
            }
        }

        #[test]
        fn any_text_is_refused_without_a_panic(token: String) {
            prop_assert_eq!(decode::<u64>("scope", &token), Err(BadToken));
        }

        #[test]
        fn a_shortened_token_is_refused(value: u64, cut in 1usize..8) {
            let token = encode("scope", &value);
            prop_assert_eq!(decode::<u64>("scope", &token[..token.len() - cut]), Err(BadToken));
        }
    }
}
