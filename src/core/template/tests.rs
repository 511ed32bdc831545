//! Tests of reading, including and rendering templates.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

mod errors;
mod properties;

fn template(document: &Value) -> Template {
    Template::read(document).unwrap_or_else(|e| panic!("{document}: {e}"))
}

fn catalogue(documents: &[Value]) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for document in documents {
        catalogue.insert(Arc::new(template(document))).unwrap();
    }
    catalogue
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("{value} is no object") };
    fields
}

/// A template with one step, whose inputs are these.
fn single(parameters: Value, inputs: Value) -> Value {
    json!({
        "template_id": "single", "version": "1.0.0", "parameters": parameters,
        "steps": [{"step_id": "only", "action": "echo", "inputs": inputs}],
    })
}

/// The rendered inputs of [`single`].
fn inputs(parameters: Value, inputs: Value, given: Value) -> Value {
    let document = single(parameters, inputs);
    let rendered = render(&catalogue(&[document]), "single", None, &object(given)).unwrap();
    rendered["steps"][0]["inputs"].clone()
}

#[test]
fn a_whole_reference_keeps_its_type_and_within_a_text_it_is_text() {
    let parameters = json!({
        "n": {"type": "integer"}, "list": {"type": "array"}, "config": {"type": "object"}, "yes": {"type": "boolean"},
        "x": {"type": "number"}, "word": {"type": "string", "default": "w"},
    });
    let written = json!({
        "n": "${n}", "list": ["${params.list}"], "deep": {"config": "${config}", "yes": "${yes}"}, "x": "${x}",
        "text": "${word}: ${n} of ${list} at ${x}, ${yes}", "part": "${config.a.0}", "brackets": "${params.config.a[0]}", "some": "a${config.a}",
    });
    let given = json!({"n": 3, "list": [1, "b"], "config": {"a": [true]}, "yes": false, "x": 0.5});
    let wanted = json!({
        "n": 3, "list": [[1, "b"]], "deep": {"config": {"a": [true]}, "yes": false}, "x": 0.5,
        "text": "w: 3 of [1,\"b\"] at 0.5, false", "part": true, "brackets": true, "some": "a[true]",
    });
    assert_eq!(inputs(parameters, written, given), wanted);
}

#[test]
fn references_of_the_running_workflow_stay() {
    let written = json!({
        "a": "${steps.load.result.rows.0}", "b": "n=${steps.load.result} ${item.name} ${item[0]} ${index}", "c": "${word}",
    });
    let wanted = json!({
        "a": "${steps.load.result.rows.0}", "b": "n=${steps.load.result} ${item.name} ${item[0]} ${index}", "c": "w",
    });
    let parameters = json!({"word": {"type": "string"}});
    assert_eq!(inputs(parameters, written, json!({"word": "w"})), wanted);
}

#[test]
fn data_never_becomes_a_reference() {
    let parameters = json!({"word": {"type": "string"}, "list": {"type": "array", "default": ["${b}"]}});
    let written = json!({"whole": "${word}", "text": "<${word}{x}>", "list": "${list}", "own": "$${HOME} $5 $$"});
    let wanted = json!({
        "whole": "a $${steps.x.result} $", "text": "<a $${steps.x.result} $${x}>", "list": ["$${b}"],
        "own": "$${HOME} $5 $$",
    });
    assert_eq!(inputs(parameters, written, json!({"word": "a ${steps.x.result} $"})), wanted);
}

#[test]
fn in_an_expression_a_parameter_is_a_literal() {
    let document = json!({
        "template_id": "t", "version": "1.0.0",
        "parameters": {"word": {"type": "string"}, "n": {"type": "integer"}, "on": {"type": "boolean"}},
        "steps": [
            {"step_id": "a", "action": "echo"},
            {"step_id": "b", "action": "echo", "depends_on": ["a"], "when": "${on}"},
            {"step_id": "c", "action": "echo", "depends_on": ["a"],
             "when": "${steps.a.result.n} > ${n} && ${steps.b-c.result[0]} == ${word} && \"$${z}\" == ''"},
        ],
    });
    let given = object(json!({"word": "x\" || \"${y}", "n": 3, "on": true}));
    let rendered = render(&catalogue(&[document]), "t", None, &given).unwrap();
    assert_eq!(rendered["steps"][1]["when"], "true");
    let wanted = r#"steps.a.result.n > 3 && steps["b-c"].result[0] == "x\" || \"${y}" && "${z}" == ''"#;
    assert_eq!(rendered["steps"][2]["when"], wanted);
}

