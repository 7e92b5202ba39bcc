//! Real processes of the platform: the binary under test, with a role, its environment and its port.

use std::collections::BTreeMap;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Client;

use super::{Server, eventually, http};

/// How a process is started. It can be started any number of times.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Names the log.
    pub name: String,
    pub arguments: Vec<String>,
    /// The whole environment, beside PATH, HOME and TMPDIR.
    pub environment: BTreeMap<String, String>,
    /// Where `/readyz` answers.
    pub port: u16,
}

impl Launch {
    pub fn new(name: &str, port: u16, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        Self { name: name.to_owned(), arguments, environment: BTreeMap::new(), port }
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// The command, for tests that look at its output themselves.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cornjacket"));
        command.args(&self.arguments).env_clear();
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.envs(&self.environment);
        command
    }

    pub fn start(&self) -> Process {
        Process { launch: self.clone(), server: Some(Server::start(&self.name, self.command(), "KILL")) }
    }

    /// Starts it and waits until it is ready.
    pub async fn ready(self) -> Process {
        let mut process = self.start();
        process.until_ready(Duration::from_mins(1)).await;
        process
    }
}

/// A process of the platform. Dropped, it is killed.
pub struct Process {
    launch: Launch,
    server: Option<Server>,
}

impl Process {
    /// `http://127.0.0.1:PORT` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.launch.port)
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap_or_else(|| panic!("{} does not run", self.launch.name))
    }

    #[allow(dead_code, reason = "the benchmark, which shares this file, looks at processes from outside")]
    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap_or_else(|| panic!("{} does not run", self.launch.name)).pid()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        let server = self.server.as_ref().unwrap_or_else(|| panic!("{} does not run", self.launch.name));
        String::from_utf8_lossy(&std::fs::read(server.log()).unwrap_or_default()).into_owned()
    }

    /// Waits until `/readyz` answers 200.
    pub async fn until_ready(&mut self, deadline: Duration) {
        let client = http::client();
        let url = self.url("/readyz");
        let name = self.launch.name.clone();
        let server = self.server();
        let ready = eventually(deadline, || is_ready(&client, &url));
        tokio::select! {
            () = ready => {}
            status = ended(server) => panic!("{name} ended before it was ready: {status}"),
        }
    }

    /// SIGKILL: nothing is flushed, nothing is handed over.
    pub fn kill9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// SIGTERM, and the exit status after the drain.
    pub fn terminate(&mut self) -> ExitStatus {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        let status = self.server().end(signal, Duration::from_mins(1));
        self.server = None;
        status
    }

    /// What a metric is at the moment, summed over its labels or of those that `name` has (`name{label="value"}`); `None`:
    /// nothing was noted yet.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let answer = http::get(&http::client(), &self.url("/metrics")).await.ok()?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let lines = answer.body.as_str()?.lines().filter(of_name);
        let values: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Sends a signal and waits for nothing.
    pub fn signal(&self, signal: Signal) {
        self.server.as_ref().unwrap_or_else(|| panic!("{} does not run", self.launch.name)).signal(signal);
    }

    /// Waits for its end; its log stays to be read.
    pub fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        self.server().wait(deadline)
    }

    /// Freezes it, as a long pause or a lost machine does.
    pub fn sigstop(&mut self) {
        self.server().signal(Signal::SIGSTOP);
    }

    /// Lets it go on, unaware of the time that passed.
    pub fn sigcont(&mut self) {
        self.server().signal(Signal::SIGCONT);
    }

    /// Starts it again after its end.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "{} runs already", self.launch.name);
        self.server = self.launch.start().server.take();
    }
}

async fn is_ready(client: &Client, url: &str) -> Result<(), String> {
    let answer = http::get(client, url).await.map_err(|e| e.to_string())?;
    if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
}

async fn ended(server: &mut Server) -> ExitStatus {
    loop {
        if let Some(status) = server.ended() {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
