//! `postmaster.pid`: what a PostgreSQL that runs, or that died, says of itself in its data directory.

use std::path::{Path, PathBuf};

/// The lines of the file that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    pub pid: u32,
    /// Where its socket is.
    pub socket_dir: Option<PathBuf>,
    /// It accepts connections.
    pub ready: bool,
}

impl PidFile {
    /// The file of a data directory; none where PostgreSQL is stopped, or has not written it in full.
    pub fn read(data: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    /// Lines: process id, data directory, start time, port, socket directory, address, shared memory, status.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            socket_dir: lines.get(4).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            ready: lines.get(7) == Some(&"ready"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_server_that_accepts_from_one_that_starts() {
        let mut text = "4711\n/data\n1764033000\n5433\n/run/x\n127.0.0.1\n  123  4\nstarting\n".to_owned();
        let starting = PidFile::parse(&text).unwrap();
        assert_eq!((starting.pid, starting.socket_dir, starting.ready), (4711, Some("/run/x".into()), false));
        text = text.replace("starting", "ready   ");
        assert!(PidFile::parse(&text).unwrap().ready);
    }

    #[test]
    fn half_a_file_is_no_server_yet() {
        assert_eq!(PidFile::parse(""), None);
        assert!(!PidFile::parse("4711\n/data\n").unwrap().ready);
    }
}
