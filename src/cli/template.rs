//! `workflow template`: from files alone, so that templates can be written and
//! checked where no node runs.

use super::exit::Exit;
use super::follow::RunArgs;
use super::output::{self, Form};
use super::tree::{Global, pair};
use crate::ops::{self, Code};
use crate::templates::{self, Broken, FileError, Folder};
use clap::{Args, Subcommand, ValueHint};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmesh_core::limits;
use taskmesh_core::template::{self, Catalogue, Parameter, Range, Template, TemplateError, Type};

#[derive(Debug, Subcommand)]
pub(super) enum TemplateCommand {
    /// List the templates of the folder, and the files in it that are none.
    List,
    /// Show what a template is for, and its parameters; with --json: its document.
    Show(Named),
    /// Check templates, and whether what they include is there and fits.
    ///
    /// Without an argument: all of the folder. Exits with 0 only if all are right.
    Validate {
        /// A file, or a template of the folder: ID or ID@VERSIONS.
        #[arg(value_name = "FILE_OR_ID", value_hint = ValueHint::FilePath)]
        templates: Vec<String>,
    },
    /// Print the definition that a template makes of parameters.
    Render(RenderArgs),
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// A file, or a template of the folder: ID or ID@VERSIONS.
    ///
    /// The newest that fits is taken: `map-reduce`, `map-reduce@1.2.0`,
    /// `map-reduce@^1`. What a file includes is searched in its own folder first.
    #[arg(value_name = "FILE_OR_ID", value_hint = ValueHint::FilePath)]
    template: String,
}

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    named: Named,
    /// A parameter: the text itself where the template wants text, else JSON; repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
}

pub(super) fn run(global: &Global, command: &TemplateCommand) -> Result<(), Exit> {
    let form = Form::of(global.json);
    let folder = open(super::load(global, &[])?.templates_dir())?;
    match command {
        TemplateCommand::List => list(form, &folder),
        TemplateCommand::Show(named) => {
            let (template, _) = find(&named.template, &folder)?;
            match form {
                Form::Json => output::json(template.document()),
                Form::Human => output::raw(&sheet(&template)),
            }
        }
        TemplateCommand::Validate { templates } => validate(form, &folder, templates),
        TemplateCommand::Render(args) => output::json(&rendered(args, &folder)?),
    }
}

/// The arguments of `workflow run` as `workflow_submit` takes them.
pub(super) fn submission(global: &Global, args: &RunArgs) -> Result<Value, Exit> {
    let folder = open(super::load(global, &[])?.templates_dir())?;
    let mut arguments = match (&args.file, &args.template) {
        (Some(path), _) => from_definition(path, args, &folder)?,
        (None, Some(template)) => from_name(template, args, &folder)?,
        (None, None) => return Err(Exit::usage("give a FILE or --template")),
    };
    let texts = [("workflow_id", &args.workflow_id), ("name", &args.name)];
    for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
        arguments.insert(name.to_owned(), text.as_str().into());
    }
    if args.dry_run {
        arguments.insert("dry_run".to_owned(), true.into());
    }
    Ok(Value::Object(arguments))
}

/// A file of either kind: only a template has a `template_id`.
fn from_definition(path: &Path, args: &RunArgs, folder: &Folder) -> Result<Map<String, Value>, Exit> {
    let document = templates::document(path, limits::DEFINITION_BYTES).map_err(|e| of_file(path, &e))?;
    let Value::Object(fields) = document else {
        return Err(Exit::usage(format!("{}: must be an object: the arguments of workflow_submit", path.display())));
    };
    if fields.contains_key("template_id") {
        let given = RenderArgs { named: Named { template: path_text(path) }, params: args.params.clone() };
        return Ok(rendered(&given, folder)?.as_object().cloned().unwrap_or_default());
    }
    match args.params.is_empty() {
        true => Ok(fields),
        false => Err(Exit::usage(format!("--param: {} is a workflow; templates have parameters", path.display()))),
    }
}

/// With a folder, so that it is taken for a file whatever it is called.
fn path_text(path: &Path) -> String {
    Path::new(".").join(path).display().to_string()
}

/// A template that the node fills in. This machine's, if it has it, says how the
/// parameters are to be read.
fn from_name(wanted: &str, args: &RunArgs, folder: &Folder) -> Result<Map<String, Value>, Exit> {
    let (id, range) = named(wanted)?;
    let known = folder.catalogue().resolve(id, &range).cloned();
    let parameters = match known {
        Ok(template) => parameters(&template, &args.params)?,
        Err(_) => once(&args.params, |_, text| Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))))?,
    };
    let mut template = Map::from_iter([("template_id".to_owned(), Value::from(id))]);
    if let Some((_, range)) = wanted.split_once('@') {
        template.insert("version".to_owned(), range.into());
    }
    template.insert("parameters".to_owned(), Value::Object(parameters));
    Ok(Map::from_iter([("template".to_owned(), Value::Object(template))]))
}

