//! Rendering: parameters into their places, included steps among the others.

use super::check::{declared, find, missing};
use super::document::{self, Mode, count_of, is_workflow, mode_of, nested};
use super::error::{Path, Problem, TemplateError, clip};
use super::line::Line;
use super::reference::{
    Meaning, Piece, Region, escaped, expression, first_reference, meaning, part, pieces, unescaped, whole,
};
use super::{Catalogue, Include, Template};
use crate::limits;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

type Fields = Map<String, Value>;

/// Values of parameters, in the language of definitions.
type Values<'a> = BTreeMap<&'a str, Value>;

pub(super) fn render(catalogue: &Catalogue, template: &Template, given: &Fields) -> Result<Value, TemplateError> {
    let path = Path::Root.field("parameters");
    for (name, value) in given {
        nested(value, &path.field(name))?;
    }
    let given = given.iter().map(|(name, value)| (name.clone(), escaped(value))).collect();
    let values = bind(template, &given, &path)?;
    let definition = Press::new(catalogue).definition(template, &values)?;
    bounded(&definition).map_err(|e| e.of(&template.to_string()))?;
    Ok(definition)
}

pub(super) fn expand(catalogue: &Catalogue, definition: &Value) -> Result<Value, TemplateError> {
    nested(definition, &Path::Root)?;
    let mut expanded = definition.clone();
    Press::new(catalogue).expand(&mut expanded, &Path::Root)?;
    bounded(&expanded)?;
    Ok(expanded)
}

fn bounded(definition: &Value) -> Result<(), TemplateError> {
    nested(definition, &Path::Root)?;
    let bytes = definition.to_string().len();
    let advice = "give less, or let steps read large data from elsewhere";
    count_of("bytes when it is rendered", bytes, limits::DEFINITION_BYTES, advice, &Path::Root)
}

/// The value of every parameter of `template`: as given, in the language of
/// definitions, or its default.
fn bind<'a>(template: &'a Template, given: &Fields, path: &Path<'_>) -> Result<Values<'a>, TemplateError> {
    declared(template, given, path)?;
    let mut values = Values::new();
    for (name, parameter) in template.parameters() {
        let value = match (given.get(name), &parameter.default) {
            (Some(value), _) => {
                parameter.check(value, &path.field(name))?;
                value.clone()
            }
            (None, Some(default)) => escaped(default),
            (None, None) => return Err(missing(template, name, path)),
        };
        values.insert(name, value);
    }
    Ok(values)
}

/// A template in its place.
struct Scope<'a> {
    template: &'a Template,
    values: &'a Values<'a>,
    region: Region,
    /// Of its steps' names.
    prefix: &'a str,
    /// Full names of the steps that its first ones wait for.
    after: &'a [String],
}

impl Scope<'_> {
    fn full(&self, step: &str) -> String {
        format!("{}{step}", self.prefix)
    }
}

/// What is written, and how much of it.
struct Press<'a> {
    catalogue: &'a Catalogue,
    /// The templates that we are in.
    within: Vec<String>,
    includes: usize,
    /// Bytes and values.
    written: usize,
    steps: Vec<Value>,
    /// Names of steps, and where they came from.
    seen: BTreeMap<String, String>,
}

