//! How a topic differs from what is wanted of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::topic::{ConfigPolicy, Drift};

use super::wanted::Wanted;

/// Key of [`Drift`] for the number of partitions.
pub const PARTITIONS: &str = "partitions";
/// Key of [`Drift`] for the number of copies.
pub const REPLICATION: &str = "replicationFactor";
/// The configuration key by which Redpanda changes the number of copies.
pub const REDPANDA_REPLICATION: &str = "replication.factor";
/// What Redpanda's own configuration keys begin with; no other broker has them.
const REDPANDA: &str = "redpanda.";

/// A topic as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actual {
    /// The broker's identity of the topic, where it tells.
    pub id: Option<String>,
    pub partitions: i32,
    /// Copies of the partition that has the fewest.
    pub replication: i32,
    /// Configuration by key, or why it cannot be read.
    pub config: Result<BTreeMap<String, Setting>, String>,
}

/// A configuration value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub value: Option<String>,
    /// Set for this topic, and not the broker's own default.
    pub own: bool,
}

impl Actual {
    /// Redpanda changes the number of copies of an existing topic; Apache Kafka has no such call.
    pub fn changes_replication(&self) -> bool {
        self.config.as_ref().is_ok_and(|config| config.keys().any(|key| key.starts_with(REDPANDA)))
    }
}

/// Every difference, sorted by key. A wish of -1 copies is the broker's default. Configuration that cannot be read
/// does not differ.
pub fn differences(wanted: &Wanted, actual: &Actual) -> Vec<Drift> {
    let spec = &wanted.spec;
    let mut found = Vec::new();
    if let Ok(config) = &actual.config {
        for (key, desired) in &spec.config {
            let value = config.get(key).and_then(|setting| setting.value.as_deref());
            if !value.is_some_and(|value| same(desired, value)) {
                found.push(entry(key, Some(desired.clone()), value.map(str::to_owned)));
            }
        }
        if wanted.rules.config == ConfigPolicy::Exact {
            let ours = |key: &str| spec.config.contains_key(key) || wanted.rules.unmanaged.contains(key);
            let extra = config.iter().filter(|(key, setting)| setting.own && !ours(key));
            found.extend(extra.map(|(key, setting)| entry(key, None, setting.value.clone())));
        }
    }
    if spec.partitions != actual.partitions {
        found.push(entry(PARTITIONS, Some(spec.partitions.to_string()), Some(actual.partitions.to_string())));
    }
    if spec.replication_factor > 0 && spec.replication_factor != actual.replication {
        let (desired, has) = (spec.replication_factor.to_string(), actual.replication.to_string());
        found.push(entry(REPLICATION, Some(desired), Some(has)));
    }
    found.sort_by(|one, other| one.key.cmp(&other.key));
    found
}

fn entry(key: &str, desired: Option<String>, actual: Option<String>) -> Drift {
    Drift { key: key.to_owned(), desired, actual }
}

/// Whether a broker that was given `desired` may show it as `actual`: it writes numbers, lists and truth values its own way.
fn same(desired: &str, actual: &str) -> bool {
    let (desired, actual) = (desired.trim(), actual.trim());
    if desired == actual {
        return true;
    }
    if let (Ok(one), Ok(other)) = (desired.parse::<i128>(), actual.parse::<i128>()) {
        return one == other;
    }
    if let (Ok(one), Ok(other)) = (desired.parse::<f64>(), actual.parse::<f64>()) {
        return one.total_cmp(&other).is_eq();
    }
    if ["true", "false"].contains(&actual) {
        return desired.eq_ignore_ascii_case(actual);
    }
    let items = |text: &str| text.split(',').map(|item| item.trim().to_owned()).collect::<BTreeSet<_>>();
    items(desired) == items(actual)
}

/// Characters of a value that a message shows.
const VALUE: usize = 120;

/// At most `limit` differences in words.
pub fn words(drift: &[Drift], limit: usize) -> String {
    let cut = |value: &str| match value.char_indices().nth(VALUE) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    };
    let word = |drift: &Drift| {
        let actual = drift.actual.as_deref().map_or_else(|| "not set".to_owned(), cut);
        match &drift.desired {
            Some(desired) => format!("{} is {actual}, described is {}", drift.key, cut(desired)),
            None => format!("{} is {actual}, described is the broker's default", drift.key),
        }
    };
    let mut said: Vec<String> = drift.iter().take(limit).map(word).collect();
    if drift.len() > limit {
        said.push(format!("and {} more", drift.len() - limit));
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn a_value_that_the_broker_writes_its_own_way_is_the_same() {
        for (desired, actual) in [
            ("3600000", "3600000"),
            (" 007", "7"),
            ("0.50", "0.5"),
            ("TRUE", "true"),
            ("compact, delete", "compact,delete"),
            ("delete,compact", "compact,delete"),
        ] {
            assert!(same(desired, actual), "{desired} {actual}");
        }
        for (desired, actual) in
            [("9223372036854775807", "9223372036854775806"), ("0.5", "0.6"), ("compact", "compact,delete"), ("1", "")]
        {
            assert!(!same(desired, actual), "{desired} {actual}");
        }
    }
}
