//! References in the inputs of a step: `${steps.fetch.result.rows[0]}`,
//! `${params.name}`, `${item}`, `${index}`, `${workflow.id}`.
//!
//! A string that is one reference becomes the value that it names, of whatever
//! type; in a longer string a reference becomes text. `$${` stands for `${`.

use serde_json::{Map, Value};
use std::fmt;

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where its path starts.
    pub root: Root,
    /// From there into a JSON value.
    pub path: Vec<Part>,
}

/// Where a reference starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// What an earlier step left.
    Result(String),
    /// What an earlier step printed on its standard output, without the line
    /// ends at its end; a path looks into it as JSON. Of a `for_each` step: the
    /// list of what each item printed.
    Output(String),
    /// How an earlier step ended: `completed`, `failed`, `skipped`, ….
    Status(String),
    /// Why an earlier step did not complete; null if it did.
    Error(String),
    /// The parameters of the workflow.
    Params,
    /// The item that this run of a `for_each` step is for.
    Item,
    /// Its number, from 0.
    Index,
    /// The workflow's id.
    WorkflowId,
}

/// One part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A field of an object.
    Field(String),
    /// An element of an array, from 0.
    Element(usize),
}

/// A piece of a string.
enum Piece {
    Text(String),
    Reference(Reference),
}

/// Nested values in inputs: what a person writes has a few, and each is a
/// stack frame.
const DEPTH: usize = 64;

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Result(step) => write!(f, "steps.{step}.result")?,
            Root::Output(step) => write!(f, "steps.{step}.output")?,
            Root::Status(step) => write!(f, "steps.{step}.status")?,
            Root::Error(step) => write!(f, "steps.{step}.error")?,
            Root::Params => f.write_str("params")?,
            Root::Item => f.write_str("item")?,
            Root::Index => f.write_str("index")?,
            Root::WorkflowId => f.write_str("workflow.id")?,
        }
        self.path.iter().try_for_each(|part| match part {
            Part::Field(name) => write!(f, ".{name}"),
            Part::Element(n) => write!(f, "[{n}]"),
        })
    }
}

impl Reference {
    /// The step that it needs, if it needs one.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match &self.root {
            Root::Result(step) | Root::Output(step) | Root::Status(step) | Root::Error(step) => Some(step),
            Root::Params | Root::Item | Root::Index | Root::WorkflowId => None,
        }
    }

    /// What is found by the path in `value`; null has null everywhere in it.
    ///
    /// # Errors
    /// There is no such field or element; says where.
    pub fn find(&self, value: &Value) -> Result<Value, String> {
        let mut here = value;
        for part in &self.path {
            let next = match (part, here) {
                (_, Value::Null) => return Ok(Value::Null),
                (Part::Field(name), Value::Object(fields)) => fields.get(name),
                (Part::Element(n), Value::Array(elements)) => elements.get(*n),
                (Part::Field(_) | Part::Element(_), _) => None,
            };
            here = next.ok_or_else(|| format!("${{{self}}}: there is no such field or element"))?;
        }
        Ok(here.clone())
    }
}

/// Reads `text` between the braces.
fn read(text: &str) -> Result<Reference, String> {
    let bad = |why: &str| format!("${{{text}}}: {why}");
    let mut parts = parts(text).map_err(bad)?.into_iter();
    let mut next = || match parts.next() {
        Some(Part::Field(name)) => Some(name),
        Some(Part::Element(_)) | None => None,
    };
    let root = match next().as_deref() {
        Some("steps") => {
            let step = next().ok_or_else(|| bad("names no step: ${steps.ID.result}"))?;
            match next().as_deref() {
                Some("result") => Root::Result(step),
                Some("output") => Root::Output(step),
                Some("status") => Root::Status(step),
                Some("error") => Root::Error(step),
                Some(_) | None => return Err(bad("a step has result, output, status and error")),
            }
        }
        Some("params") => Root::Params,
        Some("item") => Root::Item,
        Some("index") => Root::Index,
        Some("workflow") if next().as_deref() == Some("id") => Root::WorkflowId,
        Some(_) | None => return Err(bad("starts with none of steps, params, item, index, workflow.id")),
    };
    Ok(Reference { root, path: parts.collect() })
}

