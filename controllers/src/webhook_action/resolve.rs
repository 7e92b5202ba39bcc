//! A WebhookAction's compiled form: endpoint and expressions checked, defaults applied, Secrets resolved. Pure.

use std::time::Duration;

use crds::condition::{ConditionType, Finding};
use crds::language::expression::Scope;
use crds::reason::Reason;
use crds::registration::{
    CircuitBreaker, Deduplication, Header, HeaderValue, RateLimit, Retry, SecretVersion, Source, WebhookAction,
};
use crds::shared::DurationText;
use crds::webhook_action::{self, WebhookActionSpec};

use super::endpoint::{can_be_header, can_sign, check_header, check_url, check_value};
use super::secrets::Secrets;
use crate::projection::resolve::check;
use crate::resolve::Failure;

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ATTEMPTS: i32 = 5;
/// Before the second attempt, the third, and so on, in seconds.
const BACKOFF: [u64; 5] = [1, 2, 4, 8, 16];
/// Deliveries that may start in each [`RATE_PER`].
const RATE: i32 = 10;
const RATE_PER: Duration = Duration::from_mins(1);
const MAX_WAITING: i32 = 10_000;
const MAX_WAIT: Duration = Duration::from_hours(24);
const DEDUPLICATION: Duration = Duration::from_mins(5);
const BREAKER_FAILURES: i32 = 5;
const BREAKER_COOLDOWN: Duration = Duration::from_mins(5);

/// Compiles a WebhookAction, or says what is wrong with it first: the spec, then the Secrets.
pub(crate) fn compile(
    resource: &crds::WebhookAction,
    secrets: &Secrets,
    findings: &mut Vec<Finding>,
) -> Result<WebhookAction, Failure> {
    let spec = &resource.spec;
    check_expressions(spec)?;
    check_url(&spec.url)?;
    for (index, header) in spec.headers.iter().flatten().enumerate() {
        check_header(index, &header.name)?;
        header.value.as_ref().map_or(Ok(()), |value| check_value(index, value))?;
    }
    let namespace = resource.metadata.namespace.as_deref().unwrap_or(crds::manifest::DEFAULT_NAMESPACE);
    let compiled = WebhookAction {
        source: Source {
            event_types: spec.source.event_types.clone().unwrap_or_default(),
            prefixes: spec.source.prefixes.clone().unwrap_or_default(),
        },
        when: spec.when.clone(),
        url: spec.url.clone(),
        headers: headers(spec, namespace, secrets)?,
        body: spec.body.clone(),
        signing: signing(spec, namespace, secrets)?,
        timeout_ms: ms(spec.timeout.as_ref(), TIMEOUT),
        retry: retry(spec),
        rate_limit: rate_limit(spec),
        deduplication: deduplication(spec),
        circuit_breaker: circuit_breaker(spec),
        ordering: spec.ordering.unwrap_or_default(),
    };
    findings.extend(resolved(compiled.secrets().count()));
    Ok(compiled)
}

fn check_expressions(spec: &WebhookActionSpec) -> Result<(), Failure> {
    let key = spec.deduplication.as_ref().and_then(|d| d.key.as_ref());
    let expressions =
        [("spec.when", spec.when.as_ref()), ("spec.body", spec.body.as_ref()), ("spec.deduplication.key", key)];
    for (place, text) in expressions {
        text.map_or(Ok(()), |text| check(place, text, Scope::Event))?;
    }
    Ok(())
}

fn headers(spec: &WebhookActionSpec, namespace: &str, secrets: &Secrets) -> Result<Vec<Header>, Failure> {
    let header = |(index, header): (usize, &webhook_action::Header)| {
        let value = match (&header.value, &header.secret_ref) {
            (Some(value), None) => HeaderValue::Plain(value.clone()),
            (None, Some(reference)) => {
                let field = format!("spec.headers[{index}].secretRef");
                HeaderValue::Secret(secrets.version(&field, namespace, reference, can_be_header)?)
            }
            _ => {
                let message = format!("spec.headers[{index}]: give exactly one of value and secretRef");
                return Err(Failure::new(Reason::InvalidSpec, message));
            }
        };
        Ok(Header { name: header.name.clone(), value })
    };
    spec.headers.iter().flatten().enumerate().map(header).collect()
}

fn signing(spec: &WebhookActionSpec, namespace: &str, secrets: &Secrets) -> Result<Vec<SecretVersion>, Failure> {
    let references = spec.signing.iter().flat_map(|signing| &signing.secret_refs).enumerate();
    let version = |(index, reference)| {
        secrets.version(&format!("spec.signing.secretRefs[{index}]"), namespace, reference, can_sign)
    };
    references.map(version).collect()
}

/// Nothing is said where no Secret is referred to.
fn resolved(count: usize) -> Option<Finding> {
    let message = format!("{count} value(s) of Secrets found");
    (count > 0).then(|| Finding::new(ConditionType::SecretResolved, true, Reason::SecretsFound, message))
}

fn retry(spec: &WebhookActionSpec) -> Retry {
    let given = spec.retry.clone().unwrap_or_default();
    let backoff_ms = match given.backoff.as_deref() {
        None | Some([]) => BACKOFF.iter().map(|&seconds| millis(Duration::from_secs(seconds))).collect(),
        Some(waits) => waits.iter().map(|wait| millis(wait.length())).collect(),
    };
    let max_attempts = given.max_attempts.unwrap_or(MAX_ATTEMPTS);
    Retry { max_attempts, backoff_ms, jitter: given.jitter.unwrap_or_default() }
}

fn rate_limit(spec: &WebhookActionSpec) -> RateLimit {
    let given = spec.rate_limit.clone().unwrap_or_default();
    RateLimit {
        deliveries: given.deliveries.unwrap_or(RATE),
        per_ms: ms(given.per.as_ref(), RATE_PER),
        max_waiting: given.max_waiting.unwrap_or(MAX_WAITING),
        max_wait_ms: ms(given.max_wait.as_ref(), MAX_WAIT),
    }
}

fn deduplication(spec: &WebhookActionSpec) -> Deduplication {
    let given = spec.deduplication.clone().unwrap_or_default();
    Deduplication { window_ms: ms(given.window.as_ref(), DEDUPLICATION), key: given.key }
}

fn circuit_breaker(spec: &WebhookActionSpec) -> CircuitBreaker {
    let given = spec.circuit_breaker.clone().unwrap_or_default();
    let failures = given.failures.unwrap_or(BREAKER_FAILURES);
    CircuitBreaker { failures, cooldown_ms: ms(given.cooldown.as_ref(), BREAKER_COOLDOWN) }
}

fn ms(given: Option<&DurationText>, default: Duration) -> i64 {
    millis(given.map_or(default, DurationText::length))
}

fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
