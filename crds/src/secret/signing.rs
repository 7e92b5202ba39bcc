//! What a secret must be to sign requests with it (Standard Webhooks).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretSlice};

/// Begins a secret that is written in base64.
pub const PREFIX: &str = "whsec_";
/// Fewest and most bytes of a key.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a value cannot sign. Says nothing of the value but its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    #[error("what follows {PREFIX} is not base64")]
    NotBase64,
    #[error("it has {0} bytes and must have 24 to 64: make one by `echo whsec_$(openssl rand -base64 32)`")]
    Length(usize),
    #[error("it ends with a line break, which would be part of it: make it by `printf` or `--from-literal`")]
    LineBreak,
}

/// The key that requests are signed with (HMAC-SHA256): the bytes behind `whsec_` in base64, or all bytes of a value that
/// does not begin so.
///
/// # Errors
/// The value is no such key.
pub fn signing_key(value: &[u8]) -> Result<SecretSlice<u8>, SigningKeyError> {
    // A key of random bytes may end in one; a text that does was written by a tool that ends lines.
    if value.trim_ascii_end().len() < value.len()
        && value.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
    {
        return Err(SigningKeyError::LineBreak);
    }
    let key = match value.strip_prefix(PREFIX.as_bytes()) {
        Some(text) => SecretSlice::from(STANDARD.decode(text).map_err(|_| SigningKeyError::NotBase64)?),
        None => SecretSlice::from(value.to_vec()),
    };
    let length = key.expose_secret().len();
    if BYTES.contains(&length) { Ok(key) } else { Err(SigningKeyError::Length(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &[u8]) -> Result<Vec<u8>, SigningKeyError> {
        signing_key(value).map(|key| key.expose_secret().to_vec())
    }

    fn written(bytes: &[u8]) -> Vec<u8> {
        format!("{PREFIX}{}", STANDARD.encode(bytes)).into_bytes()
    }

    #[test]
    fn base64_behind_the_prefix_and_raw_bytes_are_keys() {
        for length in [24, 32, 64] {
            assert_eq!(key(&written(&vec![200; length])), Ok(vec![200; length]));
            assert_eq!(key(&vec![200; length]), Ok(vec![200; length]));
        }
        let mut random = vec![200; 31];
        random.push(b'\n');
        assert_eq!(key(&random), Ok(random));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for (value, expected) in [
            (written(&[1; 23]), SigningKeyError::Length(23)),
            (written(&[1; 65]), SigningKeyError::Length(65)),
            (b"too short".to_vec(), SigningKeyError::Length(9)),
            (Vec::new(), SigningKeyError::Length(0)),
            (b"whsec_this is not base64 at all, is it".to_vec(), SigningKeyError::NotBase64),
            ([written(&[1; 32]), b"\n".to_vec()].concat(), SigningKeyError::LineBreak),
            (b"a text of thirty-two characters!\r\n".to_vec(), SigningKeyError::LineBreak),
        ] {
            assert_eq!(key(&value), Err(expected));
        }
    }
}
