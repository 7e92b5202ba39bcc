//! Whom PostgreSQL runs as: it refuses to run as root, so root starts it as the user `postgres`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};

/// The user that PostgreSQL runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Whoever runs us.
    Own,
    /// Another user, because we are root.
    Other { uid: u32, gid: u32 },
}

/// Root, on a machine without a user for PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[error(
    "PostgreSQL refuses to run as root, and there is no user `postgres` to run it as: run this as an ordinary user, \
     or create one (`useradd --system postgres`)"
)]
pub struct NoAccount;

impl Account {
    /// # Errors
    /// We are root and there is no user `postgres`.
    pub fn choose() -> Result<Self, NoAccount> {
        if !geteuid().is_root() {
            return Ok(Self::Own);
        }
        let user = User::from_name("postgres").ok().flatten().ok_or(NoAccount)?;
        Ok(Self::Other { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }

    /// Has a command run as this user.
    pub fn apply(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or directory to this user.
    pub fn own(self, path: &Path) -> std::io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }

    /// The first directory on the way to `dir` that this user may not enter.
    pub fn barrier(self, dir: &Path) -> Option<PathBuf> {
        let Self::Other { uid, gid } = self else { return None };
        let mut way: Vec<&Path> = dir.ancestors().collect();
        way.reverse();
        way.into_iter().find(|step| !may_enter(step, uid, gid)).map(Path::to_owned)
    }
}

fn may_enter(dir: &Path, uid: u32, gid: u32) -> bool {
    let Ok(meta) = std::fs::metadata(dir) else { return false };
    let mode = meta.permissions().mode();
    let bit = if meta.uid() == uid {
        0o100
    } else if meta.gid() == gid {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_directory_that_another_user_cannot_enter() {
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("closed");
        let inner = closed.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        set(root.path(), 0o711);
        set(&inner, 0o755);
        let nobody = Account::Other { uid: 65_534, gid: 65_534 };
        set(&closed, 0o700);
        assert_eq!(nobody.barrier(&inner), Some(closed.clone()));
        set(&closed, 0o711);
        assert_eq!(nobody.barrier(&inner), None);
        assert_eq!(Account::Own.barrier(&inner), None, "our own user makes its own way");
    }
}
