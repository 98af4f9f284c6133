//! The behaviour of a custom resource.

use super::definition::{Definition, field_values};
use api::{Cause, Object};
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
        let mut out = Vec::new();
        for (field, want) in [("apiVersion", &self.0.api_version), ("kind", &self.0.kind)] {
            let found = obj.text(field);
            if found != want {
                out.push(Cause::invalid(field, &found.into(), &format!("must be {want}")));
            }
        }
        out.extend(self.0.schema.validate(obj));
        self.validate_scale(obj, &mut out);
        out
    }

    fn warnings(&self, _obj: &Object, _old: Option<&Object>) -> Vec<String> {
        self.0.warning.iter().cloned().collect()
    }

    fn has_status(&self) -> bool {
        self.0.status
    }

    fn validate_status_update(&self, ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        self.validate(ctx, new)
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
    fn validate_scale(&self, obj: &Object, out: &mut Vec<Cause>) {
        let Some(paths) = &self.0.scale else { return };
        for path in [&paths.spec, &paths.status] {
            let field = format!(".{}", path.join("."));
            match number(obj, path) {
                Err(why) => out.push(Cause::invalid(&field, &json!(0), &format!("{field} accessor error: {why}"))),
                Ok(n) if n < 0 => {
                    out.push(Cause::invalid(&field, &json!(n), "should be a non-negative integer"));
                }
                Ok(n) if n > i64::from(i32::MAX) => {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    out.push(Cause::invalid(&field, &json!(n), &why));
                }
                Ok(_) => {}
            }
        }
    }
}

fn at<'a>(object: &'a Object, path: &[String]) -> &'a Value {
    if path.is_empty() {
        return &Value::Null;
    }
    path.iter().fold(object, |place, name| place.at(name))
}

/// An integer below maps; absent counts as 0.
fn number(object: &Object, path: &[String]) -> Result<i64, String> {
    let mut place = object;
    for name in path {
        match place {
            Value::Object(map) => match map.get(name) {
                Some(below) => place = below,
                None => return Ok(0),
            },
            other => return Err(wrong(other, "map[string]interface{}")),
        }
    }
    place.as_i64().ok_or_else(|| wrong(place, "int64"))
}

fn wrong(value: &Value, wanted: &str) -> String {
    let (text, kind) = match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(b) => (b.to_string(), "bool"),
        Value::Number(n) if n.is_i64() => (n.to_string(), "int64"),
        Value::Number(n) => (n.to_string(), "float64"),
        Value::String(s) => (s.clone(), "string"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
    };
    format!("{text} is of the type {kind}, expected {wanted}")
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
