//! A projection's definition, compiled once when it is loaded.

use std::collections::BTreeMap;

use crds::language::expression::{Expression, Scope};
use crds::registration::{Fold, Projection, Source};

/// What one projection does with an event.
#[derive(Debug)]
pub struct Program {
    pub(super) source: Source,
    pub(super) filter: Option<Expression>,
    pub(super) key: Option<Expression>,
    pub(super) rule: Rule,
}

/// How state comes from events.
#[derive(Debug)]
pub(super) enum Rule {
    Latest,
    Merge,
    Fields(BTreeMap<String, Expression>),
}

impl Program {
    /// Compiles a registered projection.
    ///
    /// # Errors
    /// Names the field whose expression does not compile, and why.
    pub fn compile(spec: &Projection) -> Result<Self, String> {
        let optional = |field: &str, text: &Option<String>| {
            text.as_deref().map(|text| compile(field, text, Scope::Event)).transpose()
        };
        let rule = match &spec.fold {
            Fold::Latest => Rule::Latest,
            Fold::Merge => Rule::Merge,
            Fold::Fields(fields) => Rule::Fields(
                fields
                    .iter()
                    .map(|(name, text)| {
                        Ok((name.clone(), compile(&format!("fields.{name}"), text, Scope::StateAndEvent)?))
                    })
                    .collect::<Result<_, String>>()?,
            ),
            Fold::TimeSeries(_) => return Err("a time series keeps no state".to_owned()),
        };
        Ok(Self {
            source: spec.source.clone(),
            filter: optional("filter", &spec.filter)?,
            key: optional("key", &spec.key)?,
            rule,
        })
    }

    /// Whether events of this type are read at all.
    pub fn reads(&self, event_type: &str) -> bool {
        self.source.matches(event_type)
    }

    /// Whether several shards may feed one row.
    pub fn has_own_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether folding needs the state that was there before.
    pub fn needs_state(&self) -> bool {
        !matches!(self.rule, Rule::Latest)
    }

    /// Whether an event may be applied after later ones: the row keeps the newest by (time, id), whatever the order.
    pub fn keeps_newest(&self) -> bool {
        matches!(self.rule, Rule::Latest)
    }

    /// The event types and prefixes it reads.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

fn compile(field: &str, text: &str, scope: Scope) -> Result<Expression, String> {
    Expression::compile(text, scope).map_err(|e| format!("{field}: {e}"))
}
