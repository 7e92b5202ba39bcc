//! Reads the Secrets that actions refer to, and no others, each by `get`: to watch them would take the right to list them all.
//!
//! They are read when the references change, and every so often: a Secret that was made, changed or removed wakes the look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::cause::Chain;
use crds::secret::SecretSlice;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::backoff;
use crate::effects::kubernetes::{ClusterError, ask};
use crate::webhook_action::secrets::{Found, References, State};

/// Secrets that are read at the same time.
const CONCURRENCY: usize = 8;
/// Longest wait of a look for Secrets that nobody has read before. It is less than after what a silent seat is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was read last, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Known {
    asked: References,
    pub found: Arc<Found>,
}

/// The looks' end: tells what is referred to, and takes what is known.
pub struct Secrets {
    wanted: watch::Sender<References>,
    known: watch::Receiver<Known>,
    again: Arc<Notify>,
}

/// The end that reads.
pub struct Reader {
    api: Api<Secret>,
    /// Between two readings where all went well.
    every: Duration,
    wanted: watch::Receiver<References>,
    publish: watch::Sender<Known>,
    /// Told of everything new.
    changed: Arc<Notify>,
    /// Tells to read now.
    again: Arc<Notify>,
}

/// Both ends.
pub fn channel(client: Client, namespace: &str, every: Duration, changed: Arc<Notify>) -> (Secrets, Reader) {
    let (wanted, wanted_by) = watch::channel(References::new());
    let (publish, known) = watch::channel(Known::default());
    let (api, again) = (Api::namespaced(client, namespace), Arc::new(Notify::new()));
    let reader = Reader { api, every, wanted: wanted_by, publish, changed, again: again.clone() };
    (Secrets { wanted, known, again }, reader)
}

impl Secrets {
    /// Somebody asks for a look now: Secrets are read as well, and wake another look if they changed.
    pub fn read_again(&self) {
        self.again.notify_one();
    }

    /// What is known of what is referred to. What is referred to for the first time is waited for, within reason.
    pub async fn about(&mut self, references: References) -> Arc<Found> {
        let wanted = references.clone();
        self.wanted.send_if_modified(|before| {
            let changed = *before != references;
            *before = references;
            changed
        });
        if let Ok(Ok(known)) = timeout(PATIENCE, self.known.wait_for(|known| covers(known, &wanted))).await {
            return known.found.clone();
        }
        let mut found = (*self.known.borrow().found).clone();
        for name in wanted.into_keys() {
            found.entry(name).or_insert_with(|| State::Away("the API server has not answered yet".to_owned()));
        }
        Arc::new(found)
    }
}

fn covers(known: &Known, wanted: &References) -> bool {
    wanted.iter().all(|(name, keys)| known.asked.get(name).is_some_and(|asked| keys.is_subset(asked)))
}

impl Reader {
    /// Runs for ever; drop it to stop.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let references = self.wanted.borrow_and_update().clone();
            let before = self.publish.borrow().found.clone();
            let found: Found = self.read(&references, &before).await;
            let is_away = found.values().any(|state| matches!(state, State::Away(_)));
            self.tell(&before, references, found);
            let wait = if is_away { backoff::delay(failures, rand::random()).min(self.every) } else { self.every };
            failures = if is_away { failures.saturating_add(1) } else { 0 };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.again.notified() => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn read(&self, references: &References, before: &Found) -> Found {
        let one = |(name, keys): (String, BTreeSet<String>)| {
            let (api, known) = (self.api.clone(), before.get(&name).cloned());
            async move {
                let state = read(&api, &name, &keys, known).await;
                (name, state)
            }
        };
        stream::iter(references.clone()).map(one).buffer_unordered(CONCURRENCY).collect().await
    }

