//! The v2 document as gnostic's protobuf (`openapiv2/OpenAPIv2.proto`), which kubectl asks for.

use crate::wire::Writer;
use serde_json::{Map, Value};

/// The whole document.
pub(super) fn document(
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (String, Value)>,
    security: &Value,
) -> Vec<u8> {
    let mut w = Writer::default();
    w.string(1, "2.0");
    w.message(2, |w| {
        w.string(1, "Kubernetes");
        w.string(2, "v1.36.0");
    });
    w.message(8, |w| {
        for (path, item) in paths {
            w.message(2, |w| {
                w.string(1, &path);
                w.message(2, |w| path_item(w, &item));
            });
        }
    });
    w.message(9, |w| {
        for (name, definition) in definitions {
            named_schema(w, &name, &definition);
        }
    });
    for name in security.as_object().into_iter().flatten().map(|(name, _)| name) {
        w.message(12, |w| {
            w.message(1, |w| {
                w.string(1, name);
                w.message(2, |_| {});
            });
        });
    }
    w.message(13, |w| {
        for (name, item) in security.as_object().into_iter().flatten() {
            w.message(1, |w| {
                w.string(1, name);
                w.message(2, |w| w.message(2, |w| api_key(w, item)));
            });
        }
    });
    w.finish()
}

fn api_key(w: &mut Writer, item: &Value) {
    for (number, key) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
        w.string(number, text(item, key));
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn texts<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// JSON is YAML, which is what an `Any` holds.
fn any(w: &mut Writer, field: u32, value: &Value) {
    w.message(field, |w| w.string(2, &format!("{value}\n")));
}

fn extensions(w: &mut Writer, field: u32, map: &Map<String, Value>) {
    for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
        w.message(field, |w| {
            w.string(1, name);
            any(w, 2, value);
        });
    }
}

fn named_schema(w: &mut Writer, name: &str, schema_value: &Value) {
    w.message(1, |w| {
        w.string(1, name);
        w.message(2, |w| schema(w, schema_value));
    });
}

fn schema(w: &mut Writer, value: &Value) {
    w.string(1, text(value, "$ref"));
    w.string(2, text(value, "format"));
    w.string(4, text(value, "description"));
    if let Some(default) = value.get("default") {
        any(w, 5, default);
    }
    texts(value, "required").for_each(|name| w.string(19, name));
    if let Some(element) = value.get("additionalProperties") {
        w.message(21, |w| w.message(1, |w| schema(w, element)));
    }
    if let Some(ty) = value.get("type").and_then(Value::as_str) {
        w.message(22, |w| w.string(1, ty));
    }
    if let Some(element) = value.get("items") {
        w.message(23, |w| w.message(1, |w| schema(w, element)));
    }
    if let Some(properties) = value.get("properties").and_then(Value::as_object) {
        w.message(25, |w| properties.iter().for_each(|(name, value)| named_schema(w, name, value)));
    }
    if let Some(map) = value.as_object() {
        extensions(w, 31, map);
    }
}

fn path_item(w: &mut Writer, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(op) = item.get(method) {
            w.message(number, |w| operation(w, op));
        }
    }
    parameters(w, 9, item);
}

fn operation(w: &mut Writer, op: &Value) {
    texts(op, "tags").for_each(|t| w.string(1, t));
    w.string(5, text(op, "operationId"));
    texts(op, "produces").for_each(|t| w.string(6, t));
    texts(op, "consumes").for_each(|t| w.string(7, t));
    parameters(w, 8, op);
    w.message(9, |w| {
        for (code, answer) in op.get("responses").and_then(Value::as_object).into_iter().flatten() {
            w.message(1, |w| {
                w.string(1, code);
                w.message(2, |w| w.message(1, |w| response(w, answer)));
            });
        }
    });
    texts(op, "schemes").for_each(|t| w.string(10, t));
    if let Some(map) = op.as_object() {
        extensions(w, 13, map);
    }
}

fn response(w: &mut Writer, answer: &Value) {
    w.string(1, text(answer, "description"));
    if let Some(value) = answer.get("schema") {
        w.message(2, |w| w.message(1, |w| schema(w, value)));
    }
}

fn parameters(w: &mut Writer, field: u32, owner: &Value) {
    for parameter in owner.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        w.message(field, |w| w.message(1, |w| one_parameter(w, parameter)));
    }
}

fn one_parameter(w: &mut Writer, parameter: &Value) {
    let required = u64::from(parameter.get("required") == Some(&Value::Bool(true)));
    match text(parameter, "in") {
        "body" => w.message(1, |w| {
            w.string(2, text(parameter, "name"));
            w.string(3, "body");
            if required == 1 {
                w.varint(4, 1);
            }
            w.message(5, |w| schema(w, parameter.get("schema").unwrap_or(&Value::Null)));
        }),
        place => {
            let (message, ty, unique) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
            w.message(2, |w| {
                w.message(message, |w| {
                    if required == 1 {
                        w.varint(1, 1);
                    }
                    w.string(2, place);
                    w.string(4, text(parameter, "name"));
                    w.string(ty, text(parameter, "type"));
                    w.varint(unique, 1);
                });
            });
        }
    }
}
