//! JSON patch (RFC 6902) and merge patch (RFC 7386).

use crate::Error;
use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

/// More operations are refused with 413.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes that `copy` operations may add in all.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies a JSON patch; nothing changes when one operation fails.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, Error> {
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
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|_| Error::Invalid(REJECTED.into()))?;
    let mut patched = original.clone();
    let mut copied = 0;
    for operation in operations.0 {
        if let PatchOperation::Copy(copy) = &operation {
            copied += patched.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            check_copied(copied)?;
        }
        let operation = match operation {
            // Upstream's library lets a member be replaced that is not there.
            PatchOperation::Replace(r) if is_missing_member(&patched, r.path.as_str()) => {
                PatchOperation::Add(AddOperation { path: r.path, value: r.value })
            }
            other => other,
        };
        json_patch::patch_unsafe(&mut patched, &[operation]).map_err(|_| Error::Invalid(REJECTED.into()))?;
    }
    Ok(patched)
}

/// A few copies of copies would fill the memory.
fn check_copied(bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_COPIED {
        return Ok(());
    }
    Err(Error::TooLarge(format!(
        "Request entity too large: Unable to complete the copy, the accumulated size increase of copy is {bytes}, exceeding the limit {MAX_COPIED}"
    )))
}

fn is_missing_member(document: &Value, path: &str) -> bool {
    let parent = path.rsplit_once('/').and_then(|(parent, _)| document.pointer(parent));
    parent.is_some_and(Value::is_object) && document.pointer(path).is_none()
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
    fn applies_or_says_why_not() {
        let original = json!({"data": {"a": "1", "b": "2"}});
        let table = [
            (
                json!([{"op": "add", "path": "/data/c", "value": "3"}]),
                Ok(json!({"data": {"a": "1", "b": "2", "c": "3"}})),
            ),
            (
                json!([{"op": "remove", "path": "/data/b"}, {"op": "test", "path": "/data/a", "value": "1"}]),
                Ok(json!({"data": {"a": "1"}})),
            ),
            (
                json!([{"op": "replace", "path": "/data/z", "value": "x"}]),
                Ok(json!({"data": {"a": "1", "b": "2", "z": "x"}})),
            ),
            (json!([{"op": "remove", "path": "/data/z"}]), Err((422, REJECTED))),
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
            (0..64).map(|i| json!({"op": "copy", "from": "", "path": format!("/data/c{i}")})).collect();
        assert_eq!(json_patch(&original, &doubling.into()).map_err(|e| e.status()), Err(413));
    }

    #[test]
    fn merges() {
        let got = merge_patch(&json!({"a": {"b": 1, "c": 2}, "l": [1]}), &json!({"a": {"b": null, "d": 3}, "l": [2]}));
        assert_eq!(got, Ok(json!({"a": {"c": 2, "d": 3}, "l": [2]})));
        assert_eq!(merge_patch(&json!({}), &json!([])).map_err(|e| e.status()), Err(400));
    }
}
