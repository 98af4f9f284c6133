//! Whole expressions: what they give, and in which words they fail.

use crate::{Bindings, DeclType, Env, Value, compile, limits};
use serde_json::{Value as Json, json};

fn env() -> Env {
    Env::new().variable("object", DeclType::dynamic())
}

#[track_caller]
fn eval(text: &str, object: &Json) -> String {
    let program = match compile(text, &env()) {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let bindings = Bindings::new().set("object", Value::json(object));
    match program.eval(&bindings, limits::PER_CALL_LIMIT).value.and_then(|value| value.to_json()) {
        Ok(json) => json.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn language() {
    let object = json!({"a": {"b": 1}, "l": [1, 2, 3], "s": "text", "n": null});
    let check = |text: &str, expect: &str| assert_eq!(eval(text, &object), expect, "{text}");
    check("1 + 2 * 3 - 4 / 2", "5");
    check("object.a.b == 1 && object.l[2] == 3", "true");
    check("has(object.a.b) && !has(object.a.c)", "true");
    check("object.a.c == 1 || true", "true");
    check("object.a.c == 1 || false", "error: no such key: c");
    check("object.l.all(x, x > 0) && object.l.exists(x, x == 2) && object.l.exists_one(x, x == 3)", "true");
    check("object.l.map(x, x * 2)", "[2,4,6]");
    check("object.l.map(x, x > 1, x * 2)", "[4,6]");
    check("object.l.filter(x, x != 2)", "[1,3]");
    check("object.l.all(i, v, i + 1 == v)", "true");
    check("object.l.transformMap(i, v, v * v)", "{\"0\":1,\"1\":4,\"2\":9}");
    check("object.?a.?b.orValue(7) + object.?a.?z.orValue(7)", "8");
    check("object.?a.?b.optMap(x, x + 1).value()", "2");
    check("[1, 2] + [3] == object.l", "true");
    check("{'a': 1, 'b': 2}['b']", "2");
    check("object.l[5]", "error: index out of bounds: 5");
    check("1 / 0", "error: division by zero");
    check("9223372036854775807 + 1", "error: integer overflow");
    check("'a' + 'b' < 'b'", "true");
    check("dyn(1) == 1.0 && 2u > 1", "true");
}
