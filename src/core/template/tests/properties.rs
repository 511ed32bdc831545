//! What holds for any text, value, version and nesting.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// What a workflow makes of a text of a definition without references.
fn resolved(text: &str) -> String {
    let piece = |piece| match piece {
        Ok(Piece::Text(text)) => text,
        Ok(Piece::Escape) => "${",
        Ok(Piece::Reference(inside)) => panic!("`{inside}` is a reference in {text:?}"),
        Err(Unclosed) => panic!("something is open in {text:?}"),
    };
    pieces(text).map(piece).collect()
}

fn resolved_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(resolved(text)),
        Value::Array(items) => Value::Array(items.iter().map(resolved_value).collect()),
        Value::Object(fields) => Value::Object(fields.iter().map(|(k, v)| (k.clone(), resolved_value(v))).collect()),
        other => other.clone(),
    }
}

/// Texts that are full of what means something.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("$"),
        Just("{"),
        Just("}"),
        Just("${"),
        Just("$${"),
        Just("${a}"),
        Just("${steps.x.result}"),
        Just("a"),
        Just("é"),
    ];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Documents that are nearly right, or not at all.
fn document() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("template_id"),
        Just("version"),
        Just("parameters"),
        Just("includes"),
        Just("steps"),
        Just("step_id"),
        Just("action"),
        Just("inputs"),
        Just("depends_on"),
        Just("when"),
        Just("type"),
        Just("default"),
        Just("regex"),
        Just("prefix"),
        Just("a"),
    ];
    let leaf = prop_oneof![
        value(),
        Just(json!("t")),
        Just(json!("1.0.0")),
        Just(json!("string")),
        Just(json!("${a}")),
        Just(json!("${params.a.0}")),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let key = key.clone().prop_map(str::to_owned);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key, inner), 0..8).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn pieces_add_up_to_their_text(text in text()) {
        let mut again = String::new();
        for piece in pieces(&text) {
            match piece {
                Ok(Piece::Text(text)) => again.push_str(text),
                Ok(Piece::Escape) => again.push_str("$${"),
                Ok(Piece::Reference(inside)) => again.push_str(&format!("${{{inside}}}")),
                Err(Unclosed) => again.push_str(&text[again.len()..]),
            }
        }
        prop_assert_eq!(again, text);
    }

    #[test]
    fn a_workflow_sees_the_values_that_were_given(p in value(), q in value(), a in text(), b in text()) {
        let parameters = json!({
            "list": {"type": "array"}, "a": {"type": "string"}, "b": {"type": "string"},
        });
        let written = json!({"whole": "${list}", "first": "${list.0}", "text": "${a}${b}", "more": "<${b}{${a}>"});
        let seen = resolved_value(&inputs(parameters, written, json!({"list": [p, q], "a": a, "b": b})));
        let wanted = json!({"whole": [p, q], "first": p, "text": format!("{a}{b}"), "more": format!("<{b}{{{a}>")});
        prop_assert_eq!(seen, wanted);
    }

    #[test]
    fn a_template_that_is_read_renders_or_says_why(document in document(), given in value()) {
        let Ok(template) = Template::read(&document) else { return Ok(()) };
        let mut catalogue = Catalogue::default();
        catalogue.insert(Arc::new(template)).unwrap();
        let given = given.as_object().cloned().unwrap_or_default();
        let first = render(&catalogue, "t", None, &given);
        prop_assert_eq!(&first, &render(&catalogue, "t", None, &given));
        if let Ok(definition) = first {
            prop_assert!(definition["steps"].as_array().is_some_and(|steps| !steps.is_empty()));
        }
    }

    #[test]
    fn the_newest_is_the_greatest_by_numbers(
        versions in vec((0..20_u64, 0..20_u64, 0..20_u64), 1..12),
        major in 0..20_u64,
    ) {
        let mut catalogue = Catalogue::default();
        for (a, b, c) in &versions {
            let steps = json!([{"step_id": "s", "action": "echo"}]);
            let document = json!({"template_id": "t", "version": format!("{a}.{b}.{c}"), "steps": steps});
            let _ = catalogue.insert(Arc::new(template(&document)));
        }
        let number = |t: &Template| (t.version().major, t.version().minor, t.version().patch);
        let newest = catalogue.resolve("t", &Range::ANY).map(|t| number(t)).ok();
        prop_assert_eq!(newest, versions.iter().copied().max());
        let range = Range::parse(&format!("={major}")).unwrap();
        let within = catalogue.resolve("t", &range).map(|t| number(t)).ok();
        prop_assert_eq!(within, versions.iter().copied().filter(|v| v.0 == major).max());
    }

    /// A tower of templates, each of which includes the next one a few times:
    /// every name is there once, and whatever refers to a step finds it.
    #[test]
    fn included_steps_refer_to_steps_that_are_there(widths in vec(1..3_usize, 0..5)) {
        let mut documents = vec![json!({
            "template_id": "l0", "version": "1.0.0", "parameters": {"x": {"type": "string"}},
            "steps": [
                {"step_id": "a", "action": "echo", "inputs": {"x": "${x}"}},
                {"step_id": "b", "action": "echo", "depends_on": ["a"], "inputs": {"y": "${steps.a.result}"}},
            ],
        })];
        for (n, width) in widths.iter().enumerate() {
            let includes: Vec<_> = (0..*width).map(|i| json!({
                "template_id": format!("l{n}"), "prefix": format!("p{i}_"), "depends_on": ["a"],
                "parameters": {"x": "${steps.a.result} ${x}"},
            })).collect();
            documents.push(json!({
                "template_id": format!("l{}", n + 1), "version": "1.0.0", "parameters": {"x": {"type": "string"}}, "includes": includes,
                "steps": [{"step_id": "a", "action": "echo"}, {"step_id": "b", "action": "echo", "depends_on": ["p0_b"]}],
            }));
        }
        let top = format!("l{}", widths.len());
        let rendered = render(&catalogue(&documents), &top, None, &object(json!({"x": "x"}))).unwrap();
        let steps = rendered["steps"].as_array().unwrap();
        let names: std::collections::BTreeSet<_> = steps.iter().map(|step| step["step_id"].as_str().unwrap()).collect();
        prop_assert_eq!(names.len(), steps.len());
        for step in steps {
            for dependency in step["depends_on"].as_array().into_iter().flatten() {
                prop_assert!(names.contains(dependency.as_str().unwrap()), "{} of {}", dependency, step);
            }
            for text in step["inputs"].as_object().into_iter().flatten().filter_map(|(_, text)| text.as_str()) {
                for piece in pieces(text) {
                    if let Ok(Piece::Reference(inside)) = piece {
                        let named = inside.strip_prefix("steps.").and_then(|rest| rest.strip_suffix(".result"));
                        prop_assert!(named.is_some_and(|name| names.contains(name)), "{inside}");
                    }
                }
            }
        }
    }
}
