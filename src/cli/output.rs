//! Standard output of commands that print and end.

use std::io::{self, ErrorKind, Write};

use serde_json::Value;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[value(alias = "table")]
    Text,
    Json,
}

impl Output {
    /// Prints an answer: as it is, or as `text` has it.
    pub fn print(self, answer: &Value, text: impl FnOnce(&Value) -> String) -> io::Result<()> {
        match self {
            Self::Text => print(&text(answer)),
            Self::Json => print(&format!("{answer:#}\n")),
        }
    }
}

/// Prints text. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
