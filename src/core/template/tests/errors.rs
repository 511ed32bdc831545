//! Every problem, with its place and its words.

use super::*;
use std::collections::BTreeSet;

/// A template that is right.
fn good() -> Value {
    json!({
        "template_id": "t", "version": "1.0.0", "name": "n", "description": "d",
        "parameters": {"a": {"type": "string", "default": "x"}, "n": {"type": "integer", "required": true}},
        "includes": [{"template_id": "other", "prefix": "o_", "parameters": {"must": 1}}],
        "steps": [{"step_id": "s", "action": "echo", "inputs": {"a": "${a}", "n": "${n}"}}],
    })
}

fn others() -> Vec<Value> {
    let step = json!([{"step_id": "s", "action": "echo", "inputs": {"x": "${must}"}}]);
    let must = json!({"must": {"type": "integer", "description": "why"}});
    let includes = |id: &str, inner: &str| {
        json!({"template_id": id, "version": "1.0.0", "includes": [{"template_id": inner, "prefix": "p_"}],
               "steps": [{"step_id": "s", "action": "echo"}]})
    };
    let doubling = |n: usize| {
        let include =
            |p: &str| json!({"template_id": format!("d{}", n - 1), "prefix": p, "parameters": {"x": "${x}${x}"}});
        json!({"template_id": format!("d{n}"), "version": "1.0.0", "parameters": {"x": {"type": "string"}}, "includes": [include("l"), include("r")]})
    };
    let mut all = vec![
        json!({"template_id": "other", "version": "1.0.0", "parameters": must, "steps": step}),
        includes("me", "me"),
        includes("you", "them"),
        includes("them", "you"),
        json!({"template_id": "d0", "version": "1.0.0", "parameters": {"x": {"type": "string"}},
               "steps": [{"step_id": "s", "action": "echo", "inputs": {"x": "${x}"}}]}),
        includes("c0", "other2"),
        json!({"template_id": "other2", "version": "1.0.0", "steps": [{"step_id": "s", "action": "echo"}]}),
    ];
    all.extend((1..10).map(doubling));
    all.extend((1..20).map(|n| includes(&format!("c{n}"), &format!("c{}", n - 1))));
    all
}

/// `good()` with `value` at `pointer`; `null` takes away.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = good();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(fields) if value.is_null() => drop(fields.shift_remove(name)),
        Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
        Value::Array(items) => items.push(value),
        other => panic!("{other} has no fields"),
    }
    document
}

/// The kind of a problem. A new one does not compile without a line here.
fn kind(problem: &Problem) -> &'static str {
    match problem {
        Problem::Kind { .. } => "kind",
        Problem::Missing { .. } => "missing",
        Problem::UnknownField { .. } => "unknown field",
        Problem::Name { .. } => "name",
        Problem::Reserved { .. } => "reserved",
        Problem::Twice { .. } => "twice",
        Problem::Limit { .. } => "limit",
        Problem::Version { .. } => "version",
        Problem::Range { .. } => "range",
        Problem::Regex { .. } => "regex",
        Problem::Contradiction { .. } => "contradiction",
        Problem::Pattern { .. } => "pattern",
        Problem::Choice { .. } => "choice",
        Problem::Required { .. } => "required",
        Problem::Undeclared { .. } => "undeclared",
        Problem::Unclosed => "unclosed",
        Problem::NoReference { .. } => "no reference",
        Problem::Undefined { .. } => "undefined",
        Problem::Nowhere { .. } => "nowhere",
        Problem::Unused { .. } => "unused",
        Problem::InKey => "in key",
        Problem::Early { .. } => "early",
        Problem::Dollar { .. } => "dollar",
        Problem::NoTemplate { .. } => "no template",
        Problem::Cycle { .. } => "cycle",
    }
}

const KINDS: usize = 25;

/// A document that is not read: its problem, and how the complaint begins.
fn unreadable() -> Vec<(Value, &'static str, String)> {
    [unreadable_first(), unreadable_second(), unreadable_third()].concat()
}

