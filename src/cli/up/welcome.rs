//! What `up` prints for people, on standard output: each step, and then how to send a first event.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::cli::output::print;
use crate::operate::Readiness;

/// How long what is pending may take before it is named.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints steps with the time since the start.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    begun: Instant,
}

/// Where the process listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub ingest: SocketAddr,
    pub query: SocketAddr,
    pub actions: SocketAddr,
    /// The MQTT broker of its own.
    pub broker: Option<SocketAddr>,
}

impl Steps {
    pub fn begin() -> Self {
        say(concat!("cornjacket ", env!("CARGO_PKG_VERSION")));
        Self { begun: Instant::now() }
    }

    pub fn say(&self, step: &str) {
        say(&format!("[{:5.1} s] {step}", self.begun.elapsed().as_secs_f32()));
    }
}

/// Prints lines. That nobody reads them, or cannot, stops nothing.
fn say(lines: &str) {
    print(&format!("{lines}\n")).ok();
}

/// Waits until the process is ready, and then says where it is and what to do with it.
pub(super) async fn when_ready(readiness: Readiness, steps: Steps, at: Addresses, resources: PathBuf) {
    let mut named = false;
    let begun = Instant::now();
    loop {
        let pending = readiness.pending();
        if pending.is_empty() {
            break;
        }
        if !named && begun.elapsed() > PATIENCE {
            named = true;
            let pending: Vec<String> = pending.iter().map(|(gate, why)| format!("{gate} ({why})")).collect();
            steps.say(&format!("Still waiting for {}", pending.join(", ")));
        }
        sleep(Duration::from_millis(20)).await;
    }
    steps.say("Ready");
    let Addresses { ingest, query, actions, broker } = at;
    let devices = broker.map(|broker| {
        format!("\n  devices       mqtt://{broker}                     topics as event types declare them")
    });
    say(&format!(
        r#"
  events in     http://{ingest}/api/v1/events        described at http://{ingest}/docs
  queries       http://{query}/api/v1/projections   described at http://{query}/docs
  deliveries    http://{actions}/api/v1/deliveries    described at http://{actions}/docs
  operations    http://{actions}/readyz, /metrics{devices}
  resources     {resources} (edit, add or remove files: changes are picked up)

Send a first event, and read what became of it (after_event waits until it has):

  event=$(curl -s http://{ingest}/api/v1/events -H 'Content-Type: application/json' \
    -d '{{"event_type":"sensor.reading","aggregate_id":"device-001","payload":{{"value":72.5,"unit":"fahrenheit"}}}}' |
    tee /dev/stderr | grep -o '[0-9a-f-]\{{36\}}')
  curl -s "http://{query}/api/v1/projections/sensor_state/device-001?after_event=$event"

Its readings are also kept as rows; the last day by the hour:

  curl -s "http://{query}/api/v1/timeseries/sensor_readings?aggregate_id=device-001&step=1h&agg=avg&after_event=$event"

Stop with Ctrl-C.
"#,
        resources = resources.display(),
        devices = devices.unwrap_or_default(),
    ));
}
