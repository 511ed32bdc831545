//! Texts with references: what is text in them, what is a reference, and how
//! data is written so that it is never taken for one.

use super::error::{Path, Problem, TemplateError};
use serde_json::Value;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// `$${`, which means the text `${`.
    Escape,
    /// `${…}`: what is between the braces.
    Reference(&'a str),
}

/// A `${` without its `}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclosed;

/// The parts of `text`, in order. A `$` that begins neither `${` nor `$${` is
/// text.
pub fn pieces(text: &str) -> impl Iterator<Item = Result<Piece<'_>, Unclosed>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix("$${") {
            rest = after;
            return Some(Ok(Piece::Escape));
        }
        if let Some(after) = rest.strip_prefix("${") {
            let Some((inside, after)) = after.split_once('}') else {
                rest = "";
                return Some(Err(Unclosed));
            };
            rest = after;
            return Some(Ok(Piece::Reference(inside)));
        }
        let opening = rest.find("${").unwrap_or(rest.len());
        let escape = rest.find("$${").unwrap_or(rest.len());
        let (piece, after) = rest.split_at(opening.min(escape));
        rest = after;
        Some(Ok(Piece::Text(piece)))
    })
}

/// The reference that is all of `text`.
pub(super) fn whole(text: &str) -> Option<&str> {
    let mut pieces = pieces(text);
    match (pieces.next(), pieces.next()) {
        (Some(Ok(Piece::Reference(inside))), None) => Some(inside),
        _ => None,
    }
}

/// The data `value` in the language of definitions: nothing in it is a reference.
pub(super) fn escaped(value: &Value) -> Value {
    map_texts(value, &|text| text.replace("${", "$${"))
}

/// What [`escaped`] made into what it was. A text with references has no such
/// value: the first of them is the error.
pub(super) fn unescaped(value: &Value, path: &Path<'_>) -> Result<Value, TemplateError> {
    match first_reference(value) {
        Some(reference) => Err(path.wrong(Problem::Early { reference: super::error::clip(reference) })),
        None => Ok(map_texts(value, &|text| text.replace("$${", "${"))),
    }
}

/// A reference somewhere in `value`.
pub(super) fn first_reference(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => pieces(text).find_map(|piece| match piece {
            Ok(Piece::Reference(inside)) => Some(inside),
            Ok(Piece::Text(_) | Piece::Escape) | Err(Unclosed) => None,
        }),
        Value::Array(items) => items.iter().find_map(first_reference),
        Value::Object(fields) => fields.values().find_map(first_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn map_texts(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => Value::Array(items.iter().map(|item| map_texts(item, change)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), map_texts(value, change))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// What a reference of a template means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A parameter, and the way to a part of it.
    Parameter(&'a str, Option<&'a str>),
    /// A step's result: the step, and what follows it.
    Step(&'a str, &'a str),
    /// The item of a `for_each`, or its index.
    Item,
}

/// What `inside` means; `None`: it is no reference.
pub(super) fn meaning(inside: &str) -> Option<Meaning<'_>> {
    let (head, rest) = match inside.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (inside, None),
    };
    match (head, rest) {
        ("steps", Some(rest)) => {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (step, after) = rest.split_at(end);
            is_name(step).then_some(Meaning::Step(step, after))
        }
        ("item", _) => Some(Meaning::Item),
        ("index", None) => Some(Meaning::Item),
        _ if head.starts_with("item[") => Some(Meaning::Item),
        ("params", Some(rest)) => parameter(rest),
        ("params" | "steps" | "index", _) => None,
        _ => parameter(inside),
    }
}

fn parameter(path: &str) -> Option<Meaning<'_>> {
    let (name, part) = match path.split_once('.') {
        Some((name, part)) => (name, Some(part)),
        None => (path, None),
    };
    let parts_named = part.is_none_or(|part| part.split('.').all(|p| !p.is_empty()));
    (is_parameter_name(name) && parts_named).then_some(Meaning::Parameter(name, part))
}

/// Letters, digits, `_` and `-`: what a step is called.
pub(super) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !text.is_empty() && text.len() <= crate::limits::TEXT_BYTES && text.chars().all(fits)
}

/// The same, but it begins with a letter or `_`.
pub(super) fn is_parameter_name(text: &str) -> bool {
    is_name(text) && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// What the running workflow means by a name, and no parameter can be called.
pub(super) const RESERVED: [&str; 4] = ["steps", "item", "index", "params"];

/// The way `part` into `value`; the part that is missing otherwise. Into a result
/// that is not there yet, the reference itself is made longer.
pub(super) fn part<'a>(value: &Value, part: Option<&'a str>) -> Result<Value, &'a str> {
    let Some(part) = part else { return Ok(value.clone()) };
    if let Some(reference) = value.as_str().and_then(whole) {
        return Ok(Value::String(format!("${{{reference}.{part}}}")));
    }
    let mut here = value;
    for segment in part.split('.') {
        let next = match here {
            Value::Object(fields) => fields.get(segment),
            Value::Array(items) => segment.parse::<usize>().ok().and_then(|n| items.get(n)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        here = next.ok_or(segment)?;
    }
    Ok(here.clone())
}
