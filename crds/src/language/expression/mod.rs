//! Expressions in CEL over `event` and `state`: compiled once, evaluated for every event.
//!
//! In: a text. Out: a JSON value for an event. What compiles has no unknown name or function; what it evaluates to is
//! decided by the event and the state alone. Numbers are as in JSON: where an integer meets a fraction, `+ - * /` and
//! `==` take both as fractions. Each evaluation is bounded (see [`functions`]), and a panic of the interpreter is an error.

mod check;
mod functions;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::parser::{Expression as Syntax, Parser};
use cel::{Context, Value};

use super::shown;
pub use values::{EventParts, event_value, to_cel};

/// The longest text of an expression, in bytes.
pub const TEXT_LIMIT: usize = 4096;

/// The names that an expression may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `event`
    Event,
    /// `state` and `event`
    StateAndEvent,
}

impl Scope {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Event => &["event"],
            Self::StateAndEvent => &["state", "event"],
        }
    }
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("the expression has {0} bytes: at most {TEXT_LIMIT} are allowed")]
    TooLong(usize),
    #[error("syntax error at line {line}, column {column}: {message}")]
    Syntax { line: isize, column: isize, message: String },
    #[error("unknown name '{name}': this expression knows {known}")]
    UnknownName { name: String, known: String },
    #[error("event has no field '{name}'{}", hint.as_ref().map_or_else(|| format!(": it has {}", values::EVENT_FIELDS.join(", ")), |h| format!(": did you mean '{h}'?")))]
    UnknownField { name: String, hint: Option<String> },
    #[error("unknown function '{name}'{}", hint.as_ref().map(|h| format!(": did you mean '{h}'?")).unwrap_or_default())]
    UnknownFunction { name: String, hint: Option<String> },
    #[error("the expression is nested too deeply: at most {} levels are allowed", check::DEPTH_LIMIT)]
    TooDeep,
    #[error("{0} cannot be used here")]
    Unsupported(&'static str),
    #[error("the pattern of matches must be a text in quotes, so that it can be checked beforehand")]
    PatternNotLiteral,
    #[error("'{}' is no regular expression: {message}", shown(pattern))]
    Pattern { pattern: String, message: String },
    #[error("the parser gave up on this expression: write it in another way")]
    Parser,
}

/// Why an expression has no value for an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("{0}")]
    Failed(String),
    #[error("the result is {0}, which JSON cannot hold")]
    NotJson(&'static str),
    #[error("the evaluation costs too much: it goes through too many elements or builds too large a value")]
    TooCostly,
    #[error("the interpreter gave up: write the expression in another way")]
    Interpreter,
}

/// A checked expression.
#[derive(Debug)]
pub struct Expression {
    text: String,
    syntax: Syntax,
}

/// `event` and `state` as the interpreter wants them; made once for all expressions over one event.
pub struct Bindings(Context<'static>);

impl Expression {
    /// Compiles and checks a text. Costs some 100 µs.
    pub fn compile(text: &str, scope: Scope) -> Result<Self, ExpressionError> {
        if text.len() > TEXT_LIMIT {
            return Err(ExpressionError::TooLong(text.len()));
        }
        let parsed = catch_unwind(|| Parser::default().parse(text)).map_err(|_| ExpressionError::Parser)?;
        let syntax = parsed.map_err(|errors| syntax_error(&errors))?;
        Ok(Self { text: text.to_owned(), syntax: check::prepare(syntax, scope)? })
    }

    /// The text that it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value for an event and the state before it. Without a state `state` is an empty object.
    pub fn evaluate(&self, event: &Value, state: Option<&Value>) -> Result<serde_json::Value, EvaluationError> {
        self.evaluate_in(&Bindings::new(event, state))
    }

    /// As [`Self::evaluate`], for several expressions over one event.
    pub fn evaluate_in(&self, bindings: &Bindings) -> Result<serde_json::Value, EvaluationError> {
        functions::refill();
        let run = AssertUnwindSafe(|| Value::resolve(&self.syntax, &bindings.0));
        let result = catch_unwind(run).map_err(|_| EvaluationError::Interpreter)?;
        if functions::is_spent() {
            return Err(EvaluationError::TooCostly);
        }
        let value = result.map_err(|error| EvaluationError::Failed(shown(&error.to_string())))?;
        values::to_json(&value)
    }
}

impl Bindings {
    pub fn new(event: &Value, state: Option<&Value>) -> Self {
        let mut context = functions::base().new_inner_scope();
        context.add_variable_from_value("event", event.clone());
        let state = state.cloned().unwrap_or_else(|| to_cel(&serde_json::Value::Object(serde_json::Map::new())));
        context.add_variable_from_value("state", state);
        Self(context)
    }
}

fn syntax_error(errors: &cel::ParseErrors) -> ExpressionError {
    let Some(first) = errors.errors.first() else { return ExpressionError::Parser };
    // Without the list of everything else that could stand there.
    let message = first.msg.trim().trim_start_matches("Syntax error: ").split(" expecting ").next().unwrap_or_default();
    let message = shown(&message.replace("mismatched input '<EOF>'", "unexpected end"));
    ExpressionError::Syntax { line: first.pos.0, column: first.pos.1, message }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
