//! Which letters a command is about.

use anyhow::ensure;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Filters: every one that is given must hold.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// Who failed: event-handler, relay, mqtt-ingress, actions, tsdb-writer
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Which part of the consumer, for example the projection sensor_state
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Type of the event, for example sensor.reading
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Aggregate of the event, for example device-001
    #[arg(long, value_name = "ID")]
    aggregate: Option<String>,
    /// Id of the event
    #[arg(long, value_name = "ID")]
    event_id: Option<Uuid>,
    /// Failed at this time or later, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    failed_from: Option<String>,
    /// Failed before this time
    #[arg(long, value_name = "TIME")]
    failed_to: Option<String>,
}

impl FilterArgs {
    /// As the service takes them.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("consumer", self.consumer.clone()),
            ("subject", self.subject.clone()),
            ("event_type", self.event_type.clone()),
            ("aggregate_id", self.aggregate.clone()),
            ("event_id", self.event_id.map(|id| id.to_string())),
            ("failed_from", self.failed_from.clone()),
            ("failed_to", self.failed_to.clone()),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Letters by id, by filter, or all that are pending.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WhichArgs {
    /// Ids of letters; else filters, or --all
    #[arg(value_name = "ID")]
    pub ids: Vec<Uuid>,
    /// Every pending letter
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl WhichArgs {
    /// The body of a request about many; `None` where letters are named by their ids.
    ///
    /// # Errors
    /// Nothing is chosen, or it is chosen in two ways.
    pub fn body(&self) -> anyhow::Result<Option<Map<String, Value>>> {
        let mut body: Map<String, Value> =
            self.filter.pairs().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        let ways = usize::from(!self.ids.is_empty()) + usize::from(!body.is_empty()) + usize::from(self.all);
        ensure!(ways > 0, "say which letters: by their ids, by filters such as --consumer, or --all");
        ensure!(ways == 1, "letters are chosen by their ids, by filters, or by --all: give one of the three");
        if !self.ids.is_empty() {
            return Ok(None);
        }
        body.insert("all".to_owned(), json!(self.all));
        Ok(Some(body))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        which: WhichArgs,
    }

    fn body(arguments: &[&str]) -> Result<Option<Value>, String> {
        let flags = Flags::try_parse_from([&["x"], arguments].concat()).map_err(|error| error.to_string())?;
        flags.which.body().map(|body| body.map(Value::Object)).map_err(|error| error.to_string())
    }

    #[test]
    fn letters_are_chosen_in_one_way() {
        let id = Uuid::nil().to_string();
        assert_eq!(body(&[&id]), Ok(None));
        assert_eq!(body(&["--all"]), Ok(Some(json!({"all": true}))));
        let filtered = body(&["--type", "t", "--aggregate", "a", "--failed-from", "2026-01-01T00:00:00Z"]);
        let expected =
            json!({"event_type": "t", "aggregate_id": "a", "failed_from": "2026-01-01T00:00:00Z", "all": false});
        assert_eq!(filtered, Ok(Some(expected)));
        assert!(body(&[]).expect_err("refused").contains("say which letters"));
        for two in [&["--all", "--type", "t"][..], &[&id, "--all"], &[&id, "--consumer", "relay"]] {
            assert!(body(two).expect_err("refused").contains("one of the three"), "{two:?}");
        }
        assert!(body(&["no-id"]).expect_err("refused").contains("no-id"));
    }
}
