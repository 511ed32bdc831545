//! Templates in what is submitted: their definitions come in their place.

use super::document::{self, CHOSEN_FIELDS, is_workflow};
use super::error::{Path, Problem, TemplateError};
use super::{Catalogue, render};
use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// Whether there is anything to expand.
pub(super) fn mentions(given: &Fields) -> bool {
    given.get("template").is_some_and(|wanted| !wanted.is_null()) || given.get("steps").is_some_and(within)
}

/// Whether one of the steps, or of the steps of one that is a workflow, names a
/// template.
fn within(steps: &Value) -> bool {
    let inputs = |step: &Value| step.as_object().filter(|step| is_workflow(step))?.get("inputs").cloned();
    steps
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(inputs)
        .any(|inputs| inputs.get("template").is_some() || inputs.pointer("/definition/steps").is_some_and(within))
}

pub(super) fn submission(catalogue: &Catalogue, given: &Fields) -> Result<Fields, TemplateError> {
    let mut made: Fields = given.iter().filter(|(_, value)| !value.is_null()).map(copied).collect();
    if let Some(wanted) = made.shift_remove("template") {
        let definition = alone(&made).and_then(|()| chosen(catalogue, &wanted))?;
        for (field, value) in definition {
            // What the caller says goes first, but for what only the template can say.
            if field == "steps" || !made.contains_key(&field) {
                made.insert(field, value);
            }
        }
        return Ok(made);
    }
    let Some(steps) = made.get("steps").filter(|steps| within(steps)) else { return Ok(made) };
    let mut expanded =
        render::expand(catalogue, &Value::Object(Map::from_iter([("steps".to_owned(), steps.clone())])))?;
    made.insert("steps".to_owned(), expanded["steps"].take());
    Ok(made)
}

fn copied((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// A template takes the place of steps, and has parameters of its own.
fn alone(given: &Fields) -> Result<(), TemplateError> {
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let advice = "give the template alone, and what it needs as its parameters";
    let beside = |name, said| match given.get(name).filter(|value| !empty(value)) {
        Some(_) => Err(Path::Root.field(name).wrong(Problem::Contradiction { said, advice })),
        None => Ok(()),
    };
    beside("steps", "is there, and a template as well")?;
    beside("params", "is there, and a template as well")
}

fn chosen(catalogue: &Catalogue, wanted: &Value) -> Result<Fields, TemplateError> {
    let path = Path::Root.field("template");
    let wanted = document::known(document::object(wanted, &path)?, CHOSEN_FIELDS, &path)?;
    let chosen = document::chosen(wanted, &path)?;
    let found = catalogue.resolve(&chosen.id, &chosen.range);
    let template = found.map_err(|problem| path.field("template_id").wrong(problem))?;
    let definition = render::render(catalogue, template, &chosen.parameters).map_err(|e| match e.template {
        Some(_) => e,
        // Of what the caller gave: its place is within the arguments.
        None => TemplateError { pointer: format!("{path}{}", e.pointer), ..e },
    })?;
    match definition {
        Value::Object(fields) => Ok(fields),
        other => Err(path.not("an object", &other)),
    }
}
