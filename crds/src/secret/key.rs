//! The platform's key: seals values of Secrets, opens them again, and makes their digests.
//!
//! Three keys are derived from it (HKDF-SHA256), so that none is used for two purposes. A value is sealed by
//! ChaCha20-Poly1305 with its place as associated data: a sealed value that is moved to another place does not open.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Okm, Prk, Salt};
use ring::hmac;
use secrecy::{ExposeSecret, SecretSlice};

use super::Place;
use crate::registration::hex;

/// Bytes of the platform's key.
pub const KEY_BYTES: usize = 32;
/// Bytes of the random part of a sealed value.
pub const NONCE_BYTES: usize = NONCE_LEN;

/// Part of every derived key: another way of sealing gets another one.
const SALT: &[u8] = b"cornjacket secrets 1";

/// Why something is no key of the platform. Says nothing of what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is neither {KEY_BYTES} bytes nor the base64 of {KEY_BYTES} bytes: make one by `openssl rand -base64 {KEY_BYTES}`"
)]
pub struct KeyError;

/// Why a sealed value does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("it was sealed under the key {sealed}, and this process has the key {own}: give all processes one key")]
    OtherKey { sealed: String, own: String },
    #[error("it was changed, or belongs elsewhere")]
    Damaged,
}

/// The key of a platform.
pub struct PlatformKey {
    sealing: LessSafeKey,
    digest: hmac::Key,
    id: String,
}

/// Nothing of it is shown but its id, which tells nothing.
impl fmt::Debug for PlatformKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PlatformKey {
    /// From bytes that are random.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let root = Salt::new(HKDF_SHA256, SALT).extract(bytes);
        let sealing = derive(&root, b"sealing", &CHACHA20_POLY1305, |key| LessSafeKey::new(UnboundKey::from(key)));
        let digest = derive(&root, b"digest", hmac::HMAC_SHA256, |okm| hmac::Key::from(okm));
        let id = derive(&root, b"id", hmac::HMAC_SHA256, |okm| hmac::Key::from(okm));
        let id = hex(&hmac::sign(&id, b"").as_ref()[..8]);
        Self { sealing, digest, id }
    }

    /// From what a file or a variable holds: the bytes themselves, or their base64.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(text: &SecretSlice<u8>) -> Result<Self, KeyError> {
        let text = text.expose_secret();
        if let Ok(bytes) = text.try_into() {
            return Ok(Self::new(bytes));
        }
        let decoded = STANDARD.decode(text.trim_ascii()).map_err(|_| KeyError)?;
        let decoded = SecretSlice::from(decoded);
        decoded.expose_secret().try_into().map(Self::new).map_err(|_| KeyError)
    }

    /// Tells one key from another, and nothing of either: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The value for a database. `nonce` is random and never used twice.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], place: Place<'_>, value: &[u8]) -> Vec<u8> {
        let mut sealed = value.to_vec();
        self.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bytes_of(place)), &mut sealed)
            .expect("a Secret has at most 1 MiB, and the cipher takes 256 GiB");
        [nonce.as_slice(), &sealed].concat()
    }

    /// The value again; `key_id` is that of the key it was sealed under.
    ///
    /// # Errors
    /// It was sealed under another key, at another place, or was changed.
    pub fn open(&self, key_id: &str, place: Place<'_>, sealed: &[u8]) -> Result<SecretSlice<u8>, OpenError> {
        if key_id != self.id {
            return Err(OpenError::OtherKey { sealed: key_id.to_owned(), own: self.id.clone() });
        }
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Damaged)?;
        let (nonce, mut value) = (Nonce::assume_unique_for_key(*nonce), sealed.to_vec());
        let length = self
            .sealing
            .open_in_place(nonce, Aad::from(bytes_of(place)), &mut value)
            .map_err(|_| OpenError::Damaged)?
            .len();
        value.truncate(length);
        Ok(SecretSlice::from(value))
    }

    /// HMAC-SHA256 of the value and its place, as 64 hexadecimal digits: it changes with the value, and without the key
    /// nobody can tell which value it is of.
    pub fn digest(&self, place: Place<'_>, value: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.digest);
        context.update(&bytes_of(place));
        context.update(value);
        hex(context.sign().as_ref())
    }
}