#[test]
fn outside_of_what_the_workflow_resolves_texts_are_as_they_are_meant() {
    let document = json!({
        "template_id": "t", "version": "1.0.0", "name": "of ${who}, $${not}", "max_concurrent": "${n}", "deadline": "${end}",
        "parameters": {"who": {"type": "string"}, "n": {"type": "integer", "default": 4}, "end": {"type": "string"}},
        "steps": [{"step_id": "a", "action": "${who}", "timeout": "${n}", "requirements": {"labels": {"zone": "${who}"}}}],
    });
    let given = object(json!({"who": "${ann}", "end": "2026-11-23T08:00:00Z"}));
    let rendered = render(&catalogue(&[document]), "t", None, &given).unwrap();
    let wanted = json!({
        "name": "of ${ann}, ${not}",
        "steps": [{"step_id": "a", "action": "${ann}", "timeout": 4, "requirements": {"labels": {"zone": "${ann}"}}}],
        "max_concurrent": 4, "deadline": "2026-11-23T08:00:00Z",
    });
    assert_eq!(rendered, wanted);
}

#[test]
fn the_newest_fitting_version_is_taken() {
    let version = |version: &str| json!({"template_id": "t", "version": version, "name": version, "steps": [{"step_id": "a", "action": "echo"}]});
    let catalogue = catalogue(&["1.9.0", "1.10", "0.3.1", "2.0.0-rc.1", "2.1.0"].map(version));
    let chosen = |range: Option<&str>| render(&catalogue, "t", range, &Map::new()).map(|r| r["name"].clone());
    for (range, wanted) in [
        (None, "2.1.0"),
        (Some("*"), "2.1.0"),
        (Some("1"), "1.10"),
        (Some("^1.2.0"), "1.10"),
        (Some("~1.9"), "1.9.0"),
        (Some("1.9.0"), "1.9.0"),
        (Some("<1"), "0.3.1"),
        (Some(">=1, <2"), "1.10"),
        (Some("2.0.0-rc.1"), "2.0.0-rc.1"),
    ] {
        assert_eq!(chosen(range), Ok(json!(wanted)), "{range:?}");
    }
    let error = chosen(Some("3")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/template_id: there is no template `t` in the range ^3; versions of it: 0.3.1, 1.9.0, 1.10.0, 2.0.0-rc.1, 2.1.0"
    );
}

#[test]
fn a_name_and_version_is_taken_once() {
    let document = single(json!({}), json!({}));
    let mut catalogue = catalogue(std::slice::from_ref(&document));
    let there = catalogue.insert(Arc::new(template(&document))).unwrap_err();
    assert_eq!((there.document(), catalogue.len(), catalogue.is_empty()), (&document, 1, false));
}

/// Loads, and cleans what was loaded.
fn inner() -> Value {
    json!({
        "template_id": "inner", "version": "1.2.0",
        "parameters": {"from": {"type": "string"}, "many": {"type": "array", "default": []}, "n": {"type": "integer", "default": 1}},
        "steps": [
            {"step_id": "load", "action": "echo", "inputs": {"from": "${from}"}, "for_each": "${many}", "timeout": "${n}"},
            {"step_id": "clean", "action": "echo", "depends_on": ["load"], "inputs": {"rows": "${steps.load.result.rows}"},
             "when": "steps.load.result.n > 0 && mysteps.load && steps[\"load\"].ok", "on_failure": "compensate:undo"},
            {"step_id": "undo", "action": "echo"},
        ],
    })
}