fn unreadable_first() -> Vec<(Value, &'static str, String)> {
    [
        (json!([]), "kind", "must be an object, and is an array of 0"),
        (with("/steps", json!({})), "kind", "t@1.0.0 at /steps: must be an array, and is an object of 0"),
        (
            with("/steps/0/action", json!(7)),
            "kind",
            "t@1.0.0 at /steps/0/action: must be a string, and is the number 7",
        ),
        (
            with("/includes/0/version", json!(1.1)),
            "kind",
            "t@1.0.0 at /includes/0/version: must be a range of versions in quotes, like \"^1.2\"",
        ),
        (with("/template_id", json!(null)), "missing", "has no `template_id`; add it: the template's name"),
        (with("/version", json!(null)), "missing", "has no `version`; add it: \"1.0.0\" for the first"),
        (with("/steps/0/step_id", json!(null)), "missing", "t@1.0.0 at /steps/0: has no `step_id`"),
        (
            json!({"template_id": "t", "version": "1.0.0"}),
            "missing",
            "t@1.0.0: has no `steps`; add it: a workflow has at least one",
        ),
        (with("/stepps", json!([])), "unknown field", "/stepps: is no field here; there are template_id, version,"),
        (
            with("/steps/0/dependson", json!([])),
            "unknown field",
            "t@1.0.0 at /steps/0/dependson: is no field here; there are step_id, action,",
        ),
        (
            with("/steps/0/step_id", json!("a b")),
            "name",
            "t@1.0.0 at /steps/0/step_id: \"a b\" is no name here; it must be 1 to 64 letters,",
        ),
        (with("/template_id", json!("a/b")), "name", "/template_id: \"a/b\" is no name here"),
        (
            with("/parameters/7x", json!({"type": "string"})),
            "name",
            "t@1.0.0 at /parameters/7x: \"7x\" is no name here",
        ),
        (
            with("/parameters/item", json!({"type": "string"})),
            "reserved",
            "t@1.0.0 at /parameters/item: `item` is what running",
        ),
        (
            with("/steps/", json!({"step_id": "s", "action": "echo"})),
            "twice",
            "t@1.0.0 at /steps/1/step_id: the step `s` is there already, at /steps/0/step_id",
        ),
        (
            with("/includes/", json!({"template_id": "x", "prefix": "o_"})),
            "twice",
            "t@1.0.0 at /includes/1/prefix: the prefix `o_` is there already",
        ),
    ]
    .map(|(document, kind, complaint)| (document, kind, complaint.to_owned()))
    .to_vec()
}

fn unreadable_second() -> Vec<(Value, &'static str, String)> {
    let p = |declared: Value| with("/parameters/a", declared);
    let many = |n: usize| (0..n).fold(json!(0), |inner, _| json!([inner]));
    [
        (with("/description", json!("x".repeat(limits::TEMPLATE_BYTES))), "limit", "t@1.0.0: has 262"),
        (
            with("/steps/0/inputs/x", many(limits::NESTING)),
            "limit",
            "t@1.0.0: has 68 levels of arrays and objects, and may have 64; make it flatter",
        ),
        (
            with("/version", json!(1.1)),
            "version",
            "/version: the number 1.1 is no version (a version is a string: 1.10 would be the number 1.1)",
        ),
        (with("/version", json!("one")), "version", "/version: \"one\" is no version (unexpected character"),
        (
            with("/includes/0/version", json!("x.y")),
            "range",
            "t@1.0.0 at /includes/0/version: \"x.y\" is no range of versions (",
        ),
        (
            p(json!({"type": "string", "regex": "a)|(b"})),
            "regex",
            "t@1.0.0 at /parameters/a/regex: is no regular expression: ",
        ),
        (
            p(json!({"type": "string", "regex": "(a{1000}){1000}"})),
            "regex",
            "t@1.0.0 at /parameters/a/regex: is no regular expression: ",
        ),
        (
            p(json!({"type": "string", "regex": "a".repeat(257)})),
            "regex",
            "t@1.0.0 at /parameters/a/regex: is no regular expression: it has 257",
        ),
        (
            p(json!({"type": "array", "regex": "a"})),
            "contradiction",
            "t@1.0.0 at /parameters/a: has a `regex` and is no string; use `enum`",
        ),
        (
            p(json!({"type": "string", "regex": "a", "enum": ["a"]})),
            "contradiction",
            "t@1.0.0 at /parameters/a: has both `regex` and `enum`",
        ),
        (
            p(json!({"type": "string", "required": true, "default": "a"})),
            "contradiction",
            "t@1.0.0 at /parameters/a: is required and has a default",
        ),
        (
            p(json!({"type": "string", "required": false})),
            "contradiction",
            "t@1.0.0 at /parameters/a: is not required and has no default",
        ),
    ]
    .map(|(document, kind, complaint)| (document, kind, complaint.to_owned()))
    .to_vec()
}

