//! The server process: started in a group of its own, watched, and stopped; also one that an earlier start left behind.

use std::fs::File;
use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::PostgresError;
use super::binaries::Binaries;
use super::home::Home;
use super::pid_file::PidFile;

/// What suits a laptop: durable, small, and no time spent on compiling queries.
const SETTINGS: [&str; 12] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_permissions=0700",
    "max_connections=100",
    "shared_buffers=128MB",
    "max_wal_size=2GB",
    "wal_compression=on",
    "jit=off",
    "fsync=on",
    "synchronous_commit=on",
    "log_line_prefix=%m [%p] ",
    "log_checkpoints=off",
    "idle_in_transaction_session_timeout=0",
];

/// How long a fast shutdown may take before an immediate one.
const FAST: Duration = Duration::from_secs(20);
/// How long an immediate shutdown may take before SIGKILL.
const IMMEDIATE: Duration = Duration::from_secs(5);
/// After a crash, children of the dead server may hold its memory for a moment: starts are repeated that often.
const ATTEMPTS: u32 = 5;
/// A log larger than this, in bytes, is put aside at a start.
const LARGEST_LOG: u64 = 10 << 20;

/// A server that accepts connections.
pub struct Postmaster {
    pid: u32,
    port: u16,
    ended: watch::Receiver<Option<String>>,
}

impl Postmaster {
    /// Starts the server of a home and waits until it accepts connections.
    pub async fn start(home: &Home, programs: &Binaries, deadline: Duration) -> Result<Self, PostgresError> {
        let mut attempt = 1;
        loop {
            let server = Self::spawn(home, programs)?;
            if server.accepts(home, deadline).await {
                home.keep_port(server.port)?;
                return Ok(server);
            }
            server.stop().await;
            if attempt == ATTEMPTS {
                return Err(PostgresError::Start { log: home.log(), tail: tail(&home.log()) });
            }
            attempt += 1;
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn spawn(home: &Home, programs: &Binaries) -> Result<Self, PostgresError> {
        let port = port(home.last_port())?;
        let log = open_log(&home.log())?;
        let mut command = home.command(programs, "postgres");
        command.args(["-D", "data", "-p", &port.to_string(), "-k"]).arg(home.socket_dir());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let errors = log.try_clone().map_err(PostgresError::files("open", &home.log()))?;
        // A group of its own: Ctrl-C in a terminal is for us, and we stop the server when nobody needs it any more.
        command.stdout(log).stderr(errors).process_group(0);
        let mut command = tokio::process::Command::from(command);
        let spawned = command.spawn().map_err(PostgresError::files("start", &programs.program("postgres")));
        let mut child = spawned?;
        let pid = child.id().unwrap_or_default();
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            let how = child.wait().await.map_or_else(|e| e.to_string(), |status| status.to_string());
            tell.send_replace(Some(how));
        });
        Ok(Self { pid, port, ended })
    }

    async fn accepts(&self, home: &Home, deadline: Duration) -> bool {
        let data = home.data();
        let ready = async {
            while !PidFile::read(&data).is_some_and(|file| file.pid == self.pid && file.ready) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            answer = timeout(deadline, ready) => answer.is_ok(),
            _ = self.ended() => false,
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Resolves with how the server ended.
    pub fn ended(&self) -> impl Future<Output = String> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let how = ended.wait_for(Option::is_some).await.ok().and_then(|how| how.clone());
            how.unwrap_or_else(|| "not watched".to_owned())
        }
    }

    /// Stops it; false if it had to be ended at once.
    pub async fn stop(&self) -> bool {
        for (signal, patience) in [(Signal::SIGINT, FAST), (Signal::SIGQUIT, IMMEDIATE), (Signal::SIGKILL, IMMEDIATE)] {
            if self.ended.borrow().is_some() {
                return true;
            }
            send(self.pid, signal);
            if timeout(patience, self.ended()).await.is_ok() {
                return signal == Signal::SIGINT;
            }
        }
        false
    }
}

impl Drop for Postmaster {
    /// Whoever did not wait for the stop still leaves no server behind.
    fn drop(&mut self) {
        if self.ended.borrow().is_none() {
            send(self.pid, Signal::SIGINT);
        }
    }
}

/// Stops a server of this home that a killed `up` left behind, and clears away the mark of one that is gone.
///
/// The caller holds the lock of the data directory, so no other `up` runs that server.
pub async fn stop_leftover(home: &Home, report: impl Fn(&str)) -> Result<(), PostgresError> {
    let data = home.data();
    let Some(file) = PidFile::read(&data) else { return Ok(()) };
    if serves(file.pid, &data) {
        report("Stopping the PostgreSQL that an earlier start left behind");
        for (signal, patience) in [(Signal::SIGINT, FAST), (Signal::SIGQUIT, IMMEDIATE)] {
            send(file.pid, signal);
            let start = Instant::now();
            while serves(file.pid, &data) && start.elapsed() < patience {
                sleep(Duration::from_millis(20)).await;
            }
        }
        if serves(file.pid, &data) {
            return Err(PostgresError::Stuck(file.pid));
        }
    }
    if let Some(dir) = file.socket_dir.filter(|dir| is_short_socket_dir(dir) && dir != home.socket_dir()) {
        let _ = std::fs::remove_dir_all(dir);
    }
    // Its number may belong to another process by now, which PostgreSQL would take for a running server.
    let mark = data.join("postmaster.pid");
    match std::fs::remove_file(&mark) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(PostgresError::files("remove", &mark)(e)),
        _ => Ok(()),
    }
}

/// True if the process is a server of this data directory: it works in it.
fn serves(pid: u32, data: &Path) -> bool {
    if Path::new("/proc/self/cwd").exists() {
        return std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    }
    let answer = Command::new("lsof").args(["-a", "-d", "cwd", "-Fn", "-p", &pid.to_string()]).output();
    answer.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).lines().any(|l| l == format!("n{}", data.display())))
}

/// True for a directory that was made because the home's path is too long.
fn is_short_socket_dir(dir: &Path) -> bool {
    let named = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cornjacket-"));
    named && dir.parent() == Some(&std::env::temp_dir())
}

fn send(pid: u32, signal: Signal) {
    if let Ok(pid @ 1..) = i32::try_from(pid) {
        // One that has just ended needs no signal.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The port of the last start if it is free, so that clients find it again; else one that is.
fn port(last: Option<u16>) -> Result<u16, PostgresError> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = last.filter(|port| bind(*port).is_ok()) {
        return Ok(port);
    }
    let free = bind(0).and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(PostgresError::files("find a free port on", Path::new("127.0.0.1")))
}

fn open_log(path: &Path) -> Result<File, PostgresError> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > LARGEST_LOG) {
        let _ = std::fs::rename(path, path.with_extension("log.old"));
    }
    File::options().create(true).append(true).open(path).map_err(PostgresError::files("open", path))
}

/// The last lines of the log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
