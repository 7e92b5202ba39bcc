//! `cornjacket migrate`.

use clap::Args;
use secrecy::SecretString;

use super::url::{DEFAULT_URL, DatabaseUrl};
use crate::database::{self, Urls};

#[derive(Args)]
pub struct MigrateArgs {
    /// Database of the outbox and the event store
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Database of the projections
    #[arg(long, env = "EVENTHANDLER_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    eventhandler_database_url: SecretString,
    /// Only say what is pending; exit code 1 if anything is
    #[arg(long)]
    check: bool,
}

pub async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let query = args.eventhandler_database_url.clone();
    let urls = Urls { ingestion: args.ingestion_database_url, eventhandler: args.eventhandler_database_url, query };
    let mut pending = 0;
    for (url, services) in urls.distinct() {
        let names = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if args.check {
            for set in database::status(&url, &services).await? {
                println!("{names}: {} migrations: {} pending {:?}", set.set, set.pending.len(), set.pending);
                pending += set.pending.len();
            }
        } else {
            let applied = database::migrate(&url, &services).await?;
            println!("{names}: {applied} migration(s) applied, the database is up to date");
        }
    }
    anyhow::ensure!(pending == 0, "{pending} migration(s) are pending: run `cornjacket migrate`");
    Ok(())
}