fn unreadable_third() -> Vec<(Value, &'static str, String)> {
    let p = |declared: Value| with("/parameters/a", declared);
    let text = |text: &str| with("/steps/0/inputs", json!({"a": "${a}", "n": "${n}", "x": [{"y/z": text}]}));
    [
        (p(json!({"type": "string", "enum": []})), "contradiction", "t@1.0.0 at /parameters/a/enum: allows nothing"),
        (
            p(json!({"type": "string", "enum": [1]})),
            "kind",
            "t@1.0.0 at /parameters/a/enum/0: must be a string, and is the number 1",
        ),
        (
            p(json!({"type": "text"})),
            "choice",
            "t@1.0.0 at /parameters/a/type: is \"text\"; it must be one of string, number,",
        ),
        (
            p(json!({"type": "string", "regex": "b+", "default": "a"})),
            "pattern",
            "t@1.0.0 at /parameters/a/default: \"a\" does not match the regular expression b+",
        ),
        (
            p(json!({"type": "integer", "default": "1"})),
            "kind",
            "t@1.0.0 at /parameters/a/default: must be a whole number, and is the string \"1\"",
        ),
        (text("${a"), "unclosed", "t@1.0.0 at /steps/0/inputs/x/0/y~1z: has a `${` without its `}`; close it"),
        (text("${}"), "no reference", "t@1.0.0 at /steps/0/inputs/x/0/y~1z: `${}` is no reference; write `${name}`"),
        (text("${a b}"), "no reference", "t@1.0.0 at /steps/0/inputs/x/0/y~1z: `${a b}` is no reference"),
        (text("${steps}"), "no reference", "t@1.0.0 at /steps/0/inputs/x/0/y~1z: `${steps}` is no reference"),
        (
            text("${b}"),
            "undefined",
            "t@1.0.0 at /steps/0/inputs/x/0/y~1z: `${b}` is not declared; there are a, n: correct",
        ),
        (text("${params.b.c}"), "undefined", "t@1.0.0 at /steps/0/inputs/x/0/y~1z: `${b}` is not declared"),
        (
            with("/parameters/b", json!({"type": "string"})),
            "unused",
            "t@1.0.0 at /parameters/b: `b` is never used; refer to it as `${b}`, or remove it",
        ),
        (
            with("/steps/0/inputs/${a}", json!(1)),
            "in key",
            "t@1.0.0 at /steps/0/inputs/${a}: a field's name is taken as it is",
        ),
        (with("/name", json!("${steps.s.result}")), "early", "t@1.0.0 at /name: `${steps.s.result}` is not known here"),
        (
            with("/steps/0/timeout", json!("${item}")),
            "early",
            "t@1.0.0 at /steps/0/timeout: `${item}` is not known here",
        ),
    ]
    .map(|(document, kind, complaint)| (document, kind, complaint.to_owned()))
    .to_vec()
}

/// A template that is read and can't be rendered with these parameters.
fn unrenderable() -> Vec<(Value, Value, &'static str, String)> {
    [unrenderable_first(), unrenderable_second(), unrenderable_third()].concat()
}

