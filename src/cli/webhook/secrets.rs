//! The secrets that requests are signed with, from flags, a variable or files; and new ones.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use crds::secret::signing::PREFIX;
use secrecy::{ExposeSecret, SecretString};

use crate::actions::signature::SigningKey;

/// No file with secrets is longer.
const FILE_BYTES: u64 = 64 << 10;

#[derive(Args)]
pub struct SecretArgs {
    /// Secret (`whsec_…`); twice, or separated by commas: two of them. The environment variable is the place for it
    #[arg(
        long,
        env = "CORNJACKET_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        value_delimiter = ','
    )]
    secret: Vec<SecretString>,
    /// File with secrets, one a line, or with the bytes of one; may be repeated
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
}

impl SecretArgs {
    /// All that were given, in order.
    ///
    /// # Errors
    /// A file cannot be read, or something is no secret.
    pub fn keys(&self) -> anyhow::Result<Vec<SigningKey>> {
        let mut keys = Vec::new();
        for (n, secret) in self.secret.iter().enumerate() {
            let named = || format!("--secret (CORNJACKET_WEBHOOK_SECRET) number {}", n + 1);
            keys.push(SigningKey::read(secret.expose_secret().as_bytes()).with_context(named)?);
        }
        for path in &self.secret_file {
            keys.extend(of_file(path).with_context(|| format!("--secret-file '{}'", path.display()))?);
        }
        Ok(keys)
    }

    /// The same where there must be some.
    ///
    /// # Errors
    /// As [`Self::keys`], or there are none.
    pub fn some_keys(&self) -> anyhow::Result<Vec<SigningKey>> {
        let keys = self.keys()?;
        let way_out = "no secret is given: set CORNJACKET_WEBHOOK_SECRET, --secret or --secret-file \
                       (`cornjacket webhook secret` makes one)";
        anyhow::ensure!(!keys.is_empty(), way_out);
        Ok(keys)
    }
}

/// A text of lines that begin with the prefix; anything else is the bytes of a key.
fn of_file(path: &Path) -> anyhow::Result<Vec<SigningKey>> {
    let bytes = super::input::read(std::fs::File::open(path)?, FILE_BYTES)?;
    match str::from_utf8(&bytes) {
        Ok(text) if text.trim_start().starts_with(PREFIX) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            Ok(lines.map(|line| SigningKey::read(line.as_bytes())).collect::<Result<_, _>>()?)
        }
        _ => Ok(vec![SigningKey::read(&bytes)?]),
    }
}

/// A secret as Kubernetes and receivers take it.
pub fn new(random: [u8; 32]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::signature::sign;

    fn args(secrets: &[&str], files: &[&Path]) -> SecretArgs {
        SecretArgs {
            secret: secrets.iter().map(|&secret| SecretString::from(secret)).collect(),
            secret_file: files.iter().map(|path| path.to_path_buf()).collect(),
        }
    }

    #[test]
    fn secrets_come_from_flags_and_then_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let (lines, raw) = (dir.path().join("lines"), dir.path().join("raw"));
        std::fs::write(&lines, format!("{}\n\n{}\r\n", new([1; 32]), new([2; 32]))).unwrap();
        std::fs::write(&raw, [3; 32]).unwrap();
        let given = args(&[&new([4; 32])], &[&lines, &raw]).keys().unwrap();
        let one_by_one = [4, 1, 2, 3].map(|byte| SigningKey::read(new([byte; 32]).as_bytes()).unwrap());
        assert_eq!(sign(&given, "m", 0, b""), sign(&one_by_one, "m", 0, b""));
    }

    #[test]
    fn what_is_no_secret_is_named_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (short, large) = (dir.path().join("short"), dir.path().join("large"));
        std::fs::write(&short, format!("{}\nwhsec_xyzzy\n", new([1; 32]))).unwrap();
        std::fs::write(&large, vec![1; 65 << 10]).unwrap();
        for (args, named) in [
            (args(&[&new([1; 32]), "xyzzy"], &[]), "number 2"),
            (args(&[], &[&short]), "short"),
            (args(&[], &[&large]), "65536"),
            (args(&[], &[Path::new("/nowhere/file")]), "/nowhere/file"),
        ] {
            let said = format!("{:#}", args.keys().unwrap_err());
            assert!(said.contains(named) && !said.contains("xyzzy"), "{said}");
        }
        assert!(args(&[], &[]).keys().unwrap().is_empty());
        assert!(args(&[], &[]).some_keys().unwrap_err().to_string().contains("CORNJACKET_WEBHOOK_SECRET"));
    }
}
