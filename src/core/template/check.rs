//! What can be said of includes before parameters have values.

use super::document::count_of;
use super::error::{Path, Problem, TemplateError};
use super::parameter::Parameter;
use super::reference::{Meaning, Piece, Region, meaning, pieces};
use super::{Catalogue, Chosen, Template};
use crate::limits;
use serde_json::{Map, Value};

pub(super) fn check(catalogue: &Catalogue, template: &Template) -> Result<(), TemplateError> {
    let mut walk = Walk { catalogue, within: Vec::new(), includes: 0 };
    walk.template(template)
}

/// Follows includes, and renders nothing.
struct Walk<'a> {
    catalogue: &'a Catalogue,
    within: Vec<String>,
    includes: usize,
}

impl Walk<'_> {
    fn template(&mut self, template: &Template) -> Result<(), TemplateError> {
        self.within.push(template.to_string());
        for (n, include) in template.includes.iter().enumerate() {
            self.includes += 1;
            let includes = Path::Root.field("includes");
            let path = includes.item(n);
            let checked = find(self.catalogue, &include.chosen, &self.within, self.includes, &path)
                .and_then(|inner| fits(inner, &include.chosen, &path.field("parameters")).map(|()| inner));
            let inner = checked.map_err(|e| e.of(&template.to_string()))?;
            self.template(inner)?;
        }
        self.within.pop();
        Ok(())
    }
}

/// Whether an include gives what its template needs.
fn fits(inner: &Template, chosen: &Chosen, path: &Path<'_>) -> Result<(), TemplateError> {
    declared(inner, &chosen.parameters, path)?;
    for (name, parameter) in inner.parameters() {
        match chosen.parameters.get(name) {
            None if parameter.default.is_none() => return Err(missing(inner, name, path)),
            // What refers to a parameter has its value when it is rendered.
            Some(value) if !refers_to_a_parameter(value) => parameter.check(value, &path.field(name))?,
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn refers_to_a_parameter(value: &Value) -> bool {
    match value {
        Value::String(text) => pieces(text).any(|piece| {
            let Ok(Piece::Reference(inside)) = piece else { return false };
            matches!(meaning(inside, Region::Own), Some(Meaning::Parameter(..)))
        }),
        Value::Array(items) => items.iter().any(refers_to_a_parameter),
        Value::Object(fields) => fields.values().any(refers_to_a_parameter),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The template that is included within those named, unless that has no end.
pub(super) fn find<'a>(
    catalogue: &'a Catalogue,
    chosen: &Chosen,
    within: &[String],
    includes: usize,
    path: &Path<'_>,
) -> Result<&'a Template, TemplateError> {
    let inner = catalogue.resolve(&chosen.id, &chosen.range).map_err(|problem| path.wrong(problem))?;
    let name = inner.to_string();
    if let Some(start) = within.iter().position(|outer| *outer == name) {
        let cycle: Vec<_> = within[start..].iter().map(String::as_str).chain([name.as_str()]).collect();
        return Err(path.wrong(Problem::Cycle { path: cycle.join(" -> ") }));
    }
    let advice = "include fewer templates, or put their steps into one";
    count_of("levels of includes", within.len(), limits::INCLUDE_DEPTH, advice, path)?;
    count_of("includes, those of included templates counted", includes, limits::INCLUDES, advice, path)?;
    Ok(inner)
}

/// Whether all of `given` are parameters of `template`.
pub(super) fn declared(template: &Template, given: &Map<String, Value>, path: &Path<'_>) -> Result<(), TemplateError> {
    match given.keys().find(|name| template.parameter(name).is_none()) {
        None => Ok(()),
        Some(stranger) => {
            let problem = Problem::Undeclared { template: template.to_string(), known: template.known_parameters() };
            Err(path.field(stranger).wrong(problem))
        }
    }
}

pub(super) fn missing(template: &Template, name: &str, path: &Path<'_>) -> TemplateError {
    let kind = template.parameter(name).map(Parameter::described).unwrap_or_default();
    path.wrong(Problem::Required { name: name.to_owned(), kind })
}