fn unrenderable_first() -> Vec<(Value, Value, &'static str, String)> {
    let mut steps = good();
    steps["name"] = json!("${n}");
    let n = || json!({"n": 1});
    let whole = |text: &str| with("/steps/0/inputs/x", json!(text));
    let a = |a: Value| json!({"n": 1, "a": a});
    let regex = with("/parameters/a", json!({"type": "string", "regex": "[a-z]*"}));
    [
        (good(), json!({}), "required", "/parameters: needs the parameter `n`, a whole number; give it"),
        (good(), json!({"n": "1"}), "kind", "/parameters/n: must be a whole number, and is the string \"1\""),
        (
            good(),
            json!({"n": 1, "m/~": 2}),
            "undeclared",
            "/parameters/m~1~0: is no parameter of t@1.0.0; there are a, n",
        ),
        (
            regex.clone(),
            a(json!("A")),
            "pattern",
            "/parameters/a: \"A\" does not match the regular expression [a-z]* as a whole",
        ),
        (
            regex,
            a(json!("a".repeat(5000))),
            "limit",
            "/parameters/a: has 5000 bytes, and may have 4096; a pattern is tried on no more",
        ),
        (
            with("/parameters/a", json!({"type": "string", "enum": ["x", "y"]})),
            a(json!("z")),
            "choice",
            "/parameters/a: is the string \"z\"; it must be one of \"x\", \"y\"",
        ),
        (steps, n(), "kind", "t@1.0.0 at /name: must be a string, and is the number 1"),
        (whole("${a.b}"), n(), "nowhere", "t@1.0.0 at /steps/0/inputs/x: `${a.b}` leads nowhere: the value has no `b`"),
        (
            whole("${a}${steps.s.result}"),
            a(json!("$")),
            "dollar",
            "t@1.0.0 at /steps/0/inputs/x: a value that ends in `$` comes right before `${steps.s.result}`",
        ),
    ]
    .map(|(document, given, kind, complaint)| (document, given, kind, complaint.to_owned()))
    .to_vec()
}

fn unrenderable_second() -> Vec<(Value, Value, &'static str, String)> {
    let mut too_many = good();
    too_many["includes"] = json!([{"template_id": "d9", "prefix": "d", "parameters": {"x": "x"}}]);
    let n = || json!({"n": 1});
    let include = |id: &str| with("/includes/0", json!({"template_id": id, "prefix": "o_"}));
    let include = |id: &str| {
        let mut document = include(id);
        document["includes"] = json!([{"template_id": id, "prefix": "o_"}]);
        document
    };
    let given = |parameters: Value| {
        let mut document = good();
        document["includes"][0]["parameters"] = parameters;
        document
    };
    [
        (
            include("nobody"),
            n(),
            "no template",
            "t@1.0.0 at /includes/0: there is no template `nobody` in the range *; versions of it: none",
        ),
        (include("me"), n(), "cycle", "me@1.0.0 at /includes/0: includes itself: me@1.0.0 -> me@1.0.0; remove"),
        (
            include("you"),
            n(),
            "cycle",
            "them@1.0.0 at /includes/0: includes itself: you@1.0.0 -> them@1.0.0 -> you@1.0.0; remove",
        ),
        (
            include("c19"),
            n(),
            "limit",
            "c4@1.0.0 at /includes/0: has 17 levels of includes, and may have 16; include fewer",
        ),
        (
            too_many,
            n(),
            "limit",
            "d1@1.0.0 at /includes/1: has 257 includes, those of included templates counted, and may have 256",
        ),
        (
            include("other"),
            n(),
            "required",
            "t@1.0.0 at /includes/0/parameters: needs the parameter `must`, a whole number (why); give it",
        ),
        (
            given(json!({"must": "x"})),
            n(),
            "kind",
            "t@1.0.0 at /includes/0/parameters/must: must be a whole number, and is the string \"x\"",
        ),
    ]
    .map(|(document, given, kind, complaint)| (document, given, kind, complaint.to_owned()))
    .to_vec()
}

