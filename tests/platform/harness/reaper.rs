//! Nothing outlives a test run: a watcher process ends what was started, even if the run is killed.
//!
//! The watcher (`reaper.sh`) reads from a pipe that only this process writes to. When this process ends, by return,
//! panic, Ctrl-C or SIGKILL, the pipe closes, and the watcher stops every process that was told to it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

fn pipe() -> &'static Mutex<ChildStdin> {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    PIPE.get_or_init(|| {
        #[expect(clippy::zombie_processes, reason = "it ends after us: nobody is left to wait for it")]
        let mut watcher = Command::new("sh")
            .args(["-c", include_str!("reaper.sh")])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Mutex::new(watcher.stdin.take().expect("stdin is piped"))
    })
}

fn tell(line: &str) {
    let mut pipe = pipe().lock().expect("no writer panics");
    writeln!(pipe, "{line}").expect("the watcher lives as long as we do");
}

/// Has the leader of a process group sent `signal` (`QUIT`, `KILL`) at the end, and its group killed if it stays.
pub fn stop_at_end(pid: u32, signal: &str) {
    tell(&format!("stop {signal} {pid}"));
}

/// The directory of this run's data, removed at its end. Any user may pass through it.
pub fn run_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::Builder::new().prefix("cornjacket-test-").tempdir().expect("a temporary directory").keep();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o711)).expect("our own directory");
        tell(&format!("remove {}", dir.display()));
        dir
    })
}

/// The directory of the logs, kept after the run.
pub fn log_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("platform-logs");
        std::fs::create_dir_all(&dir).expect("the target directory can be written");
        dir
    })
}
