//! What can be wrong with a template or with what it is given, each with its
//! place and with what to do about it.

use serde_json::Value;
use std::fmt;

/// Something is wrong. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// In which template, as `id@version`; `None`: in the one that is being read,
    /// or in what the caller gave.
    pub template: Option<String>,
    /// Where in it: a JSON pointer (RFC 6901), empty for the whole.
    pub pointer: String,
    /// What.
    pub problem: Problem,
}

impl std::error::Error for TemplateError {}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.template, self.pointer.as_str()) {
            (Some(template), "") => write!(f, "{template}: {}", self.problem),
            (Some(template), pointer) => write!(f, "{template} at {pointer}: {}", self.problem),
            (None, "") => write!(f, "{}", self.problem),
            (None, pointer) => write!(f, "{pointer}: {}", self.problem),
        }
    }
}

impl TemplateError {
    /// The same, of the template `name`, unless it is said already.
    pub(super) fn of(self, name: &str) -> TemplateError {
        TemplateError { template: self.template.or_else(|| Some(name.to_owned())), ..self }
    }
}

/// What is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Another kind of value.
    #[error("must be {wanted}, and is {found}")]
    Kind {
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// A field that must be there is not.
    #[error("has no `{name}`; add it: {about}")]
    Missing {
        /// Which.
        name: &'static str,
        /// What belongs there.
        about: &'static str,
    },
    /// A field that nobody reads, which would be ignored in silence.
    #[error("is no field here; there are {known}")]
    UnknownField {
        /// Those that are read.
        known: String,
    },
    /// A name with characters that a name can't have.
    #[error("{found:?} is no name here; it must be {rule}")]
    Name {
        /// What it must be.
        rule: &'static str,
        /// What it is.
        found: String,
    },
    /// A name that stands for something else.
    #[error("`{name}` is what running workflows call something of theirs; choose another name")]
    Reserved {
        /// Which.
        name: String,
    },
    /// The same name twice.
    #[error("the {what} `{name}` is there already, at {first}; rename one of them, or change a prefix")]
    Twice {
        /// A step, a prefix.
        what: &'static str,
        /// Which.
        name: String,
        /// Where it was met first.
        first: String,
    },
    /// Over a limit.
    #[error("has {found} {what}, and may have {limit}; {advice}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there are; for what is not counted to its end, so many at least.
        found: usize,
        /// How many there may be.
        limit: usize,
        /// What to do.
        advice: &'static str,
    },
    /// Not a version.
    #[error("{found} is no version ({reason}); write it like \"1.2.0\", in quotes")]
    Version {
        /// What it is.
        found: String,
        /// Why it is none.
        reason: String,
    },
    /// Not a range of versions.
    #[error("{found:?} is no range of versions ({reason}); write it like 1.2.0, ^1.2 or >=1, <3")]
    Range {
        /// What it is.
        found: String,
        /// Why it is none.
        reason: String,
    },
    /// A pattern that is none.
    #[error("is no regular expression: {reason}")]
    Regex {
        /// Why not.
        reason: String,
    },
    /// A declaration that says two things at once.
    #[error("{said}; {advice}")]
    Contradiction {
        /// What it says.
        said: &'static str,
        /// What to do.
        advice: &'static str,
    },

    /// A value that the pattern refuses.
    #[error("{found:?} does not match the regular expression {regex} as a whole; change the value")]
    Pattern {
        /// What it is.
        found: String,
        /// The pattern.
        regex: String,
    },
    /// A value that is not among those allowed.
    #[error("is {found}; it must be one of {choices}")]
    Choice {
        /// What it is.
        found: String,
        /// What it may be.
        choices: String,
    },
    /// No value, and no default.
    #[error("needs the parameter `{name}`, {kind}; give it")]
    Required {
        /// Which.
        name: String,
        /// Its type, and what it is for.
        kind: String,
    },
    /// A value for a parameter that is not declared.
    #[error("is no parameter of {template}; there are {known}")]
    Undeclared {
        /// Of which template.
        template: String,
        /// Its parameters.
        known: String,
    },

    /// A reference without its end.
    #[error("has a `${{` without its `}}`; close it, or write `$${{` for the text `${{`")]
    Unclosed,
    /// Something in `${…}` that is no reference.
    #[error("`${{{found}}}` is no reference; write `${{name}}`, or `$${{` for the text `${{`")]
    NoReference {
        /// What it is.
        found: String,
    },
    /// A reference to a parameter that is not declared.
    #[error(
        "`${{{name}}}` is not declared; there are {known}: correct the name, declare it under `parameters`, or write `$${{` for the text `${{`"
    )]
    Undefined {
        /// Which.
        name: String,
        /// The parameters.
        known: String,
    },
    /// A reference to a part of a parameter that it does not have.
    #[error(
        "`${{{reference}}}` leads nowhere: the value has no `{part}`; correct the reference, or give a value that has it"
    )]
    Nowhere {
        /// Which.
        reference: String,
        /// The part.
        part: String,
    },
    /// A parameter that nothing refers to.
    #[error("`{name}` is never used; refer to it as `${{{name}}}`, or remove it")]
    Unused {
        /// Which.
        name: String,
    },
    /// A reference where names are expected.
    #[error("a field's name is taken as it is; move the reference into the value, or write `$${{` for the text `${{`")]
    InKey,
    /// A reference to something that is not known there.
    #[error("`${{{reference}}}` is not known here: results are in inputs, for_each and when, items in inputs alone")]
    Early {
        /// Which.
        reference: String,
    },
    /// `$` before a reference, which together would be the escape.
    #[error("a value that ends in `$` comes right before `${{{reference}}}`; put something between them")]
    Dollar {
        /// Which.
        reference: String,
    },

    /// No template of that name and range.
    #[error("there is no template `{}` in the range {range}; versions of it: {known}", clip(id))]
    NoTemplate {
        /// Its name.
        id: String,
        /// The range.
        range: String,
        /// The versions that there are.
        known: String,
    },
    /// A template that includes itself.
    #[error("includes itself: {path}; remove one of these includes")]
    Cycle {
        /// `a@1.0.0 -> b@1.0.0 -> a@1.0.0`.
        path: String,
    },
}

/// Where something stands: built on the way down, written only when needed.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub(super) fn item(&'a self, n: usize) -> Path<'a> {
        Path::Item(self, n)
    }

    pub(super) fn wrong(&self, problem: Problem) -> TemplateError {
        TemplateError { template: None, pointer: self.to_string(), problem }
    }

    /// The value here is of another kind.
    pub(super) fn not(&self, wanted: &'static str, found: &Value) -> TemplateError {
        self.wrong(Problem::Kind { wanted, found: described(found) })
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(parent, name) => write!(f, "{parent}/{}", clip(name).replace('~', "~0").replace('/', "~1")),
            Path::Item(parent, n) => write!(f, "{parent}/{n}"),
        }
    }
}

/// A value for people: what it is, and a little of it.
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(yes) => format!("the boolean {yes}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {:?}", clip(text)),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) => format!("an object of {}", fields.len()),
    }
}

/// Enough of a text to know it again.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(CLIPPED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Names for people; of many, the first.
pub(super) fn listed<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.take(LISTED + 1).map(|name| clip(name.as_ref())).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n > LISTED => format!("{}, …", names[..LISTED].join(", ")),
        _ => names.join(", "),
    }
}

/// Characters of a text in a message.
const CLIPPED_CHARS: usize = 64;
/// Names in a message.
const LISTED: usize = 20;
