//! Rendering: parameters into their places, included steps among the others.

use super::document::{Mode, count_of, mode_of, nested};
use super::error::{Path, Problem, TemplateError, clip};
use super::reference::{Meaning, Piece, escaped, first_reference, meaning, part, pieces, unescaped, whole};
use super::{Catalogue, Include, Template};
use crate::limits;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Values of parameters, in the language of definitions.
type Values<'a> = BTreeMap<&'a str, Value>;

pub(super) fn render(
    catalogue: &Catalogue,
    template: &Template,
    given: &Map<String, Value>,
) -> Result<Value, TemplateError> {
    let path = Path::Root.field("parameters");
    for (name, value) in given {
        nested(value, &path.field(name))?;
    }
    let given = given.iter().map(|(name, value)| (name.clone(), escaped(value))).collect();
    let values = bind(template, &given, &path)?;
    let mut press =
        Press { catalogue, within: Vec::new(), includes: 0, written: 0, steps: Vec::new(), seen: BTreeMap::new() };
    let scope = Scope { template, values: &values, prefix: "", after: &[] };
    let named = |e: TemplateError| e.of(&template.to_string());
    press.template(&scope)?;
    let name =
        template.fields.get("name").map(|name| press.value(name, Mode::Plain, &scope, &Path::Root.field("name")));
    let name = name.transpose().map_err(named)?.unwrap_or_else(|| Value::from(template.id()));
    if !name.is_string() {
        return Err(named(Path::Root.field("name").not("a string", &name)));
    }
    let mut definition = Map::from_iter([("name".to_owned(), name)]);
    definition.insert("steps".to_owned(), Value::Array(std::mem::take(&mut press.steps)));
    for (name, value) in template.fields.iter().filter(|(name, _)| *name != "name") {
        let value = press.value(value, Mode::Plain, &scope, &Path::Root.field(name)).map_err(named)?;
        definition.insert(name.clone(), value);
    }
    let definition = Value::Object(definition);
    nested(&definition, &Path::Root).map_err(named)?;
    let bytes = definition.to_string().len();
    let advice = "give less, or let steps read large data from elsewhere";
    count_of("bytes when it is rendered", bytes, limits::DEFINITION_BYTES, advice, &Path::Root).map_err(named)?;
    Ok(definition)
}

/// The value of every parameter of `template`: as given, in the language of
/// definitions, or its default.
fn bind<'a>(template: &'a Template, given: &Map<String, Value>, path: &Path<'_>) -> Result<Values<'a>, TemplateError> {
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

fn declared(template: &Template, given: &Map<String, Value>, path: &Path<'_>) -> Result<(), TemplateError> {
    match given.keys().find(|name| template.parameter(name).is_none()) {
        None => Ok(()),
        Some(stranger) => {
            let problem = Problem::Undeclared { template: template.to_string(), known: template.known_parameters() };
            Err(path.field(stranger).wrong(problem))
        }
    }
}

fn missing(template: &Template, name: &str, path: &Path<'_>) -> TemplateError {
    let kind = template.parameter(name).map(super::Parameter::described).unwrap_or_default();
    path.wrong(Problem::Required { name: name.to_owned(), kind })
}

/// As far as it can be said before parameters have values.
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
            let checked = find(self.catalogue, include, &self.within, self.includes, &path)
                .and_then(|inner| fits(inner, include, &path.field("parameters")).map(|()| inner));
            let inner = checked.map_err(|e| e.of(&template.to_string()))?;
            self.template(inner)?;
        }
        self.within.pop();
        Ok(())
    }
}

/// Whether an include gives what its template needs.
fn fits(inner: &Template, include: &Include, path: &Path<'_>) -> Result<(), TemplateError> {
    declared(inner, &include.parameters, path)?;
    for (name, parameter) in inner.parameters() {
        match include.parameters.get(name) {
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
            matches!(meaning(inside), Some(Meaning::Parameter(..)))
        }),
        Value::Array(items) => items.iter().any(refers_to_a_parameter),
        Value::Object(fields) => fields.values().any(refers_to_a_parameter),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The template that is included, unless that has no end.
fn find<'a>(
    catalogue: &'a Catalogue,
    include: &Include,
    within: &[String],
    includes: usize,
    path: &Path<'_>,
) -> Result<&'a Template, TemplateError> {
    let inner = catalogue.resolve(&include.id, &include.range).map_err(|problem| path.wrong(problem))?;
    let name = inner.to_string();
    if let Some(start) = within.iter().position(|outer| *outer == name) {
        let path_of_names = within[start..].iter().map(String::as_str).chain([name.as_str()]).collect::<Vec<_>>();
        return Err(path.wrong(Problem::Cycle { path: path_of_names.join(" -> ") }));
    }
    let advice = "include fewer templates, or put their steps into one";
    count_of("levels of includes", within.len() + 1, limits::INCLUDE_DEPTH, advice, path)?;
    count_of("includes, those of included templates counted", includes, limits::INCLUDES, advice, path)?;
    Ok(inner)
}

