//! A process of ours in a group of its own: started with a log file, signalled, ended at the latest with the run.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::reaper;

/// Opens a log for appending; what an earlier run left in it is dropped.
fn open_log(path: &Path) -> File {
    static OPENED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let first = OPENED.lock().expect("no writer panics").insert(path.to_owned());
    let file = File::options().create(true).append(true).open(path).expect("the log can be written");
    if first {
        file.set_len(0).expect("the log can be written");
    }
    file
}

/// A running process. Dropped, it is killed; dropped by a failing test, it shows the end of its log.
pub struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with both outputs appended to `<log dir>/<name>.log`. `end` is the signal that ends it with
    /// the run.
    pub fn start(name: &str, mut command: Command, end: &str) -> Self {
        let log = reaper::log_dir().join(format!("{name}.log"));
        let file = open_log(&log);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        reaper::stop_at_end(child.id(), end);
        Self { child, name: name.to_owned(), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, signal).unwrap_or_else(|e| panic!("cannot send {signal} to {}: {e}", self.name));
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Whether it ends within a time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It did not end within `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < deadline, "{} did not end within {deadline:?}:\n{}", self.name, self.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal, deadline: Duration) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(signal);
        }
        self.wait(deadline)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} ({})\n{}\n---", self.name, self.log.display(), self.log_tail());
        }
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
