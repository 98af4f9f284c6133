//! JSON patch (RFC 6902) and merge patch (RFC 7386).

use crate::Error;
use serde_json::Value;

/// More operations are refused with 413.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes of text that `copy` operations may add in all.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Bytes of memory that they may add: a map takes [`MAP`] as soon as it has a member, and each value [`VALUE`].
const MAX_MEMORY: usize = 24 << 20;
const MAP: usize = 640;
const VALUE: usize = 48;

/// Values that `move` operations may look at in all.
const MAX_WALKED: usize = 1_000_000;

/// Values are not put deeper than this: what reads and writes objects calls itself for each level, and readers of the
/// store go no deeper than 128, of which managedFields take some.
const MAX_DEPTH: usize = 100;

/// Applies a JSON patch; nothing changes when one operation fails.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, Error> {
    // Go reads null as a list of nothing.
    if patch.is_null() {
        return Ok(original.clone());
    }
    let Value::Array(operations) = patch else {
        let found = go_kind(patch);
        return Err(bad(format!("json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp")));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooLarge(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    if let Some(odd) = operations.iter().find(|operation| !operation.is_object() && !operation.is_null()) {
        return Err(bad(format!("json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp", go_kind(odd))));
    }
    let (mut patched, mut spent) = (original.clone(), Spent::default());
    for operation in operations {
        perform(&mut patched, operation, &mut spent)?;
    }
    Ok(patched)
}

/// What the operations of one patch have taken beyond its own size.
#[derive(Default)]
struct Spent {
    copied: usize,
    memory: usize,
    walked: usize,
}

impl Spent {
    /// A few copies of copies would fill the memory.
    fn copy(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_null() {
            return Ok(());
        }
        self.copied += value.to_string().len();
        if self.copied > MAX_COPIED {
            return Err(Error::TooLarge(format!(
                "Request entity too large: Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPIED}",
                self.copied
            )));
        }
        self.memory += memory(value);
        match self.memory <= MAX_MEMORY {
            true => Ok(()),
            false => Err(Error::TooLarge("Request entity too large: the copies would take too much memory".into())),
        }
    }

    /// Moves up and down would look at the same values for ever.
    fn walk(&mut self, values: usize) -> Result<(), Error> {
        self.walked += values;
        match self.walked <= MAX_WALKED {
            true => Ok(()),
            false => Err(Error::TooLarge("Request entity too large: too much is moved".into())),
        }
    }
}

/// What a value takes.
fn memory(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| VALUE + key.len() + memory(value)).sum::<usize>();
            members + if map.is_empty() { 0 } else { MAP }
        }
        Value::Array(list) => list.iter().map(|value| VALUE + memory(value)).sum(),
        Value::String(text) => text.len(),
        _ => 0,
    }
}

/// Does one operation as upstream's library does: what is absent counts as null to `test` and `copy`, a member may be
/// replaced that is not there, and what stands before a path's first slash does not matter.
fn perform(document: &mut Value, operation: &Value, spent: &mut Spent) -> Result<(), Error> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).ok_or_else(rejected);
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match text("op")? {
        "add" => add(document, text("path")?, value()),
        "remove" => remove(document, text("path")?).map(drop),
        "replace" if text("path")?.is_empty() => match value() {
            whole @ (Value::Object(_) | Value::Array(_)) => {
                check_levels(extent(&whole).0)?;
                *document = whole;
                Ok(())
            }
            _ => Err(rejected()),
        },
        "replace" => replace(document, text("path")?, value()),
        "move" => {
            let (from, path) = (text("from")?, text("path")?);
            let moved = remove(document, from)?;
            // Nowhere higher up can it be too deep.
            if parts(path) > parts(from) {
                let (levels, values) = extent(&moved);
                spent.walk(values)?;
                check_levels(parts(path) + levels)?;
            }
            put(document, path, moved)
        }
        "copy" => {
            let found = get(document, text("from")?)?.cloned().unwrap_or(Value::Null);
            spent.copy(&found)?;
            add(document, text("path")?, found)
        }
        "test" if text("path")?.is_empty() => match operation.get("value") == Some(&*document) {
            true => Ok(()),
            false => Err(rejected()),
        },
        "test" => match get(document, text("path")?)?.unwrap_or(&Value::Null)
            == operation.get("value").unwrap_or(&Value::Null)
        {
            true => Ok(()),
            false => Err(rejected()),
        },
        _ => Err(rejected()),
    }
}

fn rejected() -> Error {
    Error::Invalid(REJECTED.into())
}

