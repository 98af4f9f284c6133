//! Converting an object without types into a typed one (Go's `FromUnstructured`): what server-side apply and strategic
//! merge patches end with.
//!
//! Unlike decoding it stops at the first error, visits the fields of a struct in Go's order, cuts integers that are too
//! large and takes floats without a fraction for integers. It has words of its own.

use super::{Canonical, MAX_STRICT, Seed, Slot, State, find, shape, zero};
use crate::types::{Kind, Schema, Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

/// Converts a value in place and returns the unknown fields, `unknown field "spec.x"`, sorted. On an error the value is
/// left empty.
pub fn convert(schema: &str, obj: &mut Value, quantity: Canonical) -> Result<Vec<String>, String> {
    let schema = find(schema)?;
    let mut walk = Walk { quantity, path: String::new(), unknown: Vec::new() };
    *obj = walk.structure(schema, obj.take())?;
    walk.unknown.sort();
    Ok(walk.unknown)
}

struct Walk {
    quantity: Canonical,
    /// Where strict errors are; keys of maps are not in it.
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn structure(&mut self, schema: Schema, value: Value) -> Result<Value, String> {
        let Value::Object(mut map) = value else { return Err(format!("cannot restore struct from: {}", kind(&value))) };
        let (mut out, len) = (Map::new(), self.path.len());
        for field in schema.flat_fields() {
            let Some(value) = map.remove(field.name()) else { continue };
            self.push(field.name());
            let value = self.place(field.ty(), value)?;
            self.path.truncate(len);
            let told = shape::asks_for_reset(&self.path, field);
            if let Some(value) = value.filter(|value| told || !shape::is_left_out(field, value)) {
                out.insert(field.name().to_owned(), value);
            }
        }
        for key in map.keys().take(MAX_STRICT.saturating_sub(self.unknown.len())) {
            self.push(key);
            self.unknown.push(format!("unknown field \"{}\"", self.path));
            self.path.truncate(len);
        }
        Ok(Value::Object(out))
    }

    /// `None` is Go's zero value.
    fn place(&mut self, ty: Type, value: Value) -> Result<Option<Value>, String> {
        let found = kind(&value);
        Ok(Some(match (ty.kind(), value) {
            (_, Value::Null) => return Ok(None),
            (Kind::String, Value::String(text)) => text.into(),
            (Kind::String, Value::Number(_)) if found == "int64" => {
                return Err(format!("cannot convert int64 to {}", ty.go()));
            }
            (Kind::String, _) => return Err("unrecognized type: string".into()),
            (Kind::Bool, Value::Bool(value)) => value.into(),
            (Kind::Bool, _) => return Err("unrecognized type: bool".into()),
            (Kind::Float64, Value::Number(value)) => value.into(),
            (Kind::Float64, _) => return Err("unrecognized type: float64".into()),
            (Kind::Int32 | Kind::Int64, Value::Number(number)) => match integer(&number) {
                Some(value) if ty.kind() == Kind::Int32 => (value as i32).into(),
                Some(value) => value.into(),
                None => return Err(format!("cannot convert float64 to {}", ty.go())),
            },
            (Kind::Int32, _) => return Err("unrecognized type: int32".into()),
            (Kind::Int64, _) => return Err("unrecognized type: int64".into()),
            (Kind::Bytes, Value::String(text)) => {
                let bytes = super::scalar::read_base64(text.as_bytes());
                let bytes =
                    bytes.map_err(|at| format!("error decoding from json: illegal base64 data at input byte {at}"));
                STANDARD.encode(bytes?).into()
            }
            (Kind::List, Value::Array(items)) => self.list(ty, items)?,
            (Kind::Bytes | Kind::List, _) => return Err(format!("cannot restore slice from {found}")),
            (Kind::Map, Value::Object(map)) => self.map(ty, map)?,
            (Kind::Map, _) => return Err(format!("cannot restore map from {found}")),
            (Kind::Struct, value) => match ty.schema() {
                Some(schema) => self.structure(schema, value)?,
                None => value,
            },
            (_, value) => return self.decoded(ty, value),
        }))
    }

    fn list(&mut self, ty: Type, items: Vec<Value>) -> Result<Value, String> {
        let Some(element) = ty.element() else { return Ok(items.into()) };
        let len = self.path.len();
        let mut out = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            self.path.push_str(&format!("[{at}]"));
            out.push(self.place(element, item)?.unwrap_or_else(|| zero(element)));
            self.path.truncate(len);
        }
        Ok(out.into())
    }

    fn map(&mut self, ty: Type, map: Map<String, Value>) -> Result<Value, String> {
        let Some(element) = ty.element() else { return Ok(map.into()) };
        let mut out = Map::new();
        for (key, value) in map {
            out.insert(key, self.place(element, value)?.unwrap_or_else(|| zero(element)));
        }
        Ok(out.into())
    }

    /// What decodes itself does so here too, and does not know where it is.
    fn decoded(&mut self, ty: Type, value: Value) -> Result<Option<Value>, String> {
        let mut state = State::new(self.quantity);
        state.lenient = true;
        let decoded = Seed { ty: Slot::Type(ty), state: &mut state }.deserialize(value).map_err(|e| e.to_string())?;
        state.error.map_or(Ok(decoded), Err)
    }

    fn push(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }
}