/// A template in its place.
struct Scope<'a> {
    template: &'a Template,
    values: &'a Values<'a>,
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

impl Press<'_> {
    fn template(&mut self, scope: &Scope<'_>) -> Result<(), TemplateError> {
        let name = scope.template.to_string();
        self.within.push(name.clone());
        for (n, include) in scope.template.includes.iter().enumerate() {
            self.include(include, scope, &Path::Root.field("includes").item(n), &name)?;
        }
        for (n, step) in scope.template.steps.iter().enumerate() {
            self.step(step, scope, &Path::Root.field("steps").item(n)).map_err(|e| e.of(&name))?;
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
        let inner = find(self.catalogue, include, &self.within, self.includes, path).map_err(named)?;
        let path = path.field("parameters");
        let mut given = Map::new();
        for (name, value) in &include.parameters {
            given.insert(name.clone(), self.value(value, Mode::Data, scope, &path.field(name)).map_err(named)?);
        }
        let values = bind(inner, &given, &path).map_err(named)?;
        let own: Vec<String> = include.after.iter().map(|step| scope.full(step)).collect();
        let after = if own.is_empty() { scope.after } else { &own };
        let prefix = scope.full(&include.prefix);
        self.template(&Scope { template: inner, values: &values, prefix: &prefix, after })
    }

    fn step(&mut self, step: &Map<String, Value>, scope: &Scope<'_>, path: &Path<'_>) -> Result<(), TemplateError> {
        let advice = "give less to map over within the template: `for_each` does that in one step";
        count_of("steps", self.steps.len() + 1, limits::STEPS, advice, path)?;
        let mut rendered = Map::new();
        for (name, value) in step {
            let path = path.field(name);
            let value = match name.as_str() {
                "step_id" => Value::String(self.named(value.as_str().unwrap_or_default(), scope, &path)?),
                "depends_on" => self.dependencies(value, scope, &path)?,
                "on_failure" => compensation(self.value(value, Mode::Plain, scope, &path)?, scope),
                "inputs" if step.get("action").and_then(Value::as_str) == Some("workflow") => {
                    self.workflow(value, scope, &path)?
                }
                _ => self.value(value, mode_of(name), scope, &path)?,
            };
            rendered.insert(name.clone(), value);
        }
        let first = rendered.get("depends_on").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if first && !scope.after.is_empty() {
            let after = scope.after.iter().map(|step| Value::from(step.as_str())).collect();
            rendered.insert("depends_on".to_owned(), Value::Array(after));
        }
        self.steps.push(Value::Object(rendered));
        Ok(())
    }

    /// The full name of a step, which is met the first time.
    fn named(&mut self, step: &str, scope: &Scope<'_>, path: &Path<'_>) -> Result<String, TemplateError> {
        let full = scope.full(step);
        self.write(full.len(), path)?;
        count_of("bytes in its full name", full.len(), limits::TEXT_BYTES, "shorten the prefixes", path)?;
        let place = format!("{} {path}", scope.template);
        match self.seen.insert(full.clone(), place) {
            None => Ok(full),
            Some(first) => Err(path.wrong(Problem::Twice { what: "step", name: full, first })),
        }
    }

    fn dependencies(&mut self, value: &Value, scope: &Scope<'_>, path: &Path<'_>) -> Result<Value, TemplateError> {
        let mut full = Vec::new();
        for step in value.as_array().into_iter().flatten() {
            let name = scope.full(step.as_str().unwrap_or_default());
            self.write(name.len(), path)?;
            full.push(Value::String(name));
        }
        Ok(Value::Array(full))
    }

    /// The inputs of a step that is a workflow: in an inner definition, steps are
    /// that definition's own, and keep their names.
    fn workflow(&mut self, inputs: &Value, scope: &Scope<'_>, path: &Path<'_>) -> Result<Value, TemplateError> {
        let Value::Object(fields) = inputs else { return self.value(inputs, Mode::Data, scope, path) };
        let mut rendered = Map::new();
        for (name, value) in fields {
            let inner = Scope { prefix: "", ..*scope };
            let scope = if name == "definition" { &inner } else { scope };
            rendered.insert(name.clone(), self.value(value, Mode::Data, scope, &path.field(name))?);
        }
        Ok(Value::Object(rendered))
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
                    rendered.insert(name.replace("$${", "${"), self.value(value, mode, scope, &path.field(name))?);
                }
                Ok(Value::Object(rendered))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
        }
    }

    fn text(&mut self, text: &str, mode: Mode, scope: &Scope<'_>, path: &Path<'_>) -> Result<Value, TemplateError> {
        if mode != Mode::Expression
            && let Some(inside) = whole(text)
            && let Some(Meaning::Parameter(name, way)) = meaning(inside)
        {
            let value = self.parameter(inside, name, way, scope, path)?;
            return if mode == Mode::Plain { unescaped(&value, path) } else { Ok(value) };
        }
        let mut line = Line { text: String::new(), mode, path };
        for piece in pieces(text) {
            match piece.map_err(|_| path.wrong(Problem::Unclosed))? {
                Piece::Text(text) if mode == Mode::Expression => line.push(&expression(text, scope.prefix))?,
                Piece::Text(text) => line.push(text)?,
                Piece::Escape => line.escape()?,
                Piece::Reference(inside) => match meaning(inside) {
                    Some(Meaning::Parameter(name, way)) => {
                        let value = self.parameter(inside, name, way, scope, path)?;
                        line.value(&value)?;
                    }
                    Some(Meaning::Step(step, rest)) => {
                        line.reference(&format!("steps.{}{step}{rest}", scope.prefix))?
                    }
                    Some(Meaning::Item) => line.reference(inside)?,
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
        let found = part(value, way);
        let found = found.map_err(|part| path.wrong(Problem::Nowhere { reference: clip(inside), part: clip(part) }))?;
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

/// `compensate:undo` names a step.
fn compensation(value: Value, scope: &Scope<'_>) -> Value {
    match value.as_str().and_then(|text| text.strip_prefix("compensate:")) {
        Some(step) => Value::String(format!("compensate:{}", scope.full(step))),
        None => value,
    }
}

/// A text that grows piece by piece, and in which what is text stays text.
struct Line<'a> {
    text: String,
    mode: Mode,
    path: &'a Path<'a>,
}

impl Line<'_> {
    fn push(&mut self, piece: &str) -> Result<(), TemplateError> {
        let live = self.mode != Mode::Plain;
        if live && self.text.ends_with('$') {
            if let Some(Ok(Piece::Reference(inside))) = pieces(piece).next() {
                return Err(self.path.wrong(Problem::Dollar { reference: clip(inside) }));
            }
            if piece.starts_with('{') {
                self.text.push('$');
            }
        }
        self.text.push_str(piece);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), TemplateError> {
        self.push(if self.mode == Mode::Plain { "${" } else { "$${" })
    }

    fn reference(&mut self, inside: &str) -> Result<(), TemplateError> {
        self.push(&format!("${{{inside}}}"))
    }

    /// A parameter's value.
    fn value(&mut self, value: &Value) -> Result<(), TemplateError> {
        match (self.mode, value) {
            (Mode::Plain, value) => match unescaped(value, self.path)? {
                Value::String(text) => self.push(&text),
                value => self.push(&value.to_string()),
            },
            (Mode::Data, Value::String(text)) => self.push(text),
            // A result that is there later comes in as the workflow writes it.
            (Mode::Expression, Value::String(text)) if whole(text).is_some() => self.push(text),
            (Mode::Data | Mode::Expression, value) => {
                let text = value.to_string();
                if self.mode == Mode::Expression && first_reference(value).is_some() {
                    let reference = clip(first_reference(value).unwrap_or_default());
                    return Err(self.path.wrong(Problem::Early { reference }));
                }
                self.push(&text)
            }
        }
    }
}

/// A piece of an expression with the steps that it names, `steps.a` or
/// `steps["a"]`, under their full names.
fn expression(text: &str, prefix: &str) -> String {
    if prefix.is_empty() {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("steps") {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let after = &found["steps".len()..];
        let apart = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        let opening = ["[\"", "['", "."].into_iter().find(|opening| after.starts_with(opening));
        out.push_str("steps");
        rest = after;
        if let (true, Some(opening)) = (apart, opening) {
            out.push_str(opening);
            out.push_str(prefix);
            rest = &after[opening.len()..];
        }
    }
    out.push_str(rest);
    out
}