/// The container that a path leads to, and the last part of the path.
fn place<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Error> {
    let decode = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let mut parts: Vec<String> = path.split('/').skip(1).map(decode).collect();
    let last = parts.pop().ok_or_else(rejected)?;
    let mut container = document;
    for part in parts {
        container = match container {
            Value::Object(map) => map.get_mut(&part).ok_or_else(rejected)?,
            Value::Array(list) => {
                let at = index(&part, list.len()).ok_or_else(rejected)?;
                list.get_mut(at).ok_or_else(rejected)?
            }
            _ => return Err(rejected()),
        };
    }
    Ok((container, last))
}

/// An index of a list; negative ones count from its end.
fn index(text: &str, length: usize) -> Option<usize> {
    let at: isize = text.parse().ok()?;
    if at < 0 { length.checked_sub(at.unsigned_abs()) } else { usize::try_from(at).ok() }
}

fn get<'a>(document: &'a mut Value, path: &str) -> Result<Option<&'a Value>, Error> {
    match place(document, path)? {
        (Value::Object(map), key) => Ok(map.get(&key)),
        (Value::Array(list), key) => index(&key, list.len()).and_then(|at| list.get(at)).map(Some).ok_or_else(rejected),
        _ => Err(rejected()),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    check_levels(parts(path) + extent(&value).0)?;
    put(document, path, value)
}

