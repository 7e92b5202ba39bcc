//! What commands read: a file or standard input, within a bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;

/// No body of a webhook is longer by far.
const BODY_BYTES: u64 = 16 << 20;

/// Reads everything, if it is not more than `most` bytes.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read(from: impl Read, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= most, "it is longer than {most} bytes, the most that is read");
    Ok(bytes)
}

/// The body in a file, or in standard input where none is named, or `-`.
///
/// # Errors
/// It cannot be read, or is longer than 16 MiB.
pub fn body(file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    match file.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let named = || format!("cannot read the body '{}'", path.display());
            let file = File::open(path).with_context(named)?;
            read(file, BODY_BYTES).with_context(named)
        }
        None => read(io::stdin().lock(), BODY_BYTES).context("cannot read the body from standard input"),
    }
}