#[test]
fn included_steps_get_their_prefix_and_keep_their_order() {
    let outer = json!({
        "template_id": "outer", "version": "1.0.0", "parameters": {"source": {"type": "string"}},
        "includes": [{
            "template_id": "inner", "version": "^1", "prefix": "a_", "depends_on": ["first"],
            "parameters": {"from": "at ${source}", "many": "${steps.first.result.list}"},
        }],
        "steps": [
            {"step_id": "first", "action": "echo"},
            {"step_id": "last", "action": "echo", "depends_on": ["a_clean"], "inputs": {"x": "${steps.a_clean.result}"}},
        ],
    });
    let wanted = json!({"name": "outer", "steps": [
        {"step_id": "a_load", "action": "echo", "inputs": {"from": "at s"}, "for_each": "${steps.first.result.list}",
         "timeout": 1, "depends_on": ["first"]},
        {"step_id": "a_clean", "action": "echo", "depends_on": ["a_load"], "inputs": {"rows": "${steps.a_load.result.rows}"},
         "when": "steps.a_load.result.n > 0 && mysteps.load && steps[\"a_load\"].ok", "on_failure": "compensate:a_undo"},
        {"step_id": "a_undo", "action": "echo"},
        {"step_id": "first", "action": "echo"},
        {"step_id": "last", "action": "echo", "depends_on": ["a_clean"], "inputs": {"x": "${steps.a_clean.result}"}},
    ]});
    let catalogue = catalogue(&[inner(), outer]);
    let given = object(json!({"source": "s"}));
    assert_eq!(render(&catalogue, "outer", None, &given), Ok(wanted));
    for template in catalogue.iter() {
        catalogue.check(template).unwrap();
    }
}

#[test]
fn includes_nest_and_pass_results_on() {
    let middle = json!({
        "template_id": "middle", "version": "1.0.0", "parameters": {"rows": {"type": "object"}},
        "includes": [{"template_id": "inner", "prefix": "in_", "parameters": {"from": "${rows.where}", "n": "${rows.n}"}}],
        "steps": [{"step_id": "end", "action": "echo", "depends_on": ["in_clean"], "inputs": {"all": "${rows}"}}],
    });
    let outer = json!({
        "template_id": "outer", "version": "1.0.0",
        "includes": [
            {"template_id": "middle", "prefix": "x_", "parameters": {"rows": {"where": "${steps.go.result}", "n": 2}}, "depends_on": ["go"]},
            {"template_id": "middle", "prefix": "y_", "parameters": {"rows": {"where": "here", "n": 3}}},
        ],
        "steps": [{"step_id": "go", "action": "echo"}],
    });
    let rendered = render(&catalogue(&[inner(), middle, outer]), "outer", None, &Map::new()).unwrap();
    let steps = rendered["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step_id"].as_str().unwrap()).collect();
    let own = |p: &str| ["in_load", "in_clean", "in_undo", "end"].map(|name| format!("{p}{name}")).to_vec();
    assert_eq!(names, [own("x_"), own("y_"), vec!["go".to_owned()]].concat());
    assert_eq!(steps[0]["inputs"], json!({"from": "${steps.go.result}"}), "a result that is there later");
    assert_eq!((&steps[0]["timeout"], &steps[0]["depends_on"]), (&json!(2), &json!(["go"])), "the first step waits");
    assert_eq!(steps[3]["inputs"], json!({"all": {"where": "${steps.go.result}", "n": 2}}));
    assert_eq!(steps[4].get("depends_on"), None);
    assert_eq!(steps[5]["inputs"], json!({"rows": "${steps.y_in_load.result.rows}"}));
}

#[test]
fn a_way_into_a_later_result_makes_its_reference_longer() {
    let inner = single(json!({"rows": {"type": "object"}}), json!({"whole": "${rows.a.b}", "text": "<${rows.c.0}>"}));
    let outer = json!({
        "template_id": "outer", "version": "1.0.0",
        "includes": [{"template_id": "single", "prefix": "p_", "parameters": {"rows": "${steps.go.result}"}}],
        "steps": [{"step_id": "go", "action": "echo"}],
    });
    let rendered = render(&catalogue(&[inner, outer]), "outer", None, &Map::new()).unwrap();
    let wanted = json!({"whole": "${steps.go.result.a.b}", "text": "<${steps.go.result.c[0]}>"});
    assert_eq!(rendered["steps"][0]["inputs"], wanted);
}

