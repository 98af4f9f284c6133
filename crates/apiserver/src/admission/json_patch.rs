//! JSON patches of webhooks and policies, with the reason why one does not apply.

use api::Object;
use serde_json::Value;

/// Why a patch does not apply.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// A test failed.
    Test(String),
    /// Another operation did.
    Operation(String),
}

impl Failure {
    /// The text of upstream's library.
    pub fn text(&self) -> &str {
        match self {
            Self::Test(why) | Self::Operation(why) => why,
        }
    }
}

/// Applies a patch.
pub fn apply(object: &Object, patch: &Value) -> Result<Object, Failure> {
    merge::json_patch(object, patch).map_err(|error| why(object, patch, &error))
}

/// Finds the first operation that fails: the last of the shortest part of the patch that does not apply. The parts
/// are halved, as each costs a copy of the object. What is too large says so itself.
fn why(object: &Object, patch: &Value, error: &merge::Error) -> Failure {
    if let merge::Error::TooLarge(text) = error {
        return Failure::Operation(text.strip_prefix("Request entity too large: ").unwrap_or(text).to_owned());
    }
    let operations = patch.as_array().map_or(&[][..], Vec::as_slice);
    let applies = |count: usize| merge::json_patch(object, &Value::Array(operations[..count].to_vec())).is_ok();
    let (mut good, mut bad) = (0, operations.len());
    while bad > good + 1 {
        let middle = good + (bad - good) / 2;
        if applies(middle) { good = middle } else { bad = middle }
    }
    operations.get(bad.wrapping_sub(1)).map_or_else(|| Failure::Operation(error.to_string()), describe)
}

fn describe(operation: &Value) -> Failure {
    let text = |key: &str| operation[key].as_str().unwrap_or("");
    let (path, from) = (text("path"), text("from"));
    let key = path.rsplit('/').next().unwrap_or("");
    match text("op") {
        "test" => Failure::Test(format!("testing value {path} failed: test failed")),
        "remove" => Failure::Operation(format!(
            "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
        )),
        "add" => {
            Failure::Operation(format!("add operation does not apply: doc is missing path: {path:?}: missing value"))
        }
        "replace" => {
            Failure::Operation(format!("replace operation does not apply: doc is missing path: {path}: missing value"))
        }
        op @ ("move" | "copy") => Failure::Operation(format!(
            "{op} operation does not apply: doc is missing from path: {from}: missing value"
        )),
        odd => Failure::Operation(format!("Unexpected kind: {odd}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn failures_are_named() {
        let object = json!({"data": {"k": "v"}});
        let check = |patch: Value, want: Failure| assert_eq!(apply(&object, &patch), Err(want));
        let test = json!({"op": "test", "path": "/data/k", "value": "z"});
        check(json!([test]), Failure::Test("testing value /data/k failed: test failed".into()));
        let text = "add operation does not apply: doc is missing path: \"/a/b\": missing value";
        check(json!([{"op": "add", "path": "/a/b", "value": 1}, test]), Failure::Operation(text.into()));
        let fine = json!({"op": "add", "path": "/data/x", "value": "1"});
        for place in 0..5 {
            let mut patch = vec![fine.clone(); 5];
            patch[place] = test.clone();
            check(json!(patch), Failure::Test("testing value /data/k failed: test failed".into()));
        }
        assert!(apply(&object, &json!([{"op": "add", "path": "/data/x", "value": "1"}])).is_ok());
    }

    #[test]
    fn what_is_too_large_is_named() {
        let object = json!({"data": "x".repeat(1 << 20)});
        let copies: Vec<_> = (0..64).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/c{i}")})).collect();
        let failure = apply(&object, &json!(copies)).expect_err("too large");
        let text = "Unable to complete the copy, the accumulated size increase of copy is ";
        assert!(failure.text().starts_with(text), "{failure:?}");
    }
}
