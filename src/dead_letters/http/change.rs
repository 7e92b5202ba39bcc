//! Asking for replays, and discarding.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use metrics::counter;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Databases;
use super::letters::{find, id};
use super::problem::LetterError;
use crate::dead_letters::store::{self, Change};
use crate::dead_letters::{Filter, Filters, Letter, MAX_REASON_CHARS};
use crate::operate::http::{JsonBody, Problem};

/// How one letter is replayed. May be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayOne {
    /// Apply the event last where it can no longer be put in its place
    append: bool,
}

/// Which letters are replayed, and how.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayMany {
    consumer: Option<String>,
    subject: Option<String>,
    event_type: Option<String>,
    aggregate_id: Option<String>,
    event_id: Option<String>,
    failed_from: Option<String>,
    failed_to: Option<String>,
    /// Every pending letter; needed where no filter is given
    all: bool,
    /// Apply events last where they can no longer be put in their place
    append: bool,
}

/// Why one letter is discarded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscardOne {
    reason: String,
}

/// Which letters are discarded, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscardMany {
    reason: String,
    #[serde(default)]
    consumer: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    event_type: Option<String>,
    #[serde(default)]
    aggregate_id: Option<String>,
    #[serde(default)]
    event_id: Option<String>,
    #[serde(default)]
    failed_from: Option<String>,
    #[serde(default)]
    failed_to: Option<String>,
    /// Every pending letter; needed where no filter is given
    #[serde(default)]
    all: bool,
}

/// How many letters are to be replayed.
#[derive(Serialize, ToSchema)]
pub struct Requested {
    pub requested: u64,
    /// By consumer.
    pub consumers: BTreeMap<String, u64>,
}

/// How many letters were discarded.
#[derive(Serialize, ToSchema)]
pub struct Discarded {
    pub discarded: u64,
    /// By consumer.
    pub consumers: BTreeMap<String, u64>,
}

/// Replay a dead letter
///
/// The consumer that failed takes it up within seconds: the letter is replayed then, or pending with a new cause.
#[utoipa::path(
    post, path = "/api/v1/dead-letters/{dlq_id}/replay", operation_id = "replay_dead_letter", tag = "Dead letters",
    params(("dlq_id" = Uuid, Path, description = "The letter's id")),
    request_body(content = Option<ReplayOne>, description = "May be left out"),
    responses(
        (status = 202, body = Letter, description = "It is asked for"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such letter"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is replayed or discarded already"),
    ),
)]
pub async fn replay(
    State(databases): State<Databases>,
    path: Result<Path<String>, PathRejection>,
    JsonBody(asked): JsonBody<ReplayOne>,
) -> Result<(StatusCode, Json<Letter>), LetterError> {
    let change = Change::Replay { append: asked.append };
    change_one(&databases, id(path)?, change).await.map(|letter| (StatusCode::ACCEPTED, Json(letter)))
}

/// Replay the pending dead letters that match
///
/// Without a filter, `"all": true` is needed.
#[utoipa::path(
    post, path = "/api/v1/dead-letters/replay", operation_id = "replay_dead_letters", tag = "Dead letters",
    request_body = ReplayMany,
    responses(
        (status = 202, body = Requested, description = "They are asked for"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad filter, or none"),
    ),
)]
pub async fn replay_many(
    State(databases): State<Databases>,
    JsonBody(asked): JsonBody<ReplayMany>,
) -> Result<(StatusCode, Json<Requested>), LetterError> {
    let filters = Filters {
        consumer: asked.consumer,
        subject: asked.subject,
        status: None,
        event_type: asked.event_type,
        aggregate_id: asked.aggregate_id,
        event_id: asked.event_id,
        failed_from: asked.failed_from,
        failed_to: asked.failed_to,
    };
    let filter = filter(&filters, asked.all)?;
    let consumers = change_many(&databases, &filter, Change::Replay { append: asked.append }).await?;
    Ok((StatusCode::ACCEPTED, Json(Requested { requested: consumers.values().sum(), consumers })))
}

/// Discard a dead letter
///
/// It is not replayed any more. The event itself stays in the event store.
#[utoipa::path(
    post, path = "/api/v1/dead-letters/{dlq_id}/discard", operation_id = "discard_dead_letter", tag = "Dead letters",
    params(("dlq_id" = Uuid, Path, description = "The letter's id")),
    request_body = DiscardOne,
    responses(
        (status = 200, body = Letter),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No reason"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such letter"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is replayed or discarded already"),
    ),
)]
pub async fn discard(
    State(databases): State<Databases>,
    path: Result<Path<String>, PathRejection>,
    JsonBody(asked): JsonBody<DiscardOne>,
) -> Result<Json<Letter>, LetterError> {
    let reason = reason(&asked.reason)?;
    change_one(&databases, id(path)?, Change::Discard { reason }).await.map(Json)
}

