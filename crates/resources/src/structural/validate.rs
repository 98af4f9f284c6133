//! Validation of custom resources, with the texts and the order of upstream's OpenAPI validator.

use super::correlate::Correlated;
use super::{Kind, Node, Schema, formats, numbers};
use api::{Cause, CauseType};
use serde_json::Value;
use std::collections::HashSet;

impl Schema {
    /// The errors of an object's values; those of a changed object's that did change.
    pub fn values(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut out = Vec::new();
        self.check_part(0, new, "", old.map(|old| Correlated::of(self, new, old)), &mut out);
        once(&mut out);
        out
    }

    /// The errors of the values of a changed status.
    pub fn status_values(&self, new: &Value, old: &Value) -> Vec<Cause> {
        let mut out = Vec::new();
        if let (Some(status), Some(node)) = (new.get("status"), self.root().properties.get("status")) {
            self.check_part(*node, status, "", Correlated::of(self, new, old).key("status"), &mut out);
            once(&mut out);
        }
        for cause in &mut out {
            cause.field = match cause.field.as_str() {
                "" | "<nil>" => "status".into(),
                below => format!("status.{below}"),
            };
        }
        out
    }

    /// The errors of the whole objects inside of an object, and of lists that are to be sets or maps.
    pub fn invariants(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut out = Vec::new();
        self.embedded_errors(new, &mut out);
        out.extend(self.lists(new, old));
        out
    }

    /// The errors of lists that are to be sets or maps; those of a changed object that were none before need not
    /// become such.
    pub fn lists(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let errors = |object: &Value| {
            let mut found = Vec::new();
            self.list_types(0, object, "", &mut found);
            found
        };
        let found = errors(new);
        match old {
            Some(old) if !found.is_empty() && !errors(old).is_empty() => Vec::new(),
            _ => found,
        }
    }

    pub(super) fn check(&self, at: usize, value: &Value, path: &str, out: &mut Vec<Cause>) {
        self.check_part(at, value, path, None, out);
    }

    /// Checks a part that may have an old value; the errors of one that did not change are dropped.
    fn check_part(&self, at: usize, value: &Value, path: &str, old: Option<Correlated<'_>>, out: &mut Vec<Cause>) {
        let before = out.len();
        self.check_value(at, value, path, old, out);
        if out.len() > before && old.is_some_and(|old| old.is_unchanged()) {
            out.truncate(before);
        }
    }

    fn check_value(&self, at: usize, value: &Value, path: &str, old: Option<Correlated<'_>>, out: &mut Vec<Cause>) {
        let node = self.node(at);
        check_type(node, value, path, out);
        if !value.is_null() {
            self.combinations(node, value, path, old, out);
            match value {
                Value::String(text) => check_string(node, text, path, out),
                Value::Number(_) => {
                    check_number_type(node, value, path, out);
                    numbers::validate(&node.bounds, value, path, out);
                }
                Value::Array(list) => self.check_list(node, list, path, old, out),
                _ => {}
            }
        }
        check_values(node, value, path, out);
        if let Value::Object(map) = value {
            self.check_object(node, map, path, old, out);
        }
    }

    fn combinations(&self, node: &Node, value: &Value, path: &str, old: Option<Correlated<'_>>, out: &mut Vec<Cause>) {
        let errors = |at: &usize| {
            let mut found = Vec::new();
            self.check_value(*at, value, path, old, &mut found);
            found
        };
        if !node.any_of.is_empty() {
            let mut results = node.any_of.iter().map(errors);
            let first = results.next().unwrap_or_default();
            if !first.is_empty() && results.all(|r| !r.is_empty()) {
                out.push(whole(format!("{path:?} must validate at least one schema (anyOf)")));
                out.extend(first);
            }
        }
        if !node.one_of.is_empty() {
            let results: Vec<_> = node.one_of.iter().map(errors).collect();
            match results.iter().filter(|r| r.is_empty()).count() {
                0 => {
                    out.push(whole(format!(
                        "{path:?} must validate one and only one schema (oneOf). Found none valid"
                    )));
                    out.extend(results.into_iter().next().unwrap_or_default());
                }
                1 => {}
                n => out.push(whole(format!(
                    "{path:?} must validate one and only one schema (oneOf). Found {n} valid alternatives"
                ))),
            }
        }
        let all: Vec<_> = node.all_of.iter().map(errors).collect();
        let valid = all.iter().filter(|r| r.is_empty()).count();
        if valid < all.len() {
            out.extend(all.into_iter().flatten());
            let none = if valid == 0 { ". None validated" } else { "" };
            out.push(whole(format!("{path:?} must validate all the schemas (allOf){none}")));
        }
        if node.not.as_ref().is_some_and(|not| errors(not).is_empty()) {
            out.push(whole(format!("{path:?} must not validate the schema (not)")));
        }
    }

