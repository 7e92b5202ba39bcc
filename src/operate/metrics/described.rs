//! What each metric means, for who looks at `/metrics` (`# HELP`). One table; a metric that is not in it fails a test.

use metrics::{describe_counter, describe_gauge, describe_histogram};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Counter,
    Gauge,
    Histogram,
}
use Sort::{Counter, Gauge, Histogram};

const METRICS: &[(Sort, &str, &str)] = &[
    (Counter, "cornjacket_actions_claim_failures_total", "Times deliveries that are due could not be claimed."),
    (
        Counter,
        "cornjacket_actions_dead_letters_total",
        "Events that an action could not evaluate, kept as dead letters.",
    ),
    (Counter, "cornjacket_actions_events_total", "Events that were looked at for deliveries."),
    (Counter, "cornjacket_actions_intake_failures_total", "Batches of events that could not be made into deliveries."),
    (
        Counter,
        "cornjacket_actions_settle_failures_total",
        "Times that what came of attempts could not be kept at once.",
    ),
    (Gauge, "cornjacket_breaker_open", "1 while the breaker of an action's endpoint is open, else 0, by action."),
    (Counter, "cornjacket_breaker_opened_total", "Times the breaker of an action's endpoint opened, by action."),
    (Counter, "cornjacket_deliveries_forgotten_total", "Deliveries that ended long ago and were deleted."),
    (Counter, "cornjacket_deliveries_freed_total", "Deliveries that a lost process had under way."),
    (Counter, "cornjacket_deliveries_made_total", "Deliveries to be made, duplicates left out."),
    (Gauge, "cornjacket_deliveries_oldest_seconds", "How long the oldest delivery has been waiting, by action."),
    (
        Counter,
        "cornjacket_deliveries_total",
        "Deliveries that ended, by outcome: delivered, failed, suppressed, expired, cancelled.",
    ),
    (Gauge, "cornjacket_deliveries_under_way", "Attempts that this process makes now."),
    (Gauge, "cornjacket_deliveries_waiting", "Deliveries that wait or are under way, by action."),
    (Histogram, "cornjacket_delivery_attempt_seconds", "Time of an attempt, from its start to the end of the answer."),
    (
        Counter,
        "cornjacket_delivery_attempts_total",
        "Attempts that ended, by action and outcome: delivered, again, failed, gone.",
    ),
    (Histogram, "cornjacket_delivery_seconds", "Time from when a delivery was made to when it was delivered."),
    (Histogram, "cornjacket_mqtt_ack_seconds", "Time from a message's arrival by MQTT to its acknowledgement."),
    (Gauge, "cornjacket_mqtt_connected", "1 while there is a connection to the MQTT broker, else 0."),
    (Counter, "cornjacket_mqtt_connects_total", "Connections to the MQTT broker that were made."),
    (
        Counter,
        "cornjacket_mqtt_messages_total",
        "Messages by MQTT, by outcome: accepted, repeated, refused (dead letters), retained (not taken), dropped (QoS 0, no room).",
    ),
    (Gauge, "cornjacket_mqtt_subscriptions", "Subscriptions at the MQTT broker that are granted, and refused."),
    (
        Histogram,
        "cornjacket_series_batch_seconds",
        "Time from the claim of a batch of events to the commit of their rows of a time series.",
    ),
    (
        Gauge,
        "cornjacket_series_behind",
        "Positions of the event store that a time series has still to read, by series, when it was last looked at.",
    ),
    (
        Counter,
        "cornjacket_series_dead_letters_total",
        "Events that make no row of a time series and went to the dead letters.",
    ),
    (
        Counter,
        "cornjacket_series_failures_total",
        "Batches of time series that failed as a whole, as in an outage of the database; they are tried again.",
    ),
    (
        Counter,
        "cornjacket_series_partitions_dropped_total",
        "Partitions (or chunks) of time series that were dropped, past their retention.",
    ),
    (
        Counter,
        "cornjacket_series_retries_total",
        "Batches of time series that were undone, since an event made no row, to be tried again.",
    ),
    (Counter, "cornjacket_series_rows_total", "Rows of time series that were written."),
    (
        Counter,
        "cornjacket_series_too_old_total",
        "Events that were not written to a time series, being older than its retention.",
    ),
    (Gauge, "cornjacket_build_info", "Always 1; the labels say which version and role runs."),
    (Gauge, "cornjacket_dead_letters", "Dead letters of a consumer, by status: pending, replayed, discarded."),
    (Counter, "cornjacket_dead_letters_discarded_total", "Dead letters that were discarded, by consumer."),
    (
        Counter,
        "cornjacket_dead_letters_failures_total",
        "Passes over dead letters that failed as a whole; tried again.",
    ),
    (Histogram, "cornjacket_dead_letters_pass_seconds", "Time of a pass that replayed dead letters, by consumer."),
    (
        Counter,
        "cornjacket_dead_letters_replays_total",
        "Replays of dead letters that ended, by consumer and outcome: replayed, failed (pending again), held (an earlier one of the lane failed).",
    ),
    (Counter, "cornjacket_dead_letters_requested_total", "Dead letters of which a replay was asked for, by consumer."),
    (Counter, "cornjacket_bus_duplicates_total", "Messages from Kafka that had been read before and were dropped."),
    (
        Counter,
        "cornjacket_bus_overtaken_total",
        "Times another instance had read on, so that a partition was read anew.",
    ),
    (Gauge, "cornjacket_controllers_active", "1 where these controllers are the active ones of the namespace, else 0."),
    (
        Counter,
        "cornjacket_controllers_api_requests_total",
        "Requests of controllers to the Kubernetes API, answered or not, by verb and resource.",
    ),
    (Counter, "cornjacket_controllers_broker_calls_total", "Calls of controllers to the broker, by call."),
    (
        Counter,
        "cornjacket_controllers_broker_failures_total",
        "Rounds in which controllers could not ask or change the broker.",
    ),
    (
        Counter,
        "cornjacket_controllers_drift_corrected_total",
        "Times the configuration of a topic was put back after somebody else had changed it.",
    ),
    (
        Counter,
        "cornjacket_controllers_compiled_total",
        "Compilations of resources: an unchanged one is not compiled again.",
    ),
    (
        Counter,
        "cornjacket_controllers_secret_reads_total",
        "Secrets of the cluster that were asked for, for WebhookActions.",
    ),
    (Counter, "cornjacket_controllers_failures_total", "Rounds of the controllers that failed; they are tried again."),
    (
        Counter,
        "cornjacket_controllers_deletions_abandoned_total",
        "Resources that were let go though what belongs to them could not be deleted in time.",
    ),
    (Counter, "cornjacket_controllers_looks_total", "Looks at the whole set of resources."),
    (
        Counter,
        "cornjacket_controllers_migration_failures_total",
        "Steps of migrations of projections' tables that the database refused; tried again.",
    ),
    (
        Counter,
        "cornjacket_controllers_migration_steps_total",
        "Steps of migrations of projections' tables that were taken.",
    ),
    (
        Counter,
        "cornjacket_controllers_reconcile_failures_total",
        "Reconciliations of single resources in a cluster that failed; they are tried again.",
    ),
    (Counter, "cornjacket_controllers_scale_failures_total", "Times the handler could not be scaled; tried again."),
    (Counter, "cornjacket_controllers_status_writes_total", "Statuses written to a cluster, by kind."),
    (Gauge, "cornjacket_controllers_resources", "Resources that are declared, by kind."),
    (Gauge, "cornjacket_controllers_resources_ready", "Resources whose Ready is True, by kind."),
    (
        Histogram,
        "cornjacket_end_to_end_seconds",
        "Time from the acceptance of an event to the commit of its projections.",
    ),
    (
        Counter,
        "cornjacket_event_store_partitions_dropped_total",
        "Partitions of the event store dropped after retention.",
    ),
    (
        Gauge,
        "cornjacket_event_store_partitions_kept_unread",
        "Partitions past retention that are kept until a reader has read them.",
    ),
    (
        Gauge,
        "cornjacket_handler_behind_events",
        "Events on the bus that the group has not read, as of the last look (every 5 s).",
    ),
    (Histogram, "cornjacket_handler_batch_seconds", "Time for a batch, from its claim to its commit."),
    (
        Counter,
        "cornjacket_handler_caught_up_total",
        "Events read from the event store to build or rebuild projections.",
    ),
    (
        Counter,
        "cornjacket_handler_dead_letters_total",
        "Events that could not be folded and were kept as dead letters.",
    ),
    (Counter, "cornjacket_handler_events_total", "Events read from the bus and committed."),
    (
        Counter,
        "cornjacket_handler_failures_total",
        "Rounds that failed as a whole, for example while the database was away.",
    ),
    (
        Counter,
        "cornjacket_handler_folds_total",
        "What became of an event in a projection: applied, filtered, seen (before) or stale.",
    ),
    (
        Counter,
        "cornjacket_handler_history_truncated_total",
        "Projections made of a history whose beginning retention had taken.",
    ),
    (Counter, "cornjacket_handler_retries_total", "Events that were folded again after a failure."),
    (Histogram, "cornjacket_http_request_duration_seconds", "Time until an answer began, by route."),
    (Counter, "cornjacket_http_requests_total", "Requests by route and status."),
    (Counter, "cornjacket_ingest_accepted_total", "Events accepted and committed to the outbox."),
    (Histogram, "cornjacket_ingest_ack_seconds", "Time from a request's header to its answer."),
    (Histogram, "cornjacket_ingest_batch_events", "Events in a batch request."),
    (Counter, "cornjacket_ingest_refused_total", "Events and requests refused, by reason."),
    (
        Counter,
        "cornjacket_ingest_repeated_total",
        "Events whose idempotency key had been accepted before, answered as then.",
    ),
    (Counter, "cornjacket_outbox_connects_total", "Connections that writers of the outbox have made."),
    (Counter, "cornjacket_outbox_flush_retries_total", "Writes of the outbox that were tried again."),
    (Histogram, "cornjacket_outbox_flush_rows", "Rows in one write of the outbox."),
    (Histogram, "cornjacket_outbox_flush_seconds", "Time for one write of the outbox, commit included."),
    (Gauge, "cornjacket_outbox_oldest_seconds", "Age of the oldest event that the relay has not moved yet."),
    (Gauge, "cornjacket_outbox_queued_bytes", "Bytes of events that wait in this process to be written."),
    (Gauge, "cornjacket_outbox_queued_events", "Events that wait in this process to be written."),
    (Gauge, "cornjacket_outbox_rows", "Rows in the outbox, counted up to 100 000."),
    (Counter, "cornjacket_outbox_rows_refused_by_database_total", "Events that PostgreSQL itself would not store."),
    (
        Gauge,
        "cornjacket_projection_behind",
        "Positions of the event store that a projection still has to read, when last looked at.",
    ),
    (
        Counter,
        "cornjacket_registry_failures_total",
        "Sessions that could not read the registrations; the last ones stay in use.",
    ),
    (Histogram, "cornjacket_relay_append_seconds", "Time to move a batch from the outbox to the event store."),
    (Histogram, "cornjacket_relay_batch_events", "Events moved to the event store at once."),
    (
        Counter,
        "cornjacket_relay_dead_letters_total",
        "Events that the event store or the bus refused, kept as dead letters, by cause.",
    ),
    (Counter, "cornjacket_relay_failures_total", "Rounds of the relay that failed as a whole; nothing is lost by one."),
    (Counter, "cornjacket_relay_known_total", "Rows of the outbox whose event was in the event store already."),
    (Gauge, "cornjacket_relay_lag_seconds", "Age of the oldest event in the last batch moved to the event store."),
    (Counter, "cornjacket_relay_publish_failures_total", "Publications that failed; they are tried again."),
    (Histogram, "cornjacket_relay_publish_seconds", "Time to publish a batch on the bus, confirmations included."),
    (
        Gauge,
        "cornjacket_relay_topics_aside",
        "Topics that are not written at the moment; their events wait in the outbox.",
    ),
    (Counter, "cornjacket_relay_published_total", "Events that the bus has confirmed."),
    (Counter, "cornjacket_relay_stored_total", "Events moved to the event store."),
];

