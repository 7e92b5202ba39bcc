//! `cornjacket dlq list`, `show` and `summary`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::which::FilterArgs;
use super::{Common, LETTERS, table};
use crate::cli::api::Api;
use crate::cli::output::Output;

/// Letters that are asked for at a time.
const PAGE: usize = 500;

/// Lists dead letters, the newest first.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// pending, replayed, discarded, or all
    #[arg(long, value_name = "STATUS", default_value = "pending")]
    status: String,
    #[command(flatten)]
    filter: FilterArgs,
    /// Most letters to print
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    #[command(flatten)]
    common: Common,
}

/// Prints one dead letter.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The letter's id
    id: Uuid,
    #[command(flatten)]
    common: Common,
}

/// Counts dead letters.
#[derive(Debug, clap::Args)]
pub struct SummaryArgs {
    #[command(flatten)]
    common: Common,
}

pub async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut query = args.filter.pairs();
    if args.status != "all" {
        query.push(("status", args.status.clone()));
    }
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (letters, more) = pages(&args.common.api()?, &query, limit).await?;
    args.common.output.print(&json!({"dead_letters": letters}), |_| table::letters(&letters, chrono::Utc::now()))?;
    if letters.is_empty() && args.common.output == Output::Text {
        eprintln!("no dead letters match");
    } else if more {
        eprintln!("there are more: --limit takes a larger number than {}", args.limit);
    }
    Ok(())
}

/// The first letters, and whether there are more.
async fn pages(api: &Api, query: &[(&str, String)], limit: usize) -> anyhow::Result<(Vec<Value>, bool)> {
    let (mut letters, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let size = (limit - letters.len()).min(PAGE);
        let mut query = query.to_vec();
        query.push(("limit", size.to_string()));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = api.get(LETTERS, &query).await?;
        if let Some(Value::Array(found)) = page.get_mut("dead_letters").map(Value::take) {
            letters.extend(found);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || letters.len() >= limit {
            return Ok((letters, cursor.is_some()));
        }
    }
}

pub async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let letter = args.common.api()?.get(&format!("{LETTERS}/{}", args.id), &()).await?;
    Ok(args.common.output.print(&letter, table::letter)?)
}

pub async fn summary(args: SummaryArgs) -> anyhow::Result<()> {
    let summary = args.common.api()?.get(&format!("{LETTERS}/summary"), &()).await?;
    Ok(args.common.output.print(&summary, table::summary)?)
}
