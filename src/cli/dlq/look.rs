//! `cornjacket dlq list`, `show` and `summary`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{Api, ApiArgs, Output};
use super::table;
use super::which::FilterArgs;
use crate::cli::output::print;

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
    api: ApiArgs,
}

/// Prints one dead letter.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The letter's id
    id: Uuid,
    #[command(flatten)]
    api: ApiArgs,
}

/// Counts dead letters.
#[derive(Debug, clap::Args)]
pub struct SummaryArgs {
    #[command(flatten)]
    api: ApiArgs,
}

pub async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut query = args.filter.pairs();
    if args.status != "all" {
        query.push(("status", args.status.clone()));
    }
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (letters, more) = pages(&args.api.api()?, &query, limit).await?;
    shown(&json!({"dead_letters": letters}), args.api.output, |_| table::letters(&letters, chrono::Utc::now()))?;
    if letters.is_empty() && args.api.output == Output::Table {
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
        let mut page = api.get("", &query).await?;
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
    let letter = args.api.api()?.get(&format!("/{}", args.id), &[]).await?;
    shown(&letter, args.api.output, table::letter)
}

pub async fn summary(args: SummaryArgs) -> anyhow::Result<()> {
    let summary = args.api.api()?.get("/summary", &[]).await?;
    shown(&summary, args.api.output, table::summary)
}

/// Prints an answer.
pub(super) fn shown(answer: &Value, output: Output, table: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(answer)? + "\n",
        Output::Table => table(answer),
    };
    Ok(print(&text)?)
}
