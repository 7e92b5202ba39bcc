//! `POST /api/v1/events/batch`: many events, an answer for each.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use utoipa::IntoParams;
use uuid::Uuid;

use super::batch_answer::{BatchAnswer, Stored, answer};
use super::event::{NewEvent, admitted_now};
use super::problem::Problem;
use super::receive::{Form, Received, receive};
use crate::ingest::accept::{Admitted, GivenKey};
use crate::ingest::refusal::{FieldError, Reason, Refusal};
use crate::ingest::{Ingest, cloudevents, envelope};
use crate::outbox::Outcome;

/// Other tasks get their turn after this many events.
const EVENTS_A_TURN: usize = 64;

/// How a batch is to be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Options {
    /// All events are stored, or none. Default false: each for itself.
    #[param(default = false)]
    atomic: bool,
}

impl Options {
    /// From the query of a URL. Other parameters are ignored.
    pub fn read(query: Option<&str>) -> Result<Self, Refusal> {
        let mut parameters = query.unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
        match parameters.rfind(|(name, _)| *name == "atomic") {
            None | Some((_, "false")) => Ok(Self { atomic: false }),
            Some((_, "true")) => Ok(Self { atomic: true }),
            Some((_, other)) => {
                Err(Refusal::new(Reason::Invalid, FieldError::new("atomic", "type", other, "must be true or false")))
            }
        }
    }
}

/// Store many events
///
/// A JSON array, NDJSON (`application/x-ndjson`) or a CloudEvents batch (`application/cloudevents-batch+json`); at
/// most 1 000 events and 5 MiB. With an `Idempotency-Key`, each event is stored once under the key and its index.
#[utoipa::path(
    post, path = "/api/v1/events/batch", tag = "ingest", request_body = Vec<NewEvent>,
    params(Options, ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses(
        (status = 202, description = "all are stored", body = BatchAnswer),
        (status = 207, description = "some are stored; see Retry-After where others may be later", body = BatchAnswer),
        (status = 400, description = "none is stored, or the batch cannot be read", body = BatchAnswer),
        (status = 413, description = "too many bytes or events", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "none is stored: the queue is full; see Retry-After", body = BatchAnswer),
        (status = 503, description = "none is stored: the database is away; see Retry-After", body = BatchAnswer),
    )
)]
pub async fn post(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let limits = &ingest.limits;
    let options = match Options::read(request.uri().query()) {
        Ok(options) => options,
        Err(refusal) => return refusal.into_response(),
    };
    let forms = [Form::Json, Form::Lines, Form::CloudEvents];
    let answered = match receive(request, &ingest, |_| limits.batch_bytes, &forms).await {
        Ok(received) => store(&ingest, &received, options).await,
        Err(refusal) => Err(refusal),
    };
    ingest.instruments.ack_seconds.record(started.elapsed());
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// Stores the events of a request and answers for each.
pub(super) async fn store(ingest: &Ingest, received: &Received, options: Options) -> Result<Response, Refusal> {
    let texts = texts(received, ingest.limits.batch_events)?;
    ingest.instruments.batch_events.record(u32::try_from(texts.len()).unwrap_or(u32::MAX));
    let key = received.idempotency_key()?;
    let mut items: Vec<Result<Admitted, Refusal>> = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        if index % EVENTS_A_TURN == EVENTS_A_TURN - 1 {
            tokio::task::yield_now().await;
        }
        items.push(admitted(
            ingest,
            received,
            text,
            key.map_or(GivenKey::OfEvent, |k| GivenKey::HeaderOfBatch(k, index)),
        ));
    }
    let results = if options.atomic { all_or_nothing(ingest, items).await } else { each(ingest, items).await };
    Ok(answer(results))
}

/// The texts of the single events.
fn texts(received: &Received, max: usize) -> Result<Vec<&str>, Refusal> {
    let text = received.text()?;
    let texts = match received.form {
        Form::Lines => envelope::lines(text).take(max + 1).collect(),
        _ => envelope::elements(text)?,
    };
    if texts.len() > max {
        let message = format!("must hold at most {max} events");
        let shown = format!("{} or more", texts.len());
        return Err(Refusal::new(Reason::TooLarge, FieldError::new("", "max-events", &shown, message)));
    }
    Ok(texts)
}

fn admitted(ingest: &Ingest, received: &Received, text: &str, key: GivenKey<'_>) -> Result<Admitted, Refusal> {
    let max = ingest.limits.event_bytes;
    if text.len() > max {
        let error = FieldError::new(
            "",
            "max-bytes",
            &format!("{} bytes", text.len()),
            format!("must have at most {max} bytes"),
        );
        return Err(Refusal::new(Reason::TooLarge, error));
    }
    let candidate = match received.form {
        Form::CloudEvents => cloudevents::structured(text)?,
        _ => envelope::read(text)?,
    };
    admitted_now(ingest, received, &candidate, key)
}

/// Each event for itself.
async fn each(ingest: &Ingest, items: Vec<Result<Admitted, Refusal>>) -> Vec<Stored> {
    let mut entries = Vec::with_capacity(items.len());
    let mut results: Vec<Option<Stored>> = Vec::with_capacity(items.len());
    let mut waiting = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Ok(admitted) => {
                entries.push(admitted.entry);
                waiting.push(admitted.warnings);
                results.push(None);
            }
            Err(refusal) => results.push(Some((Err(refusal), Vec::new()))),
        }
    }
    let outcomes = if entries.is_empty() { Vec::new() } else { ingest.outbox.accept(entries).await };
    let mut stored = outcomes.into_iter().zip(waiting).map(|(outcome, warnings)| (ingest.counted(outcome), warnings));
    let missing = || (Err(Refusal { reason: Reason::Unavailable, errors: Vec::new() }), Vec::new());
    results.into_iter().map(|result| result.or_else(|| stored.next()).unwrap_or_else(missing)).collect()
}

/// All events, or none.
async fn all_or_nothing(ingest: &Ingest, items: Vec<Result<Admitted, Refusal>>) -> Vec<Stored> {
    if items.iter().any(Result::is_err) {
        let with_batch = || Refusal::from(crate::outbox::RefusedBy::WithBatch);
        return items.into_iter().map(|item| (Err(item.err().unwrap_or_else(with_batch)), Vec::new())).collect();
    }
    let (entries, warnings): (Vec<_>, Vec<_>) = items.into_iter().flatten().map(|a| (a.entry, a.warnings)).unzip();
    let outcomes = ingest.outbox.accept_all_or_nothing(entries).await;
    outcomes.into_iter().zip(warnings).map(|(outcome, warnings)| (ingest.counted(outcome), warnings)).collect()
}

impl Ingest {
    fn counted(&self, outcome: Outcome) -> Result<Uuid, Refusal> {
        let accepted = outcome?;
        self.count(accepted);
        Ok(accepted.event_id)
    }

    /// Counts an accepted event.
    pub(super) fn count(&self, accepted: crate::outbox::Accepted) {
        let counter = if accepted.repeated { &self.instruments.repeated } else { &self.instruments.accepted };
        counter.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused_by_name() {
        assert_eq!(Options::read(None).ok(), Some(Options { atomic: false }));
        assert_eq!(Options::read(Some("x=1&atomic=true")).ok(), Some(Options { atomic: true }));
        let refusal = Options::read(Some("atomic=maybe")).expect_err("refused");
        assert_eq!(refusal.errors[0].value, "maybe");
    }
}
