//! `cornjacket action`: deliveries and endpoints, by HTTP alone.

mod show;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::cli::api::Api;
use crate::cli::output::Output;

/// Between two looks at a delivery that is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// See what is delivered to endpoints, deliver again, switch endpoints off and on.
#[derive(Debug, clap::Subcommand)]
pub enum ActionCommand {
    /// Print all actions, with what waits and what failed
    List(Common),
    /// Print deliveries, newest first
    Deliveries(DeliveriesArgs),
    /// Print one delivery, with its attempts and what it sends
    Delivery(DeliveryArgs),
    /// Deliver again: the deliveries named, or all that the flags describe
    Retry(RetryArgs),
    /// Deliver a test event to one endpoint, and say how that went
    Test(TestArgs),
    /// Deliver nothing to an endpoint until it is enabled; deliveries wait
    Disable(DisableArgs),
    /// Deliver to an endpoint again
    Enable(NamedArgs),
}

/// What all of them have.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Address of the actions service
    #[arg(long, env = "CORNJACKET_ACTIONS_URL", default_value = "http://127.0.0.1:8082", value_name = "URL")]
    url: String,
    /// How answers are printed: for people, or as JSON
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Which deliveries.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only those of this WebhookAction
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Only those that are pending, delivered, failed, suppressed, expired or cancelled
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only those of this aggregate
    #[arg(long, value_name = "ID")]
    aggregate: Option<String>,
    /// Only those made at or after this time, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only those made before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl Filter {
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        let fields = [
            ("action", &self.action),
            ("status", &self.status),
            ("aggregate_id", &self.aggregate),
            ("from", &self.from),
            ("to", &self.to),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

#[derive(Debug, clap::Args)]
pub struct DeliveriesArgs {
    #[command(flatten)]
    filter: Filter,
    /// Most deliveries that are printed
    #[arg(long, default_value_t = 20, value_name = "DELIVERIES")]
    limit: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub struct DeliveryArgs {
    /// Id of the delivery, which is also the header webhook-id
    id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// Ids of deliveries
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All that failed
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Name of the WebhookAction
    action: String,
    /// Payload of the event, as JSON
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Type of the event; default: cornjacket.test
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Aggregate of the event; default: test
    #[arg(long, value_name = "ID")]
    aggregate: Option<String>,
    /// How long to wait for the first attempt, in seconds
    #[arg(long, default_value_t = 40, value_name = "SECONDS")]
    wait: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub struct DisableArgs {
    /// Name of the WebhookAction
    action: String,
    /// Why, for others
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub struct NamedArgs {
    /// Name of the WebhookAction
    action: String,
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
///
/// # Errors
/// The service cannot be reached, or refuses; a test event that is not delivered is an exit code of 1 instead.
pub async fn run(command: ActionCommand) -> anyhow::Result<ExitCode> {
    match command {
        ActionCommand::List(common) => {
            let answer = Api::new(&common.url)?.get("/api/v1/actions", &()).await?;
            common.output.print(&answer, show::actions)?;
        }
        ActionCommand::Deliveries(args) => deliveries(&args).await?,
        ActionCommand::Delivery(args) => {
            let answer =
                Api::new(&args.common.url)?.get(&format!("/api/v1/deliveries/{}", segment(&args.id)), &()).await?;
            args.common.output.print(&answer, show::delivery)?;
        }
        ActionCommand::Retry(args) => {
            let answer = Api::new(&args.common.url)?.post("/api/v1/deliveries/retry", &retry_body(&args)).await?;
            args.common.output.print(&answer, |answer| retried(answer, args.ids.len()))?;
        }
        ActionCommand::Test(args) => return test(&args).await,
        ActionCommand::Disable(args) => {
            let path = format!("/api/v1/actions/{}/disable", segment(&args.action));
            let answer = Api::new(&args.common.url)?.post(&path, &json!({"reason": args.reason})).await?;
            args.common.output.print(&answer, |answer| show::actions(&json!({"actions": [answer]})))?;
        }
        ActionCommand::Enable(args) => {
            let path = format!("/api/v1/actions/{}/enable", segment(&args.action));
            let answer = Api::new(&args.common.url)?.post(&path, &json!({})).await?;
            args.common.output.print(&answer, |answer| show::actions(&json!({"actions": [answer]})))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Page by page.
async fn deliveries(args: &DeliveriesArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.common.url)?;
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let size = (args.limit - found.len()).min(100).to_string();
        let mut pairs = args.filter.pairs();
        pairs.push(("limit", &size));
        pairs.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = api.get("/api/v1/deliveries", &pairs).await?;
        found.extend(page["deliveries"].as_array().into_iter().flatten().cloned());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || found.len() >= args.limit {
            break;
        }
    }
    args.common.output.print(&json!({"deliveries": found}), show::deliveries)?;
    if args.common.output == Output::Text && cursor.is_some() {
        writeln!(io::stderr(), "there are more: --limit {}", args.limit * 10)?;
    }
    Ok(())
}

fn retried(answer: &Value, asked: usize) -> String {
    let retried = answer["retried"].as_u64().unwrap_or(0);
    let rest = (asked as u64).saturating_sub(retried);
    if rest == 0 {
        return format!("{retried} made again\n");
    }
    format!(
        "{retried} made again, {rest} not: these have not ended, have nothing to send, are not known, or their action is not loaded\n"
    )
}

fn retry_body(args: &RetryArgs) -> Value {
    let mut body: Map<String, Value> =
        args.filter.pairs().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    if !args.ids.is_empty() {
        body.insert("ids".to_owned(), json!(args.ids));
    }
    if args.all {
        body.insert("all".to_owned(), json!(true));
    }
    Value::Object(body)
}

/// Waits for the first attempt.
async fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.common.url)?;
    let mut body = Map::new();
    if let Some(payload) = &args.payload {
        let Ok(payload) = serde_json::from_str::<Value>(payload) else { bail!("--payload: must be JSON") };
        body.insert("payload".to_owned(), payload);
    }
    for (name, value) in [("event_type", &args.event_type), ("aggregate_id", &args.aggregate)] {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    let action = api.get(&format!("/api/v1/actions/{}", segment(&args.action)), &()).await?;
    if action["state"] == "disabled" {
        let why = action["reason"].as_str().unwrap_or("no reason is given");
        bail!("{} is disabled ({why}): `cornjacket action enable {}` first", args.action, args.action);
    }
    let path = format!("/api/v1/actions/{}/test", segment(&args.action));
    let made = api.post(&path, &Value::Object(body)).await?;
    let id = made["delivery_id"].as_str().unwrap_or_default().to_owned();
    let begun = Instant::now();
    loop {
        let delivery = api.get(&format!("/api/v1/deliveries/{id}"), &()).await?;
        let tried = delivery["attempts"].as_i64().unwrap_or(0) > 0;
        if tried || begun.elapsed() > Duration::from_secs(args.wait) {
            args.common.output.print(&delivery, show::delivery)?;
            if !tried {
                let breaker = action["message"].as_str().filter(|_| action["healthy"] == false);
                let why = breaker.unwrap_or("its rate limit may be reached");
                bail!("not attempted within {} s: {why}; it is made when its time has come", args.wait);
            }
            let delivered = delivery["status"] == "delivered";
            return Ok(if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        sleep(LOOK).await;
    }
}

/// A name as a part of a path.
fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}