fn named(wanted: &str) -> Result<(&str, Range), Exit> {
    match wanted.split_once('@') {
        Some((id, range)) => Ok((id, Range::parse(range).map_err(|e| Exit::usage(format!("{wanted}: {e}")))?)),
        None => Ok((wanted, Range::ANY)),
    }
}

fn rendered(args: &RenderArgs, folder: &Folder) -> Result<Value, Exit> {
    let (template, catalogue) = find(&args.named.template, folder)?;
    let parameters = parameters(&template, &args.params)?;
    let definition = template::render_template(&catalogue, &template, &parameters).map_err(|e| wrong(&e))?;
    taken(&definition).map_err(|e| Exit::usage(format!("{template} makes a wrong definition: {e}")))?;
    Ok(definition)
}

/// Whether a node would take the definition.
fn taken(definition: &Value) -> Result<(), String> {
    let operation = ops::operation("workflow_submit").ok_or("this program submits no workflows")?;
    let arguments = definition.as_object().cloned().unwrap_or_default();
    operation.prepare(arguments).map(|_| ()).map_err(|e| e.to_string())
}

fn open(path: PathBuf) -> Result<Folder, Exit> {
    let mut folder = Folder::new(path);
    match folder.refresh() {
        Ok(()) => Ok(folder),
        Err(e) => {
            let problem = format!("can't read the folder {}: {e}", folder.path().display());
            Err(Exit::with(Code::PermissionDenied, problem))
        }
    }
}

/// The status says which kind of mistake it is, as everywhere.
fn wrong(error: &TemplateError) -> Exit {
    let failure = ops::Failure::from(error.clone());
    Exit::with(failure.code, failure.error)
}

/// The template that is meant, and those that it may include.
fn find(wanted: &str, folder: &Folder) -> Result<(Arc<Template>, Catalogue), Exit> {
    let path = Path::new(wanted);
    if templates::is_template_file(path) || wanted.contains('/') {
        return from_file(path, folder);
    }
    let (id, range) = named(wanted)?;
    let catalogue = folder.catalogue();
    let found = catalogue.resolve(id, &range).map_err(|problem| {
        let hint = folder.broken().first().map(|broken| format!("; {broken}")).unwrap_or_default();
        Exit::with(Code::NotFound, format!("{problem}; searched in {}{hint}", folder.path().display()))
    })?;
    Ok((found.clone(), (*catalogue).clone()))
}

fn from_file(path: &Path, folder: &Folder) -> Result<(Arc<Template>, Catalogue), Exit> {
    let template = Arc::new(templates::read(path).map_err(|error| of_file(path, &error))?);
    let beside = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let beside = open(beside.to_path_buf())?.catalogue();
    let mut catalogue = Catalogue::default();
    let folder = folder.catalogue();
    for candidate in std::iter::once(&template).chain(beside.iter()).chain(folder.iter()) {
        // Of two with one name the nearer is meant.
        let _ = catalogue.insert(candidate.clone());
    }
    Ok((template, catalogue))
}

fn of_file(path: &Path, error: &FileError) -> Exit {
    let code = match error {
        FileError::Unreadable(e) if e.kind() == std::io::ErrorKind::NotFound => Code::NotFound,
        FileError::TooLarge { .. } => Code::PayloadTooLarge,
        _ => Code::InvalidArgument,
    };
    Exit::with(code, format!("{}: {error}", path.display()))
}

/// Values as they were typed: text for text, JSON for everything else.
fn parameters(template: &Template, given: &[(String, String)]) -> Result<Map<String, Value>, Exit> {
    once(given, |name, text| match template.parameter(name).map(|parameter| parameter.kind) {
        Some(Type::String) | None => Ok(Value::from(text)),
        Some(kind) => serde_json::from_str(text)
            .map_err(|e| Exit::usage(format!("--param {name}: must be JSON of the type {}: {e}", kind.name()))),
    })
}

/// Each parameter, as `read` reads it, by its name.
fn once(
    given: &[(String, String)],
    read: impl Fn(&str, &str) -> Result<Value, Exit>,
) -> Result<Map<String, Value>, Exit> {
    let mut parameters = Map::new();
    for (name, text) in given {
        if parameters.insert(name.clone(), read(name, text)?).is_some() {
            return Err(Exit::usage(format!("--param {name} is there twice; leave one out")));
        }
    }
    Ok(parameters)
}

