//! Replays the dead letters of actions: the event is evaluated again by the action that could not, and its delivery is written
//! in the transaction that marks the letter. One delivery per action and event, as ever.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use metrics::counter;
use sqlx::PgConnection;
use tokio::sync::watch;
use uuid::Uuid;

use super::endpoint::{Endpoints, Matcher};
use super::program::Content;
use super::state::{Seen, State};
use super::store::intake::{self as store, New};
use super::wake::Made;
use crate::dead_letters::ACTIONS;
use crate::dead_letters::replay::{Outcome, Replay, Requested};
use crate::event::StoredEvent;

pub(super) struct Replays {
    endpoints: watch::Receiver<Arc<Endpoints>>,
    state: State,
    made: Made,
    /// Actions with deliveries since the last commit.
    actions: BTreeSet<String>,
}

impl Replays {
    pub fn new(endpoints: watch::Receiver<Arc<Endpoints>>, state: State, made: Made) -> Self {
        Self { endpoints, state, made, actions: BTreeSet::new() }
    }

    async fn deliver(
        &mut self,
        connection: &mut PgConnection,
        matcher: &Matcher,
        event: &StoredEvent,
        content: Content,
    ) -> Result<String, sqlx::Error> {
        let duplicate = self.is_duplicate(matcher, event, &content).await?;
        let body = (!duplicate).then_some(content.body);
        let new = New { delivery_id: Uuid::now_v7(), action: &matcher.action, event, body };
        if store::insert(connection, &[new]).await? == 0 {
            return Ok("it has a delivery already".to_owned());
        }
        if duplicate {
            counter!("cornjacket_deliveries_total", "outcome" => "suppressed").increment(1);
            return Ok("suppressed: an event of the same key was accepted within the window".to_owned());
        }
        counter!("cornjacket_deliveries_made_total").increment(1);
        self.actions.insert(matcher.action.clone());
        Ok("it is to be delivered".to_owned())
    }

    async fn is_duplicate(
        &self,
        matcher: &Matcher,
        event: &StoredEvent,
        content: &Content,
    ) -> Result<bool, sqlx::Error> {
        let window_ms = matcher.window_ms;
        if window_ms <= 0 {
            return Ok(false);
        }
        let at = event.ingested_at.timestamp_millis();
        let seen = [Seen { key: content.key.clone(), event_id: event.event_id, at }];
        let found = self.state.duplicates(&matcher.action, window_ms, &seen).await;
        Ok(found.map_err(|error| sqlx::Error::Io(io::Error::other(error)))?.contains(&true))
    }
}

impl Replay for Replays {
    const CONSUMER: &'static str = ACTIONS;

    fn is_ready(&self) -> bool {
        self.endpoints.borrow().loaded
    }

    async fn replay(&mut self, connection: &mut PgConnection, letter: &Requested) -> Result<Outcome, sqlx::Error> {
        let endpoints = self.endpoints.borrow().clone();
        let action = letter.subject.as_deref().unwrap_or_default();
        let Some(matcher) = endpoints.matchers.get(action) else {
            let cause = format!("the action {action} does not run: declare it again, or discard the letter");
            return Ok(Outcome::Failed(cause));
        };
        let event = match StoredEvent::from_envelope(&letter.event_payload, letter.position.unwrap_or(0)) {
            Ok(event) => event,
            Err(error) => return Ok(Outcome::Failed(format!("the letter holds no event: {error}"))),
        };
        match matcher.program.of(&event) {
            Err(error) => Ok(Outcome::Failed(format!("action {action}: {error}"))),
            Ok(None) => Ok(Outcome::Replayed(Some("the action does not take it".to_owned()))),
            Ok(Some(content)) => {
                self.deliver(connection, matcher, &event, content).await.map(|note| Outcome::Replayed(Some(note)))
            }
        }
    }

    fn settled(&mut self, committed: bool) {
        let actions = std::mem::take(&mut self.actions);
        if committed {
            self.made.add(actions.iter().map(String::as_str));
        }
    }
}