fn derive<T: KeyType, K>(root: &Prk, purpose: &[u8], of: T, key: impl FnOnce(Okm<'_, T>) -> K) -> K {
    key(root.expand(&[purpose], of).expect("the keys are shorter than what HKDF can give"))
}

/// Each part with its length, so that no two places have the same bytes.
fn bytes_of(place: Place<'_>) -> Vec<u8> {
    let Place { namespace, name, key } = place;
    let length = |part: &str| (part.len() as u64).to_be_bytes();
    [namespace, name, key].into_iter().flat_map(|part| [length(part).as_slice(), part.as_bytes()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place<'static> = Place { namespace: "shop", name: "hooks", key: "token" };
    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn key(byte: u8) -> PlatformKey {
        PlatformKey::new(&[byte; KEY_BYTES])
    }

    fn opened(key: &PlatformKey, id: &str, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        key.open(id, place, sealed).map(|value| value.expose_secret().to_vec())
    }

    #[test]
    fn what_is_sealed_opens_at_its_place_under_its_key_and_nowhere_else() {
        let (own, other) = (key(1), key(2));
        let sealed = own.seal(NONCE, PLACE, b"squeamish ossifrage");
        assert!(!sealed.windows(9).any(|part| part == b"squeamish"));
        assert_eq!(opened(&own, own.id(), PLACE, &sealed).as_deref(), Ok(b"squeamish ossifrage".as_slice()));

        let elsewhere = [
            Place { namespace: "shops", ..PLACE },
            Place { name: "hook", ..PLACE },
            Place { key: "tokens", ..PLACE },
            // The same letters, cut elsewhere.
            Place { namespace: "shoph", name: "ooks", key: "token" },
        ];
        for place in elsewhere {
            assert_eq!(opened(&own, own.id(), place, &sealed), Err(OpenError::Damaged), "{place:?}");
        }
        let wrong = OpenError::OtherKey { sealed: own.id().to_owned(), own: other.id().to_owned() };
        assert_eq!(opened(&other, own.id(), PLACE, &sealed), Err(wrong));
        assert_eq!(
            opened(&other, other.id(), PLACE, &sealed),
            Err(OpenError::Damaged),
            "a row that lies about its key"
        );
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(opened(&own, own.id(), PLACE, &damaged), Err(OpenError::Damaged), "byte {at}");
            assert_eq!(opened(&own, own.id(), PLACE, &sealed[..at]), Err(OpenError::Damaged), "cut at {at}");
        }
    }

    #[test]
    fn a_digest_depends_on_the_value_the_place_and_the_key() {
        let digest = key(1).digest(PLACE, b"a");
        assert_eq!((digest.len(), &digest), (64, &key(1).digest(PLACE, b"a")));
        assert_ne!(digest, key(1).digest(PLACE, b"b"));
        assert_ne!(digest, key(2).digest(PLACE, b"a"));
        assert_ne!(digest, key(1).digest(Place { key: "tokena", ..PLACE }, b""));
    }

    #[test]
    fn a_key_is_read_as_bytes_or_base64_and_never_shown() {
        let read = |text: &[u8]| PlatformKey::read(&SecretSlice::from(text.to_vec()));
        let bytes = [9; KEY_BYTES];
        let base64 = STANDARD.encode(bytes);
        for text in [bytes.as_slice(), base64.as_bytes(), format!("{base64}\n").as_bytes()] {
            assert_eq!(read(text).map(|key| key.id().to_owned()), Ok(PlatformKey::new(&bytes).id().to_owned()));
        }
        for text in [b"".as_slice(), &[9; 31], &[9; 33], STANDARD.encode([9; 16]).as_bytes(), b"no base64 at all!"] {
            assert_eq!(read(text).err(), Some(KeyError), "{text:?}");
        }
        assert_eq!(format!("{:?}", key(1)), format!("PlatformKey {{ id: {:?}, .. }}", key(1).id()));
    }

    proptest! {
        #[test]
        fn any_value_comes_back_as_it_was(value in prop::collection::vec(any::<u8>(), 0..200), nonce in any::<[u8; NONCE_BYTES]>()) {
            let key = key(3);
            let sealed = key.seal(nonce, PLACE, &value);
            prop_assert_eq!(opened(&key, key.id(), PLACE, &sealed), Ok(value));
        }

        #[test]
        fn nothing_that_was_not_sealed_opens(sealed in prop::collection::vec(any::<u8>(), 0..200)) {
            let key = key(3);
            prop_assert_eq!(opened(&key, key.id(), PLACE, &sealed), Err(OpenError::Damaged));
        }
    }
}