    fn check_list(&self, node: &Node, list: &[Value], path: &str, old: Option<Correlated<'_>>, out: &mut Vec<Cause>) {
        if let Some(items) = node.items {
            for (i, item) in list.iter().enumerate() {
                self.check_part(items, item, &format!("{path}[{i}]"), old.and_then(|old| old.index(i)), out);
            }
        }
        if let Some(min) = node.bounds.min_items.filter(|min| list.len() < *min) {
            let text = format!("{path} in body should have at least {min} items");
            out.push(Cause::invalid(path, &list.len().into(), &text));
        }
        if let Some(max) = node.bounds.max_items.filter(|max| list.len() > *max) {
            out.push(Cause::too_many(path, list.len(), max));
        }
    }

    fn check_object(
        &self,
        node: &Node,
        map: &serde_json::Map<String, Value>,
        path: &str,
        old: Option<Correlated<'_>>,
        out: &mut Vec<Cause>,
    ) {
        let place = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        if let Some(min) = node.bounds.min_properties.filter(|min| map.len() < *min) {
            let text = format!("{path} in body should have at least {min} properties");
            out.push(Cause::invalid(path, &map.len().into(), &text));
        }
        if let Some(max) = node.bounds.max_properties.filter(|max| map.len() > *max) {
            out.push(Cause::too_many(path, map.len(), max));
        }
        for (key, value) in map {
            if let Some(below) = node.properties.get(key).copied().or(node.additional) {
                // Old and new are of one type: a change of it would not be seen.
                let old = old.filter(|_| !path.is_empty() || !matches!(key.as_str(), "apiVersion" | "kind"));
                self.check_part(below, value, &place(key), old.and_then(|old| old.key(key)), out);
            }
        }
        for key in node.bounds.required.iter().filter(|key| !map.contains_key(*key)) {
            out.push(Cause::required(place(key), ""));
        }
    }
}

/// Errors that are told twice, by a schema and by one that is put together with it, are told once.
fn once(errors: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    errors.retain(|cause| seen.insert((cause.field.clone(), cause.message.clone())));
}

/// An error that upstream gives no field.
fn whole(text: String) -> Cause {
    Cause { kind: CauseType::FieldValueInvalid, field: "<nil>".into(), message: format!("Invalid value: \"\": {text}") }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if numbers::is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_type(node: &Node, value: &Value, path: &str, out: &mut Vec<Cause>) {
    let found = type_name(value);
    let wanted = match node.kind {
        _ if node.int_or_string => "integer,string",
        Kind::Any => return,
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
    };
    let format = node.bounds.format.as_str();
    if value.is_null() {
        return if node.nullable { () } else { out.push(of_type(path, found, wanted)) };
    }
    let numeric = matches!(wanted, "number" | "integer" | "integer,string");
    let fits = wanted.split(',').any(|w| w == found) || (wanted == "number" && found == "integer");
    let (text, of_go) = (value.is_string() || value.is_array(), go_format(value));
    if !text && !format.is_empty() && !fits && of_go != format {
        // Told by formats, of which only numbers have one.
        out.push(of_type(path, of_go, format));
    } else if !(fits || (text && !numeric && !format.is_empty())) {
        out.push(of_type(path, found, wanted));
    }
}

/// The format of a value as Go holds it.
fn go_format(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        _ => "",
    }
}

fn of_type(path: &str, found: &str, wanted: &str) -> Cause {
    let message = format!("Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}");
    Cause { kind: CauseType::FieldValueTypeInvalid, field: path.to_owned(), message }
}

fn check_string(node: &Node, text: &str, path: &str, out: &mut Vec<Cause>) {
    let bounds = &node.bounds;
    let chars = text.chars().count();
    let invalid = |what: String| Cause::invalid(path, &text.into(), &format!("{path} in body should {what}"));
    if let Some(max) = bounds.max_length.filter(|max| chars > *max) {
        out.push(Cause::too_long(path, max));
    } else if let Some(min) = bounds.min_length.filter(|min| chars < *min) {
        out.push(invalid(format!("be at least {min} chars long")));
    } else if let Some(pattern) = bounds.pattern.as_ref().filter(|p| !p.is_match(text)) {
        out.push(invalid(format!("match '{pattern}'")));
    }
    if !formats::fits(&bounds.format, text) {
        out.push(of_type(path, text, &bounds.format));
    }
}