#[test]
fn an_inner_definition_names_its_own_steps() {
    let inner = json!({
        "template_id": "inner", "version": "1.0.0", "parameters": {"n": {"type": "integer"}},
        "steps": [{"step_id": "sub", "action": "workflow", "inputs": {"definition": {
            "name": "d", "steps": [{"step_id": "a", "action": "echo"},
                {"step_id": "b", "action": "echo", "depends_on": ["a"], "when": "params.y > ${n}",
                 "inputs": {"x": "${steps.a.result}", "n": "${n}", "y": "${params.y}"}}],
        }}}],
    });
    let outer = json!({
        "template_id": "outer", "version": "1.0.0",
        "includes": [{"template_id": "inner", "prefix": "p_", "parameters": {"n": 5}}],
    });
    let rendered = render(&catalogue(&[inner, outer]), "outer", None, &Map::new()).unwrap();
    let definition = &rendered["steps"][0]["inputs"]["definition"];
    assert_eq!(definition["steps"][1]["inputs"], json!({"x": "${steps.a.result}", "n": 5, "y": "${params.y}"}));
    assert_eq!(definition["steps"][1]["when"], "params.y > 5");
}

#[test]
fn a_step_may_be_a_template_and_pass_it_results() {
    let inner = json!({
        "template_id": "inner", "version": "1.0.0", "max_concurrent": 2,
        "parameters": {"rows": {"type": "array"}, "n": {"type": "integer"}},
        "steps": [{"step_id": "a", "action": "echo", "for_each": "${rows}", "when": "${rows[0]} > ${n}", "inputs": {"i": "${item}"}}],
    });
    let outer = json!({
        "template_id": "outer", "version": "1.0.0", "parameters": {"n": {"type": "integer"}},
        "steps": [{"step_id": "go", "action": "echo"}, {"step_id": "sub", "action": "workflow", "depends_on": ["go"], "inputs": {
            "template": {"template_id": "inner", "version": "1", "parameters": {"rows": "${steps.go.result}", "n": "${n}"}},
        }}],
    });
    let catalogue = catalogue(&[inner, outer]);
    let rendered = render(&catalogue, "outer", None, &object(json!({"n": 5}))).unwrap();
    let definition = json!({
        "name": "inner", "max_concurrent": 2,
        "steps": [{"step_id": "a", "action": "echo", "for_each": "${params.rows}", "when": "params.rows[0] > 5", "inputs": {"i": "${item}"}}],
    });
    let wanted = json!({"definition": definition, "params": {"rows": "${steps.go.result}"}});
    assert_eq!(rendered["steps"][1]["inputs"], wanted);

    let by_hand = json!({"name": "h", "steps": [{"step_id": "s", "action": "workflow", "inputs": {"definition": {"name": "i", "steps": [
        {"step_id": "t", "action": "workflow", "inputs": {"template": {"template_id": "inner", "parameters": {"rows": [1], "n": 2}}}},
    ]}}}]});
    let expanded = expand(&catalogue, &by_hand).unwrap();
    let inner = &expanded["steps"][0]["inputs"]["definition"]["steps"][0]["inputs"];
    assert_eq!(inner["definition"]["steps"][0]["for_each"], json!([1]));
    assert_eq!(inner.get("params"), None);
    let none = json!({"name": "h", "steps": [{"step_id": "s", "action": "workflow", "inputs": {"template": {"template_id": "no"}}}]});
    let error = expand(&catalogue, &none).unwrap_err().to_string();
    assert!(error.starts_with("/steps/0/inputs/template: there is no template `no`"), "{error}");
}

