//! Tests of `workflow template`, and of the templates that come with the program.
#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;

fn shipped() -> Folder {
    open(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/templates")).unwrap()
}

/// The first block of JSON in the page of a template: its example.
fn example(id: &str) -> Map<String, Value> {
    let page = fs::read_to_string(shipped().path().join(format!("{id}.md"))).unwrap();
    let block = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    serde_json::from_str(block).unwrap_or_else(|e| panic!("{id}: {e}"))
}

#[test]
fn every_shipped_template_is_right_and_its_example_makes_a_workflow() {
    let folder = shipped();
    assert!(folder.broken().is_empty(), "{:?}", folder.broken());
    let catalogue = folder.catalogue();
    let names: Vec<_> = catalogue.iter().map(|t| t.id()).collect();
    assert_eq!(names, ["fan-out-fan-in", "map-reduce", "nightly-batch", "parameter-sweep", "retry-with-compensation"]);
    let index = fs::read_to_string(folder.path().join("README.md")).unwrap();
    for template in catalogue.iter() {
        let id = template.id();
        catalogue.check(template).unwrap();
        let definition = template::render_template(&catalogue, template, &example(id)).unwrap();
        taken(&definition).unwrap_or_else(|e| panic!("{id}: {e}"));
        let about = first_line(template.description());
        assert!(index.contains(&format!("[{id}]({id}.md)")), "{id} is not in the README");
        assert!(
            about.len() > 20 && template.parameters().all(|(_, p)| !p.description.is_empty()),
            "{id} says too little"
        );
    }
}

#[test]
fn the_example_of_the_book_is_right() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/templates.md")).unwrap();
    let document =
        page.split("```yaml file=\"greet.yaml\"\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greet.yaml");
    fs::write(&path, document).unwrap();
    let args = RenderArgs {
        named: Named { template: path.display().to_string() },
        params: vec![("who".to_owned(), "Ann".to_owned()), ("often".to_owned(), "2".to_owned())],
    };
    let definition = rendered(&args, &Folder::default()).unwrap();
    assert_eq!(definition["steps"][0]["inputs"], json!({"text": "hello Ann", "often": 2}));
}

fn write(folder: &Path, name: &str, document: &Value) -> String {
    let path = folder.join(name);
    fs::write(&path, document.to_string()).unwrap();
    path.display().to_string()
}

fn render(template: &str, params: &[(&str, &str)], folder: &Folder) -> Result<Value, Exit> {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    rendered(&RenderArgs { named: Named { template: template.to_owned() }, params }, folder)
}

