//! Database URLs from flags and their environment variables: checked where they are given, and never shown.

use std::ffi::OsStr;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command};
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

use crate::database::Urls;

/// What a service's database URL is when none is given, as for development.
pub const DEFAULT_URL: &str = "postgres://cornjacket:cornjacket@localhost:5432/cornjacket?sslmode=disable";

const EXAMPLE: &str = "for example postgres://user:password@host:5432/database";

/// The databases of all services.
#[derive(Args, Clone)]
#[expect(clippy::struct_field_names, reason = "they are flags, too")]
pub struct DatabaseArgs {
    /// Database of the outbox and the event store
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Database of the projections; controllers keep the status of each resource there
    #[arg(long, env = "EVENTHANDLER_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    eventhandler_database_url: SecretString,
    /// Database of the time series; default: that of the projections
    #[arg(long, env = "TSDB_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true)]
    tsdb_database_url: Option<SecretString>,
    /// Database of the webhook deliveries; default: that of the projections
    #[arg(long, env = "ACTIONS_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true)]
    actions_database_url: Option<SecretString>,
}

impl DatabaseArgs {
    pub fn urls(self) -> Urls {
        let urls = Urls::new(self.ingestion_database_url, self.eventhandler_database_url);
        Urls {
            tsdb: self.tsdb_database_url.unwrap_or(urls.tsdb),
            actions: self.actions_database_url.unwrap_or(urls.actions),
            ..urls
        }
    }
}

/// Reads a database URL. A refusal names the flag and its variable; what was given may hold a password and is not shown,
/// as clap would.
#[derive(Clone, Copy)]
pub struct DatabaseUrl;

impl TypedValueParser for DatabaseUrl {
    type Value = SecretString;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Self::Value, clap::Error> {
        let checked = value.to_str().ok_or_else(|| format!("it must be UTF-8, {EXAMPLE}")).and_then(check);
        checked.map_err(|why| {
            let text = format!("{}: not the URL of a database: {why}\n", named(arg));
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

/// Takes a URL of a database, or says what is wrong with it.
pub fn check(text: &str) -> Result<SecretString, String> {
    if text.is_empty() {
        return Err(format!("it is empty; give one, {EXAMPLE}, or take the variable away"));
    }
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err(format!("it must begin with postgres:// or postgresql://, {EXAMPLE}"));
    }
    PgConnectOptions::from_str(text).map_err(|error| match error {
        sqlx::Error::Configuration(cause) => format!("{cause}; write it as {EXAMPLE}"),
        _ => format!("write it as {EXAMPLE}"),
    })?;
    Ok(SecretString::from(text.to_owned()))
}

/// `--ingestion-database-url (INGESTION_DATABASE_URL)`.
fn named(arg: Option<&Arg>) -> String {
    let flag = arg.and_then(Arg::get_long).map_or_else(|| "the URL".to_owned(), |long| format!("--{long}"));
    match arg.and_then(Arg::get_env) {
        Some(variable) => format!("{flag} ({})", variable.display()),
        None => flag,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use secrecy::ExposeSecret;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(long, env = "NO_SUCH_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL)]
        database_url: SecretString,
    }

    fn parse(url: &str) -> Result<SecretString, String> {
        let flags = Flags::try_parse_from(["x", "--database-url", url]);
        flags.map(|flags| flags.database_url).map_err(|error| error.to_string())
    }

    #[test]
    fn urls_of_postgresql_are_taken_as_they_are() {
        for url in [DEFAULT_URL, "postgresql:///db?host=/run/postgresql", "postgres://u:p%40ss@[::1]:5433/db"] {
            assert_eq!(parse(url).map(|url| url.expose_secret().to_owned()), Ok(url.to_owned()));
        }
        assert!(Flags::try_parse_from(["x"]).is_ok());
    }

    #[test]
    fn others_are_refused_by_flag_and_variable_without_showing_a_password() {
        for url in [
            "",
            "user:hunter2@host/db",
            "localhost:5432/db?password=hunter2",
            "mysql://u:hunter2@host/db",
            "postgres:/u:hunter2@host/db",
            "postgres://u:hunter2@host:port/db",
            "postgres://u:hunter2@host/db?sslmode=perhaps",
            "postgres://u:hunter2@[::1/db",
        ] {
            let said = parse(url).expect_err(url);
            assert!(said.contains("--database-url (NO_SUCH_DATABASE_URL)"), "{said}");
            assert!(said.contains("postgres://user:password@host:5432/database"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