/// Tells the recorder what each metric means.
pub(super) fn describe() {
    for (sort, name, help) in METRICS {
        match sort {
            Counter => describe_counter!(*name, *help),
            Gauge => describe_gauge!(*name, *help),
            Histogram => describe_histogram!(*name, *help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// What the sources record: `counter!("…"`, with or without a path before it.
    fn recorded(folder: &Path, found: &mut BTreeSet<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                recorded(&entry.path(), found);
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            for sort in ["counter", "gauge", "histogram"] {
                for rest in text.split(&format!("{sort}!(\"")).skip(1) {
                    found.insert((sort.to_owned(), rest.split('"').next().unwrap_or_default().to_owned()));
                }
            }
        }
    }

    #[test]
    fn every_metric_is_described_as_what_it_is_and_no_other() {
        let mut found = BTreeSet::new();
        for folder in ["src", "controllers/src"] {
            recorded(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
        }
        // This test's own pattern.
        found.retain(|(_, name)| name.starts_with("cornjacket_"));
        let described: BTreeSet<_> =
            METRICS.iter().map(|(sort, name, _)| (format!("{sort:?}").to_lowercase(), (*name).to_owned())).collect();
        assert_eq!(found, described);
        assert_eq!(described.len(), METRICS.len(), "nothing is described twice");
    }
}
