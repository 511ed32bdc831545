//! Workflow templates: a definition with holes, and the parameters that fill
//! them. [`render`] makes a definition out of a template and parameters.
//!
//! # The language
//! `${name}` and `${params.name}` stand for a parameter, `${name.a[0]}` for a part
//! of one. As a whole string it keeps its type; within a longer string it becomes
//! text. In `when` it becomes a literal, so that a text is compared and never read
//! as an expression; there, `${steps.a.result}` may also be written without its
//! braces. `${steps.…}`, `${item…}`, `${index}` and `${workflow.id}` belong to the
//! running workflow, and stay.
//!
//! `$${` is the text `${` in both languages: it stays as it is where the workflow
//! looks for references (`inputs`, `for_each`), and becomes `${` elsewhere. The
//! values of parameters are data: a `${` in one of them is written as `$${`, and
//! so never becomes a reference.
//!
//! A template may include others. Their steps get a prefix, and so do their
//! references to each other; a parameter given to an include may hold references
//! to results, which then are checked when they are there.
//!
//! A step whose action is `workflow` may name a template in its inputs, in a
//! template or not ([`expand`]): that template's definition takes the place, and
//! what refers to results becomes a parameter (`params`) of the inner workflow.

mod check;
mod document;
mod error;
mod line;
mod parameter;
mod reference;
mod render;
mod submission;
#[cfg(test)]
mod tests;

pub(crate) use error::clip;
pub use error::{Problem, TemplateError};
pub use parameter::{Parameter, Type};
pub use reference::{Piece, Unclosed, pieces};

use crate::limits;
use error::Path;
use semver::{Version, VersionReq};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A template that was read and found sound by itself. Whether what it includes
/// is there and fits, [`Catalogue::check`] says.
#[derive(Clone, Debug)]
pub struct Template {
    id: Arc<str>,
    version: Version,
    description: Arc<str>,
    parameters: Vec<(String, Parameter)>,
    includes: Vec<Include>,
    /// Of the definition, beside its steps.
    fields: Map<String, Value>,
    steps: Vec<Map<String, Value>>,
    document: Value,
}

/// Another template, and what it is given.
#[derive(Clone, Debug)]
struct Chosen {
    id: String,
    range: Range,
    parameters: Map<String, Value>,
}

/// Another template's steps among one's own.
#[derive(Clone, Debug)]
struct Include {
    chosen: Chosen,
    prefix: String,
    /// Steps that its first steps wait for.
    after: Vec<String>,
}

impl Template {
    /// Reads a document: the object of a template's file.
    ///
    /// # Errors
    /// The first thing that is wrong with it, and where.
    pub fn read(document: &Value) -> Result<Template, TemplateError> {
        document::read(document)
    }

    /// Its name, without the version.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What it is for.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What can be chosen, in the order of the document.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.parameters.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// The parameter of this name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters().find(|(n, _)| *n == name).map(|(_, parameter)| parameter)
    }

    /// The templates that it includes: id and range.
    pub fn includes(&self) -> impl Iterator<Item = (&str, &Range)> {
        self.includes.iter().map(|include| (include.chosen.id.as_str(), &include.chosen.range))
    }

    /// Its own steps, without those of includes.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// What it was read from.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    fn known_parameters(&self) -> String {
        error::listed(self.parameters.iter().map(|(name, _)| name.as_str()))
    }
}

/// Its name with its version: `map-reduce@1.2.0`.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.version)
    }
}

/// Which versions will do. A whole version (`1.2.0`) means this one alone; all
/// else is read as Cargo reads it: `1.2`, `^1.2.0`, `~1.2`, `>=1, <3`, `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range(VersionReq);

impl Range {
    /// The newest, whatever it is; not one that is only announced (`2.0.0-rc.1`).
    pub const ANY: Range = Range(VersionReq::STAR);

