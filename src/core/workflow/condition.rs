//! `when`: a condition on what earlier steps left, in the Common Expression
//! Language (CEL, <https://cel.dev>): `steps.fetch.result.rows > 0 &&
//! steps.check.status == "completed"`.
//!
//! Loops over lists (`all`, `exists`, `map`, `filter`) are refused: nested they
//! take time without bound, and a node decides between two messages.

use cel::common::ast::{Expr, IdedExpr};
use cel::{Context, Program, Value as Cel};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is refused before it is read: a person writes a line.
pub const BYTES: usize = 1024;

/// Whether `text` can be read, and is free of loops.
///
/// # Errors
/// Why not.
pub fn check(text: &str) -> Result<(), String> {
    compile(text).map(|_| ())
}

fn compile(text: &str) -> Result<Program, String> {
    if text.len() > BYTES {
        return Err(format!("has {} bytes; the limit is {BYTES}", text.len()));
    }
    let program = Program::compile(text).map_err(|e| one_line(&e.to_string()))?;
    if loops(program.expression()) {
        return Err("has a loop over a list (all, exists, map, filter), which is not available".to_owned());
    }
    Ok(program)
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).take(2).collect::<Vec<_>>().join(": ")
}

fn loops(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Comprehension(_) => true,
        Expr::Call(call) => call.target.as_ref().is_some_and(|t| loops(t)) || call.args.iter().any(loops),
        Expr::List(list) => list.elements.iter().any(loops),
        Expr::Select(select) => loops(&select.operand),
        // Made of literals alone here: maps and messages have no use in a
        // condition, and are refused with the loops.
        Expr::Map(_) | Expr::Struct(_) => true,
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => false,
    }
}

/// The names of steps that occur in `text`, of those in `known`.
pub fn mentioned<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    known.filter(|step| text.contains(step)).collect()
}

/// Whether the condition holds, where `steps` and `params` are what it may ask
/// after.
///
/// # Errors
/// It can't be told: something that it asks after is not there, or its answer
/// is neither true nor false.
pub fn holds(text: &str, steps: &BTreeMap<String, Value>, params: &Value) -> Result<bool, String> {
    let program = compile(text)?;
    let mut context = Context::default();
    let wrong = |e: &dyn std::fmt::Display| format!("when: {e}");
    context.add_variable("steps", steps).map_err(|e| wrong(&e))?;
    context.add_variable("params", params).map_err(|e| wrong(&e))?;
    match program.execute(&context) {
        Ok(Cel::Bool(holds)) => Ok(holds),
        Ok(_) => Err("when: its answer is neither true nor false".to_owned()),
        Err(problem) => Err(wrong(&problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(text: &str) -> Result<bool, String> {
        let steps =
            BTreeMap::from([("a".to_owned(), json!({"status": "completed", "result": {"n": 3, "f": 0.5, "s": "x"}}))]);
        holds(text, &steps, &json!({"limit": 2}))
    }

    #[test]
    fn conditions_compare_and_combine() {
        for (text, answer) in [
            ("steps.a.result.n > params.limit", true),
            ("steps.a.status == 'completed' && !(steps.a.result.s == 'y')", true),
            ("steps.a.result.f > 1.0 || steps.a.result.n == 4", false),
            ("'x' in [steps.a.result.s, 'z']", true),
            ("size(steps.a.result.s) == 1", true),
            ("has(steps.a.result.none)", false),
        ] {
            assert_eq!(ask(text), Ok(answer), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_told_says_why() {
        for text in
            ["steps.b.status == 'x'", "steps.a.result.n", "steps.a.result.n >", "[1, 2].all(x, x > 0)", "unknown(1)"]
        {
            assert!(ask(text).is_err(), "{text}");
        }
        assert!(check(&"1 == 1 && ".repeat(200)).is_err());
        assert!(check(&format!("{}1{}", "(".repeat(400), ")".repeat(400))).is_err());
        assert!(check(&"!".repeat(1000)).is_err());
        assert!(check(&format!("1{}", "+1".repeat(500))).is_ok());
    }
}
