//! One `up` a data directory: a file lock, freed by the system however the process ends.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::PostgresError;

/// Held while `up` runs.
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// # Errors
    /// Another process holds it; says which.
    pub fn take(data_dir: &Path) -> Result<Self, PostgresError> {
        let path = data_dir.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(PostgresError::files("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim().to_owned();
                return Err(PostgresError::InUse { data_dir: data_dir.to_owned(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(PostgresError::files("lock", &path)(e)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {}", std::process::id()));
        written.map_err(PostgresError::files("write", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataLock::take(dir.path()).unwrap();
        let refused = DataLock::take(dir.path()).err().unwrap().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(held);
        DataLock::take(dir.path()).unwrap();
    }
}