#[test]
fn a_template_is_found_by_name_and_range_or_as_a_file_with_what_lies_beside_it() {
    let (node, mine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leaf = |version: &str, text: &str| {
        json!({"template_id": "leaf", "version": version, "name": text,
               "steps": [{"step_id": "s", "action": "echo", "inputs": {"text": text}}]})
    };
    write(node.path(), "one.json", &leaf("1.9.0", "nine"));
    write(node.path(), "two.json", &leaf("1.10.0", "ten"));
    let folder = open(node.path().to_owned()).unwrap();
    for (wanted, name) in [("leaf", "ten"), ("leaf@1.9.0", "nine"), ("leaf@^1.2", "ten")] {
        assert_eq!(render(wanted, &[], &folder).unwrap()["name"], name, "{wanted}");
    }
    let outer = json!({"template_id": "outer", "version": "1.0.0", "includes": [{"template_id": "leaf", "version": "^1", "prefix": "in_"}]});
    let outer = write(mine.path(), "outer.json", &outer);
    let text = |folder: &Folder| render(&outer, &[], folder).unwrap()["steps"][0]["inputs"]["text"].clone();
    assert_eq!(text(&folder), "ten", "from the node's folder");
    write(mine.path(), "leaf.json", &leaf("1.10.0", "beside"));
    assert_eq!(text(&folder), "beside", "the nearer one");

    let status = |wanted: &str| render(wanted, &[], &folder).unwrap_err().code().unwrap();
    assert_eq!(status("nobody"), Code::NotFound);
    assert_eq!(status("leaf@^2"), Code::NotFound);
    assert_eq!(status("leaf@new"), Code::InvalidArgument);
    assert_eq!(status("./nothing.yaml"), Code::NotFound);
    assert_eq!(status(&write(mine.path(), "wrong.json", &json!([]))), Code::InvalidArgument);
}

#[test]
fn parameters_are_typed_as_the_template_wants_them() {
    let folder = tempfile::tempdir().unwrap();
    let document = json!({
        "template_id": "t", "version": "1.0.0",
        "parameters": {"text": {"type": "string"}, "n": {"type": "integer", "default": 1}, "list": {"type": "array", "default": []}},
        "steps": [{"step_id": "s", "action": "echo", "inputs": {"text": "${text}", "n": "${n}", "list": "${list}"}}],
    });
    let path = write(folder.path(), "t.json", &document);
    let made = |params: &[(&str, &str)]| render(&path, params, &Folder::default());
    let definition = made(&[("text", "7"), ("n", "3"), ("list", "[true]")]).unwrap();
    assert_eq!(definition["steps"][0]["inputs"], json!({"text": "7", "n": 3, "list": [true]}));
    for (params, complaint) in [
        (&[][..], "/parameters: needs the parameter `text`"),
        (&[("text", "a"), ("n", "three")], "--param n: must be JSON of the type integer: "),
        (&[("text", "a"), ("n", "\"3\"")], "/parameters/n: must be a whole number, and is the string"),
        (&[("text", "a"), ("text", "b")], "--param text is there twice"),
        (&[("text", "a"), ("more", "b")], "/parameters/more: is no parameter of t@1.0.0"),
    ] {
        let error = made(params).unwrap_err();
        assert!(error.to_string().starts_with(complaint), "{error}");
        assert_eq!(error.code(), Some(Code::InvalidArgument));
    }
    let unordered = json!({"template_id": "u", "version": "1.0.0", "steps": [{"step_id": "s", "action": "echo", "depends_on": ["x"]}]});
    let error = render(&write(folder.path(), "u.json", &unordered), &[], &Folder::default()).unwrap_err();
    assert!(error.to_string().starts_with("u@1.0.0 makes a wrong definition: steps[0].depends_on"), "{error}");
}

#[test]
fn a_check_of_several_tells_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let step = json!([{"step_id": "s", "action": "echo"}]);
    let good = write(folder.path(), "good.json", &json!({"template_id": "good", "version": "1.0.0", "steps": step}));
    let bad = write(
        folder.path(),
        "bad.json",
        &json!({"template_id": "bad", "version": "1.0.0", "includes": [{"template_id": "gone", "prefix": "p"}]}),
    );
    let wrong = write(folder.path(), "wrong.json", &json!({"template_id": "wrong", "version": "1.0.0"}));
    let folder = open(folder.path().to_owned()).unwrap();
    let done = |checks: &[Check]| checks.iter().map(|c| c.done.clone()).collect::<Vec<_>>();
    let whole = done(&of_folder(&folder));
    let named = done(&[&good, &bad, &wrong].map(|path| of(path, &folder)));
    let gone = "bad@1.0.0 at /includes/0: there is no template `gone` in the range *; versions of it: none".to_owned();
    let empty = "wrong@1.0.0: has no `steps`; add it: a workflow has at least one".to_owned();
    assert_eq!(named, [Ok("good@1.0.0".to_owned()), Err(gone.clone()), Err(empty.clone())]);
    assert_eq!(whole, [Err(gone), Ok("good@1.0.0".to_owned()), Err(empty)]);
    assert_eq!(validate(Form::Human, &folder, &[]).unwrap_err().status(), 1);
    validate(Form::Human, &folder, &[good]).unwrap();
}

#[test]
fn a_sheet_shows_what_can_be_chosen_and_steers_no_terminal() {
    let document = json!({
        "template_id": "t", "version": "1.0.0", "description": "Does\u{1b}[2J it.",
        "parameters": {"mode": {"type": "string", "enum": ["a", "b"], "default": "a", "description": "How"}, "n": {"type": "integer"}},
        "steps": [{"step_id": "s", "action": "echo", "inputs": {"mode": "${mode}", "n": "${n}"}}],
    });
    let wanted = "\
t@1.0.0

Does\u{fffd}[2J it.

PARAMETER  TYPE     DEFAULT   VALUES   MEANING
mode       string   \"a\"       \"a\" \"b\"  How
n          integer  required  -

steps of its own: 1
";
    assert_eq!(sheet(&Template::read(&document).unwrap()), wanted);
}