/// An integer as Go converts it; `None` for one with a fraction. What a float holds beyond 64 bits is the least integer.
fn integer(number: &serde_json::Number) -> Option<i64> {
    if let Some(value) = number.as_i64() {
        return Some(value);
    }
    let float = number.as_f64()?;
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
    (float.trunc() == float).then_some(if fits { float as i64 } else { i64::MIN })
}

/// Go's kind of a value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_converted() {
        let quantity: Canonical = |text| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.to_owned());
        let check = |pod: Value, want: Result<Value, &str>| {
            let mut got = pod.clone();
            let outcome = convert("io.k8s.api.core.v1.Pod", &mut got, quantity);
            assert_eq!(outcome.map(|_| got), want.map_err(str::to_owned), "{pod}");
        };
        check(json!({"spec": {"priority": 2_147_483_648_i64}}), Ok(json!({"spec": {"priority": i32::MIN}})));
        check(json!({"spec": {"priority": 1e30}}), Ok(json!({"spec": {"priority": 0}})));
        check(json!({"spec": {"priority": 7.0}}), Ok(json!({"spec": {"priority": 7}})));
        check(json!({"spec": {"priority": 1.5}}), Err("cannot convert float64 to int32"));
        check(json!({"spec": {"priority": "1"}}), Err("unrecognized type: int32"));
        check(json!({"spec": {"nodeName": 1}}), Err("cannot convert int64 to string"));
        check(json!({"spec": {"nodeName": true}}), Err("unrecognized type: string"));
        check(json!({"spec": []}), Err("cannot restore struct from: slice"));
        check(json!({"spec": {"containers": "x"}}), Err("cannot restore slice from string"));
        check(json!({"metadata": {"labels": []}}), Err("cannot restore map from slice"));
        check(
            json!({"metadata": {"creationTimestamp": 1}}),
            Err("json: cannot unmarshal number into Go value of type string"),
        );
        // volumes come before containers in Go's struct
        let both = json!({"spec": {"containers": "x", "volumes": 1.5}});
        check(both, Err("cannot restore slice from float64"));
    }

    #[test]
    fn unknown_fields_are_sorted() {
        let mut pod = json!({"spec": {"z": 1, "containers": [{"name": "c", "q": 1}]}, "a": 1});
        let got = convert("io.k8s.api.core.v1.Pod", &mut pod, |_| None);
        let want = ["unknown field \"a\"", "unknown field \"spec.containers[0].q\"", "unknown field \"spec.z\""];
        assert_eq!(got, Ok(want.map(str::to_owned).to_vec()));
        assert_eq!(pod, json!({"spec": {"containers": [{"name": "c"}]}}));
        let many = (0..=MAX_STRICT).map(|i| (format!("f{i}"), json!(1))).collect::<Map<_, _>>();
        let mut pod = json!({"spec": many, "a": 1});
        assert_eq!(convert("io.k8s.api.core.v1.Pod", &mut pod, |_| None).map(|u| u.len()), Ok(MAX_STRICT));
    }
}