/// Discard the pending dead letters that match
///
/// Without a filter, `"all": true` is needed.
#[utoipa::path(
    post, path = "/api/v1/dead-letters/discard", operation_id = "discard_dead_letters", tag = "Dead letters",
    request_body = DiscardMany,
    responses(
        (status = 200, body = Discarded),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad filter or none, or no reason"),
    ),
)]
pub async fn discard_many(
    State(databases): State<Databases>,
    JsonBody(asked): JsonBody<DiscardMany>,
) -> Result<Json<Discarded>, LetterError> {
    let filters = Filters {
        consumer: asked.consumer,
        subject: asked.subject,
        status: None,
        event_type: asked.event_type,
        aggregate_id: asked.aggregate_id,
        event_id: asked.event_id,
        failed_from: asked.failed_from,
        failed_to: asked.failed_to,
    };
    let filter = filter(&filters, asked.all)?;
    let reason = reason(&asked.reason)?;
    let consumers = change_many(&databases, &filter, Change::Discard { reason }).await?;
    Ok(Json(Discarded { discarded: consumers.values().sum(), consumers }))
}

/// A misspelt or forgotten filter must not be about everything.
fn filter(filters: &Filters, all: bool) -> Result<Filter, LetterError> {
    if filters.is_empty() && !all {
        let rule = "all: 'false' must be true where no filter is given (consumer, subject, event_type, aggregate_id, \
                    event_id, failed_from, failed_to)";
        return Err(LetterError::Bad(rule.to_owned()));
    }
    Ok(filters.read()?)
}

fn reason(text: &str) -> Result<&str, LetterError> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_REASON_CHARS || text.contains('\0') {
        let shown: String = text.chars().take(40).collect::<String>().replace('\0', "\\u0000");
        let rule = format!("must be a text of 1 to {MAX_REASON_CHARS} characters, without U+0000");
        return Err(LetterError::Bad(format!("reason: '{shown}' {rule}")));
    }
    Ok(text)
}

async fn change_one(databases: &Databases, dlq_id: Uuid, change: Change<'_>) -> Result<Letter, LetterError> {
    let (number, _) = find(databases, dlq_id).await?;
    let changed = store::change(&databases.pools[number], &Filter::default(), Some(dlq_id), change).await?;
    let (_, letter) = find(databases, dlq_id).await?;
    if changed.is_empty() {
        let hint = match letter.letter.status.as_str() {
            "discarded" => "a discarded letter stays as it is",
            _ => "there is nothing left to do",
        };
        return Err(LetterError::Resolved(dlq_id, letter.letter.status, hint));
    }
    note(change, &changed.into_iter().collect());
    Ok(letter.letter)
}

async fn change_many(
    databases: &Databases,
    filter: &Filter,
    change: Change<'_>,
) -> Result<BTreeMap<String, u64>, LetterError> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for pool in databases.pools.iter() {
        for (consumer, count) in store::change(pool, filter, None, change).await? {
            *counts.entry(consumer).or_default() += count;
        }
    }
    note(change, &counts);
    Ok(counts)
}

fn note(change: Change<'_>, counts: &BTreeMap<String, u64>) {
    for (consumer, letters) in counts {
        match change {
            Change::Replay { append } => {
                info!(consumer, letters, append, "dead letters are to be replayed");
                counter!("cornjacket_dead_letters_requested_total", "consumer" => consumer.clone()).increment(*letters);
            }
            Change::Discard { reason } => {
                info!(consumer, letters, reason, "dead letters are discarded");
                counter!("cornjacket_dead_letters_discarded_total", "consumer" => consumer.clone()).increment(*letters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_about_everything_unless_it_says_so() {
        let said = filter(&Filters::default(), false).expect_err("refused").to_string();
        assert!(said.starts_with("all: 'false' must be true") && said.contains("consumer"), "{said}");
        assert!(filter(&Filters::default(), true).is_ok());
        let one = Filters { consumer: Some("relay".to_owned()), ..Filters::default() };
        assert!(filter(&one, false).is_ok());
        let unknown = serde_json::from_str::<ReplayMany>(r#"{"consumr":"relay","all":true}"#);
        let unknown = unknown.expect_err("refused").to_string();
        assert!(unknown.contains("unknown field `consumr`"), "{unknown}");
    }

    #[test]
    fn a_discard_says_why() {
        assert!(reason("  ").expect_err("refused").to_string().starts_with("reason: '' must be"));
        assert!(reason(&"x".repeat(MAX_REASON_CHARS + 1)).is_err());
        assert_eq!(reason(" a test ").ok(), Some("a test"));
        let missing = serde_json::from_str::<DiscardOne>("{}").expect_err("refused").to_string();
        assert!(missing.contains("missing field `reason`"), "{missing}");
    }
}
