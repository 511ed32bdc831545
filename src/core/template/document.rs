//! Reading a template's document: every field known, every reference declared,
//! every parameter used.

use super::error::{Path, Problem, TemplateError, clip, listed};
use super::parameter::{self, Parameter, Rule, Type};
use super::reference::{Meaning, Piece, RESERVED, Region, is_name, is_parameter_name, is_step_name, meaning, pieces};
use super::{Chosen, Include, Range, Template};
use crate::limits;
use semver::Version;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

type Fields = Map<String, Value>;

/// How the workflow treats the texts of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It takes them as they are.
    Plain,
    /// It resolves references in them.
    Data,
    /// It resolves references in them, and reads the rest as an expression.
    Expression,
}

/// How the workflow treats the field `name` of a step.
pub(super) fn mode_of(name: &str) -> Mode {
    match name {
        "inputs" | "for_each" | "params" => Mode::Data,
        "when" => Mode::Expression,
        _ => Mode::Plain,
    }
}

pub(super) fn read(document: &Value) -> Result<Template, TemplateError> {
    let root = Path::Root;
    let fields = known(object(document, &root)?, TEMPLATE_FIELDS, &root)?;
    let id =
        name(required(fields, "template_id", "the template's name", &root)?, &root.field("template_id"), is_id, ID)?;
    let version = version(required(fields, "version", "\"1.0.0\" for the first", &root)?, &root.field("version"))?;
    bounded(document).map_err(|e| e.of(&format!("{id}@{version}")))?;
    let read = || {
        let parameters = parameters(fields.get("parameters"), &root.field("parameters"))?;
        let includes = list(fields, "includes", &root)?.iter().enumerate();
        let includes = includes.map(|(n, value)| include(value, &root.field("includes").item(n)));
        let steps = list(fields, "steps", &root)?.iter().enumerate();
        let steps = steps.map(|(n, value)| step(value, &root.field("steps").item(n)));
        let description = fields.get("description").map_or(Ok(""), |v| text(v, &root.field("description")))?;
        let template = Template {
            id: id.into(),
            version: version.clone(),
            description: description.into(),
            parameters,
            includes: includes.collect::<Result<_, _>>()?,
            fields: DEFINITION_FIELDS.iter().filter_map(|f| fields.get_key_value(*f)).map(copied).collect(),
            steps: steps.collect::<Result<_, _>>()?,
            document: document.clone(),
        };
        whole(&template)?;
        Ok(template)
    };
    read().map_err(|e: TemplateError| e.of(&format!("{id}@{version}")))
}

fn copied((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// What no part can be blamed for alone.
fn whole(template: &Template) -> Result<(), TemplateError> {
    if template.steps.is_empty() && template.includes.is_empty() {
        return Err(Path::Root.wrong(Problem::Missing { name: "steps", about: "a workflow has at least one" }));
    }
    count("includes", template.includes.len(), limits::INCLUDES, &Path::Root.field("includes"))?;
    count("steps", template.steps.len(), limits::STEPS, &Path::Root.field("steps"))?;
    names_are_once(template)?;
    let mut usage = Usage { template, used: BTreeSet::new() };
    usage.template()?;
    for (name, _) in &template.parameters {
        if !usage.used.contains(name.as_str()) {
            return Err(Path::Root.field("parameters").field(name).wrong(Problem::Unused { name: name.clone() }));
        }
    }
    Ok(())
}

fn names_are_once(template: &Template) -> Result<(), TemplateError> {
    let steps = template.steps.iter().map(|step| step.get("step_id").and_then(Value::as_str).unwrap_or_default());
    once("step", "step_id", steps, &Path::Root.field("steps"))?;
    let prefixes = template.includes.iter().map(|include| include.prefix.as_str());
    once("prefix", "prefix", prefixes, &Path::Root.field("includes"))
}

fn once<'a>(
    what: &'static str,
    field: &str,
    names: impl Iterator<Item = &'a str>,
    path: &Path<'_>,
) -> Result<(), TemplateError> {
    let mut seen = BTreeMap::new();
    for (n, name) in names.enumerate() {
        if let Some(first) = seen.insert(name, n) {
            let first = path.item(first).field(field).to_string();
            return Err(path.item(n).field(field).wrong(Problem::Twice { what, name: clip(name), first }));
        }
    }
    Ok(())
}

/// Finds out which parameters are referred to, and what is no reference.
struct Usage<'a> {
    template: &'a Template,
    used: BTreeSet<String>,
}

