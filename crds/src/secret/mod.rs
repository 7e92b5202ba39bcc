//! Values of Secrets on their way from the controllers, which read them, to the role that delivers webhooks.
//!
//! In: a value and the place where it was found. Out: the value sealed under the platform's key ([`key`]), which is what
//! a database holds, and a digest of it, which is what a compiled form holds. Neither tells anything of the value to who
//! has no key; equal digests mean equal values. What a value must be to sign requests is in [`signing`].

pub mod key;
pub mod signing;

use std::fmt;

pub use key::{KeyError, OpenError, PlatformKey};
pub use secrecy::SecretSlice;

/// Where a value stands: a key of a Secret of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub namespace: &'a str,
    /// Name of the Secret.
    pub name: &'a str,
    /// Key within the Secret.
    pub key: &'a str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key '{}' of the Secret '{}'", self.key, self.name)
    }
}
