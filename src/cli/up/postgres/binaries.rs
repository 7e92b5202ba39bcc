//! Where PostgreSQL's programs are on this machine, and which of several installations serves.
//!
//! Comes in: the search path and the places where packages put them. Goes out: one directory of programs, or a sentence
//! that says what was found and what to install.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that the platform runs on.
pub const OLDEST: u32 = 15;

/// Where packages put the programs; `*` stands for one version.
const PLACES: [&str; 9] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib64/pgsql/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Library/PostgreSQL/*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// One installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// Holds `postgres` and `initdb`.
    pub dir: PathBuf,
    pub major: u32,
}

impl Binaries {
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// No installation serves.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBinaries {
    #[error(
        "no PostgreSQL found (looked on PATH and in the usual places): install version {OLDEST} or newer \
         (Debian and Ubuntu: `apt-get install postgresql`; macOS: `brew install postgresql@17`), \
         or give the URL of one that runs by INGESTION_DATABASE_URL, EVENTHANDLER_DATABASE_URL and QUERY_DATABASE_URL"
    )]
    None,
    #[error("found only {found}, and {OLDEST} or newer is needed: install a newer PostgreSQL")]
    TooOld { found: String },
    #[error(
        "the data was written by PostgreSQL {wanted}, and found is only {found}: install PostgreSQL {wanted}, \
         or move the data away to start with an empty database"
    )]
    OtherMajor { wanted: u32, found: String },
}

/// Every installation on this machine, those on PATH first, the others newest first.
pub fn search(path: Option<&OsStr>) -> Vec<Binaries> {
    let mut found: Vec<Binaries> = path
        .map(|path| std::env::split_paths(path).collect::<Vec<_>>())
        .unwrap_or_default()
        .iter()
        .filter_map(|dir| examine(dir))
        .collect();
    let mut elsewhere: Vec<Binaries> =
        PLACES.iter().flat_map(|place| expand(place)).filter_map(|dir| examine(&dir)).collect();
    elsewhere.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    found.append(&mut elsewhere);
    found
}

/// The first installation that serves. `wanted` is the major version that existing data was written by: only that
/// version can read it.
pub fn choose(found: &[Binaries], wanted: Option<u32>) -> Result<Binaries, NoBinaries> {
    let serves = |b: &&Binaries| wanted.map_or(b.major >= OLDEST, |major| b.major == major);
    if let Some(binaries) = found.iter().find(serves) {
        return Ok(binaries.clone());
    }
    let described: Vec<String> =
        found.iter().map(|b| format!("PostgreSQL {} in {}", b.major, b.dir.display())).collect();
    Err(match wanted {
        _ if found.is_empty() => NoBinaries::None,
        Some(wanted) => NoBinaries::OtherMajor { wanted, found: described.join(", ") },
        None => NoBinaries::TooOld { found: described.join(", ") },
    })
}

/// The installation in a directory, if both programs are there and tell their version.
pub fn examine(dir: &Path) -> Option<Binaries> {
    if !dir.join("initdb").is_file() {
        return None;
    }
    let answer = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    Some(Binaries { dir: dir.to_owned(), major: major_of(&String::from_utf8_lossy(&answer.stdout))? })
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` is 15.
fn major_of(answer: &str) -> Option<u32> {
    let (_, version) = answer.split_once("PostgreSQL) ")?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The directories that a place with one `*` stands for.
fn expand(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once('*') else { return vec![PathBuf::from(place)] };
    let parent = before.rfind('/').map_or("/", |end| &before[..=end]);
    let prefix = &before[parent.len()..];
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(after.trim_start_matches('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(major: u32) -> Binaries {
        Binaries { dir: PathBuf::from(format!("/pg/{major}")), major }
    }

    #[test]
    fn reads_the_version_of_releases_and_of_betas() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(major_of("no such thing"), None);
    }

    #[test]
    fn takes_the_first_that_is_new_enough() {
        assert_eq!(choose(&[installed(13), installed(16), installed(17)], None), Ok(installed(16)));
    }

    #[test]
    fn existing_data_needs_its_own_version() {
        assert_eq!(choose(&[installed(17), installed(15)], Some(15)), Ok(installed(15)));
        let refused = choose(&[installed(17)], Some(15)).unwrap_err().to_string();
        assert!(refused.contains("written by PostgreSQL 15") && refused.contains("17 in /pg/17"), "{refused}");
    }

    #[test]
    fn says_what_was_found_and_what_to_install() {
        let old = choose(&[installed(13)], None).unwrap_err().to_string();
        assert!(old.contains("13 in /pg/13") && old.contains("15 or newer"), "{old}");
        assert!(choose(&[], None).unwrap_err().to_string().contains("apt-get install postgresql"));
    }

    #[test]
    fn a_place_stands_for_every_version_in_it() {
        let root = tempfile::tempdir().unwrap();
        for name in ["pgsql-15", "pgsql-17", "other"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut dirs = expand(&format!("{}/pgsql-*/bin", root.path().display()));
        dirs.sort();
        assert_eq!(dirs, [root.path().join("pgsql-15/bin"), root.path().join("pgsql-17/bin")]);
    }
}