#[test]
fn parameters_are_held_to_their_types_and_rules() {
    for (declared, good, bad) in [
        (json!({"type": "string"}), vec![json!(""), json!("x")], vec![json!(1), json!(null), json!([])]),
        (json!({"type": "number"}), vec![json!(1), json!(-0.5)], vec![json!("1"), json!(true)]),
        (
            json!({"type": "integer"}),
            vec![json!(0), json!(-7), json!(u64::MAX)],
            vec![json!(1.5), json!(1.0), json!("1")],
        ),
        (json!({"type": "boolean"}), vec![json!(true)], vec![json!("true"), json!(0)]),
        (json!({"type": "array"}), vec![json!([]), json!([1])], vec![json!({}), json!("[]")]),
        (json!({"type": "object"}), vec![json!({})], vec![json!([]), json!(null)]),
        (
            json!({"type": "string", "regex": "[a-z]+|-"}),
            vec![json!("abc"), json!("-")],
            vec![json!("ab1"), json!(""), json!("a\n")],
        ),
        (json!({"type": "string", "regex": "\\$\\{a\\}"}), vec![json!("${a}")], vec![json!("$${a}")]),
        (json!({"type": "integer", "enum": [1, 2]}), vec![json!(2)], vec![json!(3)]),
        (json!({"type": "string", "enum": ["${x}"]}), vec![json!("${x}")], vec![json!("$${x}")]),
    ] {
        let catalogue = catalogue(&[single(json!({"p": declared}), json!({"p": "${p}"}))]);
        let given = |value: &Value| render(&catalogue, "single", None, &object(json!({"p": value})));
        for value in good {
            given(&value).unwrap_or_else(|e| panic!("{declared} takes {value}: {e}"));
        }
        for value in bad {
            let error = given(&value).expect_err("refused");
            assert_eq!(error.pointer, "/parameters/p", "{declared} does not take {value}: {error}");
        }
    }
}

#[test]
fn a_submission_is_what_its_template_makes_where_the_caller_says_nothing() {
    let document = json!({
        "template_id": "t", "version": "1.2.0", "name": "for ${who}", "max_concurrent": 3, "parameters": {"who": {"type": "string"}},
        "steps": [{"step_id": "a", "action": "echo", "inputs": {"who": "${who}"}}],
    });
    let catalogue = catalogue(&[document]);
    let made = |given: Value| submission(&catalogue, &object(given)).map(Value::Object);
    let template = json!({"template_id": "t", "version": "^1", "parameters": {"who": "${me}"}});
    let steps = json!([{"step_id": "a", "action": "echo", "inputs": {"who": "$${me}"}}]);
    let given = json!({"workflow_id": "w", "template": template, "steps": [], "priority": null, "dry_run": true});
    let wanted = json!({"workflow_id": "w", "steps": steps, "dry_run": true, "name": "for ${me}", "max_concurrent": 3});
    assert_eq!(made(given).unwrap(), wanted);
    let given = json!({"name": "mine", "max_concurrent": 1, "template": template});
    assert_eq!(made(given).unwrap(), json!({"name": "mine", "max_concurrent": 1, "steps": steps}));
    let plain = json!({"name": "n", "steps": [{"step_id": "s", "action": "workflow", "inputs": {"definition": {}}}]});
    assert!(!mentioned(&object(plain.clone())) && !mentioned(&object(json!({"template": null}))));
    assert_eq!(made(plain.clone()).unwrap(), plain);
    let inner = json!([{"step_id": "s", "action": "workflow", "inputs": {"definition": {"name": "d", "steps": [
        {"step_id": "t", "action": "workflow", "inputs": {"template": {"template_id": "t", "parameters": {"who": "you"}}}},
    ]}}}]);
    assert!(mentioned(&object(json!({"steps": inner}))));
    let expanded = made(json!({"name": "n", "steps": inner})).unwrap();
    let innermost = &expanded["steps"][0]["inputs"]["definition"]["steps"][0]["inputs"];
    assert_eq!(innermost["definition"]["name"], "for you");
    for (given, complaint) in [
        (json!({"template": "t"}), "/template: must be an object, and is the string \"t\""),
        (json!({"template": {}}), "/template: has no `template_id`"),
        (json!({"template": {"template_id": "u"}}), "/template/template_id: there is no template `u`"),
        (json!({"template": {"template_id": "t"}}), "/template/parameters: needs the parameter `who`"),
        (
            json!({"template": {"template_id": "t", "parameters": {"who": 1}}}),
            "/template/parameters/who: must be a string, and is the number 1",
        ),
        (json!({"template": template, "steps": [1]}), "/steps: is there, and a template as well"),
        (json!({"template": template, "params": {}}), "/params: is there, and a template as well"),
    ] {
        let error = made(given).unwrap_err().to_string();
        assert!(error.starts_with(complaint), "{error}");
    }
}
