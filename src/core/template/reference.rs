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

/// Whose steps and parameters a text speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    /// The template's own.
    Own,
    /// Those of a definition within the inputs of a step: `${params.…}` there
    /// means what the inner workflow is given.
    Inner,
}

/// What a reference of a template means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A parameter, and the way to a part of it.
    Parameter(&'a str, Option<&'a str>),
    /// A step: its name, and what follows it.
    Step(&'a str, &'a str),
    /// The parameters of an inner workflow.
    Params,
    /// The item of a `for_each`, its index, or the workflow's id.
    Item,
}

/// What `inside` means; `None`: it is no reference.
pub(super) fn meaning(inside: &str, region: Region) -> Option<Meaning<'_>> {
    let (head, rest) = match inside.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (inside, None),
    };
    match (head, rest) {
        ("steps", Some(rest)) => {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (step, after) = rest.split_at(end);
            is_step_name(step).then_some(Meaning::Step(step, after))
        }
        ("params", _) if region == Region::Inner => Some(Meaning::Params),
        ("params", Some(rest)) => parameter(rest),
        ("item", _) | ("index", None) | ("workflow", Some("id")) => Some(Meaning::Item),
        _ if head.starts_with("item[") => Some(Meaning::Item),
        ("params" | "steps" | "index" | "workflow", _) => None,
        _ => parameter(inside),
    }
}

fn parameter(path: &str) -> Option<Meaning<'_>> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, part) = path.split_at(end);
    let part = (!part.is_empty()).then_some(part);
    (is_parameter_name(name) && part.is_none_or(|part| segments(part).is_some()))
        .then_some(Meaning::Parameter(name, part))
}

/// `.a[0].b` as `a`, `0`, `b`; `None`: it is no way into a value.
fn segments(part: &str) -> Option<Vec<&str>> {
    let mut segments = Vec::new();
    let mut rest = part;
    while !rest.is_empty() {
        let segment = if let Some(after) = rest.strip_prefix('[') {
            let (n, after) = after.split_once(']')?;
            rest = after;
            Some(n).filter(|n| is_number(n))
        } else {
            let after = rest.strip_prefix('.')?;
            let (name, after) = after.split_at(after.find(['.', '[']).unwrap_or(after.len()));
            rest = after;
            Some(name).filter(|name| !name.is_empty())
        };
        segments.push(segment?);
    }
    Some(segments)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `reference` as an expression has it: without braces, and by index where its
/// name would read as a subtraction.
pub(super) fn bare(reference: &str) -> String {
    let Some((root, rest)) = reference.split_once('.') else { return reference.to_owned() };
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    format!("{root}{}{after}", member(name))
}

/// `.name`, or `["na-me"]`.
fn member(name: &str) -> String {
    if is_parameter_name(name) && !name.contains('-') { format!(".{name}") } else { format!("[\"{name}\"]") }
}

/// A piece of an expression with the steps that it names, `steps.a` or
/// `steps["a"]`, under their full names.
pub(super) fn expression(text: &str, prefix: &str) -> String {
    if prefix.is_empty() {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("steps") {
        let (before, found) = rest.split_at(at);
        let apart = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        out.push_str(before);
        out.push_str("steps");
        rest = &found["steps".len()..];
        if !apart {
            continue;
        }
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            out.push_str(&member(&format!("{prefix}{}", &after[..end])));
            rest = &after[end..];
        } else if let Some(opening) = ["[\"", "['"].into_iter().find(|opening| rest.starts_with(opening)) {
            out.push_str(opening);
            out.push_str(prefix);
            rest = &rest[opening.len()..];
        }
    }
    out.push_str(rest);
    out
}

/// What a step is called.
pub(super) fn is_step_name(text: &str) -> bool {
    is_name(text) && text.len() <= crate::limits::STEP_ID_BYTES
}

/// Letters, digits, `_` and `-`.
pub(super) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !text.is_empty() && text.len() <= crate::limits::TEXT_BYTES && text.chars().all(fits)
}

/// The same, but it begins with a letter or `_`.
pub(super) fn is_parameter_name(text: &str) -> bool {
    is_name(text) && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// What the running workflow means by a name, and no parameter can be called.
pub(super) const RESERVED: [&str; 5] = ["steps", "item", "index", "params", "workflow"];

/// The way `part` into `value`; the part that is missing otherwise. Into a result
/// that is not there yet, the reference itself is made longer.
pub(super) fn part<'a>(value: &Value, part: Option<&'a str>) -> Result<Value, &'a str> {
    let Some(part) = part else { return Ok(value.clone()) };
    let segments = segments(part).ok_or(part)?;
    if let Some(reference) = value.as_str().and_then(whole) {
        // The workflow counts in brackets alone.
        let way = segments.iter().map(|s| if is_number(s) { format!("[{s}]") } else { format!(".{s}") });
        return Ok(Value::String(format!("${{{reference}{}}}", way.collect::<String>())));
    }
    let mut here = value;
    for segment in segments {
        let next = match here {
            Value::Object(fields) => fields.get(segment),
            Value::Array(items) => segment.parse::<usize>().ok().and_then(|n| items.get(n)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        here = next.ok_or(segment)?;
    }
    Ok(here.clone())
}