fn unrenderable_third() -> Vec<(Value, Value, &'static str, String)> {
    let mut clash = good();
    clash["steps"][0]["step_id"] = json!("o_s");
    let mut copies = with("/parameters/a", json!({"type": "string"}));
    copies["steps"][0]["inputs"]["x"] = json!(["${a}", "${a}", "${a}", "${a}"]);
    let mut doubled = good();
    doubled["includes"] = json!([{"template_id": "d5", "prefix": "d", "parameters": {"x": "${a}"}}]);
    let n = || json!({"n": 1});
    let given = |parameters: Value| {
        let mut document = good();
        document["includes"][0]["parameters"] = parameters;
        document
    };
    let a = |a: Value| json!({"n": 1, "a": a});
    let list = with("/parameters/a", json!({"type": "array"}));
    let nested = (0..60).fold(json!(0), |inner, _| json!([inner]));
    [
        (
            given(json!({"must": 1, "mist": 2})),
            n(),
            "undeclared",
            "t@1.0.0 at /includes/0/parameters/mist: is no parameter of other@1.0.0; there are must",
        ),
        (
            clash,
            n(),
            "twice",
            "t@1.0.0 at /steps/0/step_id: the step `o_s` is there already, at other@1.0.0 /steps/0/step_id",
        ),
        (
            copies,
            a(json!("x".repeat(300_000))),
            "limit",
            "t@1.0.0: has 1500147 bytes when it is rendered, and may have 1048576",
        ),
        (doubled, a(json!("x".repeat(300_000))), "limit", "d3@1.0.0 at /includes/0/parameters/x: has "),
        (
            list.clone(),
            a(json!([[[[[[[[[nested]]]]]]]]])),
            "limit",
            "/parameters/a: has 69 levels of arrays and objects, and may have 64",
        ),
        (
            list,
            a(json!([nested])),
            "limit",
            "t@1.0.0: has 65 levels of arrays and objects, and may have 64; make it flatter",
        ),
    ]
    .map(|(document, given, kind, complaint)| (document, given, kind, complaint.to_owned()))
    .to_vec()
}

/// What is wrong with a complaint, if anything.
fn unlike(error: &TemplateError, wanted: &str, complaint: &str) -> Option<String> {
    let (said, kind) = (error.to_string(), kind(&error.problem));
    let right = kind == wanted && said.starts_with(complaint) && said.len() < 700;
    (!right).then(|| format!("{kind}: {said}\n  must be {wanted}: {complaint}"))
}

#[test]
fn the_good_one_is_good() {
    let catalogue = catalogue(&[others(), vec![good()]].concat());
    assert!(render(&catalogue, "t", None, &object(json!({"n": 1}))).is_ok());
    catalogue.check(&template(&good())).unwrap();
}

#[test]
fn every_problem_names_its_place_and_what_to_do() {
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for (document, wanted, complaint) in unreadable() {
        let error = Template::read(&document).expect_err(&complaint);
        wrong.extend(unlike(&error, wanted, &complaint));
        seen.insert(wanted);
    }
    for (document, given, wanted, complaint) in unrenderable() {
        let catalogue = catalogue(&[others(), vec![document]].concat());
        let error = render(&catalogue, "t", None, &object(given)).expect_err(&complaint);
        wrong.extend(unlike(&error, wanted, &complaint));
        seen.insert(wanted);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), KINDS, "{seen:?}");
}

#[test]
fn what_needs_no_values_is_said_without_them() {
    let of_includes = unrenderable().into_iter().filter(|(_, _, _, complaint)| complaint.contains("/includes/"));
    let mut checked = 0;
    for (document, _, wanted, complaint) in of_includes.filter(|(_, _, _, c)| !c.starts_with("d3@")) {
        let error = catalogue(&others()).check(&template(&document)).expect_err(&complaint);
        assert_eq!(unlike(&error, wanted, &complaint), None);
        checked += 1;
    }
    assert_eq!(checked, 8);
}

#[test]
fn a_wrong_range_of_the_caller_is_refused() {
    let error = render(&catalogue(&[good(), others().remove(0)]), "t", Some("new"), &Map::new()).unwrap_err();
    assert_eq!(unlike(&error, "range", "/version: \"new\" is no range of versions ("), None);
}