/// `a.b[0].c`, split.
fn parts(text: &str) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    for dotted in text.split('.') {
        let (name, mut rest) = dotted.split_at(dotted.find('[').unwrap_or(dotted.len()));
        if name.is_empty() || name.trim() != name {
            return Err("has an empty part, or white space in it");
        }
        parts.push(Part::Field(name.to_owned()));
        while let Some(bracketed) = rest.strip_prefix('[') {
            let (n, after) = bracketed.split_once(']').ok_or("has a [ without its ]")?;
            parts.push(Part::Element(n.parse().map_err(|_| "has something else than a number in brackets")?));
            rest = after;
        }
        if !rest.is_empty() {
            return Err("has something after a ]");
        }
    }
    Ok(parts)
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            plain.push_str(before);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or_else(|| format!("{}: a ${{ without its }}", shortened(text)))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Reference(read(&inside[..end])?));
        rest = &inside[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Every reference in `value`.
///
/// # Errors
/// One of them can't be read, or the value is nested too deeply.
pub fn references(value: &Value) -> Result<Vec<Reference>, String> {
    let mut found = Vec::new();
    collect(value, &mut found, 0)?;
    Ok(found)
}

fn collect(value: &Value, found: &mut Vec<Reference>, depth: usize) -> Result<(), String> {
    if depth > DEPTH {
        return Err(format!("nested more than {DEPTH} levels deep"));
    }
    match value {
        Value::String(text) => {
            for piece in pieces(text)? {
                if let Piece::Reference(reference) = piece {
                    found.push(reference);
                }
            }
            Ok(())
        }
        Value::Array(elements) => elements.iter().try_for_each(|v| collect(v, found, depth + 1)),
        Value::Object(fields) => fields.values().try_for_each(|v| collect(v, found, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// What a reference stands for.
pub type Lookup<'a> = dyn Fn(&Reference) -> Result<Value, String> + 'a;

/// `value` with every reference replaced by what `look_up` says.
///
/// # Errors
/// What `look_up` said, or a reference that can't be read.
pub fn resolve(value: &Value, look_up: &Lookup<'_>) -> Result<Value, String> {
    match value {
        Value::String(text) => resolve_text(text, look_up),
        Value::Array(elements) => {
            elements.iter().map(|v| resolve(v, look_up)).collect::<Result<_, _>>().map(Value::Array)
        }
        Value::Object(fields) => {
            let resolved = fields.iter().map(|(k, v)| Ok((k.clone(), resolve(v, look_up)?)));
            resolved.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
    }
}

fn resolve_text(text: &str, look_up: &Lookup<'_>) -> Result<Value, String> {
    let pieces = pieces(text)?;
    if let [Piece::Reference(reference)] = &pieces[..] {
        return look_up(reference);
    }
    let mut whole = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => whole.push_str(&text),
            Piece::Reference(reference) => match look_up(&reference)? {
                Value::String(text) => whole.push_str(&text),
                other => whole.push_str(&other.to_string()),
            },
        }
    }
    Ok(Value::String(whole))
}

/// `value` such that resolving it gives `value` back: what a program left may
/// look like a reference, and is none.
#[must_use]
pub fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("${", "$${")),
        Value::Array(elements) => Value::Array(elements.iter().map(escaped).collect()),
        Value::Object(fields) => Value::Object(fields.iter().map(|(k, v)| (k.clone(), escaped(v))).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// `value` with the references that `known` knows replaced, and the others left
/// as they are, to be resolved later.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_some(value: &Value, known: &dyn Fn(&Reference) -> bool, look_up: &Lookup<'_>) -> Result<Value, String> {
    match value {
        Value::String(text) => {
            let mut whole = String::new();
            let pieces = pieces(text)?;
            if let [Piece::Reference(reference)] = &pieces[..]
                && known(reference)
            {
                return look_up(reference).map(|found| escaped(&found));
            }
            for piece in pieces {
                match piece {
                    Piece::Text(text) => whole.push_str(&text.replace("${", "$${")),
                    Piece::Reference(reference) if known(&reference) => {
                        let found = match look_up(&reference)? {
                            Value::String(text) => text,
                            other => other.to_string(),
                        };
                        whole.push_str(&found.replace("${", "$${"));
                    }
                    Piece::Reference(reference) => whole.push_str(&format!("${{{reference}}}")),
                }
            }
            Ok(Value::String(whole))
        }
        Value::Array(elements) => {
            elements.iter().map(|v| resolve_some(v, known, look_up)).collect::<Result<_, _>>().map(Value::Array)
        }
        Value::Object(fields) => {
            let resolved = fields.iter().map(|(k, v)| Ok((k.clone(), resolve_some(v, known, look_up)?)));
            resolved.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn look_up(reference: &Reference) -> Result<Value, String> {
        match &reference.root {
            Root::Result(step) if step == "a" => reference.find(&json!({"n": [1, {"x": true}], "t": "${item}"})),
            Root::Item => reference.find(&json!({"name": "x"})),
            Root::Index => Ok(json!(7)),
            _ => Ok(Value::Null),
        }
    }

    #[test]
    fn a_whole_reference_keeps_its_type_and_one_in_a_text_becomes_text() {
        let value = json!({"whole": "${steps.a.result.n[1].x}", "text": "no ${index}: ${item.name}", "plain": [1, "$${index}"]});
        let resolved = resolve(&value, &look_up).expect("all there");
        assert_eq!(resolved, json!({"whole": true, "text": "no 7: x", "plain": [1, "${index}"]}));
    }

    #[test]
    fn what_a_program_left_is_never_read_as_a_reference() {
        let value = json!({"of": "${steps.a.result}", "at": "${index} ${steps.a.result.t}"});
        let known = |r: &Reference| r.step().is_some();
        let some = resolve_some(&value, &known, &look_up).expect("all there");
        assert_eq!(some["at"], json!("${index} $${item}"));
        let whole = resolve(&some, &look_up).expect("the rest");
        assert_eq!(whole, json!({"of": {"n": [1, {"x": true}], "t": "${item}"}, "at": "7 ${item}"}));
    }

    #[test]
    fn what_can_not_be_read_says_why() {
        for (text, why) in [
            ("${", "without its }"),
            ("${steps}", "names no step"),
            ("${steps.a}", "result, output, status and error"),
            ("${steps.a.out}", "result, output, status and error"),
            ("${nothing}", "starts with none"),
            ("${workflow.name}", "starts with none"),
            ("${steps..result}", "empty part"),
            ("${item[x]}", "number in brackets"),
            ("${item[0}", "without its ]"),
            ("${item[0]x}", "after a ]"),
        ] {
            let problem = references(&json!(text)).expect_err(text);
            assert!(problem.contains(why), "{text}: {problem}");
        }
        let problem = resolve(&json!("${steps.a.result.m}"), &look_up).expect_err("no such field");
        assert!(problem.contains("steps.a.result.m"), "{problem}");
        assert_eq!(resolve(&json!("${params.any.thing}"), &look_up), Ok(Value::Null));
    }

    proptest! {
        #[test]
        fn escaping_is_undone_by_resolving(text in "[ab$ {}]{0,12}") {
            let value = json!([text]);
            prop_assert_eq!(resolve(&escaped(&value), &look_up), Ok(value));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-z.$\\[\\]{}0-9]{0,24}") {
            let _ = references(&json!(text)).map(|_| resolve(&json!(text), &look_up));
        }
    }
}
