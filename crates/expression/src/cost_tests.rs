//! What evaluations cost, and what is estimated: the numbers of a real API server.

use crate::{Bindings, DeclType, Env, Value, compile};
use serde_json::{Value as Json, json};

#[test]
fn estimates() {
    #[track_caller]
    fn check(schema: Json, rule: &str, expect: u64) {
        let decl = DeclType::from_schema(&schema, false).unwrap();
        let program = compile(rule, &Env::new().variable("self", decl)).unwrap();
        assert_eq!(program.estimate().max, expect, "{rule}");
    }
    let array = |items: &str, max: Option<i64>| match max {
        Some(max) => json!({"type": "array", "maxItems": max, "items": {"type": items}}),
        None => json!({"type": "array", "items": {"type": items}}),
    };
    let map = |value: &str| json!({"type": "object", "additionalProperties": {"type": value}});
    let text = json!({"type": "string"});
    check(array("number", None), "self.all(x, true)", 4_718_591);
    check(array("number", Some(10)), "self.all(x, true)", 32);
    check(array("string", None), "self.all(x, true)", 3_145_727);
    check(array("boolean", Some(5)), "self.all(x, true)", 17);
    check(array("number", Some(10)), "self.all(x, self.all(y, true))", 352);
    check(array("number", Some(10)), "self.all(x, self.all(y, self.all(z, true)))", 3552);
    check(array("number", None), "self[1] == 0.0", 2);
    check(array("string", None), "self[1] == self[1]", 314_577);
    check(array("number", None), "self.all(x, x == 0.0)", 6_291_454);
    check(map("number"), "self.all(x, true)", 1_348_169);
    check(map("string"), "self.all(x, true)", 1_179_647);
    check(map("boolean"), "self.all(x, true)", 943_718);
    check(map("number"), "self['x'] == 0.0", 2);
    check(text.clone(), "self.contains('test')", 314_574);
    check(text.clone(), "self.startsWith('test')", 2);
    check(text.clone(), "size(self + 'hello') > size('hello')", 314_578);
    check(text.clone(), "self.matches('x')", 314_574);
    check(text.clone(), "''.matches('(((((((((())))))))))[0-9]')", 7);
    check(text.clone(), "self == 'x'", 2);
    check(json!({"type": "string", "maxLength": 10}), "self.contains('test')", 5);
    check(json!({"type": "string", "maxLength": 50}), "self.matches('x')", 22);
    check(json!({"type": "string", "maxLength": 0}), "self == 'x'", 1);
    check(json!({"type": "array", "items": {"x-kubernetes-int-or-string": true}}), "self[0] == 5", 3);
    check(json!({"type": "array", "items": {"type": "string", "format": "duration"}}), "self.all(x, true)", 2_359_295);
    check(json!({"type": "array", "items": {"type": "string", "format": "date"}}), "self.all(x, true)", 725_936);
    check(json!({"type": "array", "items": map("number")}), "self[0].x > 2.0", 4);
}

#[test]
fn charges() {
    let schema = json!({"type": "object", "properties": {
        "i": {"type": "integer"},
        "j": {"type": "integer"},
        "s": {"type": "string"},
        "l": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "o": {"type": "object", "properties": {"a": {"type": "string"}, "z": {"type": "string"}}},
    }});
    let object = json!({
        "i": 5, "j": 5, "s": "Rook takes \u{1f451}", "l": [1, 2, 3], "set": ["a", "b", "c"],
        "m": {"k1": "a", "k2": "b"}, "o": {"a": "x"},
    });
    let decl = DeclType::from_schema(&schema, false).unwrap();
    let env = Env::new().variable("self", decl.clone());
    let check = |rule: &str, expect: u64| {
        let program = compile(rule, &env).unwrap();
        let evaluated = program.eval(&Bindings::new().set("self", Value::typed(&object, &decl)), 1_000_000);
        assert_eq!((evaluated.value.unwrap().as_bool(), evaluated.cost), (Some(true), expect), "{rule}");
    };
    check("self.i == self.j", 5);
    check("type(self.i) == int", 4);
    check("5 < int(10.0)", 1);
    check("self.s.startsWith('Rook')", 4);
    check("self.s.matches('^[^0-9]*$')", 8);
    check("size(self.s) == 12", 4);
    check("self.s.indexOf('o') == 1", 4);
    check("self.s.replace(' ', 'x') == 'Rookxtakesx\u{1f451}'", 7);
    check("self.s.substring(0, 4) == 'Rook'", 5);
    check("1 in self.l", 5);
    check("self.i in [5, 6]", 2);
    check("self.l + [4, 5] == [1, 2, 3, 4, 5]", 4);
    check("has(self.l) && has(self.m)", 2);
    check("self.set == ['c', 'b', 'a']", 3);
    check("self.set + ['c', 'd'] == ['a', 'b', 'c', 'd']", 4);
    check("sets.contains(self.set, ['a'])", 6);
    check("sets.equivalent(self.set, ['a', 'b', 'c'])", 21);
    check("'k1' in self.m", 3);
    check("self.m == {'k1': 'a', 'k2': 'b'}", 3);
    check("!has(self.o.z)", 3);
    check("self.o.?z == optional.none()", 4);
    check("self.l.all(x, x > 0)", 18);
    check("self.l.exists(x, x == 1)", 12);
}

/// The same budget that ends an evaluation lets one pass that just fits.
#[test]
fn budgets() {
    let program = compile("[1, 2, 3].all(x, x > 0)", &Env::new()).unwrap();
    let cost = program.eval(&Bindings::new(), u64::MAX).cost;
    assert!(program.eval(&Bindings::new(), cost).value.is_ok());
    let short = program.eval(&Bindings::new(), cost - 1);
    assert_eq!(short.value.unwrap_err().to_string(), "operation cancelled: actual cost limit exceeded");
}