impl Usage<'_> {
    fn template(&mut self) -> Result<(), TemplateError> {
        for (name, value) in &self.template.fields {
            self.value(value, Mode::Plain, Region::Own, &Path::Root.field(name))?;
        }
        let (includes, steps) = (Path::Root.field("includes"), Path::Root.field("steps"));
        for (n, include) in self.template.includes.iter().enumerate() {
            let (path, given) = (includes.item(n), &include.chosen.parameters);
            let path = path.field("parameters");
            for (name, value) in given {
                self.value(value, Mode::Data, Region::Own, &path.field(name))?;
            }
        }
        let mut own = self.template.steps.iter().enumerate();
        own.try_for_each(|(n, step)| self.step(step, Region::Own, &steps.item(n)))
    }

    fn step(&mut self, step: &Fields, region: Region, path: &Path<'_>) -> Result<(), TemplateError> {
        for (name, value) in step {
            let path = path.field(name);
            match value {
                Value::Object(inputs) if name == "inputs" && is_workflow(step) => {
                    for (name, value) in inputs {
                        let path = path.field(name);
                        match value {
                            Value::Object(definition) if name == "definition" => self.definition(definition, &path)?,
                            value => self.value(value, Mode::Data, region, &path)?,
                        }
                    }
                }
                value => self.value(value, mode_of(name), region, &path)?,
            }
        }
        Ok(())
    }

    fn definition(&mut self, definition: &Fields, path: &Path<'_>) -> Result<(), TemplateError> {
        for (name, value) in definition {
            let path = path.field(name);
            match value {
                Value::Array(steps) if name == "steps" => {
                    for (n, step) in steps.iter().enumerate() {
                        self.step(object(step, &path.item(n))?, Region::Inner, &path.item(n))?;
                    }
                }
                value => self.value(value, mode_of(name), Region::Inner, &path)?,
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, mode: Mode, region: Region, path: &Path<'_>) -> Result<(), TemplateError> {
        match value {
            Value::String(text) => self.text(text, mode, region, path),
            Value::Array(items) => {
                items.iter().enumerate().try_for_each(|(n, item)| self.value(item, mode, region, &path.item(n)))
            }
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                if pieces(name).any(|piece| !matches!(piece, Ok(Piece::Text(_) | Piece::Escape))) {
                    return Err(path.field(name).wrong(Problem::InKey));
                }
                self.value(value, mode, region, &path.field(name))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn text(&mut self, text: &str, mode: Mode, region: Region, path: &Path<'_>) -> Result<(), TemplateError> {
        for piece in pieces(text) {
            let Piece::Reference(inside) = piece.map_err(|_| path.wrong(Problem::Unclosed))? else { continue };
            match (meaning(inside, region), mode) {
                (None, _) => return Err(path.wrong(Problem::NoReference { found: clip(inside) })),
                (Some(Meaning::Step(..) | Meaning::Params), Mode::Data | Mode::Expression)
                | (Some(Meaning::Item), Mode::Data) => {}
                (Some(Meaning::Step(..) | Meaning::Params | Meaning::Item), _) => {
                    return Err(path.wrong(Problem::Early { reference: clip(inside) }));
                }
                (Some(Meaning::Parameter(name, _)), _) if self.template.parameter(name).is_some() => {
                    self.used.insert(name.to_owned());
                }
                (Some(Meaning::Parameter(name, _)), _) => {
                    let known = self.template.known_parameters();
                    return Err(path.wrong(Problem::Undefined { name: clip(name), known }));
                }
            }
        }
        Ok(())
    }
}

/// Whether the step is a workflow itself.
pub(super) fn is_workflow(step: &Fields) -> bool {
    step.get("action").and_then(Value::as_str) == Some("workflow")
}

fn parameters(value: Option<&Value>, path: &Path<'_>) -> Result<Vec<(String, Parameter)>, TemplateError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let declared = object(value, path)?;
    count("parameters", declared.len(), limits::PARAMETERS, path)?;
    let read = |(name, value): (&String, &Value)| {
        let path = path.field(name);
        if RESERVED.contains(&name.as_str()) {
            return Err(path.wrong(Problem::Reserved { name: name.clone() }));
        }
        if !is_parameter_name(name) {
            return Err(path.wrong(Problem::Name { rule: PARAMETER, found: clip(name) }));
        }
        Ok((name.clone(), parameter(value, &path)?))
    };
    declared.iter().map(read).collect()
}

fn parameter(value: &Value, path: &Path<'_>) -> Result<Parameter, TemplateError> {
    let fields = known(object(value, path)?, PARAMETER_FIELDS, path)?;
    let wanted = text(required(fields, "type", TYPES, path)?, &path.field("type"))?;
    let kind = Type::ALL.into_iter().find(|kind| kind.name() == wanted);
    let kind = kind.ok_or_else(|| {
        let problem = Problem::Choice {
            found: format!("{:?}", clip(wanted)),
            choices: listed(Type::ALL.iter().map(|k| k.name())),
        };
        path.field("type").wrong(problem)
    })?;
    let description = fields.get("description").map_or(Ok(""), |v| text(v, &path.field("description")))?;
    let default = fields.get("default").cloned();
    let must =
        fields.get("required").map(|v| v.as_bool().ok_or_else(|| path.field("required").not("true or false", v)));
    match (must.transpose()?, &default) {
        (Some(true), Some(_)) => {
            return Err(contradiction(path, "is required and has a default", "remove one of them"));
        }
        (Some(false), None) => {
            let advice = "say by `default` what it is then";
            return Err(contradiction(path, "is not required and has no default", advice));
        }
        (Some(true), None) | (Some(false), Some(_)) | (None, _) => {}
    }
    let rule = match (fields.get("regex"), fields.get("enum")) {
        (None, None) => Rule::Any,
        (Some(_), Some(_)) => return Err(contradiction(path, "has both `regex` and `enum`", "remove one of them")),
        (Some(_), None) if kind != Type::String => {
            return Err(contradiction(path, "has a `regex` and is no string", "use `enum`, or the type string"));
        }
        (Some(pattern), None) => {
            let path = path.field("regex");
            parameter::regex(text(pattern, &path)?, &path)?
        }
        (None, Some(choices)) => Rule::OneOf(self::choices(kind, choices, &path.field("enum"))?),
    };
    let parameter = Parameter { kind, description: description.to_owned(), default, rule };
    if let Some(default) = &parameter.default {
        parameter.check(&super::reference::escaped(default), &path.field("default"))?;
    }
    Ok(parameter)
}

fn choices(kind: Type, value: &Value, path: &Path<'_>) -> Result<Vec<Value>, TemplateError> {
    let choices = array(value, path)?;
    if choices.is_empty() {
        return Err(contradiction(path, "allows nothing", "name at least one value"));
    }
    count("values", choices.len(), limits::PARAMETERS, path)?;
    let any = Parameter { kind, description: String::new(), default: None, rule: Rule::Any };
    for (n, choice) in choices.iter().enumerate() {
        any.check(&super::reference::escaped(choice), &path.item(n))?;
    }
    Ok(choices.to_vec())
}

fn contradiction(path: &Path<'_>, said: &'static str, advice: &'static str) -> TemplateError {
    path.wrong(Problem::Contradiction { said, advice })
}

fn include(value: &Value, path: &Path<'_>) -> Result<Include, TemplateError> {
    let fields = known(object(value, path)?, INCLUDE_FIELDS, path)?;
    let prefix = required(fields, "prefix", "what the names of its steps begin with here", path)?;
    let prefix = name(prefix, &path.field("prefix"), is_parameter_name, PARAMETER)?;
    let after_path = path.field("depends_on");
    let after = list(fields, "depends_on", path)?.iter().enumerate();
    let after = after.map(|(n, value)| name(value, &after_path.item(n), is_step_name, STEP).map(str::to_owned));
    Ok(Include { chosen: chosen(fields, path)?, prefix: prefix.to_owned(), after: after.collect::<Result<_, _>>()? })
}

/// Another template, and what it is given.
pub(super) fn chosen(fields: &Fields, path: &Path<'_>) -> Result<Chosen, TemplateError> {
    let id = required(fields, "template_id", "the template whose steps these are", path)?;
    let id = name(id, &path.field("template_id"), is_id, ID)?;
    let range = match fields.get("version") {
        None => Range::ANY,
        Some(value) => {
            let path = path.field("version");
            let not = |_| path.not("a range of versions in quotes, like \"^1.2\"", value);
            Range::parse(text(value, &path).map_err(not)?).map_err(|problem| path.wrong(problem))?
        }
    };
    let parameters = match fields.get("parameters") {
        None => Map::new(),
        Some(value) => object(value, &path.field("parameters"))?.clone(),
    };
    Ok(Chosen { id: id.to_owned(), range, parameters })
}

fn step(value: &Value, path: &Path<'_>) -> Result<Fields, TemplateError> {
    let fields = known(object(value, path)?, STEP_FIELDS, path)?;
    name(required(fields, "step_id", "a name for the step", path)?, &path.field("step_id"), is_step_name, STEP)?;
    text(required(fields, "action", "what to do: a task type", path)?, &path.field("action"))?;
    let depends = path.field("depends_on");
    for (n, value) in list(fields, "depends_on", path)?.iter().enumerate() {
        name(value, &depends.item(n), is_step_name, STEP)?;
    }
    Ok(fields.clone())
}

/// Whether the document is small enough for all that is done with it.
fn bounded(document: &Value) -> Result<(), TemplateError> {
    let bytes = document.to_string().len();
    count_of("bytes of JSON", bytes, limits::TEMPLATE_BYTES, "split it by includes", &Path::Root)?;
    nested(document, &Path::Root)
}

pub(super) fn nested(value: &Value, path: &Path<'_>) -> Result<(), TemplateError> {
    count_of("levels of arrays and objects", depth(value), limits::NESTING, "make it flatter", path)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn count(what: &'static str, found: usize, limit: usize, path: &Path<'_>) -> Result<(), TemplateError> {
    count_of(what, found, limit, "split the template by includes", path)
}

pub(super) fn count_of(
    what: &'static str,
    found: usize,
    limit: usize,
    advice: &'static str,
    path: &Path<'_>,
) -> Result<(), TemplateError> {
    if found <= limit {
        return Ok(());
    }
    Err(path.wrong(Problem::Limit { what, found, limit, advice }))
}

fn version(value: &Value, path: &Path<'_>) -> Result<Version, TemplateError> {
    let wrong = |found: String, reason: &str| path.wrong(Problem::Version { found, reason: reason.to_owned() });
    let Value::String(text) = value else {
        return Err(wrong(super::error::described(value), "a version is a string: 1.10 would be the number 1.1"));
    };
    if text.len() > limits::TEXT_BYTES {
        return Err(wrong(format!("{:?}", clip(text)), "it is too long"));
    }
    // `1.10` is what people write.
    let full = if text.split('.').count() == 2 { format!("{text}.0") } else { text.clone() };
    Version::parse(&full).map_err(|e| wrong(format!("{text:?}"), &e.to_string()))
}

pub(super) fn object<'a>(value: &'a Value, path: &Path<'_>) -> Result<&'a Fields, TemplateError> {
    value.as_object().ok_or_else(|| path.not("an object", value))
}

fn array<'a>(value: &'a Value, path: &Path<'_>) -> Result<&'a [Value], TemplateError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| path.not("an array", value))
}

/// The items of the array `name`; none, if it is not there.
fn list<'a>(fields: &'a Fields, name: &str, path: &Path<'_>) -> Result<&'a [Value], TemplateError> {
    fields.get(name).map_or(Ok(&[]), |value| array(value, &path.field(name)))
}

pub(super) fn text<'a>(value: &'a Value, path: &Path<'_>) -> Result<&'a str, TemplateError> {
    value.as_str().ok_or_else(|| path.not("a string", value))
}

fn name<'a>(
    value: &'a Value,
    path: &Path<'_>,
    fits: fn(&str) -> bool,
    rule: &'static str,
) -> Result<&'a str, TemplateError> {
    let text = text(value, path)?;
    if fits(text) { Ok(text) } else { Err(path.wrong(Problem::Name { rule, found: clip(text) })) }
}

