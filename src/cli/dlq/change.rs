//! `cornjacket dlq replay` and `discard`.

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::which::WhichArgs;
use super::{Common, LETTERS};
use crate::cli::api::Api;
use crate::cli::output::Output;

/// Has pending dead letters replayed. The consumer that failed does it, in the order of each aggregate; `dlq list` and
/// `dlq show` say what became of them.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Apply events last where they can no longer be put in their place
    #[arg(long)]
    append: bool,
    #[command(flatten)]
    common: Common,
}

/// Discards pending dead letters. Their events stay in the event store.
#[derive(Debug, clap::Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

pub async fn replay(args: ReplayArgs) -> anyhow::Result<()> {
    let with = [("append".to_owned(), json!(args.append))].into_iter().collect();
    let answer = change(&args.common.api()?, &args.which, "replay", "requested", with).await?;
    told(&answer, args.common.output, "requested", "to be replayed")
}

pub async fn discard(args: DiscardArgs) -> anyhow::Result<()> {
    let with = [("reason".to_owned(), json!(args.reason))].into_iter().collect();
    let answer = change(&args.common.api()?, &args.which, "discard", "discarded", with).await?;
    told(&answer, args.common.output, "discarded", "discarded")
}

/// Changes letters one by one, or as many as match; answers with how many they were.
async fn change(
    api: &Api,
    which: &WhichArgs,
    what: &str,
    counted: &str,
    with: Map<String, Value>,
) -> anyhow::Result<Value> {
    if let Some(mut body) = which.body()? {
        body.extend(with);
        return api.post(&format!("{LETTERS}/{what}"), &Value::Object(body)).await;
    }
    let body = Value::Object(with);
    for id in &which.ids {
        api.post(&format!("{LETTERS}/{id}/{what}"), &body).await.with_context(|| format!("letter {id}"))?;
    }
    Ok([(counted.to_owned(), json!(which.ids.len()))].into_iter().collect::<Map<_, _>>().into())
}

fn told(answer: &Value, output: Output, counted: &str, done: &str) -> anyhow::Result<()> {
    Ok(output.print(answer, |answer| {
        let count = answer[counted].as_u64().unwrap_or(0);
        let letters = if count == 1 { "letter" } else { "letters" };
        format!("{count} {letters} {done}\n")
    })?)
}