fn check_number_type(node: &Node, value: &Value, path: &str, out: &mut Vec<Cause>) {
    if node.kind != Kind::Integer {
        return;
    }
    let format = node.bounds.format.as_str();
    let wide = || value.as_f64().is_some_and(|n| n < f64::from(i32::MIN) || n > f64::from(i32::MAX));
    if !numbers::is_integer(value) || (format == "int32" && wide()) {
        let with = if format.is_empty() { "(default format)".to_owned() } else { format!("with format {format}") };
        out.push(whole(format!("Checked value must be of type integer {with} in {path}")));
    }
}

fn check_values(node: &Node, value: &Value, path: &str, out: &mut Vec<Cause>) {
    let values = &node.bounds.values;
    // Upstream makes a number what the allowed one is: a fraction is lost where that is whole.
    let number = |v: &Value| if v.is_f64() { value.as_f64() } else { value.as_f64().map(f64::trunc) };
    let same = |v: &Value| v == value || (v.is_number() && value.is_number() && v.as_f64() == number(v));
    if values.is_empty() || values.iter().any(same) || (value.is_null() && node.nullable) {
        return;
    }
    let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let texts: Vec<String> = values.iter().map(shown).collect();
    let mut cause = Cause::not_supported(path, value, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    if let Some(number) = value.as_f64().filter(|_| value.is_f64()) {
        cause.message = cause.message.replacen(&value.to_string(), &numbers::go_float(number), 1);
    }
    out.push(cause);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_have_upstreams_texts() {
        let check = |schema: Value, value: Value, want: &[&str]| {
            let schema = Schema::new(&json!({"type": "object", "properties": {"x": schema}}));
            let object = json!({"x": value});
            let mut found = schema.values(&object, None);
            found.extend(schema.invariants(&object, None));
            let got: Vec<_> = found.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, want);
        };
        check(json!({"type": "integer"}), json!(1), &[]);
        check(
            json!({"type": "integer"}),
            json!("s"),
            &["x: Invalid value: \"string\": x in body must be of type integer: \"string\""],
        );
        check(
            json!({"type": "integer", "maximum": 3}),
            json!(4),
            &["x: Invalid value: 4: x in body should be less than or equal to 3"],
        );
        check(
            json!({"type": "string", "minLength": 2, "pattern": "^a"}),
            json!("b"),
            &["x: Invalid value: \"b\": x in body should be at least 2 chars long"],
        );
        check(
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            &["x: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        );
        check(
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "a"]),
            &["x[1]: Duplicate value: \"a\""],
        );
        check(json!({"type": "object", "required": ["y"]}), json!({}), &["x.y: Required value"]);
        check(
            json!({"type": "string", "not": {"enum": ["bad"]}}),
            json!("bad"),
            &["<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)"],
        );
        check(
            json!({"type": "integer", "maximum": 2.5, "multipleOf": 2}),
            json!(5),
            &[
                "x: Invalid value: 5: x in body should be a multiple of 2",
                "x: Invalid value: 5: x in body should be less than or equal to 2",
            ],
        );
        check(
            json!({"type": "number", "multipleOf": 3}),
            json!(1.0),
            &["x: Invalid value: 1: x in body should be a multiple of 3"],
        );
        check(
            json!({"type": "string", "format": "hexcolor"}),
            json!(true),
            &["x: Invalid value: \"\": x in body must be of type hexcolor: \"\""],
        );
        check(json!({"type": "integer", "enum": [1, 2]}), json!(1.0), &[]);
        check(
            json!({"type": "object", "required": ["b"], "allOf": [{"required": ["b"]}]}),
            json!({}),
            &[
                "x.b: Required value",
                "<nil>: Invalid value: \"\": \"x\" must validate all the schemas (allOf). None validated",
            ],
        );
        check(json!({"x-kubernetes-int-or-string": true}), json!("5"), &[]);
        check(json!({"type": "string", "nullable": true}), json!(null), &[]);
    }

    #[test]
    fn what_did_not_change_may_stay() {
        let schema = Schema::new(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer", "maximum": 3}, "b": {"type": "string"}}}}}));
        let check = |new: Value, old: Value, want: usize| {
            assert_eq!(schema.values(&json!({"spec": new}), Some(&json!({"spec": old}))).len(), want);
        };
        check(json!({"a": 5, "b": "x"}), json!({"a": 5, "b": "y"}), 0);
        check(json!({"a": 6, "b": "x"}), json!({"a": 5, "b": "x"}), 1);
        check(json!({"a": 5}), json!({}), 1);
    }
}
