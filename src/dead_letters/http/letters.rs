//! Looking at letters.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Databases;
use super::problem::LetterError;
use crate::dead_letters::{Filters, Letter, Summary, WholeLetter, store};
use crate::operate::http::{Problem, cursor};

/// Letters of a page: by default, and at most.
const PAGE: i64 = 50;
const LARGEST_PAGE: i64 = 500;

/// Which page of which letters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Who failed, for example event-handler
    consumer: Option<String>,
    /// Which part of the consumer, for example the projection sensor_state
    subject: Option<String>,
    /// pending, replayed or discarded
    status: Option<String>,
    /// For example sensor.reading
    event_type: Option<String>,
    /// For example device-001
    aggregate_id: Option<String>,
    /// The event's id
    event_id: Option<String>,
    /// Failed at this time (RFC 3339) or later
    failed_from: Option<String>,
    /// Failed before this time (RFC 3339)
    failed_to: Option<String>,
    /// Letters in a page: 1 to 500, default 50
    limit: Option<String>,
    /// next_cursor of the page before
    cursor: Option<String>,
}

impl Paging {
    fn filters(&self) -> Filters {
        Filters {
            consumer: self.consumer.clone(),
            subject: self.subject.clone(),
            status: self.status.clone(),
            event_type: self.event_type.clone(),
            aggregate_id: self.aggregate_id.clone(),
            event_id: self.event_id.clone(),
            failed_from: self.failed_from.clone(),
            failed_to: self.failed_to.clone(),
        }
    }

    fn limit(&self) -> Result<i64, LetterError> {
        let Some(text) = &self.limit else { return Ok(PAGE) };
        text.parse()
            .ok()
            .filter(|limit| (1..=LARGEST_PAGE).contains(limit))
            .ok_or_else(|| LetterError::Bad(format!("limit: '{text}' must be a whole number from 1 to {LARGEST_PAGE}")))
    }
}

/// A page of letters, the newest first.
#[derive(Serialize, ToSchema)]
pub struct Letters {
    pub dead_letters: Vec<Letter>,
    /// The `cursor` of the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// How many letters there are.
#[derive(Serialize, ToSchema)]
pub struct Summaries {
    pub consumers: Vec<Summary>,
}

/// Dead letters, the newest first
///
/// Every filter that is given must hold. Letters that are there throughout come exactly once over all pages.
#[utoipa::path(
    get, path = "/api/v1/dead-letters", operation_id = "list_dead_letters", tag = "Dead letters", params(Paging),
    responses(
        (status = 200, body = Letters),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter"),
    ),
)]
pub async fn list(
    State(databases): State<Databases>,
    asked: Result<Query<Paging>, QueryRejection>,
) -> Result<Json<Letters>, LetterError> {
    let Query(paging) = asked.map_err(|error| LetterError::Bad(format!("query: {}", error.body_text())))?;
    let (filters, limit) = (paging.filters(), paging.limit()?);
    let filter = filters.read()?;
    let scope = format!("dead letters\n{filters:?}");
    let before: Option<Uuid> =
        paging.cursor.as_deref().filter(|token| !token.is_empty()).map_or(Ok(None), |token| {
            let unusable =
                |error| LetterError::Bad(format!("cursor: '{token}' cannot be used: {error}; begin without"));
            cursor::decode(&scope, token).map(Some).map_err(unusable)
        })?;
    let mut letters = Vec::new();
    for pool in databases.pools.iter() {
        letters.extend(store::list(pool, &filter, before, limit + 1).await?);
    }
    letters.sort_by_key(|letter| std::cmp::Reverse(letter.dlq_id));
    let more = letters.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    letters.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = letters.last().filter(|_| more).map(|last| cursor::encode(&scope, &last.dlq_id));
    Ok(Json(Letters { dead_letters: letters, next_cursor }))
}

/// One dead letter, with the event that it is about
#[utoipa::path(
    get, path = "/api/v1/dead-letters/{dlq_id}", operation_id = "get_dead_letter", tag = "Dead letters",
    params(("dlq_id" = Uuid, Path, description = "The letter's id")),
    responses(
        (status = 200, body = WholeLetter),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No UUID"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such letter"),
    ),
)]
pub async fn one(
    State(databases): State<Databases>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<WholeLetter>, LetterError> {
    let dlq_id = id(path)?;
    find(&databases, dlq_id).await.map(|(_, letter)| Json(letter))
}

/// How many dead letters each consumer has, by its parts
#[utoipa::path(
    get, path = "/api/v1/dead-letters/summary", operation_id = "summarise_dead_letters", tag = "Dead letters",
    responses((status = 200, body = Summaries)),
)]
pub async fn summary(State(databases): State<Databases>) -> Result<Json<Summaries>, LetterError> {
    let mut consumers = Vec::new();
    for pool in databases.pools.iter() {
        consumers.extend(store::summary(pool).await?);
    }
    consumers.sort_by(|a, b| (&a.consumer, &a.subject).cmp(&(&b.consumer, &b.subject)));
    Ok(Json(Summaries { consumers }))
}

/// The id in a path.
pub(super) fn id(path: Result<Path<String>, PathRejection>) -> Result<Uuid, LetterError> {
    let Path(text) = path.map_err(|error| LetterError::Bad(format!("path: {}", error.body_text())))?;
    text.parse().map_err(|_| LetterError::Bad(format!("dlq_id: '{text}' must be the id of a dead letter (a UUID)")))
}

/// A letter, and the number of the database that holds it.
pub(super) async fn find(databases: &Databases, dlq_id: Uuid) -> Result<(usize, WholeLetter), LetterError> {
    for (number, pool) in databases.pools.iter().enumerate() {
        if let Some(letter) = store::one(pool, dlq_id).await? {
            return Ok((number, letter));
        }
    }
    Err(LetterError::NotFound(dlq_id))
}
