//! Real PostgreSQL: one cluster for all tests, a database for each; and clusters of one's own for tests that stop it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cornjacket::cli::up::postgres::{account::Account, binaries, pid_file::PidFile};
use nix::sys::signal::Signal;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Server, free_port, reaper};

/// A cluster of the test's own, which it may stop, start and kill. Its port and data stay. Durable settings are on.
pub struct OwnPostgres {
    programs: binaries::Binaries,
    account: Account,
    name: String,
    dir: PathBuf,
    port: u16,
    server: Option<Server>,
}

impl OwnPostgres {
    /// Makes a cluster and starts it. `name` names its log. Programs come from `TEST_POSTGRES_BIN`, else from the
    /// usual places.
    pub fn start_new(name: &str) -> Self {
        let account = Account::choose().expect("a user for PostgreSQL");
        let found = match std::env::var_os("TEST_POSTGRES_BIN") {
            Some(dir) => binaries::examine(Path::new(&dir)).into_iter().collect(),
            None => binaries::search(std::env::var_os("PATH").as_deref()),
        };
        let programs = binaries::choose(&found, None).expect("PostgreSQL is installed");
        let dir = reaper::run_dir().join(name);
        std::fs::create_dir(&dir).expect("one cluster of a name");
        account.own(&dir).expect("our own directory");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("our own directory");
        let mut own = Self { programs, account, name: name.to_owned(), dir, port: free_port(), server: None };
        own.initdb();
        own.start();
        own
    }

    /// Makes a streaming replica of a cluster, which is stopped for a moment, and starts it. `name` names its log.
    pub fn standby_of(primary: &mut Self, name: &str) -> Self {
        let dir = reaper::run_dir().join(name);
        std::fs::create_dir(&dir).expect("one cluster of a name");
        primary.account.own(&dir).expect("our own directory");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("our own directory");
        primary.stop();
        let copied = Command::new("cp").arg("-a").arg(primary.dir.join("data")).arg(&dir).status().expect("cp starts");
        assert!(copied.success(), "cp -a: {copied}");
        primary.start();
        let data = dir.join("data");
        std::fs::write(data.join("standby.signal"), "").expect("our own directory");
        let follow = format!("primary_conninfo = 'host=127.0.0.1 user=cornjacket port={}'\n", primary.port);
        std::fs::write(data.join("postgresql.auto.conf"), follow).expect("our own directory");
        primary.account.own(&data.join("standby.signal")).expect("our own file");
        let (programs, account) = (primary.programs.clone(), primary.account);
        let mut own = Self { programs, account, name: name.to_owned(), dir, port: free_port(), server: None };
        own.start();
        own
    }

    /// A database of the primary that this is a standby of, here.
    pub fn database_like(&self, original: &Database) -> Database {
        Database { url: self.url_of(original.url.rsplit('/').next().expect("a name")) }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.program(program));
        command.current_dir(&self.dir).env("LC_ALL", "C");
        self.account.apply(&mut command);
        command
    }

    fn initdb(&self) {
        let mut command = self.command("initdb");
        command.args(["-D", "data", "-U", "cornjacket", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        let output = command.output().expect("initdb starts");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it again and waits until it accepts connections.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "{} runs already", self.name);
        let mut command = self.command("postgres");
        command.args(["-D", "data", "-k", "."]).args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=300",
            "shared_buffers=128MB",
            "max_wal_size=2GB",
            "wal_compression=on",
            "log_line_prefix=%m [%p] %d ",
        ] {
            command.args(["-c", setting]);
        }
        self.server = Some(Server::start(&self.name, command, "QUIT"));
        self.wait_until_ready(Duration::from_mins(1));
    }

    fn wait_until_ready(&mut self, deadline: Duration) {
        let start = Instant::now();
        let server = self.server.as_mut().expect("started");
        let data = self.dir.join("data");
        while !PidFile::read(&data).is_some_and(|file| file.pid == server.pid() && (file.ready || is_standby(&data))) {
            assert!(server.ended().is_none(), "{} ended:\n{}", self.name, server.log_tail());
            assert!(start.elapsed() < deadline, "{} not ready:\n{}", self.name, server.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it as an operator does (fast shutdown).
    pub fn stop(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// Stops it without a shutdown checkpoint: it recovers at the next start.
    pub fn crash(&mut self) {
        self.end(Signal::SIGQUIT);
    }

    fn end(&mut self, signal: Signal) {
        let mut server = self.server.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        server.signal(signal);
        // A server told to stop in the very moment in which it finished starting may wait for a child of its own for ever.
        if !server.ends_within(Duration::from_secs(10)) {
            server.signal(Signal::SIGQUIT);
            if !server.ends_within(Duration::from_secs(10)) {
                server.signal(Signal::SIGKILL);
            }
        }
        server.wait(Duration::from_secs(30));
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://cornjacket@127.0.0.1:{}/{database}", self.port)
    }

    /// An empty database with a name of its own.
    pub async fn fresh_database(&self) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&self.url_of("postgres")).await.expect("the cluster answers");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.expect("a new name");
        let _ = admin.close().await;
        Database { url: self.url_of(&name) }
    }
}

/// Whether a standby accepts connections.
fn is_standby(data: &Path) -> bool {
    let file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    file.lines().nth(7).is_some_and(|status| status.trim() == "standby")
}

/// A database of one test.
#[derive(Clone, Debug)]
pub struct Database {
    pub url: String,
}

impl Database {
    /// A few connections for the test's own questions.
    pub async fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(10));
        options.connect(&self.url).await.expect("the database answers")
    }
}

/// An empty database in the cluster that all tests share, which is started by the first that asks. The product
/// migrates it.
pub async fn fresh_database() -> Database {
    static SHARED: OnceLock<OwnPostgres> = OnceLock::new();
    let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(|| OwnPostgres::start_new("postgres")));
    shared.await.expect("the shared cluster starts").fresh_database().await
}
