//! A real Redis: one for all tests, a database of it for each; and servers of one's own for tests that stop or kill it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Server, free_port, reaper};

const BOOT: Duration = Duration::from_secs(30);
/// A server that is frozen does not answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Of the shared server: a test each.
const DATABASES: u32 = 1_000;

/// A server of the test's own. Its port and data stay.
pub struct OwnRedis {
    name: String,
    dir: PathBuf,
    port: u16,
    settings: Vec<String>,
    server: Option<Server>,
}

impl OwnRedis {
    /// Makes a server that loses nothing it has confirmed, and starts it. `name` names its log.
    pub fn start_new(name: &str) -> Self {
        Self::start_with(name, &["appendonly yes", "appendfsync always"])
    }

    /// Makes a server with lines of configuration, and starts it. Without any it keeps nothing over a stop.
    pub fn start_with(name: &str, settings: &[&str]) -> Self {
        let dir = reaper::run_dir().join(format!("redis-{name}"));
        std::fs::create_dir(&dir).expect("one server of a name");
        let settings = settings.iter().map(|&line| line.to_owned()).collect();
        let mut own = Self { name: format!("redis-{name}"), dir, port: free_port(), settings, server: None };
        own.start();
        own
    }

    /// As a connection URL, of the first database.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn configuration(&self) -> String {
        let own = ["bind 127.0.0.1", "daemonize no", "save \"\"", &format!("databases {DATABASES}")].join("\n");
        format!("port {}\ndir {}\n{own}\n{}\n", self.port, self.dir.display(), self.settings.join("\n"))
    }

    /// Starts it again and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "{} runs already", self.name);
        let file = self.dir.join("redis.conf");
        std::fs::write(&file, self.configuration()).expect("our own directory");
        let mut command = Command::new("redis-server");
        command.arg(file).current_dir(&self.dir);
        let mut server = Server::start(&self.name, command, "KILL");
        let begun = Instant::now();
        while self.ask(&["PING"]).is_none_or(|answer| answer != "+PONG") {
            assert!(server.ended().is_none(), "{} ended:\n{}", self.name, server.log_tail());
            assert!(begun.elapsed() < BOOT, "{} does not answer:\n{}", self.name, server.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
    }

    /// Stops it as an operator does.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    /// SIGKILL: nothing is written any more.
    pub fn crash(&mut self) {
        self.end(Signal::SIGKILL);
    }

    fn end(&mut self, signal: Signal) {
        let mut server = self.server.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        server.end(signal, Duration::from_secs(30));
    }

    /// Freezes (`SIGSTOP`) or resumes (`SIGCONT`) it: connections stay open and nobody answers.
    pub fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("running").signal(signal);
    }

    /// What it answers to a command in the first database, as text (`+OK`, `:1`, the value of a key); `None`: nothing, or
    /// the key is not there.
    pub fn ask(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(ANSWER)).expect("a time that is not zero");
        let count = format!("*{}\r\n", words.len());
        let text = words.iter().fold(count, |text, word| format!("{text}${}\r\n{word}\r\n", word.len()));
        stream.write_all(text.as_bytes()).ok()?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line).ok()?;
        let Some(length) = line.trim_end().strip_prefix('$') else {
            return Some(line.trim_end().to_owned()).filter(|line| !line.is_empty());
        };
        let mut value = vec![0; length.parse().ok()?];
        answer.read_exact(&mut value).ok()?;
        String::from_utf8(value).ok()
    }
}

/// The URL of an empty database of the server that all tests share. The first that asks starts it.
pub async fn shared_redis() -> String {
    static SHARED: OnceLock<OwnRedis> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(|| OwnRedis::start_with("shared", &[])));
    let port = shared.await.expect("the shared server starts").port;
    let database = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(database < DATABASES, "tests that use Redis are more than its databases");
    format!("redis://127.0.0.1:{port}/{database}")
}