    fn tell(&self, before: &Found, asked: References, found: Found) {
        let is_news = |(name, state): &(&String, &State)| before.get(*name).is_none_or(|was| !state.same_as(was));
        let news: Vec<&String> = found.iter().filter(is_news).map(|(name, _)| name).collect();
        for name in &news {
            match &found[*name] {
                State::Present { version, .. } => info!(secret = name, version, "Secret read"),
                State::Away(why) => warn!(secret = name, why, "cannot read a Secret: trying again until it can"),
                state => info!(secret = name, ?state, "Secret cannot be used"),
            }
        }
        let is_new = !news.is_empty();
        self.publish.send_replace(Known { asked, found: Arc::new(found) });
        if is_new {
            self.changed.notify_one();
        }
    }
}

/// What was read before is still the best that is known where nobody answers now.
async fn read(api: &Api<Secret>, name: &str, keys: &BTreeSet<String>, known: Option<State>) -> State {
    let answer = ask("read a Secret", api.get_opt(name)).await;
    metrics::counter!("cornjacket_controllers_secret_reads_total").increment(1);
    match (state(answer, keys), known) {
        (State::Away(why), Some(State::Present { version, values })) if keys.iter().eq(values.keys()) => {
            debug!(secret = name, why, "cannot read a Secret again: what was read before stays");
            State::Present { version, values }
        }
        (now, _) => now,
    }
}

/// Of an answer only what is referred to is kept.
fn state(answer: Result<Option<Secret>, ClusterError>, keys: &BTreeSet<String>) -> State {
    match answer {
        Ok(Some(secret)) => {
            let version = secret.metadata.resource_version.unwrap_or_default();
            let data = secret.data.unwrap_or_default();
            let kept = data.into_iter().filter(|(key, _)| keys.contains(key));
            let values: BTreeMap<_, _> = kept.map(|(key, value)| (key, SecretSlice::from(value.0))).collect();
            State::Present { version, values }
        }
        Ok(None) => State::Absent,
        Err(error) if error.is_forbidden() => State::Forbidden,
        Err(error) => State::Away(Chain(&error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use kube::core::Status;
    use secrecy::ExposeSecret;

    use super::*;

    fn keys(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn only_what_is_referred_to_is_kept_of_a_secret() {
        let mut secret = Secret::default();
        secret.metadata.resource_version = Some("7".into());
        let value = |text: &str| ByteString(text.as_bytes().to_vec());
        secret.data = Some([("a".to_owned(), value("xyzzy")), ("b".to_owned(), value("plugh"))].into());
        let State::Present { version, values } = state(Ok(Some(secret)), &keys(&["a", "c"])) else { panic!("present") };
        let values: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect();
        assert_eq!((version.as_str(), values), ("7", vec![("a", b"xyzzy".as_slice())]));
    }

    #[test]
    fn absent_forbidden_and_away_are_told_apart() {
        let refused = |code: u16| ClusterError::Refused {
            doing: "read a Secret",
            source: Box::new(kube::Error::Api(Box::new(Status { code, ..Status::default() }))),
        };
        assert!(matches!(state(Ok(None), &keys(&[])), State::Absent));
        assert!(matches!(state(Err(refused(403)), &keys(&[])), State::Forbidden));
        assert!(matches!(state(Err(refused(500)), &keys(&[])), State::Away(_)));
        let silent = ClusterError::Silent { doing: "read a Secret" };
        assert!(matches!(state(Err(silent), &keys(&[])), State::Away(why) if why.contains("read a Secret")));
    }

    #[test]
    fn what_was_asked_for_covers_what_is_wanted_by_keys() {
        let asked = |names: &[(&str, &[&str])]| -> References {
            names.iter().map(|(name, of)| ((*name).to_owned(), keys(of))).collect()
        };
        let known = Known { asked: asked(&[("a", &["x", "y"])]), found: Arc::default() };
        assert!(covers(&known, &asked(&[])) && covers(&known, &asked(&[("a", &["y"])])));
        assert!(!covers(&known, &asked(&[("a", &["z"])])) && !covers(&known, &asked(&[("b", &["x"])])));
    }
}
