//! What is known about the Secrets that WebhookActions refer to. Pure: who reads them tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::condition::ConditionType;
use crds::manifest;
use crds::reason::Reason;
use crds::registration::SecretVersion;
use crds::secret::{Place, PlatformKey, SecretSlice};
use crds::shared::{Reconciliation, SecretKeyRef};
use secrecy::ExposeSecret;

use crate::resolve::Failure;
use crate::resource::{Declared, Resource, policies};

/// Keys that are referred to, by name of the Secret.
pub type References = BTreeMap<String, BTreeSet<String>>;

/// What became of reading a Secret.
#[derive(Clone, Debug)]
pub enum State {
    /// With the values that are referred to, by key. Equal versions have equal values.
    Present {
        version: String,
        values: BTreeMap<String, SecretSlice<u8>>,
    },
    Absent,
    /// The API server lets us not read it.
    Forbidden,
    /// Nobody could be asked yet; what they said.
    Away(String),
    /// It may be there for all that is known: nobody asks.
    Elsewhere,
}

impl State {
    /// Whether there is nothing new to say.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present { version: a, values: b }, Self::Present { version: c, values: d }) => {
                a == c && b.keys().eq(d.keys())
            }
            (Self::Away(a), Self::Away(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// By name of the Secret.
pub type Found = BTreeMap<String, State>;

/// All that is known, and the key to seal it under. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Secrets {
    key: Option<Arc<PlatformKey>>,
    found: Arc<Found>,
    /// Of a Secret that is not among those found.
    others: State,
}

impl Secrets {
    /// `key` is the platform's; without one nothing that refers to a Secret is registered.
    pub fn new(key: Option<Arc<PlatformKey>>, found: Arc<Found>) -> Self {
        Self { key, found, others: State::Absent }
    }

    /// Those among manifests. Others may be somewhere else; nothing is to be registered.
    pub fn of_manifests<'a>(secrets: impl IntoIterator<Item = &'a manifest::Secret>) -> Self {
        // What is made with it is thrown away.
        let key = PlatformKey::new(&[0; crds::secret::key::KEY_BYTES]);
        Self { key: Some(Arc::new(key)), found: Arc::new(found(secrets)), others: State::Elsewhere }
    }

    pub fn key(&self) -> Option<&PlatformKey> {
        self.key.as_deref()
    }

    /// The value at a place, where it is known.
    pub fn value(&self, place: Place<'_>) -> Option<&SecretSlice<u8>> {
        match self.found.get(place.name) {
            Some(State::Present { values, .. }) => values.get(place.key),
            _ => None,
        }
    }

    /// The version of a value that is there and fit for use; `field` names who refers to it. A value that may be elsewhere has
    /// no digest.
    ///
    /// # Errors
    /// It is not there or not fit, or there is no key to seal it under.
    pub fn version(
        &self,
        field: &str,
        namespace: &str,
        reference: &SecretKeyRef,
        fit: impl Fn(&[u8]) -> Result<(), String>,
    ) -> Result<SecretVersion, Failure> {
        let SecretKeyRef { name, key } = reference;
        let place = Place { namespace, name, key };
        let refused = |(reason, message): (Reason, String)| {
            Failure::new(reason, format!("{field}: {message}")).of(ConditionType::SecretResolved)
        };
        if !reference.is_valid() {
            let message = format!("{name:?} is no name of a Secret, or {key:?} no key of one");
            return Err(refused((Reason::InvalidSpec, message)));
        }
        let platform = self.key.as_ref().ok_or_else(|| refused(no_key(name)))?;
        let digest = match self.find(place).map_err(refused)? {
            None => String::new(),
            Some(value) => {
                let unfit = |why| refused((Reason::SecretInvalid, format!("{place} cannot be used: {why}")));
                fit(value.expose_secret()).map_err(unfit)?;
                platform.digest(place, value.expose_secret())
            }
        };
        Ok(SecretVersion { name: name.clone(), key: key.clone(), digest })
    }

    /// The value at a place; `None` where it may be elsewhere.
    fn find(&self, place: Place<'_>) -> Result<Option<&SecretSlice<u8>>, (Reason, String)> {
        let Place { namespace, name, key } = place;
        match self.found.get(name).unwrap_or(&self.others) {
            State::Elsewhere => Ok(None),
            State::Present { values, .. } => values.get(key).map(Some).ok_or_else(|| {
                let message = format!("the Secret '{name}' has no key '{key}': add it, or name another");
                (Reason::SecretNotFound, message)
            }),
            State::Absent => {
                let message = format!(
                    "there is no Secret '{name}' in the namespace '{namespace}': create it, with the key '{key}'"
                );
                Err((Reason::SecretNotFound, message))
            }
            State::Forbidden => {
                let message = format!(
                    "the controllers may not read the Secret '{name}': add it to webhooks.secretNames in the values of the \
                     chart (a Role with get on this Secret)"
                );
                Err((Reason::SecretForbidden, message))
            }
            State::Away(why) => Err((Reason::Retrying, format!("the Secret '{name}' cannot be read: {why}"))),
        }
    }
}

/// Nothing is known and nothing can be sealed.
impl Default for Secrets {
    fn default() -> Self {
        Self::new(None, Arc::default())
    }
}

fn no_key(name: &str) -> (Reason, String) {
    let message = format!(
        "the controllers have no key to seal the Secret '{name}' under: give them one by --secrets-key-file or \
         CORNJACKET_SECRETS_KEY (webhooks.key in the values of the chart)"
    );
    (Reason::NoSecretsKey, message)
}

/// What there is among manifests. Their values are told apart by themselves.
pub fn found<'a>(secrets: impl IntoIterator<Item = &'a manifest::Secret>) -> Found {
    let state = |secret: &manifest::Secret| State::Present { version: String::new(), values: secret.values.clone() };
    secrets.into_iter().map(|secret| (secret.name.clone(), state(secret))).collect()
}

/// What the actions of a set refer to; what is paused is not looked at.
pub fn references(set: &[Declared]) -> References {
    let mut references = References::new();
    for declared in set {
        let Ok(resource) = &declared.resource else { continue };
        let Resource::WebhookAction(action) = resource else { continue };
        if policies(resource).reconciliation == Reconciliation::Paused {
            continue;
        }
        let headers = action.spec.headers.iter().flatten().filter_map(|header| header.secret_ref.as_ref());
        let signing = action.spec.signing.iter().flat_map(|signing| &signing.secret_refs);
        for SecretKeyRef { name, key } in headers.chain(signing).filter(|reference| reference.is_valid()) {
            references.entry(name.clone()).or_default().insert(key.clone());
        }
    }
    references
}
