//! JSON schemas: made from the types, made small, and used to check arguments.
//!
//! The bounds of a parameter are written once, as its schema's; [`check`] holds
//! every call against them, so that a refusal names the field and the bound.

use super::failure::invalid;
use super::value::Object;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use taskmesh_core::{Refusal, limits};

/// The schema of what a caller gives.
#[must_use]
pub fn input<T: JsonSchema>() -> Object {
    let mut schema = generate::<T>(SchemaSettings::draft2020_12().for_deserialize());
    tidy(&mut schema, Side::Input);
    let mut schema = into_object(schema);
    // The operation has a description of its own.
    schema.remove("description");
    schema
}

/// The schema of what a caller gets, with descriptions, for the documents.
#[must_use]
pub fn output_in_full<T: JsonSchema>() -> Object {
    let mut schema = generate::<T>(SchemaSettings::draft2020_12().for_serialize());
    tidy(&mut schema, Side::Output);
    into_object(schema)
}

/// The schema of what a caller gets, as small as may be, since a model reads
/// those of all tools before its first call: names, the types of what is never
/// null, and no description. The documents have the rest. A failure conforms to
/// it as well: there are clients that hold both against it.
#[must_use]
pub fn output<T: JsonSchema>() -> Object {
    let mut schema = Value::Object(output_in_full::<T>());
    shrink(&mut schema);
    let mut schema = into_object(schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let rest = std::mem::take(properties);
        properties.extend(std::iter::once(("success".to_owned(), json!({"type": "boolean"}))).chain(rest));
    }
    schema
}

/// The rule of a label's value.
pub(crate) fn short_text() -> Value {
    json!({"type": "string", "maxLength": limits::TEXT_BYTES})
}

/// The rule of an amount of something that is counted.
pub(crate) fn amount() -> Value {
    json!({"type": "number", "minimum": 0, "maximum": 1_000_000_000})
}

