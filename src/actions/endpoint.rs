//! An action as it is run: compiled, with the values of its Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use crds::registration::{Header, HeaderValue as Given, ResourceKey, SecretVersion, WebhookAction};
use crds::secret::{Place, PlatformKey, SecretSlice};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use url::Url;

use super::program::Program;
use super::signature::SigningKey;
use super::state::breaker::Threshold;
use super::state::window::Limit;
use crate::registry::LoadedAction;

/// One endpoint, ready to deliver to.
pub struct Endpoint {
    pub key: ResourceKey,
    /// Of the registration.
    pub hash: String,
    pub spec: WebhookAction,
    pub program: Arc<Program>,
    pub url: Url,
    /// Those of the action, beside ours.
    pub headers: HeaderMap,
    pub signing: Vec<SigningKey>,
}

/// What makes deliveries of events: it needs no Secret, so that none is missed while one is away.
pub struct Matcher {
    pub action: String,
    pub program: Arc<Program>,
    /// Events accepted before this are not delivered.
    pub since: DateTime<Utc>,
    /// Of the deduplication.
    pub window_ms: i64,
}

/// A snapshot of all actions.
#[derive(Default)]
pub struct Endpoints {
    /// False until the first load.
    pub loaded: bool,
    /// Every action that is registered, by name.
    pub matchers: BTreeMap<String, Arc<Matcher>>,
    /// Those that can be delivered to: whose Secrets are open.
    pub by_name: BTreeMap<String, Arc<Endpoint>>,
}

/// A sealed value, as it is stored.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub sealed: Vec<u8>,
    pub key_id: String,
}

impl Endpoint {
    /// Opens the values that an action needs, and makes what requests need of them.
    ///
    /// # Errors
    /// Says which value is missing or of no use, and never what it is.
    pub fn open(
        action: &LoadedAction,
        stored: &BTreeMap<SecretVersion, Sealed>,
        platform: Option<&PlatformKey>,
    ) -> Result<Self, String> {
        let value = |version: &SecretVersion| open(&action.key.namespace, version, stored, platform);
        let mut headers = HeaderMap::new();
        for header in &action.spec.headers {
            let (name, value) = read_header(header, value)?;
            headers.insert(name, value);
        }
        let signing = |version: &SecretVersion| {
            SigningKey::read(value(version)?.expose_secret())
                .map_err(|e| format!("{}: {e}", place(&action.key.namespace, version)))
        };
        Ok(Self {
            key: action.key.clone(),
            hash: action.hash.clone(),
            url: Url::parse(&action.spec.url).map_err(|e| format!("url: {e}"))?,
            headers,
            signing: action.spec.signing.iter().map(signing).collect::<Result<_, _>>()?,
            spec: action.spec.clone(),
            program: action.program.clone(),
        })
    }

    pub fn name(&self) -> &str {
        &self.key.name
    }

    pub fn threshold(&self) -> Threshold {
        let breaker = &self.spec.circuit_breaker;
        Threshold { failures: i64::from(breaker.failures), cooldown_ms: breaker.cooldown_ms }
    }

    pub fn limit(&self) -> Limit {
        let limit = &self.spec.rate_limit;
        Limit { most: i64::from(limit.deliveries), per_ms: limit.per_ms }
    }
}

fn read_header(
    header: &Header,
    secret: impl Fn(&SecretVersion) -> Result<SecretSlice<u8>, String>,
) -> Result<(HeaderName, HeaderValue), String> {
    let unfit = || format!("header '{}': its name or value is none that HTTP has", header.name);
    let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| unfit())?;
    let value = match &header.value {
        Given::Plain(text) => HeaderValue::from_bytes(text.as_bytes()).map_err(|_| unfit())?,
        Given::Secret(version) => {
            let mut value = HeaderValue::from_bytes(secret(version)?.expose_secret()).map_err(|_| unfit())?;
            value.set_sensitive(true);
            value
        }
    };
    Ok((name, value))
}

fn place<'a>(namespace: &'a str, version: &'a SecretVersion) -> Place<'a> {
    Place { namespace, name: &version.name, key: &version.key }
}

fn open(
    namespace: &str,
    version: &SecretVersion,
    stored: &BTreeMap<SecretVersion, Sealed>,
    platform: Option<&PlatformKey>,
) -> Result<SecretSlice<u8>, String> {
    let place = place(namespace, version);
    let platform = platform.ok_or_else(|| {
        format!("{place} cannot be opened: this process has no platform key: give it by --secrets-key-file")
    })?;
    let sealed = stored
        .get(version)
        .ok_or_else(|| format!("{place} is not in the actions database: the controllers will write it"))?;
    platform.open(&sealed.key_id, place, &sealed.sealed).map_err(|e| format!("{place} cannot be opened: {e}"))
}
