//! The files of the private cluster: where they are, whose they are, and how the cluster is made.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};

use super::PostgresError;
use super::account::Account;
use super::binaries::Binaries;
use super::postmaster::Postmaster;

/// Name of the role and of the database.
const NAME: &str = "cornjacket";

/// A unix socket's path has room for 107 bytes; PostgreSQL appends `/.s.PGSQL.65535`.
const LONGEST_SOCKET_DIR: usize = 107 - "/.s.PGSQL.65535".len();

/// Where a home goes that the account cannot enter below the data directory.
const ELSEWHERE: &str = "/var/lib/cornjacket";

/// The directory of the cluster, owned by the account that PostgreSQL runs as.
pub struct Home {
    dir: PathBuf,
    account: Account,
    socket_dir: PathBuf,
}

impl Home {
    /// Finds or makes the home of a data directory.
    pub fn prepare(data_dir: &Path, account: Account, report: impl Fn(&str)) -> Result<Self, PostgresError> {
        let link = data_dir.join("postgres");
        if !link.exists() {
            make(&link, data_dir, account, report)?;
        }
        let dir = link.canonicalize().map_err(PostgresError::files("find", &link))?;
        let parent = dir.parent().unwrap_or(&dir);
        if let Some(barrier) = account.barrier(parent) {
            let source = std::io::Error::other("the user `postgres` may not enter it (`chmod o+x` opens the way)");
            return Err(PostgresError::Files { step: "enter", path: barrier, source });
        }
        let socket_dir = socket_dir(&dir, account)?;
        Ok(Self { dir, account, socket_dir })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The major version that the data was written by; none before the first start.
    pub fn major(&self) -> Option<u32> {
        std::fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// A program of PostgreSQL, run as the account, in the home.
    pub fn command(&self, programs: &Binaries, program: &str) -> Command {
        let mut command = Command::new(programs.program(program));
        command.current_dir(&self.dir).env("LC_ALL", "C").stdin(Stdio::null());
        self.account.apply(&mut command);
        command
    }

    /// Makes the cluster and its database, beside its place first: what was cut short is not mistaken for one.
    pub fn create_cluster(&self, programs: &Binaries) -> Result<(), PostgresError> {
        let unfinished = self.dir.join("data.new");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished).map_err(PostgresError::files("remove", &unfinished))?;
        }
        let password = Alphanumeric.sample_string(&mut rand::rng(), 32);
        self.write_private("password", &password)?;
        let mut initdb = self.command(programs, "initdb");
        initdb.args(["-D", "data.new", "-U", NAME, "--auth=scram-sha-256", "--pwfile=password"]);
        initdb.args(["--encoding=UTF8", "--locale=C"]);
        run("initdb", initdb, "")?;
        let mut single = self.command(programs, "postgres");
        single.args(["--single", "-D", "data.new", "postgres"]);
        run("postgres --single", single, &format!("CREATE DATABASE {NAME}\n"))?;
        std::fs::rename(&unfinished, self.data()).map_err(PostgresError::files("rename", &unfinished))
    }

    /// The port of the last start.
    pub fn last_port(&self) -> Option<u16> {
        std::fs::read_to_string(self.dir.join("port")).ok()?.trim().parse().ok()
    }

    pub fn keep_port(&self, port: u16) -> Result<(), PostgresError> {
        self.write_private("port", &port.to_string())
    }

    /// The URL by the unix socket.
    pub fn url(&self, server: &Postmaster) -> Result<SecretString, PostgresError> {
        let path = self.dir.join("password");
        let password = std::fs::read_to_string(&path).map_err(PostgresError::files("read", &path))?;
        let socket = percent(&self.socket_dir.to_string_lossy());
        let (password, port) = (password.trim(), server.port());
        Ok(SecretString::from(format!("postgres://{NAME}:{password}@localhost:{port}/{NAME}?host={socket}")))
    }

