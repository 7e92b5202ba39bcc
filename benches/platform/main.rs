//! What the platform carries on this machine, in one table, beside what PostgreSQL itself takes here.
//!
//! Everything is real: the release binary as processes, a PostgreSQL with fsync on, a Kafka broker; client, database and
//! platform share the machine. Runs one section after the other, each on a fresh database.
//!
//! Arguments (after `--`): names of sections to run (default: all, about 15 minutes), `--seconds N` for the length of each
//! measurement (default 5), `--bus embedded` or `--bus kafka` for one bus only.

#[path = "../../tests/platform/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests' harness, of which a benchmark needs a part")]
mod harness;

mod actions;
mod client;
mod control;
mod large;
mod mqtt;
mod report;
mod scene;
mod sections;
mod series;
mod xmin;

use report::Report;

/// A measurement that may be asked for by name.
pub const SECTIONS: [&str; 13] = [
    "raw",
    "accept",
    "end-to-end",
    "latency",
    "backlog",
    "relays",
    "idle",
    "mqtt",
    "actions",
    "control",
    "series",
    "large",
    "xmin",
];

fn main() {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut report = Report::default();
    runtime.block_on(sections::run(&arguments, &mut report));
    report.print();
}

/// What was asked for.
pub struct Arguments {
    sections: Vec<String>,
    pub seconds: u64,
    /// The only bus to measure, if one was named.
    bus: Option<String>,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut this = Self { sections: Vec::new(), seconds: 5, bus: None };
        let mut arguments = arguments.filter(|a| a != "--bench");
        while let Some(argument) = arguments.next() {
            if argument == "--seconds" {
                this.seconds = arguments.next().and_then(|n| n.parse().ok()).expect("--seconds takes a number");
            } else if argument == "--bus" {
                this.bus = arguments.next();
                assert!(matches!(this.bus.as_deref(), Some("embedded" | "kafka")), "--bus takes embedded or kafka");
            } else {
                assert!(SECTIONS.contains(&argument.as_str()), "no section '{argument}': there are {SECTIONS:?}");
                this.sections.push(argument);
            }
        }
        this
    }

    pub fn wants_bus(&self, bus: &str) -> bool {
        self.bus.as_deref().is_none_or(|only| only == bus)
    }

    pub fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|s| s == section)
    }
}
