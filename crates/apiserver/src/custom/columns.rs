//! Tables of custom resources.

use super::Definition;
use crate::registry::Resource;
use api::{Object, meta};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The columns of a custom resource, and the cells of each object.
pub fn table(resource: &Resource, custom: &Definition, objects: &[Object], now: Timestamp) -> (Vec<Value>, Vec<Value>) {
    let fixed = resource.strategy.columns();
    let mut columns: Vec<Value> = fixed.iter().take(1).map(|c| c.to_object()).collect();
    columns.extend(custom.columns.iter().map(|c| c.shown.clone()));
    if custom.columns.is_empty() {
        let description = fixed.last().map_or("", |c| c.description);
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": description, "priority": 0}));
    }
    (columns, objects.iter().map(|object| cells(custom, object, now)).collect())
}

fn cells(custom: &Definition, object: &Object, now: Timestamp) -> Value {
    let mut cells = vec![Value::from(meta::name(object))];
    for column in &custom.columns {
        let value = column.path.as_ref().and_then(|path| path.first(object));
        cells.push(value.map_or(Value::Null, |value| cell(&column.kind, value, now)));
    }
    if custom.columns.is_empty() {
        cells.push(age(meta::string(object, "creationTimestamp"), now));
    }
    cells.into()
}

fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(n)) => {
            n.as_i64().map_or_else(|| json!(n.as_f64().unwrap_or(0.0) as i64), Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("date", Value::String(text)) => age(text, now),
        _ => Value::Null,
    }
}

fn age(text: &str, now: Timestamp) -> Value {
    match text.parse::<Timestamp>() {
        Ok(time) => resources::age::human(now.as_second() - time.as_second()).into(),
        Err(_) if text.is_empty() => "<unknown>".into(),
        Err(_) => "<invalid>".into(),
    }
}