    /// Reads a range.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Range, Problem> {
        let wrong = |e: semver::Error| Problem::Range { found: error::clip(text), reason: e.to_string() };
        if text.len() > limits::TEXT_BYTES {
            return Err(Problem::Range { found: error::clip(text), reason: "it is too long".to_owned() });
        }
        let exact = Version::parse(text).is_ok();
        let text = if exact { format!("={text}") } else { text.to_owned() };
        VersionReq::parse(&text).map(Range).map_err(wrong)
    }

    /// Whether `version` will do.
    #[must_use]
    pub fn takes(&self, version: &Version) -> bool {
        self.0.matches(version)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The templates at hand, by name and version.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(BTreeMap<(Arc<str>, Version), Arc<Template>>);

impl Catalogue {
    /// Adds a template, unless its name and version are taken.
    ///
    /// # Errors
    /// They are; the catalogue is as it was. What is there is given back: the same
    /// document twice is no harm.
    pub fn insert(&mut self, template: Arc<Template>) -> Result<(), Arc<Template>> {
        let key = (template.id.clone(), template.version.clone());
        match self.0.get(&key) {
            Some(there) => Err(there.clone()),
            None => {
                self.0.insert(key, template);
                Ok(())
            }
        }
    }

    /// All, by name, then by version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Template>> {
        self.0.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest of this name that is in the range.
    ///
    /// # Errors
    /// There is none; the problem names what there is.
    pub fn resolve(&self, id: &str, range: &Range) -> Result<&Arc<Template>, Problem> {
        let versions = || self.0.iter().filter(|((name, _), _)| **name == *id);
        let mut fitting = versions().filter(|((_, version), _)| range.takes(version)).map(|(_, template)| template);
        fitting.next_back().ok_or_else(|| {
            let known = error::listed(versions().map(|((_, version), _)| version.to_string()));
            Problem::NoTemplate { id: id.to_owned(), range: range.to_string(), known }
        })
    }

    /// Whether all that `template` includes is here and takes the parameters that
    /// it is given, as far as that can be said before these have their values.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn check(&self, template: &Template) -> Result<(), TemplateError> {
        check::check(self, template)
    }
}

/// The definition of a workflow, from the newest template `id` in `range` (none:
/// the newest of all): `{"name", "steps", …}`.
///
/// # Errors
/// There is no such template, a parameter is missing, unknown or not what it must
/// be, or the result is over a limit. The error says where, and what to do.
pub fn render(
    catalogue: &Catalogue,
    id: &str,
    range: Option<&str>,
    parameters: &Map<String, Value>,
) -> Result<Value, TemplateError> {
    let range = match range {
        Some(text) => Range::parse(text).map_err(|problem| Path::Root.field("version").wrong(problem))?,
        None => Range::ANY,
    };
    let found = catalogue.resolve(id, &range);
    let template = found.map_err(|problem| Path::Root.field("template_id").wrong(problem))?;
    render_template(catalogue, template, parameters)
}

/// The same, from a template that need not be in the catalogue itself.
///
/// # Errors
/// As [`render`].
pub fn render_template(
    catalogue: &Catalogue,
    template: &Template,
    parameters: &Map<String, Value>,
) -> Result<Value, TemplateError> {
    render::render(catalogue, template, parameters)
}

/// `definition` with the definition of the template wherever a step that is a
/// workflow names one: `{"template": {"template_id", "version"?, "parameters"?}}`
/// among its inputs becomes `{"definition", "params"?}`.
///
/// # Errors
/// As [`render`], for any of these.
pub fn expand(catalogue: &Catalogue, definition: &Value) -> Result<Value, TemplateError> {
    render::expand(catalogue, definition)
}

/// Whether the arguments of a submission name a template, for the workflow or for
/// a step of it.
#[must_use]
pub fn mentioned(submission: &Map<String, Value>) -> bool {
    submission::mentions(submission)
}

/// The arguments of a submission with definitions for its templates: `template`
/// (`{"template_id", "version"?, "parameters"?}`) gives the steps, and what else
/// the caller has left unsaid; steps become as [`expand`] makes them.
///
/// # Errors
/// As [`render`]. [`Problem::NoTemplate`] names one that is not in the catalogue.
pub fn submission(catalogue: &Catalogue, given: &Map<String, Value>) -> Result<Map<String, Value>, TemplateError> {
    submission::submission(catalogue, given)
}
