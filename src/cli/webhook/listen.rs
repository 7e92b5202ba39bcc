//! `cornjacket webhook listen`.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use crds::shared::DurationText;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::http::{Receiver, routes};
use super::secrets::SecretArgs;
use crate::actions::signature;
use crate::cli::output::Output;
use crate::cli::process::{LogArgs, Process};
use crate::lifecycle::{Lifecycle, Stage};

/// Requests that wait to be printed.
const WAITING: usize = 256;
/// Answers that are delayed come at once when the command stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Receives webhooks.
#[derive(Args)]
pub struct ListenArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    bind: IpAddr,
    /// Port to listen on
    #[arg(long, default_value_t = 9000)]
    port: u16,
    #[command(flatten)]
    secrets: SecretArgs,
    /// How far the time of a request may be from now, in seconds
    #[arg(long, default_value_t = signature::TOLERANCE.as_secs(), value_name = "SECONDS")]
    tolerance_seconds: u64,
    /// What is answered. Of several, the first to a delivery's first attempt, and so on; the last stays
    #[arg(
        long,
        visible_alias = "respond",
        default_value = "200",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(200..=599),
        value_name = "STATUS,…"
    )]
    status: Vec<u16>,
    /// Answer 401 to requests whose signature is not right, as receivers should
    #[arg(long)]
    strict: bool,
    /// How long answers are kept back, for example 2s
    #[arg(long, value_name = "DURATION")]
    delay: Option<DurationText>,
    /// Seconds in `Retry-After`, with every answer but 2xx
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u32>,
    /// Longest body that is taken, in bytes
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(..=64 << 20))]
    body_bytes: u32,
    /// How long a body may take to come, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    read_seconds: u64,
    /// How much of a body is printed for people, in bytes
    #[arg(long, default_value_t = 8 << 10, value_name = "BYTES")]
    print_bytes: u32,
    /// How requests are printed: for people, or as a JSON object on a line
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the command until it is stopped, or nobody reads what it prints.
pub async fn run(args: ListenArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    let (printed, to_print) = mpsc::channel(WAITING);
    let receiver = receiver(&args, printed, process.lifecycle.stopping())?;
    let checked = receiver.keys.len();
    let address = SocketAddr::new(args.bind, args.port);
    let address = process.serve(Stage::Accept, "webhook.listen", address, routes(Arc::new(receiver))).await?;
    let signatures = match checked {
        0 => "not verified, since no secret is given".to_owned(),
        1 => "verified".to_owned(),
        _ => format!("verified with {checked} secrets"),
    };
    info!("post to http://{address}/; signatures are {signatures}");
    let (lifecycle, stop) = (process.lifecycle.clone(), process.lifecycle.token(Stage::Serve));
    process.lifecycle.spawn(Stage::Serve, "webhook.print", print_all(to_print, stop, lifecycle));
    process.run(DRAIN).await
}

fn receiver(args: &ListenArgs, out: mpsc::Sender<String>, stopping: CancellationToken) -> anyhow::Result<Receiver> {
    let keys = if args.strict { args.secrets.some_keys() } else { args.secrets.keys() };
    Ok(Receiver {
        keys: keys?,
        tolerance: Duration::from_secs(args.tolerance_seconds),
        script: args.status.clone(),
        strict: args.strict,
        delay: args.delay.as_ref().map_or(Duration::ZERO, DurationText::length),
        retry_after: args.retry_after,
        body_bytes: args.body_bytes as usize,
        read: Duration::from_secs(args.read_seconds),
        print_bytes: args.print_bytes as usize,
        output: args.output,
        seen: Mutex::default(),
        out,
        stopping,
    })
}

/// Prints what comes, also what came before the stop.
async fn print_all(
    mut texts: mpsc::Receiver<String>,
    stop: CancellationToken,
    lifecycle: Lifecycle,
) -> anyhow::Result<()> {
    loop {
        let text = tokio::select! {
            biased;
            text = texts.recv() => text,
            () = stop.cancelled(), if !texts.is_closed() => {
                texts.close();
                continue;
            }
        };
        let Some(text) = text else { return Ok(()) };
        // A terminal may be halted for as long as its user likes.
        if !tokio::task::spawn_blocking(move || written(&text)).await?? {
            lifecycle.stop();
            return Ok(());
        }
    }
}

/// False when standard output is closed.
fn written(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