fn list(form: Form, folder: &Folder) -> Result<(), Exit> {
    let catalogue = folder.catalogue();
    if form == Form::Json {
        let file = |t: &Template| folder.origin(t).map(|path| path.display().to_string());
        let entry = |t: &Arc<Template>| {
            json!({
                "template_id": t.id(), "version": t.version().to_string(), "description": t.description(),
                "parameters": t.parameters().map(|(name, _)| name).collect::<Vec<_>>(), "file": file(t),
            })
        };
        let broken = |b: &Broken| json!({"file": b.path.display().to_string(), "error": b.error.to_string()});
        return output::json(&json!({
            "success": true, "folder": folder.path().display().to_string(),
            "templates": catalogue.iter().map(entry).collect::<Vec<_>>(),
            "broken": folder.broken().iter().map(broken).collect::<Vec<_>>(),
        }));
    }
    folder.broken().iter().for_each(|broken| output::note(&broken.to_string()));
    if catalogue.is_empty() {
        output::note(&format!("there are no templates in {}", folder.path().display()));
        return Ok(());
    }
    let row = |t: &Arc<Template>| vec![t.id().to_owned(), t.version().to_string(), first_line(t.description())];
    let rows: Vec<_> = catalogue.iter().map(row).collect();
    output::raw(&output::plain_table(&["template", "version", "description"], &rows))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// For people: what it is for, and what to give it.
fn sheet(template: &Template) -> String {
    let mut text = format!("{template}\n");
    if !template.description().is_empty() {
        let _ = write!(text, "\n{}\n", template.description().trim_end());
    }
    let row = |(name, parameter): (&str, &Parameter)| {
        let default = parameter.default.as_ref().map_or("required".to_owned(), Value::to_string);
        let values = match (parameter.regex(), parameter.choices()) {
            (Some(regex), _) => regex.to_owned(),
            (None, Some(choices)) => choices.iter().map(Value::to_string).collect::<Vec<_>>().join(" "),
            (None, None) => "-".to_owned(),
        };
        let meaning = parameter.description.split_whitespace().collect::<Vec<_>>().join(" ");
        vec![name.to_owned(), parameter.kind.name().to_owned(), default, values, meaning]
    };
    let rows: Vec<_> = template.parameters().map(row).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::plain_table(&["parameter", "type", "default", "values", "meaning"], &rows));
    }
    for (id, range) in template.includes() {
        let _ = write!(text, "\nincludes {id} {range}");
    }
    let _ = writeln!(text, "\nsteps of its own: {}", template.steps());
    // Files of others must not steer the terminal.
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Checks each, says what is wrong with which, and fails if anything is.
fn validate(form: Form, folder: &Folder, wanted: &[String]) -> Result<(), Exit> {
    let checks =
        if wanted.is_empty() { of_folder(folder) } else { wanted.iter().map(|name| of(name, folder)).collect() };
    let wrong = checks.iter().filter(|check| check.done.is_err()).count();
    match form {
        Form::Json => {
            let entry =
                |c: &Check| json!({"given": c.given, "template": c.done.as_ref().ok(), "error": c.done.as_ref().err()});
            output::json(&json!({"success": wrong == 0, "checked": checks.iter().map(entry).collect::<Vec<_>>()}))?;
        }
        Form::Human => {
            for Check { given, done } in &checks {
                match done {
                    Ok(template) => output::raw(&format!("{template} is right\n"))?,
                    Err(error) => output::note(&format!("{given}: {error}")),
                }
            }
        }
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Exit::Ended { summary: format!("{wrong} of {} are not right", checks.len()) }),
    }
}

/// What came of one check: the template's name and version, or what is wrong.
struct Check {
    given: String,
    done: Result<String, String>,
}

impl Check {
    fn new(given: String, template: &Template, catalogue: &Catalogue) -> Check {
        let done = catalogue.check(template).map(|()| template.to_string()).map_err(|e| e.to_string());
        Check { given, done }
    }
}

fn of(given: &str, folder: &Folder) -> Check {
    match find(given, folder) {
        Ok((template, catalogue)) => Check::new(given.to_owned(), &template, &catalogue),
        Err(exit) => {
            let said = exit.to_string();
            let error = said.strip_prefix(given).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&said);
            Check { given: given.to_owned(), done: Err(error.to_owned()) }
        }
    }
}

fn of_folder(folder: &Folder) -> Vec<Check> {
    let catalogue = folder.catalogue();
    let broken = folder.broken().iter();
    let broken = broken.map(|b| Check { given: b.path.display().to_string(), done: Err(b.error.to_string()) });
    catalogue.iter().map(|t| Check::new(t.to_string(), t, &catalogue)).chain(broken).collect()
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
