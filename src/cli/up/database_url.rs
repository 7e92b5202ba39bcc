//! The file in the data directory from which other commands learn the database of `up`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("database.url")
}

/// Writes it whole or not at all, for the eyes of this user: the URL may hold a password.
///
/// # Errors
/// The data directory cannot be made or written to.
pub fn write(data_dir: &Path, url: &SecretString) -> anyhow::Result<()> {
    let (path, fresh) = (file(data_dir), data_dir.join("database.url.new"));
    let write = || {
        std::fs::create_dir_all(data_dir)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{}", url.expose_secret())?;
        std::fs::rename(&fresh, &path)
    };
    write().with_context(|| format!("cannot write '{}'", path.display()))
}

/// The database of the `up` that ran last on this data directory.
///
/// # Errors
/// There is no such file.
pub fn read(data_dir: &Path) -> anyhow::Result<SecretString> {
    let path = file(data_dir);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read '{}'", path.display()))?;
    Ok(SecretString::from(text.trim().to_owned()))
}