fn put(document: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    match place(document, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let at = index(&key, list.len() + 1).filter(|at| *at <= list.len()).ok_or_else(rejected)?;
            list.insert(at, value);
        }
        _ => return Err(rejected()),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, Error> {
    match place(document, path)? {
        (Value::Object(map), key) => map.remove(&key).ok_or_else(rejected),
        (Value::Array(list), key) => {
            let at = index(&key, list.len()).filter(|at| *at < list.len()).ok_or_else(rejected)?;
            Ok(list.remove(at))
        }
        _ => Err(rejected()),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    check_levels(parts(path) + extent(&value).0)?;
    match place(document, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(list), key) => {
            let at = index(&key, list.len()).ok_or_else(rejected)?;
            *list.get_mut(at).ok_or_else(rejected)? = value;
        }
        _ => return Err(rejected()),
    }
    Ok(())
}

/// How many levels down a path leads.
fn parts(path: &str) -> usize {
    path.split('/').skip(1).count()
}

/// How many levels a value has, and how many values there are in it.
fn extent(value: &Value) -> (usize, usize) {
    let deepest = |(levels, values): (usize, usize), inner: &Value| {
        let (own, more) = extent(inner);
        (levels.max(own + 1), values + more)
    };
    match value {
        Value::Object(map) => map.values().fold((1, 1), deepest),
        Value::Array(list) => list.iter().fold((1, 1), deepest),
        _ => (0, 1),
    }
}

/// A few copies into copies would be deeper than any stack.
fn check_levels(levels: usize) -> Result<(), Error> {
    if levels <= MAX_DEPTH {
        return Ok(());
    }
    Err(Error::TooLarge(format!(
        "Request entity too large: the patched object would be nested deeper than {MAX_DEPTH} levels"
    )))
}

/// Applies a merge patch.
pub fn merge_patch(original: &Value, patch: &Value) -> Result<Value, Error> {
    if !patch.is_object() {
        let found = go_kind(patch);
        return Err(bad(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")));
    }
    let mut patched = original.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

/// What HTTP says where a patch cannot be applied (`NewGenericServerResponse` of a 422).
const REJECTED: &str = "the server rejected our request due to an error in our request";

fn bad(text: String) -> Error {
    Error::BadRequest(format!("error decoding patch: {text}"))
}

pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_into_copies_do_not_become_too_deep() {
        let patched = |doublings: u32| {
            let double = |n| json!({"op": "copy", "from": "/x", "path": format!("/x{}", "/b".repeat(1usize << n))});
            let first = json!({"op": "add", "path": "/x", "value": {"b": {}}});
            json_patch(&json!({}), &std::iter::once(first).chain((0..doublings).map(double)).collect())
        };
        assert!(patched(5).is_ok());
        assert!(matches!(patched(16), Err(Error::TooLarge(_))));
    }

    #[test]
    fn copies_are_weighed_and_moves_counted() {
        let patched = |value: Value, operations: Vec<Value>| {
            let first = json!({"op": "add", "path": "/x", "value": {"a": value, "b": {}}});
            json_patch(&json!({}), &std::iter::once(first).chain(operations).collect()).map(drop)
        };
        let copies = |count: usize| {
            (0..count).map(|i| json!({"op": "copy", "from": "/x/a", "path": format!("/c{i}")})).collect()
        };
        // 10,000 maps of one member are 80 kB as text and 7 MB in memory.
        assert_eq!(patched(vec![json!({"a": 1}); 10_000].into(), copies(3)), Ok(()));
        assert!(matches!(patched(vec![json!({"a": 1}); 10_000].into(), copies(4)), Err(Error::TooLarge(_))));
        let moved = |from: &str, path: &str| json!({"op": "move", "from": from, "path": path});
        let to_and_fro = |down: &str, count: usize| -> Vec<Value> {
            (0..count).flat_map(|_| [moved("/x/a", down), moved(down, "/x/a")]).collect()
        };
        let large = || Value::from(vec![1; 60_000]);
        assert_eq!(patched(large(), to_and_fro("/x/c", 1000)), Ok(()), "on one level it costs nothing");
        assert_eq!(patched(large(), to_and_fro("/x/b/c", 10)), Ok(()));
        assert!(matches!(patched(large(), to_and_fro("/x/b/c", 20)), Err(Error::TooLarge(_))));
        let deep = (0..MAX_DEPTH - 2).fold(json!(1), |inner, _| json!([inner]));
        assert!(matches!(patched(deep, to_and_fro("/x/b/c", 1)), Err(Error::TooLarge(_))));
    }

    #[test]
    fn applies_or_says_why_not() {
        let original = json!({"data": {"a": "1", "b": "2"}});
        let table = [
            (
                json!([{"op": "add", "path": "/data/c", "value": "3"}]),
                Ok(json!({"data": {"a": "1", "b": "2", "c": "3"}})),
            ),
            (Value::Null, Ok(json!({"data": {"a": "1", "b": "2"}}))),
            (
                json!([{"op": "test", "path": "", "value": {"data": {"a": "1", "b": "2"}}}, {"op": "replace", "path": "", "value": {"x": 1}}]),
                Ok(json!({"x": 1})),
            ),
            (
                json!([{"op": "remove", "path": "/data/b"}, {"op": "test", "path": "/data/a", "value": "1"}]),
                Ok(json!({"data": {"a": "1"}})),
            ),
            (
                json!([{"op": "replace", "path": "/data/z", "value": "x"}]),
                Ok(json!({"data": {"a": "1", "b": "2", "z": "x"}})),
            ),
            (json!([{"op": "test", "path": "/data/z", "value": null}]), Ok(original.clone())),
            (
                json!([{"op": "copy", "from": "/data/z", "path": "/data/y"}, {"op": "move", "from": "/data/a", "path": "x/b"}]),
                Ok(json!({"b": "1", "data": {"b": "2", "y": null}})),
            ),
            (
                json!([{"op": "add", "path": "/l", "value": [1]}, {"op": "add", "path": "/l/-", "value": 2},
                    {"op": "replace", "path": "/l/-1", "value": 3}, {"op": "add", "path": "/l/0", "value": 0}]),
                Ok(json!({"data": {"a": "1", "b": "2"}, "l": [0, 1, 3]})),
            ),
            (json!([{"op": "remove", "path": "/data/z"}]), Err((422, REJECTED))),
            (json!([{"op": "add", "path": "b", "value": 1}]), Err((422, REJECTED))),
            (json!([{"op": "add", "path": "", "value": {}}]), Err((422, REJECTED))),
            (
                json!([1]),
                Err((
                    400,
                    "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
                )),
            ),
            (json!([{"op": "add", "path": "/nope/deep", "value": "x"}]), Err((422, REJECTED))),
            (json!([{"op": "test", "path": "/data/b", "value": "3"}]), Err((422, REJECTED))),
            (
                json!({"op": "add"}),
                Err((
                    400,
                    "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
                )),
            ),
        ];
        for (patch, want) in table {
            let got = json_patch(&original, &patch).map_err(|e| (e.status(), e.to_string()));
            assert_eq!(got, want.map_err(|(s, t)| (s, t.to_owned())), "{patch}");
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": 1}); MAX_OPERATIONS + 1]);
        assert_eq!(json_patch(&original, &many).map_err(|e| e.status()), Err(413));
        let doubling: Vec<Value> =
            (0..64).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/c{i}")})).collect();
        assert_eq!(json_patch(&original, &doubling.into()).map_err(|e| e.status()), Err(413));
    }

    #[test]
    fn merges() {
        let got = merge_patch(&json!({"a": {"b": 1, "c": 2}, "l": [1]}), &json!({"a": {"b": null, "d": 3}, "l": [2]}));
        assert_eq!(got, Ok(json!({"a": {"c": 2, "d": 3}, "l": [2]})));
        assert_eq!(merge_patch(&json!({}), &json!([])).map_err(|e| e.status()), Err(400));
    }
}
