//! Standard output of commands that print and end.

use std::io::{self, ErrorKind, Write};

/// Prints text. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
