//! The loop of the controllers: one process is active per database, others wait and take over.
//!
//! Survives outages of databases and broker: whatever is transient is begun anew with backoff, and meanwhile the data
//! plane runs what it has.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use crds::cause::Chain;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::session::{Platform, Session, SessionError, within};
use crate::source::directory::Directory;
use crate::source::statuses::Statuses;
use crate::{backoff, cluster};

/// Between two looks where nothing was heard: repairs what notifications missed.
pub(crate) const POLL: Duration = Duration::from_secs(3);
/// Longest wait for one look, databases included.
pub(crate) const LOOK: Duration = Duration::from_secs(30);
/// Longest wait before a session is begun anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where resources come from, and where their status goes.
#[expect(clippy::large_enum_variant, reason = "there is one for each namespace")]
pub enum Source {
    /// Manifests below a directory; the status is kept in the home database.
    Directory(PathBuf),
    /// The namespace of a cluster.
    Cluster(cluster::Settings),
}

/// What to reconcile, and where to.
pub struct Config {
    pub source: Source,
    pub platform: Platform,
}

/// What the loop is doing, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    /// Another process is active.
    Standby,
    Active,
    /// Something transient failed.
    Retrying(String),
}

/// Runs until stopped.
pub async fn run(config: Config, state: watch::Sender<State>, stop: CancellationToken) -> Result<(), Infallible> {
    let Config { source, platform } = config;
    match source {
        Source::Directory(path) => {
            let controllers = InDirectory { platform, directory: Directory::new(path), state };
            Box::pin(again_and_again(&controllers, &stop)).await;
        }
        Source::Cluster(settings) => cluster::run(platform, settings, state, &stop).await,
    }
    Ok(())
}

/// Something that goes on until it fails, and is then begun anew.
pub(crate) trait Sessions: Sync {
    /// Sets the failures to 0 once it has got going.
    fn session(&self, failures: &mut u32) -> impl Future<Output = Result<Infallible, SessionError>> + Send;

    fn state(&self) -> &watch::Sender<State>;
}

/// Begins a session anew whenever it ended, with backoff, until stopped.
pub(crate) async fn again_and_again(sessions: &impl Sessions, stop: &CancellationToken) {
    let mut failures = 0;
    while let Some(Err(error)) = stop.run_until_cancelled(sessions.session(&mut failures)).await {
        let wait = backoff::delay(failures, rand::random()).min(LONGEST_PAUSE);
        failures += 1;
        let error = Chain(&error).to_string();
        warn!(error, retry_in_ms = wait.as_millis(), "controllers: what is registered goes on");
        metrics::counter!("cornjacket_controllers_failures_total").increment(1);
        sessions.state().send_replace(State::Retrying(error));
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            break;
        }
    }
}

/// The controllers of a directory.
struct InDirectory {
    platform: Platform,
    directory: Directory,
    state: watch::Sender<State>,
}

impl Sessions for InDirectory {
    fn state(&self) -> &watch::Sender<State> {
        &self.state
    }

    async fn session(&self, failures: &mut u32) -> Result<Infallible, SessionError> {
        let mut session = Session::begin(&self.platform, &self.state).await?;
        *failures = 0;
        self.state.send_replace(State::Active);
        info!("controllers active");
        let mut statuses = Statuses::default();
        loop {
            let files = self.directory.files().await;
            let bus = session.bus.borrow_and_update().clone();
            within(LOOK, statuses.look(&mut session.look, files, &bus, self.platform.secrets_key.as_ref())).await?;
            tokio::select! {
                () = self.directory.changed() => {}
                () = session.heard.notified() => {}
                // The sender lives as long as this session.
                _ = session.bus.changed() => {}
                _ = session.migrations.changed() => {}
                _ = session.series_migrations.changed() => {}
                _ = session.tasks.join_next() => return Err(SessionError::TaskEnded),
                () = sleep(POLL) => {}
            }
        }
    }
}
