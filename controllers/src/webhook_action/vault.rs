//! Which sealed values a database is to hold: those that a registration needs, and no others. Pure.

use std::collections::BTreeSet;

use crds::registration::{Compiled, SecretVersion};
use crds::secret::Place;
use crds::secret::key::NONCE_BYTES;
use secrecy::ExposeSecret;

use super::secrets::Secrets;
use crate::plan::{Registrations, Step};

/// One thing to do about a sealed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write it. `key_id` names the key that it is sealed under.
    Keep { version: SecretVersion, sealed: Vec<u8>, key_id: String },
    /// Nothing needs it any more.
    Delete { version: SecretVersion },
}

/// What to change so that whatever is registered after `steps` finds its values: `stored` are those that are there. What is
/// needed by a last good version, and can be read no more, stays as it is.
///
/// A database that is not to hold any (any more) gets its values deleted: see [`clear`].
pub fn plan(
    steps: &[Step],
    registered: &Registrations,
    stored: &BTreeSet<SecretVersion>,
    namespace: &str,
    secrets: &Secrets,
    mut nonce: impl FnMut() -> [u8; NONCE_BYTES],
) -> Vec<Change> {
    let needed = needed(steps, registered);
    let missing = needed.versions.difference(stored);
    let mut changes: Vec<Change> =
        missing.filter_map(|version| seal(version, namespace, secrets, &mut nonce)).collect();
    if needed.is_all {
        let deleted = stored.difference(&needed.versions).cloned();
        changes.extend(deleted.map(|version| Change::Delete { version }));
    }
    changes
}

/// What to change in a database that holds no values.
pub fn clear(stored: &BTreeSet<SecretVersion>) -> Vec<Change> {
    stored.iter().cloned().map(|version| Change::Delete { version }).collect()
}

fn seal(
    version: &SecretVersion,
    namespace: &str,
    secrets: &Secrets,
    nonce: impl FnOnce() -> [u8; NONCE_BYTES],
) -> Option<Change> {
    let place = Place { namespace, name: &version.name, key: &version.key };
    let (key, value) = (secrets.key()?, secrets.value(place)?.expose_secret());
    let sealed = || key.seal(nonce(), place, value);
    (key.digest(place, value) == version.digest).then(|| Change::Keep {
        version: version.clone(),
        sealed: sealed(),
        key_id: key.id().to_owned(),
    })
}

struct Needed {
    versions: BTreeSet<SecretVersion>,
    /// False where a registration cannot be read: nobody knows what it needs.
    is_all: bool,
}

fn needed(steps: &[Step], registered: &Registrations) -> Needed {
    let mut needed = Needed { versions: BTreeSet::new(), is_all: true };
    for step in steps {
        let spec = match step {
            Step::Register { form, .. } => Some(&**form),
            Step::Keep { key } => registered.get(key).and_then(|row| row.spec.as_ref()),
            Step::Remove { .. } => continue,
        };
        match spec {
            Some(Compiled::WebhookAction(action)) => needed.versions.extend(action.secrets().cloned()),
            Some(_) => {}
            None => needed.is_all = false,
        }
    }
    needed
}

#[cfg(test)]
mod tests;
