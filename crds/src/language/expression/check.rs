//! What an expression may say, and the form in which it is run.
//!
//! Every name and function must be known. Field selection becomes indexing (which borrows instead of copying, and fails
//! on what is no object), arithmetic and equality become those of JSON numbers, loops are counted, and regular
//! expressions are compiled.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, SelectExpr, operators,
};

use super::functions::{self, FUNCTIONS};
use super::values::EVENT_FIELDS;
use super::{ExpressionError, Scope};

/// How deeply an expression may be nested: the interpreter needs stack for each level.
pub(super) const DEPTH_LIMIT: usize = 64;

const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// Checks a parsed expression and gives it the form to run.
pub(super) fn prepare(syntax: IdedExpr, scope: Scope) -> Result<IdedExpr, ExpressionError> {
    Checker { names: scope.names().iter().map(|&n| n.to_owned()).collect(), known: scope.names() }.walk(syntax, 0)
}

struct Checker {
    /// Names in scope, the innermost last.
    names: Vec<String>,
    known: &'static [&'static str],
}

impl Checker {
    fn walk(&mut self, syntax: IdedExpr, depth: usize) -> Result<IdedExpr, ExpressionError> {
        if depth > DEPTH_LIMIT {
            return Err(ExpressionError::TooDeep);
        }
        let expr = match syntax.expr {
            Expr::Literal(literal) => Expr::Literal(literal),
            Expr::Ident(name) => self.name(name)?,
            Expr::Select(select) => self.select(select, depth)?,
            Expr::Call(call) => self.call(call, depth)?,
            Expr::List(list) => {
                Expr::List(ListExpr { elements: self.walk_all(list.elements, depth)?, ..ListExpr::default() })
            }
            Expr::Map(map) => Expr::Map(self.map(map, depth)?),
            Expr::Comprehension(loop_) => Expr::Comprehension(Box::new(self.comprehension(*loop_, depth)?)),
            Expr::Struct(_) => return Err(ExpressionError::Unsupported("a message literal")),
            Expr::Unspecified => return Err(ExpressionError::Unsupported("an empty expression")),
        };
        Ok(IdedExpr { id: syntax.id, expr })
    }

    fn walk_all(&mut self, all: Vec<IdedExpr>, depth: usize) -> Result<Vec<IdedExpr>, ExpressionError> {
        all.into_iter().map(|one| self.walk(one, depth + 1)).collect()
    }

    fn name(&self, name: String) -> Result<Expr, ExpressionError> {
        if self.names.contains(&name) {
            return Ok(Expr::Ident(name));
        }
        Err(ExpressionError::UnknownName { name, known: self.known.join(" and ") })
    }

    fn select(&mut self, select: SelectExpr, depth: usize) -> Result<Expr, ExpressionError> {
        self.check_field(&select)?;
        let operand = self.walk(*select.operand, depth + 1)?;
        if select.test {
            return Ok(Expr::Select(SelectExpr { operand: Box::new(operand), ..select }));
        }
        let field = literal(select.field);
        Ok(call(operators::INDEX, vec![operand, field]))
    }

    /// The fields of `event` are fixed, so that a misspelt one is found before every event fails on it.
    fn check_field(&self, select: &SelectExpr) -> Result<(), ExpressionError> {
        let shadowed = || self.names[self.known.len()..].iter().any(|name| name == "event");
        let of_event = matches!(&select.operand.expr, Expr::Ident(name) if name == "event") && !shadowed();
        if !of_event || EVENT_FIELDS.contains(&select.field.as_str()) {
            return Ok(());
        }
        let hint = crate::nearest(&select.field, EVENT_FIELDS).map(str::to_owned);
        Err(ExpressionError::UnknownField { name: select.field.clone(), hint })
    }

    fn call(&mut self, called: CallExpr, depth: usize) -> Result<Expr, ExpressionError> {
        if let Some(qualified) = self.qualified(&called) {
            known(&qualified)?;
            return Ok(Expr::Call(CallExpr { args: self.walk_all(called.args, depth)?, ..called }));
        }
        let name = called.func_name.as_str();
        if !OPERATORS.contains(&name) && name != operators::NOT_STRICTLY_FALSE {
            known(name)?;
        }
        if name == "matches" {
            check_pattern(called.args.last())?;
        }
        let args = self.walk_all(called.args, depth)?;
        let target = called.target.map(|t| self.walk(*t, depth + 1)).transpose()?.map(Box::new);
        let func_name = json_operator(name, &args).map_or(called.func_name.clone(), str::to_owned);
        Ok(Expr::Call(CallExpr { func_name, target, args }))
    }

