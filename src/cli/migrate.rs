//! `cornjacket migrate`.

use clap::Args;

use super::url::DatabaseArgs;
use crate::database;

#[derive(Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    databases: DatabaseArgs,
    /// Only say what is pending; exit code 1 if anything is
    #[arg(long)]
    check: bool,
}

pub async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let urls = args.databases.urls();
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
