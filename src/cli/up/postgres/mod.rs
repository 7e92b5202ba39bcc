//! The private PostgreSQL of `up`: a cluster of its own under the data directory, for who has none.
//!
//! Comes in: a data directory. Goes out: the URL of a running PostgreSQL that nobody else on the network reaches, and
//! that keeps its data between starts.
//!
//! ```text
//! <data-dir>/lock               held while `up` runs: one `up` a data directory
//! <data-dir>/database.url       where it is to be reached, with the password; readable by the owner alone
//! <data-dir>/postgres/          home of the cluster: data, socket, password, port, postgres.log
//! ```
//!
//! Guarantees: data survives a kill of either process at any point (a first start that was cut short begins anew; a
//! server left behind by a killed `up` is stopped before the next start); a server that dies is noticed.

pub mod account;
pub mod binaries;
mod home;
mod lock;
pub mod pid_file;
mod postmaster;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use tracing::{info, warn};

use account::{Account, NoAccount};
use binaries::{Binaries, NoBinaries};
use home::Home;
use lock::DataLock;
use postmaster::Postmaster;

/// How long the server may take until it accepts connections; it may have to recover from a crash first.
const START_DEADLINE: Duration = Duration::from_mins(2);

/// A private PostgreSQL that runs. Ends with [`PrivatePostgres::stop`]; dropped, it is told to stop and not waited for.
pub struct PrivatePostgres {
    postmaster: Postmaster,
    home: Home,
    url: SecretString,
    _lock: DataLock,
}

/// Why there is no private PostgreSQL. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("another `cornjacket up` ({holder}) uses {}: stop it, or choose another --data-dir", data_dir.display())]
    InUse { data_dir: PathBuf, holder: String },
    #[error(transparent)]
    Binaries(#[from] NoBinaries),
    #[error(transparent)]
    Account(#[from] NoAccount),
    #[error("cannot {step} {}", path.display())]
    Files { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{program} failed: {output}")]
    Program { program: &'static str, output: String },
    #[error("PostgreSQL does not start; its log ({}) ends with:\n{tail}", log.display())]
    Start { log: PathBuf, tail: String },
    #[error("PostgreSQL (process {0}), left behind by an earlier start, does not stop: stop it by `kill -QUIT {0}`")]
    Stuck(u32),
}

impl PostgresError {
    fn files(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Files { step, path: path.to_owned(), source }
    }
}

impl PrivatePostgres {
    /// Makes the cluster where there is none, and starts it. `report` is told each step, as a sentence for people.
    ///
    /// # Errors
    /// No PostgreSQL serves, the directory is in use, or the server does not start.
    pub async fn start(data_dir: &Path, report: impl Fn(&str)) -> Result<Self, PostgresError> {
        let found = binaries::search(std::env::var_os("PATH").as_deref());
        Self::start_with(data_dir, &found, report).await
    }

    /// As [`PrivatePostgres::start`], from these installations.
    pub async fn start_with(data_dir: &Path, found: &[Binaries], report: impl Fn(&str)) -> Result<Self, PostgresError> {
        std::fs::create_dir_all(data_dir).map_err(PostgresError::files("create", data_dir))?;
        let data_dir = data_dir.canonicalize().map_err(PostgresError::files("find", data_dir))?;
        let lock = DataLock::take(&data_dir)?;
        let mut home = Home::prepare(&data_dir, Account::choose()?, &report)?;
        let programs = binaries::choose(found, home.major())?;
        if home.major().is_none() {
            report(&format!("Creating a database in {} (PostgreSQL {})", home.dir().display(), programs.major));
            home = create_cluster(home, programs.clone()).await?;
        }
        postmaster::stop_leftover(&home, &report).await?;
        let postmaster = Postmaster::start(&home, &programs, START_DEADLINE).await?;
        let url = home.url(&postmaster)?;
        home::publish(&data_dir, &url)?;
        report(&format!("PostgreSQL {} runs on 127.0.0.1:{}", programs.major, postmaster.port()));
        info!(pid = postmaster.pid(), port = postmaster.port(), "private PostgreSQL accepts connections");
        Ok(Self { postmaster, home, url, _lock: lock })
    }

    /// `postgres://…` by the unix socket, with the password.
    pub fn url(&self) -> &SecretString {
        &self.url
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.postmaster.pid()
    }

    /// Resolves when the server has ended, with how; not tied to the life of `self`.
    pub fn died(&self) -> impl Future<Output = String> + Send + use<> {
        let ended = self.postmaster.ended();
        let log = self.home.log();
        async move { format!("PostgreSQL ended ({}); see {}", ended.await, log.display()) }
    }

    /// Fast shutdown: sessions are ended, everything committed is kept. After 20 s at once, to recover at the next
    /// start.
    pub async fn stop(self) {
        if !self.postmaster.stop().await {
            warn!("private PostgreSQL did not stop in time and was ended at once; it recovers at the next start");
        }
        self.home.remove_short_socket_dir();
    }
}

impl std::fmt::Debug for PrivatePostgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL holds the password.
        f.debug_struct("PrivatePostgres").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// Takes about a second, off the runtime's threads.
async fn create_cluster(home: Home, programs: Binaries) -> Result<Home, PostgresError> {
    let work = tokio::task::spawn_blocking(move || home.create_cluster(&programs).map(|()| home));
    match work.await {
        Ok(made) => made,
        Err(died) => Err(PostgresError::Program { program: "initdb", output: died.to_string() }),
    }
}
