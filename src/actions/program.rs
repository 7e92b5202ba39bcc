//! A WebhookAction's expressions, compiled once when it is loaded, and what they make of an event. Pure.

use crds::language::expression::{Bindings, Expression, Scope};
use crds::registration::{Source, WebhookAction};
use serde_json::Value;

use crate::event::StoredEvent;
use crate::expression;

/// Largest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// Longest key of the deduplication, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// What one action does with an event.
#[derive(Debug)]
pub struct Program {
    source: Source,
    when: Option<Expression>,
    body: Option<Expression>,
    key: Option<Expression>,
}

/// What is to be delivered of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// JSON.
    pub body: String,
    /// Events of one key within the window are duplicates.
    pub key: String,
}

/// Why an event cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    #[error("{field}: {cause}")]
    Expression { field: &'static str, cause: String },
    #[error("when: must be true or false, is {0}")]
    WhenNotBool(String),
    #[error("deduplication.key: must be a string of 1 to {MAX_KEY_BYTES} bytes, is {0}")]
    BadKey(String),
    #[error("body: {0} bytes, more than the {MAX_BODY_BYTES} that a request may have")]
    BodyTooLarge(usize),
}

impl Program {
    /// Compiles a registered action.
    ///
    /// # Errors
    /// Names the field whose expression does not compile, and why.
    pub fn compile(spec: &WebhookAction) -> Result<Self, String> {
        let optional = |field: &str, text: &Option<String>| {
            let compile = |text: &str| Expression::compile(text, Scope::Event).map_err(|e| format!("{field}: {e}"));
            text.as_deref().map(compile).transpose()
        };
        Ok(Self {
            source: spec.source.clone(),
            when: optional("when", &spec.when)?,
            body: optional("body", &spec.body)?,
            key: optional("deduplication.key", &spec.deduplication.key)?,
        })
    }

    /// The event types and prefixes it reads.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What is to be delivered; `None` where the event is none of this action's.
    ///
    /// # Errors
    /// An expression has no value for the event, or one that cannot be used.
    pub fn of(&self, event: &StoredEvent) -> Result<Option<Content>, ProgramError> {
        if !self.source.matches(&event.event_type) {
            return Ok(None);
        }
        let bindings = self.bindings(event);
        if !self.is_wanted(bindings.as_ref())? {
            return Ok(None);
        }
        let (body, key) = (self.body_in(bindings.as_ref(), event)?, self.key_in(bindings.as_ref(), event)?);
        Ok(Some(Content { body, key }))
    }

    /// What is sent of an event, whether or not it is this action's.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn body(&self, event: &StoredEvent) -> Result<String, ProgramError> {
        self.body_in(self.bindings(event).as_ref(), event)
    }

    /// What expressions see; made only where there is one.
    fn bindings(&self, event: &StoredEvent) -> Option<Bindings> {
        let any = self.when.is_some() || self.body.is_some() || self.key.is_some();
        any.then(|| Bindings::new(&expression::event(event), None))
    }

    fn is_wanted(&self, bindings: Option<&Bindings>) -> Result<bool, ProgramError> {
        match evaluate("when", self.when.as_ref(), bindings)? {
            Some(Value::Bool(wanted)) => Ok(wanted),
            None => Ok(true),
            Some(other) => Err(ProgramError::WhenNotBool(shown(&other))),
        }
    }

    fn body_in(&self, bindings: Option<&Bindings>, event: &StoredEvent) -> Result<String, ProgramError> {
        let body = evaluate("body", self.body.as_ref(), bindings)?.unwrap_or_else(|| event.envelope()).to_string();
        if body.len() > MAX_BODY_BYTES { Err(ProgramError::BodyTooLarge(body.len())) } else { Ok(body) }
    }

    fn key_in(&self, bindings: Option<&Bindings>, event: &StoredEvent) -> Result<String, ProgramError> {
        match evaluate("deduplication.key", self.key.as_ref(), bindings)? {
            None => Ok(default_key(event)),
            Some(Value::String(key)) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(key),
            Some(other) => Err(ProgramError::BadKey(shown(&other))),
        }
    }
}

fn evaluate(
    field: &'static str,
    expression: Option<&Expression>,
    bindings: Option<&Bindings>,
) -> Result<Option<Value>, ProgramError> {
    let (Some(expression), Some(bindings)) = (expression, bindings) else { return Ok(None) };
    let value = expression.evaluate_in(bindings);
    value.map(Some).map_err(|error| ProgramError::Expression { field, cause: error.to_string() })
}

/// Neither name has a line break in it that could be taken for this one: it is not text that a name may have.
fn default_key(event: &StoredEvent) -> String {
    format!("{}\n{}", event.event_type, event.aggregate_id)
}

/// A value within a sentence.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { text.chars().take(80).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