pub(super) fn required<'a>(
    fields: &'a Fields,
    name: &'static str,
    about: &'static str,
    path: &Path<'_>,
) -> Result<&'a Value, TemplateError> {
    fields.get(name).ok_or_else(|| path.wrong(Problem::Missing { name, about }))
}

pub(super) fn known<'a>(fields: &'a Fields, known: &[&str], path: &Path<'_>) -> Result<&'a Fields, TemplateError> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(fields),
        Some(stranger) => Err(path.field(stranger).wrong(Problem::UnknownField { known: listed(known.iter()) })),
    }
}

/// As of a step, and dots: what a template is called.
fn is_id(text: &str) -> bool {
    text.split('.').all(is_name) && text.len() <= limits::TEXT_BYTES
}

const ID: &str = "letters, digits, _ and -, with dots between";
const STEP: &str = "1 to 64 letters, digits, _ and -";
const PARAMETER: &str = "letters, digits, _ and -, beginning with a letter or _";
const TYPES: &str = "string, number, integer, boolean, array or object";
const TEMPLATE_FIELDS: &[&str] =
    &["template_id", "version", "description", "parameters", "includes", "steps", "name", "max_concurrent", "deadline"];
/// What goes into the definition beside the steps.
const DEFINITION_FIELDS: &[&str] = &["name", "max_concurrent", "deadline"];
/// Of the inputs of a step that is a template.
pub(super) const CHOSEN_FIELDS: &[&str] = &["template_id", "version", "parameters"];
const PARAMETER_FIELDS: &[&str] = &["type", "description", "default", "required", "regex", "enum"];
const INCLUDE_FIELDS: &[&str] = &["template_id", "version", "prefix", "parameters", "depends_on"];
const STEP_FIELDS: &[&str] = &[
    "step_id",
    "action",
    "inputs",
    "depends_on",
    "requirements",
    "timeout",
    "retry_policy",
    "when",
    "join",
    "for_each",
    "max_concurrent",
    "on_failure",
];
