//! From the catalogue to endpoints: secrets are opened, and what runs is acknowledged.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use crds::registration::SecretVersion;
use crds::secret::PlatformKey;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::endpoint::{Endpoint, Endpoints, Matcher, Sealed};
use super::intake::CURSORS;
use super::state::State;
use super::store::endpoints as store;
use crate::bus::embedded::store as event_store;
use crate::database::within;
use crate::operate::Gate;
use crate::registry::{Acks, Catalog, LoadedAction};

/// When what could not be loaded is tried again.
const AGAIN: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct Loader {
    pub pool: PgPool,
    pub ingestion: PgPool,
    pub namespace: String,
    pub platform: Option<Arc<PlatformKey>>,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub acks: Acks,
    pub state: State,
    pub publish: watch::Sender<Arc<Endpoints>>,
    pub gate: Gate,
}

impl Loader {
    /// Runs until stopped. What cannot be loaded keeps what was loaded before.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        // Before the first load the catalogue is empty, which must not be taken for "nothing is registered".
        if stop.run_until_cancelled(self.catalog.changed()).await.is_none() {
            return Ok(());
        }
        let (mut failing, mut begun) = (false, false);
        while !stop.is_cancelled() {
            let catalog = self.catalog.borrow_and_update().clone();
            let load = async {
                if !begun {
                    self.begin().await?;
                }
                self.load(&catalog).await
            };
            let whole = match within::<_, sqlx::Error>(DEADLINE, load).await {
                Ok(whole) => {
                    (failing, begun) = (false, true);
                    self.gate.open();
                    whole
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%error, "actions cannot be loaded: the last ones stay in use, trying again until they can");
                    }
                    false
                }
            };
            tokio::select! {
                changed = self.catalog.changed() => if changed.is_err() { sleep(AGAIN).await; },
                () = sleep(AGAIN), if !whole => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Who begins, begins with what comes now. Before any action is acknowledged: from then on nothing is missed.
    async fn begin(&self) -> Result<(), sqlx::Error> {
        let heads = event_store::heads(&self.ingestion).await?;
        CURSORS.make(&self.pool, &heads).await.map(drop)
    }

    /// False where an action could not be opened: its secret may come.
    async fn load(&self, catalog: &Catalog) -> Result<bool, sqlx::Error> {
        let before = self.publish.borrow().clone();
        let names: Vec<&str> = catalog.actions.keys().map(String::as_str).collect();
        let since = store::since(&self.pool, &names).await?;
        let needs_secrets = catalog.actions.values().any(|action| action.spec.secrets().next().is_some());
        let secrets = if needs_secrets { store::secrets(&self.pool, &self.namespace).await? } else { BTreeMap::new() };
        let mut next = Endpoints { loaded: true, ..Endpoints::default() };
        let mut whole = true;
        for (name, action) in &catalog.actions {
            let known = before.by_name.get(name);
            let matcher = Matcher {
                action: name.clone(),
                program: action.program.clone(),
                since: since.get(name).copied().unwrap_or_else(Utc::now),
                window_ms: action.spec.deduplication.window_ms,
            };
            next.matchers.insert(name.clone(), Arc::new(matcher));
            let endpoint = match self.endpoint(action, known, &secrets) {
                Ok(endpoint) => Some(endpoint),
                Err(why) => {
                    whole = false;
                    self.acks.report_action(&action.key, &action.hash, Err(why));
                    known.cloned()
                }
            };
            if let Some(now) = &endpoint
                && known.is_none_or(|known| now.url != known.url)
                && store::is_another(&self.pool, name, now.url.as_str()).await?
            {
                self.reset(name).await;
            }
            next.by_name.extend(endpoint.map(|endpoint| (name.clone(), endpoint)));
        }
        self.publish.send_replace(Arc::new(next));
        Ok(whole)
    }

    fn endpoint(
        &self,
        action: &LoadedAction,
        known: Option<&Arc<Endpoint>>,
        secrets: &BTreeMap<SecretVersion, Sealed>,
    ) -> Result<Arc<Endpoint>, String> {
        if let Some(known) = known.filter(|known| known.hash == action.hash) {
            return Ok(known.clone());
        }
        let endpoint = Endpoint::open(action, secrets, self.platform.as_deref())?;
        info!(action = endpoint.name(), generation = action.generation, "action loaded");
        self.acks.report_action(&action.key, &action.hash, Ok(()));
        Ok(Arc::new(endpoint))
    }

    /// Another URL is another endpoint: nothing is known of it.
    async fn reset(&self, action: &str) {
        if let Err(error) = self.state.reset(action).await {
            warn!(action, %error, "the breaker of the endpoint before could not be reset: it closes by itself");
        }
    }
}
