//! A real MQTT broker of the test's own: Eclipse Mosquitto, which it may stop and start; its port and data stay.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Server, free_port, reaper};

const BOOT: Duration = Duration::from_secs(30);

/// A broker.
pub struct Mosquitto {
    name: String,
    dir: PathBuf,
    port: u16,
    server: Option<Server>,
}

impl Mosquitto {
    /// Makes a broker that lets anybody in, and starts it.
    pub fn start_new(name: &str) -> Self {
        Self::start_with(name, |_| "allow_anonymous true".to_owned())
    }

    /// Makes a broker with further lines of configuration, given its directory, and starts it.
    pub fn start_with(name: &str, more: impl FnOnce(&Path) -> String) -> Self {
        let dir = reaper::run_dir().join(format!("mosquitto-{name}"));
        std::fs::create_dir(&dir).expect("one broker of a name");
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\n\
             user {user}\n\
             persistence true\n\
             persistence_location {dir}/\n\
             max_queued_messages 0\n\
             max_inflight_messages 0\n\
             {more}\n",
            user =
                nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map_or_else(String::new, |u| u.name),
            dir = dir.display(),
            more = more(&dir),
        );
        std::fs::write(dir.join("mosquitto.conf"), config).expect("our own directory");
        let mut broker = Self { name: format!("mosquitto-{name}"), dir, port, server: None };
        broker.start();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// As `MQTT_URL`.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Starts it again and waits until it listens.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "{} runs already", self.name);
        let mut command = Command::new(program());
        command.arg("-c").arg(self.dir.join("mosquitto.conf")).current_dir(&self.dir);
        let mut server = Server::start(&self.name, command, "KILL");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(server.ended().is_none(), "{} ended:\n{}", self.name, server.log_tail());
            assert!(begun.elapsed() < BOOT, "{} does not listen:\n{}", self.name, server.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
    }

    /// Stops it in an orderly way: sessions and what waits for them are kept.
    pub fn stop(&mut self) {
        let mut server = self.server.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        server.end(Signal::SIGTERM, Duration::from_secs(30));
    }
}

/// On PATH, or where Debian puts it, which is not on everybody's.
fn program() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/mosquitto");
    if debian.exists() { debian } else { PathBuf::from("mosquitto") }
}
