//! The platform's key, under which values of Secrets are sealed: from a file or a variable, and of `up` its own.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use crds::secret::{PlatformKey, SecretSlice};
use secrecy::{ExposeSecret, SecretString};

/// Where the key is. All processes of a platform have one.
#[derive(Args, Clone)]
pub struct SecretsKeyArgs {
    /// File with the platform's key, 32 bytes or their base64, under which values of Secrets that WebhookActions refer to are sealed
    /// in the database. Without a key such actions are refused
    #[arg(long, env = "CORNJACKET_SECRETS_KEY_FILE", value_name = "FILE")]
    secrets_key_file: Option<PathBuf>,
    /// The key itself, as base64; the environment variable is the place for it
    #[arg(
        long,
        env = "CORNJACKET_SECRETS_KEY",
        hide_env_values = true,
        value_name = "BASE64",
        conflicts_with = "secrets_key_file"
    )]
    secrets_key: Option<SecretString>,
}

impl SecretsKeyArgs {
    /// The key, where one is given.
    ///
    /// # Errors
    /// The file cannot be read, or what is given is no key.
    pub fn key(&self) -> anyhow::Result<Option<Arc<PlatformKey>>> {
        if let Some(path) = &self.secrets_key_file {
            let named = || format!("--secrets-key-file '{}'", path.display());
            return read(path).with_context(named).map(Some);
        }
        let Some(text) = &self.secrets_key else { return Ok(None) };
        let text = SecretSlice::from(text.expose_secret().as_bytes().to_vec());
        Ok(Some(Arc::new(PlatformKey::read(&text).context("CORNJACKET_SECRETS_KEY (--secrets-key)")?)))
    }

    /// The key that is given, else the one that is kept in the data directory, made if it is not there yet.
    ///
    /// # Errors
    /// As [`Self::key`], or the data directory cannot be written to.
    pub fn key_or_own(&self, data_dir: &Path) -> anyhow::Result<Arc<PlatformKey>> {
        match self.key()? {
            Some(key) => Ok(key),
            None => own(data_dir),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Arc<PlatformKey>> {
    let text = SecretSlice::from(std::fs::read(path)?);
    Ok(Arc::new(PlatformKey::read(&text)?))
}

fn own(data_dir: &Path) -> anyhow::Result<Arc<PlatformKey>> {
    let path = data_dir.join("secrets.key");
    let named = || format!("the key of the secrets, '{}'", path.display());
    make(data_dir, &path).with_context(named)?;
    read(&path).with_context(named)
}

/// Whole or not at all, for the eyes of this user, and never over one that is there: what is sealed would be lost.
fn make(data_dir: &Path, path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(data_dir)?;
    let fresh = data_dir.join(format!("secrets.key.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{}", STANDARD.encode(rand::random::<[u8; crds::secret::key::KEY_BYTES]>()))?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn args(file: Option<PathBuf>, key: Option<&str>) -> SecretsKeyArgs {
        SecretsKeyArgs { secrets_key_file: file, secrets_key: key.map(SecretString::from) }
    }

    #[test]
    fn a_key_comes_from_a_file_or_a_variable_and_what_is_none_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, [7; 32]).unwrap();
        let id = |args: &SecretsKeyArgs| args.key().unwrap().map(|key| key.id().to_owned());
        let same = args(None, Some(&STANDARD.encode([7; 32])));
        assert_eq!(id(&args(Some(file.clone()), None)), id(&same));
        assert_eq!(id(&args(None, None)), None);

        std::fs::write(&file, "xyzzy").unwrap();
        for (args, named) in [
            (args(Some(file), None), "--secrets-key-file"),
            (args(None, Some("xyzzy")), "CORNJACKET_SECRETS_KEY"),
            (args(Some(dir.path().join("none")), None), "none"),
        ] {
            let said = format!("{:#}", args.key().unwrap_err());
            assert!(said.contains(named) && !said.contains("xyzzy"), "{said}");
        }
    }

    #[test]
    fn a_key_of_ones_own_is_made_once_for_the_eyes_of_this_user() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let none = args(None, None);
        let first = none.key_or_own(&data_dir).unwrap().id().to_owned();
        assert_eq!(none.key_or_own(&data_dir).unwrap().id(), first);
        let files: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let given = args(None, Some(&STANDARD.encode([7; 32])));
        assert_ne!(given.key_or_own(&data_dir).unwrap().id(), first);
        std::fs::write(data_dir.join("secrets.key"), "damaged").unwrap();
        assert!(none.key_or_own(&data_dir).is_err(), "a damaged key is not replaced");
    }
}
