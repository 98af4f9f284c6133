//! The behaviour of a custom resource.

use super::definition::{Definition, field_values};
use api::{Cause, CauseType, Object};
use resources::field::Fields;
use resources::{Ctx, Scale, Strategy};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The strategy of a version.
pub struct Custom(pub Arc<Definition>);

impl Strategy for Custom {
    fn default(&self, obj: &mut Object) {
        self.0.schema.default_object(obj);
    }

    fn generation_changes(&self, new: &Object, old: &Object) -> bool {
        let counted = |key: &String| key != "metadata" && !(self.0.status && key == "status");
        let parts = |object: &Object| -> Map<String, Value> {
            let fields = object.as_object().into_iter().flatten();
            // Another version of the same object is no change.
            let fields = fields.filter(|(k, _)| counted(k) && *k != "apiVersion");
            fields.map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        parts(new) != parts(old)
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        self.errors(obj, None)
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        self.errors(new, Some(old))
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_some() {
            self.0.schema.check_rules(obj, old, &mut Vec::new(), &mut out);
        }
        let known = old.map(api::meta::finalizers).unwrap_or_default();
        let mut new: Vec<_> = api::meta::finalizers(obj).into_iter().filter(|f| !known.contains(f)).collect();
        new.sort_unstable();
        new.dedup();
        out.extend(new.into_iter().flat_map(finalizer_warnings));
        out
    }

    fn has_status(&self) -> bool {
        self.0.status
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut out = self.type_errors(new);
        if out.is_empty() {
            out.extend(self.0.schema.status_values(new, old));
            self.scale_status_errors(new, &mut out);
            out.extend(self.0.schema.lists(new, Some(old)));
            self.rule_errors(new, Some(old), &mut out);
        }
        out
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn is_built_in(&self) -> bool {
        false
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        field_values(&self.0.selectable, obj)
    }

    fn scale(&self, obj: &Object) -> Option<Scale> {
        let paths = self.0.scale.as_ref()?;
        let number = |path: &[String]| at(obj, path).as_i64().unwrap_or(0);
        Some(Scale {
            spec_replicas: number(&paths.spec),
            status_replicas: number(&paths.status),
            selector: at(obj, &paths.selector).as_str().unwrap_or("").to_owned(),
        })
    }

    fn set_scale(&self, obj: &mut Object, replicas: i64) {
        let Some(paths) = &self.0.scale else { return };
        let mut place = obj;
        for name in &paths.spec {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[name.as_str()];
        }
        *place = replicas.into();
    }
}

impl Custom {
    /// The errors of a new or changed object.
    fn errors(&self, new: &Object, old: Option<&Object>) -> Vec<Cause> {
        let mut out = self.type_errors(new);
        if out.is_empty() {
            out.extend(self.0.schema.values(new, old));
            self.scale_spec_errors(new, &mut out);
            self.scale_status_errors(new, &mut out);
            out.extend(self.0.schema.invariants(new, old));
            self.rule_errors(new, old, &mut out);
        }
        out
    }

    fn type_errors(&self, obj: &Object) -> Vec<Cause> {
        let mut out = Vec::new();
        for (field, want) in [("kind", &self.0.kind), ("apiVersion", &self.0.api_version)] {
            let found = obj.text(field);
            if found != want {
                out.push(Cause::invalid(field, &found.into(), &format!("must be {want}")));
            }
        }
        out
    }

    /// Rules see only objects whose values are such as the schema says.
    fn rule_errors(&self, new: &Object, old: Option<&Object>, out: &mut Vec<Cause>) {
        use CauseType::*;
        let blocks = |kind| {
            matches!(
                kind,
                FieldValueNotSupported
                    | FieldValueRequired
                    | FieldValueTooLong
                    | FieldValueTooMany
                    | FieldValueTypeInvalid
            )
        };
        if !self.0.schema.has_rules() {
            return;
        }
        if out.iter().any(|cause| blocks(cause.kind)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            out.push(Cause::invalid("<nil>", &Value::Null, why));
            return;
        }
        self.0.schema.check_rules(new, old, out, &mut Vec::new());
    }

    fn scale_spec_errors(&self, obj: &Object, out: &mut Vec<Cause>) {
        if let Some(paths) = &self.0.scale {
            replicas_errors(obj, &paths.spec, out);
        }
    }

    fn scale_status_errors(&self, obj: &Object, out: &mut Vec<Cause>) {
        let Some(paths) = &self.0.scale else { return };
        replicas_errors(obj, &paths.status, out);
        if paths.selector.is_empty() {
            return;
        }
        let field = format!(".{}", paths.selector.join("."));
        if let Err(why) = find(obj, &paths.selector).and_then(|found| match found {
            None | Some(Value::String(_)) => Ok(()),
            Some(other) => Err(wrong(other, "string")),
        }) {
            out.push(Cause::invalid(&field, &"".into(), &format!("{field} accessor error: {why}")));
        }
    }
}

fn replicas_errors(obj: &Object, path: &[String], out: &mut Vec<Cause>) {
    let field = format!(".{}", path.join("."));
    match number(obj, path) {
        Err(why) => out.push(Cause::invalid(&field, &json!(0), &format!("{field} accessor error: {why}"))),
        Ok(n) if n < 0 => out.push(Cause::invalid(&field, &json!(n), "should be a non-negative integer")),
        Ok(n) if n > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            out.push(Cause::invalid(&field, &json!(n), &why));
        }
        Ok(_) => {}
    }
}

/// What is odd about a finalizer.
fn finalizer_warnings(name: &str) -> Vec<String> {
    let standard = ["orphan", "foregroundDeletion", "kubernetes"];
    let mut out: Vec<_> = resources::names::qualified_name(name)
        .into_iter()
        .map(|why| format!("metadata.finalizers: {name:?}: {why}"))
        .collect();
    if !name.contains('/') && !standard.contains(&name) {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        out.push(format!(
            "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    out
}

fn at<'a>(object: &'a Object, path: &[String]) -> &'a Value {
    if path.is_empty() {
        return &Value::Null;
    }
    path.iter().fold(object, |place, name| place.at(name))
}

/// An integer below maps; absent counts as 0.
fn number(object: &Object, path: &[String]) -> Result<i64, String> {
    let Some(found) = find(object, path)? else { return Ok(0) };
    found.as_i64().ok_or_else(|| wrong(found, "int64"))
}

/// A value below maps.
fn find<'a>(object: &'a Object, path: &[String]) -> Result<Option<&'a Value>, String> {
    let mut place = object;
    for name in path {
        match place {
            Value::Object(map) => match map.get(name) {
                Some(below) => place = below,
                None => return Ok(None),
            },
            other => return Err(wrong(other, "map[string]interface{}")),
        }
    }
    Ok(Some(place))
}

fn wrong(value: &Value, wanted: &str) -> String {
    let (text, kind) = match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(b) => (b.to_string(), "bool"),
        Value::Number(n) if n.is_i64() => (n.to_string(), "int64"),
        Value::Number(n) => (go_float(n), "float64"),
        Value::String(s) => (s.clone(), "string"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
    };
    format!("{text} is of the type {kind}, expected {wanted}")
}

/// A float as Go prints it: without a fraction of zero, with an exponent from 1e+21 on.
fn go_float(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if float.abs() >= 1e21 || (float != 0.0 && float.abs() < 1e-4) => {
            let text = format!("{float:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |below| ('-', below));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        Some(float) => float.to_string(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read() {
        let path: Vec<String> = ["spec", "replicas"].map(str::to_owned).into();
        for (object, want) in [
            (json!({}), Ok(0)),
            (json!({"spec": {}}), Ok(0)),
            (json!({"spec": {"replicas": 3}}), Ok(3)),
            (json!({"spec": "x"}), Err("x is of the type string, expected map[string]interface{}".to_owned())),
            (json!({"spec": {"replicas": true}}), Err("true is of the type bool, expected int64".to_owned())),
        ] {
            assert_eq!(number(&object, &path), want);
        }
    }
}