fn generate<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn into_object(schema: Value) -> Object {
    match schema {
        Value::Object(object) => object,
        _ => unreachable!("the schema of a struct is an object"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

/// Takes away what neither a model nor [`check`] reads, and says "or null"
/// in the one way that every client takes: `anyOf` in outputs; not at all in
/// inputs, where null means not given.
fn tidy(schema: &mut Value, side: Side) {
    if let Value::Bool(true) = schema {
        *schema = json!({});
    }
    let Value::Object(object) = schema else { return };
    object.remove("title");
    object.remove("format");
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    if object.get("additionalProperties") == Some(&Value::Bool(true)) {
        object.remove("additionalProperties");
    }
    if side == Side::Output {
        for bound in ["minimum", "maximum", "minLength", "maxLength", "maxItems", "default", "required"] {
            object.remove(bound);
        }
        object.remove("additionalProperties");
    }
    named_values(object);
    for (key, inner) in object.iter_mut() {
        match (key.as_str(), inner) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(|p| tidy(p, side)),
            ("items" | "additionalProperties", inner) => tidy(inner, side),
            ("anyOf", Value::Array(choices)) => choices.iter_mut().for_each(|c| tidy(c, side)),
            _ => {}
        }
    }
    nullable(object, side);
}

/// `oneOf` of described constants, as enums become, into a plain `enum`.
fn named_values(object: &mut Object) {
    let Some(Value::Array(choices)) = object.get("oneOf") else { return };
    let names: Vec<Value> = choices.iter().filter_map(|c| c.get("const").cloned()).collect();
    if names.len() == choices.len() {
        object.remove("oneOf");
        object.insert("type".into(), "string".into());
        object.insert("enum".into(), names.into());
    }
}

fn nullable(object: &mut Object, side: Side) {
    let inner = match (object.get("type"), object.get("anyOf")) {
        (Some(Value::Array(types)), _) => {
            let Some(kind) = types.iter().find(|t| *t != "null").cloned() else { return };
            let mut inner = object.clone();
            inner.insert("type".into(), kind);
            if let Some(Value::Array(names)) = inner.get_mut("enum") {
                names.retain(|n| !n.is_null());
            }
            inner
        }
        (None, Some(Value::Array(choices))) if choices.iter().any(|c| c["type"] == "null") => {
            let Some(Value::Object(inner)) = choices.iter().find(|c| c["type"] != "null").cloned() else { return };
            let outer = object.iter().filter(|(key, _)| *key != "anyOf").map(|(k, v)| (k.clone(), v.clone()));
            inner.into_iter().chain(outer).collect()
        }
        _ => return,
    };
    if side == Side::Input {
        *object = inner;
        return;
    }
    let mut inner = inner;
    let described = inner.remove("description");
    object.clear();
    object.extend(described.map(|d| ("description".to_owned(), d)));
    object.insert("anyOf".into(), json!([inner, {"type": "null"}]));
}

fn shrink(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    if object.contains_key("anyOf") {
        object.clear();
        return;
    }
    object.remove("description");
    // Of a text or a number the name tells enough.
    let plain = ["string", "integer", "number"];
    if object.len() == 1 && object.get("type").is_some_and(|kind| plain.iter().any(|p| kind == p)) {
        object.clear();
        return;
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(shrink);
    }
    // Of what is in a list, the names tell a model enough.
    match object.get_mut("items").map(|items| items.get_mut("properties").map(Value::take)) {
        Some(Some(Value::Object(properties))) => {
            let names: Object = properties.into_iter().map(|(name, _)| (name, json!({}))).collect();
            object.insert("items".into(), json!({"properties": names}));
        }
        Some(Some(_) | None) => {
            object.remove("items");
        }
        None => {}
    }
}

/// Holds `value` against `schema`: types, bounds, names.
///
/// # Errors
/// The first thing that is wrong, with its place and the bound.
pub fn check(schema: &Object, value: &Value) -> Result<(), Refusal> {
    check_at("", schema, value)
}

fn check_at(path: &str, schema: &Object, value: &Value) -> Result<(), Refusal> {
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => check_object(path, schema, value),
        Some("array") => check_array(path, schema, value),
        Some("string") => check_string(path, schema, value),
        Some("integer" | "number") => check_number(path, schema, value),
        Some("boolean") if !value.is_boolean() => Err(wrong_type(path, "true or false", value)),
        _ => Ok(()),
    }
}

fn check_object(path: &str, schema: &Object, value: &Value) -> Result<(), Refusal> {
    let Value::Object(given) = value else { return Err(wrong_type(path, "an object", value)) };
    check_count(path, schema, ["minProperties", "maxProperties"], given.len(), "entries")?;
    let none = Object::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !given.contains_key(name) {
            return Err(invalid(&join(path, name), "is required"));
        }
    }
    for (name, inner) in given {
        match (known.get(name), schema.get("additionalProperties")) {
            (Some(Value::Object(rule)), _) | (None, Some(Value::Object(rule))) => {
                check_at(&join(path, name), rule, inner)?;
            }
            (None, Some(Value::Bool(false))) => {
                let names: Vec<_> = known.keys().map(String::as_str).collect();
                return Err(invalid(&join(path, name), format!("is not known; valid names are: {}", names.join(", "))));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_array(path: &str, schema: &Object, value: &Value) -> Result<(), Refusal> {
    let Value::Array(given) = value else { return Err(wrong_type(path, "an array", value)) };
    check_count(path, schema, ["minItems", "maxItems"], given.len(), "items")?;
    let Some(Value::Object(rule)) = schema.get("items") else { return Ok(()) };
    given.iter().enumerate().try_for_each(|(n, inner)| check_at(&format!("{path}[{n}]"), rule, inner))
}

fn check_string(path: &str, schema: &Object, value: &Value) -> Result<(), Refusal> {
    let Value::String(given) = value else { return Err(wrong_type(path, "a string", value)) };
    // JSON Schema counts characters; nothing here is allowed more bytes either.
    check_count(path, schema, ["minLength", "maxLength"], given.len(), "bytes")?;
    let Some(names) = schema.get("enum").and_then(Value::as_array) else { return Ok(()) };
    if names.contains(value) {
        return Ok(());
    }
    let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
    Err(invalid(path, format!("must be one of: {}", names.join(", "))))
}

fn check_number(path: &str, schema: &Object, value: &Value) -> Result<(), Refusal> {
    let kind = if schema.get("type").is_some_and(|t| t == "integer") { "an integer" } else { "a number" };
    let whole = value.is_u64() || value.is_i64();
    let Some(given) = value.as_f64().filter(|_| whole || kind == "a number") else {
        return Err(wrong_type(path, kind, value));
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let (low, high, above) = (bound("minimum"), bound("maximum"), bound("exclusiveMinimum"));
    let within = low.is_none_or(|b| given >= b) && high.is_none_or(|b| given <= b) && above.is_none_or(|b| given > b);
    if within && given.is_finite() {
        return Ok(());
    }
    let bounds = match (low, high, above) {
        (Some(low), Some(high), _) => format!("from {low} to {high}"),
        (Some(low), None, _) => format!("of at least {low}"),
        (None, Some(high), Some(above)) => format!("above {above}, up to {high}"),
        (None, Some(high), None) => format!("of at most {high}"),
        (None, None, Some(above)) => format!("above {above}"),
        (None, None, None) => "that is finite".to_owned(),
    };
    Err(invalid(path, format!("must be {kind} {bounds}, and is {value}")))
}

fn check_count(path: &str, schema: &Object, keys: [&str; 2], got: usize, unit: &str) -> Result<(), Refusal> {
    let [min, max] = keys.map(|key| schema.get(key).and_then(Value::as_u64));
    let got = got as u64;
    if min.is_none_or(|min| got >= min) && max.is_none_or(|max| got <= max) {
        return Ok(());
    }
    let bounds = match (min, max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => return Ok(()),
    };
    Err(invalid(path, format!("must have {bounds} {unit}, and has {got}")))
}

fn wrong_type(path: &str, wanted: &str, value: &Value) -> Refusal {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    invalid(if path.is_empty() { "arguments" } else { path }, format!("must be {wanted}, and is {got}"))
}

fn join(path: &str, name: &str) -> String {
    // A name from outside is shown, and so it is bounded.
    let name: String = if name.is_empty() { "\"\"".to_owned() } else { name.chars().take(64).collect() };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        /// A name.
        #[schemars(length(min = 1, max = 4))]
        name: String,
        /// A count.
        #[schemars(range(min = 1, max = 9))]
        count: Option<u32>,
        /// A share.
        #[schemars(extend("exclusiveMinimum" = 0))]
        share: Option<f64>,
        /// A list.
        #[serde(default)]
        #[schemars(length(max = 2), inner(length(max = 3)))]
        list: Vec<String>,
        choice: Option<Choice>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        /// This.
        One,
        /// That.
        Two,
    }

    #[test]
    fn an_input_schema_is_small_and_has_no_null() {
        let list = json!({"description": "A list.", "type": "array", "items": {"type": "string", "maxLength": 3}, "default": [], "maxItems": 2});
        let expected = json!({"type": "object", "properties": {
            "name": {"description": "A name.", "type": "string", "minLength": 1, "maxLength": 4},
            "count": {"description": "A count.", "type": "integer", "minimum": 1, "maximum": 9},
            "share": {"description": "A share.", "type": "number", "exclusiveMinimum": 0},
            "list": list,
            "choice": {"type": "string", "enum": ["one", "two"]}},
            "additionalProperties": false, "required": ["name"]});
        assert_eq!(Value::Object(input::<Sample>()), expected);
    }

    #[test]
    fn an_output_schema_says_null_by_choice() {
        let schema = Value::Object(output_in_full::<Sample>());
        let count = json!({"description": "A count.", "anyOf": [{"type": "integer"}, {"type": "null"}]});
        assert_eq!(schema["properties"]["count"], count);
        assert_eq!(schema["properties"]["choice"]["anyOf"][0], json!({"type": "string", "enum": ["one", "two"]}));
        let small = Value::Object(output::<Sample>());
        let properties = json!({"success": {"type": "boolean"}, "name": {}, "count": {}, "share": {},
            "list": {"type": "array"}, "choice": {}});
        assert_eq!(small, json!({"type": "object", "properties": properties}));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_bound() {
        let schema = input::<Sample>();
        let cases = [
            (json!({}), "name: is required"),
            (json!({"name": 5}), "name: must be a string, and is a number"),
            (json!({"name": ""}), "name: must have 1 to 4 bytes, and has 0"),
            (json!({"name": "a", "count": 0}), "count: must be an integer from 1 to 9, and is 0"),
            (json!({"name": "a", "count": 1.5}), "count: must be an integer, and is a number"),
            (json!({"name": "a", "share": 0}), "share: must be a number above 0, and is 0"),
            (json!({"name": "a", "list": ["a", "b", "c"]}), "list: must have at most 2 items, and has 3"),
            (json!({"name": "a", "list": ["abcd"]}), "list[0]: must have at most 3 bytes, and has 4"),
            (json!({"name": "a", "choice": "three"}), "choice: must be one of: one, two"),
            (json!({"name": "a", "nmae": 1}), "nmae: is not known; valid names are: name, count, share, list, choice"),
            (json!({"name": "a", "": 1}), "\"\": is not known; valid names are: name, count, share, list, choice"),
            (json!([]), "arguments: must be an object, and is an array"),
        ];
        for (given, problem) in cases {
            let refusal = check(&schema, &given).expect_err("out of bounds");
            assert_eq!(refusal.to_string(), problem);
        }
        assert_eq!(check(&schema, &json!({"name": "a", "count": 9, "list": ["abc"], "choice": "two"})), Ok(()));
    }
}