    /// `math.floor` of `math.floor(x)`, where `math` is no variable.
    fn qualified(&self, called: &CallExpr) -> Option<String> {
        match &called.target.as_deref()?.expr {
            Expr::Ident(prefix) if !self.names.contains(prefix) => Some(format!("{prefix}.{}", called.func_name)),
            _ => None,
        }
    }

    fn map(&mut self, mut map: MapExpr, depth: usize) -> Result<MapExpr, ExpressionError> {
        for entry in &mut map.entries {
            let EntryExpr::MapEntry(pair) = &mut entry.expr else {
                return Err(ExpressionError::Unsupported("a message literal"));
            };
            pair.key = self.walk(std::mem::take(&mut pair.key), depth + 1)?;
            pair.value = self.walk(std::mem::take(&mut pair.value), depth + 1)?;
        }
        Ok(map)
    }

    /// Loops come from the macros `all`, `exists`, `exists_one`, `map` and `filter`.
    fn comprehension(&mut self, loop_: ComprehensionExpr, depth: usize) -> Result<ComprehensionExpr, ExpressionError> {
        let iter_range = self.walk(loop_.iter_range, depth + 1)?;
        let accu_init = self.walk(loop_.accu_init, depth + 1)?;
        let outside = self.names.len();
        self.names.extend(
            [Some(loop_.iter_var.clone()), loop_.iter_var2.clone(), Some(loop_.accu_var.clone())].into_iter().flatten(),
        );
        let loop_cond = self.walk(loop_.loop_cond, depth + 1)?;
        let loop_step = self.walk(loop_.loop_step, depth + 1)?;
        let result = self.walk(loop_.result, depth + 1)?;
        self.names.truncate(outside);
        let accu = IdedExpr { id: 0, expr: Expr::Ident(loop_.accu_var.clone()) };
        let loop_cond = IdedExpr { id: 0, expr: call(functions::TICK, vec![loop_cond, accu]) };
        Ok(ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, ..loop_ })
    }
}

/// The function that takes an operator's place, if any.
///
/// A loop's own accumulator (`@result + […]`) keeps the plain operator, which does not copy as much; so does a
/// comparison with a text, which cannot be one of numbers.
fn json_operator(name: &str, args: &[IdedExpr]) -> Option<&'static str> {
    let is = |wanted: fn(&Expr) -> bool| args.iter().any(|arg| wanted(&arg.expr));
    if args.len() != 2 || is(|e| matches!(e, Expr::Ident(name) if name.starts_with('@'))) {
        return None;
    }
    let compares_no_number =
        is(|e| matches!(e, Expr::Literal(LiteralValue::String(_) | LiteralValue::Boolean(_) | LiteralValue::Null)));
    match name {
        operators::ADD => Some(functions::ADD),
        operators::SUBSTRACT => Some(functions::SUBTRACT),
        operators::MULTIPLY => Some(functions::MULTIPLY),
        operators::DIVIDE => Some(functions::DIVIDE),
        operators::EQUALS if !compares_no_number => Some(functions::EQUALS),
        operators::NOT_EQUALS if !compares_no_number => Some(functions::NOT_EQUALS),
        _ => None,
    }
}

fn check_pattern(argument: Option<&IdedExpr>) -> Result<(), ExpressionError> {
    let Some(Expr::Literal(LiteralValue::String(pattern))) = argument.map(|a| &a.expr) else {
        return Err(ExpressionError::PatternNotLiteral);
    };
    let refused = |e: regex::Error| ExpressionError::Pattern {
        pattern: pattern.inner().to_owned(),
        message: e.to_string().lines().last().unwrap_or_default().trim().to_owned(),
    };
    functions::pattern(pattern.inner()).map(drop).map_err(refused)
}

fn known(name: &str) -> Result<(), ExpressionError> {
    if FUNCTIONS.contains(&name) {
        return Ok(());
    }
    let hint = crate::nearest(name, FUNCTIONS.iter().copied()).map(str::to_owned);
    Err(ExpressionError::UnknownFunction { name: name.to_owned(), hint })
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

fn literal(text: String) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(text.into())) }
}
