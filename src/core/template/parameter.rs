//! Parameters: what they are declared as, and whether a value fits.

use super::error::{Path, Problem, TemplateError, clip, described, listed};
use super::reference::{first_reference, unescaped, whole};
use crate::limits;
use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

/// What kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// A list.
    Array,
    /// Named values.
    Object,
}

impl Type {
    /// All of them.
    pub const ALL: [Type; 6] = [Type::String, Type::Number, Type::Integer, Type::Boolean, Type::Array, Type::Object];

    /// As documents call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::Number => "number",
            Type::Integer => "integer",
            Type::Boolean => "boolean",
            Type::Array => "array",
            Type::Object => "object",
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Type::String => "a string",
            Type::Number => "a number",
            Type::Integer => "a whole number",
            Type::Boolean => "true or false",
            Type::Array => "an array",
            Type::Object => "an object",
        }
    }

    /// Whether `value` is of it.
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        match self {
            Type::String => value.is_string(),
            Type::Number => value.is_number(),
            Type::Integer => value.is_i64() || value.is_u64(),
            Type::Boolean => value.is_boolean(),
            Type::Array => value.is_array(),
            Type::Object => value.is_object(),
        }
    }
}

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// What kind of value it takes.
    pub kind: Type,
    /// What it is for.
    pub description: String,
    /// Its value if none is given; `None`: one must be given.
    pub default: Option<Value>,
    pub(super) rule: Rule,
}

/// What a value must be, beside its type.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Any,
    /// A text that matches as a whole; with the pattern as it was written.
    Match(Box<Regex>, String),
    OneOf(Vec<Value>),
}

impl Parameter {
    /// The pattern that a text must match, if there is one.
    #[must_use]
    pub fn regex(&self) -> Option<&str> {
        match &self.rule {
            Rule::Match(_, pattern) => Some(pattern),
            Rule::Any | Rule::OneOf(_) => None,
        }
    }

    /// The values that it may have, if they are named.
    #[must_use]
    pub fn choices(&self) -> Option<&[Value]> {
        match &self.rule {
            Rule::OneOf(choices) => Some(choices),
            Rule::Any | Rule::Match(..) => None,
        }
    }

    /// For the complaint that it is missing.
    pub(super) fn described(&self) -> String {
        match self.description.as_str() {
            "" => self.kind.wanted().to_owned(),
            about => format!("{} ({})", self.kind.wanted(), clip(about)),
        }
    }

    /// Whether `value` fits, in the language of definitions. What refers to a
    /// result is not known yet, and fits.
    pub(super) fn check(&self, value: &Value, path: &Path<'_>) -> Result<(), TemplateError> {
        let later = first_reference(value).is_some();
        if later && value.as_str().is_some_and(|text| whole(text).is_some()) {
            return Ok(());
        }
        if !self.kind.holds(value) {
            return Err(path.not(self.kind.wanted(), value));
        }
        if later {
            return Ok(());
        }
        match (&self.rule, unescaped(value, path)?) {
            (Rule::Any, _) => Ok(()),
            (Rule::OneOf(choices), value) => match choices.contains(&value) {
                true => Ok(()),
                false => {
                    let choices = listed(choices.iter().map(Value::to_string));
                    Err(path.wrong(Problem::Choice { found: described(&value), choices }))
                }
            },
            (Rule::Match(regex, pattern), Value::String(text)) => matched(regex, pattern, &text, path),
            (Rule::Match(..), value) => Err(path.not(Type::String.wanted(), &value)),
        }
    }
}

fn matched(regex: &Regex, pattern: &str, text: &str, path: &Path<'_>) -> Result<(), TemplateError> {
    if text.len() > limits::MATCHED_BYTES {
        return Err(path.wrong(Problem::Limit {
            what: "bytes",
            found: text.len(),
            limit: limits::MATCHED_BYTES,
            advice: "a pattern is tried on no more",
        }));
    }
    if regex.is_match(text) {
        return Ok(());
    }
    Err(path.wrong(Problem::Pattern { found: clip(text), regex: pattern.to_owned() }))
}

/// A pattern that must match a text as a whole.
pub(super) fn regex(pattern: &str, path: &Path<'_>) -> Result<Rule, TemplateError> {
    let build = |text: &str| {
        let built = RegexBuilder::new(text).size_limit(REGEX_BYTES).build();
        built.map_err(|e| path.wrong(Problem::Regex { reason: e.to_string() }))
    };
    if pattern.len() > limits::TEXT_BYTES {
        let reason = format!("it has {} bytes, and may have {}", pattern.len(), limits::TEXT_BYTES);
        return Err(path.wrong(Problem::Regex { reason }));
    }
    // By itself first: `a)|(b` is none, though it would be one within the group.
    build(pattern)?;
    Ok(Rule::Match(Box::new(build(&format!("\\A(?:{pattern})\\z"))?), pattern.to_owned()))
}

/// Of a pattern when it is ready to be used: its time grows with it.
const REGEX_BYTES: usize = 64 * 1024;
