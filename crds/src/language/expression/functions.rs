//! The functions that expressions may call, JSON arithmetic, and the bound on one evaluation.
//!
//! The bound counts what loops go through and copy, and the size of texts and lists that `+` builds. It is kept per
//! thread and refilled for each evaluation, which runs on one thread from start to end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::{Context, ExecutionError, Value};
use kube::core::cel::KubeCelExt;
use regex::{Regex, RegexBuilder};

pub(super) const ADD: &str = "@add";
pub(super) const SUBTRACT: &str = "@subtract";
pub(super) const MULTIPLY: &str = "@multiply";
pub(super) const DIVIDE: &str = "@divide";
pub(super) const EQUALS: &str = "@equals";
pub(super) const NOT_EQUALS: &str = "@not_equals";
pub(super) const TICK: &str = "@tick";

/// Steps that one evaluation may take: well under a second.
const BUDGET: u64 = 1_000_000;
/// The largest text that `+` may build, in bytes.
const TEXT_LIMIT: usize = 1 << 20;
/// The largest compiled form of a regular expression, in bytes.
const PATTERN_LIMIT: usize = 1 << 20;
/// Compiled regular expressions that a thread keeps.
const PATTERNS_KEPT: usize = 256;

/// Every function that an expression may call, beside the macros has, all, exists, exists_one, map and filter.
pub(super) const FUNCTIONS: &[&str] = &[
    "base64.decode",
    "base64.encode",
    "bytes",
    "charAt",
    "contains",
    "distinct",
    "double",
    "duration",
    "endsWith",
    "first",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "hasValue",
    "indexOf",
    "int",
    "isSorted",
    "last",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "math.abs",
    "math.ceil",
    "math.floor",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
    "max",
    "min",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "orValue",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "uint",
    "upperAscii",
    "value",
];

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(BUDGET) };
    static PATTERNS: RefCell<HashMap<String, Arc<Regex>>> = RefCell::new(HashMap::new());
}

/// Starts an evaluation.
pub(super) fn refill() {
    LEFT.set(BUDGET);
}

/// Whether the evaluation used up its bound. An error within `||` can be swallowed; this cannot.
pub(super) fn is_spent() -> bool {
    LEFT.get() == 0
}

/// The functions, shared by all evaluations.
pub(super) fn base() -> &'static Context<'static> {
    static BASE: LazyLock<Context<'static>> = LazyLock::new(|| {
        let mut context = Context::default().with_all();
        context.add_function(TICK, |go_on: bool, accumulated: Value| {
            spend(1 + nodes(&accumulated))?;
            Ok::<bool, ExecutionError>(go_on)
        });
        context.add_function(ADD, |left: Value, right: Value| {
            check_size(&left, &right)?;
            let (left, right) = promote(left, right);
            left + right
        });
        context.add_function(SUBTRACT, |left: Value, right: Value| {
            let (left, right) = promote(left, right);
            left - right
        });
        context.add_function(MULTIPLY, |left: Value, right: Value| {
            let (left, right) = promote(left, right);
            left * right
        });
        context.add_function(DIVIDE, |left: Value, right: Value| {
            let (left, right) = promote(left, right);
            left / right
        });
        context.add_function(EQUALS, |left: Value, right: Value| equals(left, right));
        context.add_function(NOT_EQUALS, |left: Value, right: Value| !equals(left, right));
        context.add_function("matches", matches);
        context
    });
    &BASE
}

/// A compiled regular expression; a thread compiles each once.
pub(super) fn pattern(text: &str) -> Result<Arc<Regex>, regex::Error> {
    PATTERNS.with_borrow_mut(|kept| {
        if let Some(pattern) = kept.get(text) {
            return Ok(Arc::clone(pattern));
        }
        let pattern = Arc::new(RegexBuilder::new(text).size_limit(PATTERN_LIMIT).build()?);
        if kept.len() >= PATTERNS_KEPT {
            kept.clear();
        }
        kept.insert(text.to_owned(), Arc::clone(&pattern));
        Ok(pattern)
    })
}

#[allow(clippy::needless_pass_by_value, reason = "the interpreter hands over owned arguments")]
fn matches(
    cel::extractors::This(text): cel::extractors::This<Arc<String>>,
    regex: Arc<String>,
) -> Result<bool, ExecutionError> {
    let pattern = pattern(&regex).map_err(|e| ExecutionError::function_error("matches", e))?;
    Ok(pattern.is_match(&text))
}

fn spend(steps: u64) -> Result<(), ExecutionError> {
    let left = LEFT.get().saturating_sub(steps);
    LEFT.set(left);
    if left == 0 {
        return Err(ExecutionError::function_error("loop", "the evaluation costs too much"));
    }
    Ok(())
}

/// Values within a value; texts count by their length.
fn nodes(value: &Value) -> u64 {
    match value {
        Value::List(list) => 1 + list.iter().map(nodes).sum::<u64>(),
        Value::Map(map) => 1 + map.map.values().map(nodes).sum::<u64>(),
        Value::String(text) => 1 + text.len() as u64 / 64,
        Value::Bytes(bytes) => 1 + bytes.len() as u64 / 64,
        _ => 1,
    }
}

/// Keeps `+` from building what does not fit.
fn check_size(left: &Value, right: &Value) -> Result<(), ExecutionError> {
    match (left, right) {
        (Value::String(l), Value::String(r)) if l.len() + r.len() > TEXT_LIMIT => spend(BUDGET),
        (Value::Bytes(l), Value::Bytes(r)) if l.len() + r.len() > TEXT_LIMIT => spend(BUDGET),
        (Value::List(_), Value::List(_)) => spend(nodes(left) + nodes(right)),
        _ => Ok(()),
    }
}

/// Where an integer meets a fraction, both become fractions.
#[allow(clippy::cast_precision_loss, reason = "JSON numbers are fractions where they meet one")]
fn promote(left: Value, right: Value) -> (Value, Value) {
    match (left, right) {
        (Value::Int(l), Value::Float(r)) => (Value::Float(l as f64), Value::Float(r)),
        (Value::Float(l), Value::Int(r)) => (Value::Float(l), Value::Float(r as f64)),
        (Value::UInt(l), Value::Float(r)) => (Value::Float(l as f64), Value::Float(r)),
        (Value::Float(l), Value::UInt(r)) => (Value::Float(l), Value::Float(r as f64)),
        same => same,
    }
}

fn equals(left: Value, right: Value) -> bool {
    let (left, right) = promote(left, right);
    left == right
}