    /// Removes the socket directory where it is not in the home.
    pub fn remove_short_socket_dir(&self) {
        if !self.socket_dir.starts_with(&self.dir) {
            let _ = std::fs::remove_dir_all(&self.socket_dir);
        }
    }

    fn write_private(&self, name: &str, text: &str) -> Result<(), PostgresError> {
        write_private(&self.dir.join(name), text, self.account)
    }
}

/// Writes `database.url` into the data directory, for `psql "$(cat …)"` and for roles started by hand.
pub fn publish(data_dir: &Path, url: &SecretString) -> Result<(), PostgresError> {
    write_private(&data_dir.join("database.url"), url.expose_secret(), Account::Own)
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str, owner: Account) -> Result<(), PostgresError> {
    let new = path.with_extension("new");
    let write = || {
        let _ = std::fs::remove_file(&new);
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        owner.own(&new)?;
        std::fs::rename(&new, path)
    };
    write().map_err(PostgresError::files("write", path))
}

/// Makes the home in the data directory, or elsewhere with a link to it where PostgreSQL's account cannot enter.
fn make(link: &Path, data_dir: &Path, account: Account, report: impl Fn(&str)) -> Result<(), PostgresError> {
    if account != Account::Own {
        // Ours to open: names inside stay closed to others.
        let open = std::fs::set_permissions(data_dir, PermissionsExt::from_mode(0o711));
        open.map_err(PostgresError::files("open to others", data_dir))?;
    }
    let Some(barrier) = account.barrier(data_dir) else { return make_private(link, account) };
    let place = Path::new(ELSEWHERE);
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(place);
    created.map_err(PostgresError::files("create", place))?;
    let dir = place.join(format!("postgres-{}", Alphanumeric.sample_string(&mut rand::rng(), 10)));
    report(&format!(
        "PostgreSQL runs as the user `postgres`, who may not enter {}: its files go to {}",
        barrier.display(),
        dir.display()
    ));
    make_private(&dir, account)?;
    let _ = std::fs::remove_file(link);
    symlink(&dir, link).map_err(PostgresError::files("link", link))
}

/// A directory that only the account may enter.
fn make_private(dir: &Path, account: Account) -> Result<(), PostgresError> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
    made.and_then(|()| account.own(dir)).map_err(PostgresError::files("create", dir))
}

/// `socket` in the home, or a new short directory where its path would be too long.
fn socket_dir(home: &Path, account: Account) -> Result<PathBuf, PostgresError> {
    let dir = home.join("socket");
    if dir.as_os_str().len() <= LONGEST_SOCKET_DIR {
        if !dir.exists() {
            make_private(&dir, account)?;
        }
        return Ok(dir);
    }
    let dir = std::env::temp_dir().join(format!("cornjacket-{}", Alphanumeric.sample_string(&mut rand::rng(), 10)));
    make_private(&dir, account)?;
    Ok(dir)
}

fn run(program: &'static str, mut command: Command, input: &str) -> Result<(), PostgresError> {
    let failed = |output: String| PostgresError::Program { program, output };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

/// Percent-encodes a path for a URL's query.
fn percent(path: &str) -> String {
    use std::fmt::Write as _;
    path.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_url() {
        assert_eq!(percent("/home/a b/ü&?"), "/home/a%20b/%C3%BC%26%3F");
    }

    #[test]
    fn a_long_home_gets_a_short_socket_directory() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("x".repeat(100));
        let short = socket_dir(&home, Account::Own).unwrap();
        assert!(short.starts_with(std::env::temp_dir()) && short.as_os_str().len() <= LONGEST_SOCKET_DIR);
        assert_eq!(std::fs::metadata(&short).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::remove_dir(short).unwrap();
    }

    #[test]
    fn a_private_file_is_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("password");
        write_private(&path, "old", Account::Own).unwrap();
        write_private(&path, "secret", Account::Own).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