impl<'a> Press<'a> {
    fn new(catalogue: &'a Catalogue) -> Press<'a> {
        Press { catalogue, within: Vec::new(), includes: 0, written: 0, steps: Vec::new(), seen: BTreeMap::new() }
    }

    /// A definition of its own.
    fn definition(&mut self, template: &Template, values: &Values<'_>) -> Result<Value, TemplateError> {
        let outer = (std::mem::take(&mut self.steps), std::mem::take(&mut self.seen));
        let scope = Scope { template, values, region: Region::Own, prefix: "", after: &[] };
        self.template(&scope)?;
        let (steps, _) = (std::mem::replace(&mut self.steps, outer.0), std::mem::replace(&mut self.seen, outer.1));
        let mut rest = Map::from_iter([("steps".to_owned(), Value::Array(steps))]);
        let mut name = Value::from(template.id());
        for (field, value) in &template.fields {
            let path = Path::Root.field(field);
            let value = self.value(value, Mode::Plain, &scope, &path);
            let value = value.map_err(|e| e.of(&template.to_string()))?;
            match field.as_str() {
                "name" if !value.is_string() => return Err(path.not("a string", &value).of(&template.to_string())),
                "name" => name = value,
                _ => drop(rest.insert(field.clone(), value)),
            }
        }
        Ok(Value::Object([("name".to_owned(), name)].into_iter().chain(rest).collect()))
    }

    fn template(&mut self, scope: &Scope<'_>) -> Result<(), TemplateError> {
        let name = scope.template.to_string();
        self.within.push(name.clone());
        for (n, include) in scope.template.includes.iter().enumerate() {
            self.include(include, scope, &Path::Root.field("includes").item(n), &name)?;
        }
        let undoing: BTreeSet<&str> = scope.template.steps.iter().filter_map(undone_by).collect();
        for (n, step) in scope.template.steps.iter().enumerate() {
            let path = Path::Root.field("steps");
            let rendered = self.step(step, scope, &path.item(n), &undoing);
            self.steps.push(Value::Object(rendered.map_err(|e| e.of(&name))?));
        }
        self.within.pop();
        Ok(())
    }

    fn include(
        &mut self,
        include: &Include,
        scope: &Scope<'_>,
        path: &Path<'_>,
        name: &str,
    ) -> Result<(), TemplateError> {
        self.includes += 1;
        let named = |e: TemplateError| e.of(name);
        let inner = find(self.catalogue, &include.chosen, &self.within, self.includes, path).map_err(named)?;
        let path = path.field("parameters");
        let mut given = Map::new();
        for (name, value) in &include.chosen.parameters {
            given.insert(name.clone(), self.value(value, Mode::Data, scope, &path.field(name)).map_err(named)?);
        }
        let values = bind(inner, &given, &path).map_err(named)?;
        let own: Vec<String> = include.after.iter().map(|step| scope.full(step)).collect();
        let after = if own.is_empty() { scope.after } else { &own };
        let prefix = scope.full(&include.prefix);
        self.template(&Scope { template: inner, values: &values, region: Region::Own, prefix: &prefix, after })
    }

    /// A step of the template itself.
    fn step(
        &mut self,
        step: &Fields,
        scope: &Scope<'_>,
        path: &Path<'_>,
        undoing: &BTreeSet<&str>,
    ) -> Result<Fields, TemplateError> {
        let advice = "give less to map over within the template: `for_each` does that in one step";
        count_of("steps", self.steps.len() + 1, limits::STEPS, advice, path)?;
        let id = step.get("step_id").and_then(Value::as_str).unwrap_or_default();
        self.meet(&scope.full(id), scope, &path.field("step_id"))?;
        let mut rendered = self.fields(step, scope, path)?;
        let first = rendered.get("depends_on").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if first && !scope.after.is_empty() && !undoing.contains(id) {
            let after = scope.after.iter().map(|step| Value::from(step.as_str())).collect();
            rendered.insert("depends_on".to_owned(), Value::Array(after));
        }
        Ok(rendered)
    }

    /// The name of a step, which must be met the first time.
    fn meet(&mut self, name: &str, scope: &Scope<'_>, path: &Path<'_>) -> Result<(), TemplateError> {
        let advice = "shorten it, or the prefixes";
        count_of("bytes in its full name", name.len(), limits::STEP_ID_BYTES, advice, path)?;
        match self.seen.insert(name.to_owned(), format!("{} {path}", scope.template)) {
            None => Ok(()),
            Some(first) => Err(path.wrong(Problem::Twice { what: "step", name: name.to_owned(), first })),
        }
    }

    /// The fields of a step, of the template or of a definition within it.
    fn fields(&mut self, step: &Fields, scope: &Scope<'_>, path: &Path<'_>) -> Result<Fields, TemplateError> {
        let mut rendered = Map::new();
        for (name, value) in step {
            let path = path.field(name);
            let value = match (name.as_str(), value) {
                ("inputs", Value::Object(inputs)) if is_workflow(step) => self.inputs(inputs, scope, &path)?,
                _ => self.value(value, mode_of(name), scope, &path)?,
            };
            rendered.insert(name.clone(), renamed(name, value, scope));
        }
        Ok(rendered)
    }

    /// The inputs of a step that is a workflow.
    fn inputs(&mut self, inputs: &Fields, scope: &Scope<'_>, path: &Path<'_>) -> Result<Value, TemplateError> {
        let mut rendered = Map::new();
        for (name, value) in inputs {
            let path = path.field(name);
            let value = match value {
                Value::Object(definition) if name == "definition" => self.inner(definition, scope, &path)?,
                value => self.value(value, Mode::Data, scope, &path)?,
            };
            rendered.insert(name.clone(), value);
        }
        self.chosen(&mut rendered, path)?;
        Ok(Value::Object(rendered))
    }

    /// A definition within the template: its steps keep their names.
    fn inner(&mut self, definition: &Fields, scope: &Scope<'_>, path: &Path<'_>) -> Result<Value, TemplateError> {
        let scope = Scope { region: Region::Inner, prefix: "", after: &[], ..*scope };
        let mut rendered = Map::new();
        for (name, value) in definition {
            let path = path.field(name);
            let value = match value {
                Value::Array(steps) if name == "steps" => {
                    let step = |(n, step): (usize, &Value)| {
                        let path = path.item(n);
                        self.fields(document::object(step, &path)?, &scope, &path).map(Value::Object)
                    };
                    Value::Array(steps.iter().enumerate().map(step).collect::<Result<_, _>>()?)
                }
                value => self.value(value, mode_of(name), &scope, &path)?,
            };
            rendered.insert(name.clone(), value);
        }
        Ok(Value::Object(rendered))
    }

    /// Puts a definition in the place of `template`, in the inputs of a step that
    /// is a workflow.
    fn chosen(&mut self, inputs: &mut Fields, path: &Path<'_>) -> Result<(), TemplateError> {
        let Some(wanted) = inputs.get("template") else { return Ok(()) };
        if inputs.len() > 1 {
            let advice = "give the template alone, and what it needs as its parameters";
            return Err(path.wrong(Problem::Contradiction { said: "has a template, and more beside it", advice }));
        }
        let path = path.field("template");
        let wanted = document::known(document::object(wanted, &path)?, document::CHOSEN_FIELDS, &path)?;
        let chosen = document::chosen(wanted, &path)?;
        self.includes += 1;
        let template = find(self.catalogue, &chosen, &self.within, self.includes, &path)?;
        let mut values = bind(template, &chosen.parameters, &path.field("parameters"))?;
        let (later, _): (Fields, Fields) =
            chosen.parameters.into_iter().partition(|(_, value)| first_reference(value).is_some());
        for (name, value) in &mut values {
            if later.contains_key(*name) {
                *value = Value::String(format!("${{params.{name}}}"));
            }
        }
        let definition = self.definition(template, &values)?;
        if definition.get("deadline").is_some() {
            let (said, advice) =
                ("has a deadline, and is a step of another workflow", "give the step a timeout instead");
            return Err(path.wrong(Problem::Contradiction { said, advice }));
        }
        *inputs = Map::from_iter([("definition".to_owned(), definition)]);
        if !later.is_empty() {
            inputs.insert("params".to_owned(), Value::Object(later));
        }
        Ok(())
    }

    /// Puts definitions in the place of templates, in a definition that is
    /// otherwise ready.
    fn expand(&mut self, definition: &mut Value, path: &Path<'_>) -> Result<(), TemplateError> {
        let path = path.field("steps");
        let steps = definition.get_mut("steps").and_then(Value::as_array_mut);
        for (n, step) in steps.into_iter().flatten().enumerate() {
            let path = path.item(n);
            let path = path.field("inputs");
            let Some(step) = step.as_object_mut().filter(|step| is_workflow(step)) else { continue };
            let Some(inputs) = step.get_mut("inputs").and_then(Value::as_object_mut) else { continue };
            self.chosen(inputs, &path)?;
            if let Some(inner) = inputs.get_mut("definition") {
                self.expand(inner, &path.field("definition"))?;
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, mode: Mode, scope: &Scope<'_>, path: &Path<'_>) -> Result<Value, TemplateError> {
        self.write(1, path)?;
        match value {
            Value::String(text) => self.text(text, mode, scope, path),
            Value::Array(items) => {
                let items = items.iter().enumerate().map(|(n, item)| self.value(item, mode, scope, &path.item(n)));
                Ok(Value::Array(items.collect::<Result<_, _>>()?))
            }
            Value::Object(fields) => {
                let mut rendered = Map::new();
                for (name, value) in fields {
                    let value = self.value(value, mode, scope, &path.field(name))?;
                    rendered.insert(name.replace("$${", "${"), value);
                }
                Ok(Value::Object(rendered))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
        }
    }

    fn text(&mut self, text: &str, mode: Mode, scope: &Scope<'_>, path: &Path<'_>) -> Result<Value, TemplateError> {
        if mode != Mode::Expression
            && let Some(inside) = whole(text)
            && let Some(Meaning::Parameter(name, way)) = meaning(inside, scope.region)
        {
            let value = self.parameter(inside, name, way, scope, path)?;
            return if mode == Mode::Plain { unescaped(&value, path) } else { Ok(value) };
        }
        let mut line = Line::new(mode, path);
        for piece in pieces(text) {
            match piece.map_err(|_| path.wrong(Problem::Unclosed))? {
                Piece::Text(text) if mode == Mode::Expression => line.push(&expression(text, scope.prefix))?,
                Piece::Text(text) => line.push(text)?,
                Piece::Escape => line.escape()?,
                Piece::Reference(inside) => match meaning(inside, scope.region) {
                    Some(Meaning::Parameter(name, way)) => {
                        let value = self.parameter(inside, name, way, scope, path)?;
                        line.value(&value)?;
                    }
                    Some(Meaning::Step(step, rest)) => line.reference(&format!("steps.{}{rest}", scope.full(step)))?,
                    Some(Meaning::Item | Meaning::Params) => line.reference(inside)?,
                    None => return Err(path.wrong(Problem::NoReference { found: clip(inside) })),
                },
            }
            self.within_budget(line.text.len(), path)?;
        }
        self.write(line.text.len(), path)?;
        Ok(Value::String(line.text))
    }

    /// The value that a reference to a parameter stands for.
    fn parameter(
        &mut self,
        inside: &str,
        name: &str,
        way: Option<&str>,
        scope: &Scope<'_>,
        path: &Path<'_>,
    ) -> Result<Value, TemplateError> {
        let known = || scope.template.known_parameters();
        let value = scope.values.get(name);
        let value = value.ok_or_else(|| path.wrong(Problem::Undefined { name: clip(name), known: known() }))?;
        let nowhere = |part| path.wrong(Problem::Nowhere { reference: clip(inside), part: clip(part) });
        let found = part(value, way).map_err(nowhere)?;
        self.write(size(&found), path)?;
        Ok(found)
    }

    fn write(&mut self, bytes: usize, path: &Path<'_>) -> Result<(), TemplateError> {
        self.within_budget(bytes, path)?;
        self.written += bytes;
        Ok(())
    }

    fn within_budget(&self, bytes: usize, path: &Path<'_>) -> Result<(), TemplateError> {
        let advice = "give less, or include less";
        count_of("bytes to write while it is rendered", self.written + bytes, limits::RENDERED_BYTES, advice, path)
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len(),
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.iter().map(|(name, value)| name.len() + size(value)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

/// A field of a step whose value names steps, with their full names.
fn renamed(field: &str, value: Value, scope: &Scope<'_>) -> Value {
    let full = |value: Value| match value {
        Value::String(step) => Value::String(scope.full(&step)),
        other => other,
    };
    match (field, value) {
        ("step_id", value) => full(value),
        ("depends_on", Value::Array(steps)) => Value::Array(steps.into_iter().map(full).collect()),
        ("on_failure", Value::String(text)) => match text.strip_prefix(UNDO) {
            Some(step) => Value::String(format!("{UNDO}{}", scope.full(step))),
            None => Value::String(text),
        },
        (_, value) => value,
    }
}

/// The step that undoes this one. It runs when all else is over, and so waits for
/// nothing.
fn undone_by(step: &Fields) -> Option<&str> {
    step.get("on_failure").and_then(Value::as_str)?.strip_prefix(UNDO)
}

const UNDO: &str = "compensate:";
