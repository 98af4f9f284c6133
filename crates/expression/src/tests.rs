//! Whole expressions: what they give, and in which words they fail.

use crate::library::authorizer::{self, Attributes, Authorizer, Decision, User};
use crate::{Bindings, DeclType, Env, Program, Type, Value, compile, limits};
use serde_json::{Value as Json, json};
use std::sync::Arc;

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
    let object = json!({"a": {"b": 1}, "l": [1, 2, 3], "s": "text", "n": null, "d": 1.5});
    let check = |text: &str, expect: &str| assert_eq!(eval(text, &object), expect, "{text}");
    check("1 + 2 * 3 - 4 / 2", "5");
    check("-7 % 3 == -1 && -7 / 2 == -3", "true");
    check("object.a.b == 1 && object.l[2] == 3", "true");
    check("has(object.a.b) && !has(object.a.c)", "true");
    check("object.a.c == 1 || true", "true");
    check("object.a.c == 1 || false", "error: no such key: c");
    check("false && object.a.c == 1", "false");
    check("object.l.all(x, x > 0) && object.l.exists(x, x == 2) && object.l.exists_one(x, x == 3)", "true");
    check("object.l.exists(x, x.y == 1 || x == 2)", "true");
    check("object.l.map(x, x * 2)", "[2,4,6]");
    check("object.l.map(x, x > 1, x * 2)", "[4,6]");
    check("object.l.filter(x, x != 2)", "[1,3]");
    check("object.l.all(i, v, i + 1 == v)", "true");
    check("object.l.transformMap(i, v, v * v)", "{\"0\":1,\"1\":4,\"2\":9}");
    check("object.l.transformList(i, v, i > 0, v)", "[2,3]");
    check("object.a.map(k, k)", "[\"b\"]");
    check("object.?a.?b.orValue(7) + object.?a.?z.orValue(7)", "8");
    check("object.?a.?b.optMap(x, x + 1).value()", "2");
    check("[object.d, ?object.?z, object.n].size()", "2");
    check("{'a': object.d, ?'b': object.?z}.size()", "1");
    check("object[?'s'].hasValue() && object.l[?9] == optional.none()", "true");
    check("[1, 2] + [3] == object.l", "true");
    check("{'a': 1, 'b': 2}['b']", "2");
    check("object.l[5]", "error: index out of bounds: 5");
    check("{'a': 1}['b']", "error: no such key: b");
    check("{'a': 1, 'a': 2}['a']", "2");
    check("1 / 0", "error: division by zero");
    check("1 % 0", "error: modulus by zero");
    check("9223372036854775807 + 1", "error: integer overflow");
    check("'a' + 'b' < 'b'", "true");
    check("dyn(1) == 1.0 && 2u > 1", "true");
    check("object.s + 1", "error: no such overload");
    check("object.s.startsWith(object.a)", "error: no such overload: startsWith(string, map)");
    check("object.n == null && object.d == 1.5", "true");
    check(
        "string(object.d) + type(object.l).size()",
        "compilation failed: ERROR: <input>:1:39: found no matching overload for 'size' applied to 'type(dyn).()'\n | string(object.d) + type(object.l).size()\n | ......................................^",
    );
    check("object.l.sum() + object.l.max()", "9");
    check("'2020-01-01T10:00:00Z' == string(timestamp('2020-01-01T10:00:00Z'))", "true");
    check("timestamp('2020-01-01T10:00:00Z').getHours('America/New_York')", "5");
    check("duration('90m').getHours()", "1");
    check("'%s=%d (%.2f)'.format([object.s, 3, 2.5])", "\"text=3 (2.50)\"");
    check("object.l.sortBy(x, -x)", "[3,2,1]");
    check("'a,b'.split(',').join('-') + 'abc'.substring(1) + 'aXa'.replace('a', 'b')", "\"a-bbcbXb\"");
    check("b'\\xff' + bytes('a') == b'\\xffa'", "true");
    check(
        "{true: 1}[true] + {1u: 2}[1]",
        "compilation failed: ERROR: <input>:1:26: found no matching overload for '_[_]' applied to '(map(uint, int), int)'\n | {true: 1}[true] + {1u: 2}[1]\n | .........................^",
    );
}

#[test]
fn libraries() {
    let check = |text: &str, expect: &str| assert_eq!(eval(text, &Json::Null), expect, "{text}");
    check("ip('2001:db8::68').family() + ip('10.0.0.1').family()", "10");
    check("ip.isCanonical('2001:DB8::68') || ip('127.0.0.1').isGlobalUnicast()", "false");
    check(
        "ip('192.168.0.1.0')",
        "error: IP Address \"192.168.0.1.0\" parse error during conversion from string: ParseAddr(\"192.168.0.1.0\"): IPv4 address too long",
    );
    check("ip('::ffff:1.2.3.4')", "error: IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed");
    check("string(cidr('192.168.0.1/24').masked()) + string(cidr('10.0.0.0/8').ip())", "\"192.168.0.0/2410.0.0.0\"");
    check("cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", "true");
    check(
        "isCIDR('10.0.0.0/33') || isIP('1.2.3') || isURL('../x') || isQuantity('10Mo') || isSemver('v1.0.0')",
        "false",
    );
    check(
        "quantity('1Gi').compareTo(quantity('1024Mi')) == 0 && quantity('1.5').add(1).asApproximateFloat() == 2.5",
        "true",
    );
    check("quantity('99999999999999999999G').asInteger()", "error: cannot convert value to integer");
    check("sign(quantity('-5'))", "-1");
    check("semver('1.2.3-rc.1').isLessThan(semver('1.2.3')) && semver('v01.2', true).minor() == 2", "true");
    check("semver('1.2')", "error: No Major.Minor.Patch elements found");
    check(
        "url('https://a.test:8/p?q=1&q=2').getQuery()['q'] + [url('https://a.test:8/p').getHost()]",
        "[\"1\",\"2\",\"a.test:8\"]",
    );
    check("format.dns1123Label().validate('a').hasValue() || format.named('nope').hasValue()", "false");
    check("format.uuid().validate('x').value()", "[\"does not match the UUID format\"]");
    check(
        "['b', 'a'].sort() + ['a', 'b', 'a'].distinct() + [['c']].flatten() + ['d', 'e'].slice(1, 2)",
        "[\"a\",\"b\",\"a\",\"b\",\"c\",\"e\"]",
    );
    check(
        "sets.intersects([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && lists.range(3).reverse() == [2, 1, 0]",
        "true",
    );
    check("'abc'.find('b.') + 'a1b2'.findAll('[0-9]').join('')", "\"bc12\"");
    check("[1, 2].min() + [duration('1s')].sum().getSeconds() + ['x', 'y', 'x'].lastIndexOf('x')", "4");
    check("[1].filter(x, x > 1).max()", "error: max called on empty list");
}

/// The texts that a real API server gave, or cel-go's own tests record.
#[test]
fn compile_errors() {
    #[track_caller]
    fn check(text: &str, expect: &str) {
        let decl = DeclType::from_schema(&json!({"type": "integer"}), false).unwrap();
        let env = env().variable("self", decl.clone()).optional_variable("oldSelf", decl).with_variables();
        let got = compile(text, &env).map(|_| ()).map_err(|error| error.issues().to_owned());
        assert_eq!(got.err().unwrap_or_default(), expect);
    }
    let operand = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    check(
        "self >",
        &format!(
            "ERROR: <input>:1:7: Syntax error: mismatched input '<EOF>' expecting {operand}\n | self >\n | ......^"
        ),
    );
    check(
        "1 +",
        &format!("ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {operand}\n | 1 +\n | ...^"),
    );
    check("", &format!("ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {operand}"));
    check("a ? b", "ERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting ':'\n | a ? b\n | .....^");
    check("{'a'}", "ERROR: <input>:1:5: Syntax error: mismatched input '}' expecting ':'\n | {'a'}\n | ....^");
    check("[1,", "ERROR: <input>:1:4: Syntax error: missing ']' at '<EOF>'\n | [1,\n | ...^");
    check("a, b", "ERROR: <input>:1:2: Syntax error: mismatched input ',' expecting <EOF>\n | a, b\n | .^");
    check("!", &format!("ERROR: <input>:1:2: Syntax error: extraneous input '<EOF>' expecting {operand}\n | !\n | .^"));
    check(
        "f(",
        &format!(
            "ERROR: <input>:1:3: Syntax error: mismatched input '<EOF>' expecting {}\n | f(\n | ..^",
            operand.replace("'(', ", "'(', ')', ")
        ),
    );
    check("object.", "ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'\n | object.\n | .......^");
    check(
        "self == 'a'",
        "ERROR: <input>:1:6: found no matching overload for '_==_' applied to '(int, string)'\n | self == 'a'\n | .....^",
    );
    check(
        "self > oldSelf",
        "ERROR: <input>:1:6: found no matching overload for '_>_' applied to '(int, optional_type(int))'\n | self > oldSelf\n | .....^",
    );
    check("variables.b", "ERROR: <input>:1:10: undefined field 'b'\n | variables.b\n | .........^");
    check("nope + 1", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope + 1\n | ^");
    check(".nope", "ERROR: <input>:1:2: undeclared reference to '.nope' (in container '')\n | .nope\n | .^");
    check("nope(1)", "ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')\n | nope(1)\n | ....^");
    check("self.x", "ERROR: <input>:1:5: type 'int' does not support field selection\n | self.x\n | ....^");
    check(
        "a | b",
        "ERROR: <input>:1:3: Syntax error: token recognition error at: '| '\n | a | b\n | ..^\nERROR: <input>:1:5: Syntax error: extraneous input 'b' expecting <EOF>\n | a | b\n | ....^",
    );
    check("1 + 2\n3 +", "ERROR: <input>:2:1: Syntax error: mismatched input '3' expecting <EOF>\n | 3 +\n | ^");
    check("(1 + 2", "ERROR: <input>:1:7: Syntax error: missing ')' at '<EOF>'\n | (1 + 2\n | ......^");
    check("--!a", "ERROR: <input>:1:3: Syntax error: no viable alternative at input '-!'\n | --!a\n | ..^");
    check(
        "f( ==",
        &format!(
            "ERROR: <input>:1:4: Syntax error: mismatched input '==' expecting {}\n | f( ==\n | ...^\nERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting {operand}\n | f( ==\n | .....^",
            operand.replace("'(', ", "'(', ')', ")
        ),
    );
    check(
        "has(self.)",
        "ERROR: <input>:1:5: invalid argument to has() macro\n | has(self.)\n | ....^\nERROR: <input>:1:10: Syntax error: no viable alternative at input '.)'\n | has(self.)\n | .........^",
    );
    check("a b c", "ERROR: <input>:1:3: Syntax error: mismatched input 'b' expecting <EOF>\n | a b c\n | ..^");
    check("as", "ERROR: <input>:1:1: reserved identifier: as\n | as\n | ^");
    check("has(self)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(self)\n | ....^");
    check("[1].all(1, true)", "ERROR: <input>:1:9: argument must be a simple name\n | [1].all(1, true)\n | ........^");
    check(
        "[1].all(x, x)",
        "ERROR: <input>:1:12: expected type 'bool' but found 'int'\n | [1].all(x, x)\n | ...........^",
    );
    check(
        "self.all(x, true)",
        "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.all(x, true)\n | ^",
    );
    check("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^");
    check("'a'.matches('[')", "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('[')\n | ............^");
    check("duration('1x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('1x')\n | .........^");
    check("99999999999999999999", "ERROR: <input>:1:1: invalid int literal\n | 99999999999999999999\n | ^");
    check(
        "'%d'.format(['a'])",
        "ERROR: <input>:1:14: error during formatting: decimal clause can only be used on integers, was given string\n | '%d'.format(['a'])\n | .............^",
    );
    check(
        "'%s'.format([1, 2])",
        "ERROR: <input>:1:12: too many arguments supplied to string.format (expected 1, got 2)\n | '%s'.format([1, 2])\n | ...........^",
    );
    check("int('x')", "type conversion error from 'string' to 'int'");
}

#[test]
fn composed_variables_are_evaluated_once() {
    let plain = env().with_variables();
    let first = compile("object.l.map(x, x + 1)", &plain).unwrap();
    let env = plain.composed("first", first.result_type().clone(), first.result_decl());
    let second = compile("variables.first.size()", &env).unwrap();
    assert_eq!(second.result_type(), &Type::Int);
    let env = env.composed("second", second.result_type().clone(), None);
    let program = compile("variables.second + variables.second + variables.first[0]", &env).unwrap();
    let variables: Vec<(String, Program)> = vec![("first".into(), first), ("second".into(), second)];
    let object = json!({"l": [1, 2]});
    let bindings = Bindings::new().set("object", Value::json(&object)).composed(&variables);
    let evaluated = program.eval(&bindings, limits::PER_CALL_LIMIT);
    assert_eq!(evaluated.value.unwrap().as_int(), Some(6));
    let again = program.eval(&bindings, limits::PER_CALL_LIMIT);
    assert!(again.cost < evaluated.cost);
}

#[test]
fn mutations_make_objects() {
    let env = env().with_mutation();
    let check = |text: &str, expect: Json| {
        let program = compile(text, &env).unwrap();
        let object = json!({"metadata": {"name": "x"}});
        let bindings = Bindings::new().set("object", Value::json(&object));
        assert_eq!(program.eval(&bindings, limits::PER_CALL_LIMIT).value.unwrap().to_json().unwrap(), expect);
    };
    check("Object{metadata: Object.metadata{labels: {'a': 'b'}}}", json!({"metadata": {"labels": {"a": "b"}}}));
    check(
        "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a/b~c'), value: object.metadata.name}]",
        json!([{"op": "add", "path": "/data/a~1b~0c", "value": "x"}]),
    );
    assert!(compile("JSONPatch{nope: 1}", &env).is_err());
}

struct Names;

impl Authorizer for Names {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        Decision {
            allowed: attributes.user.name == "u" && attributes.resource == "pods" && attributes.verb == "get",
            ..Decision::default()
        }
    }
}

#[test]
fn authorization() {
    let env = Env::new().variable_type("authorizer", Type::opaque(authorizer::AUTHORIZER));
    let user = Arc::new(User { name: "u".into(), ..User::default() });
    let check = |text: &str, expect: bool| {
        let program = compile(text, &env).unwrap();
        let bindings = Bindings::new().set("authorizer", authorizer::authorizer(Arc::new(Names), Arc::clone(&user)));
        let evaluated = program.eval(&bindings, limits::PER_CALL_LIMIT);
        assert_eq!(evaluated.value.unwrap().as_bool(), Some(expect), "{text}");
        assert!(evaluated.cost > 350_000);
    };
    check("authorizer.group('').resource('pods').namespace('n').check('get').allowed()", true);
    check("authorizer.group('').resource('pods').check('list').allowed()", false);
    check("authorizer.serviceAccount('n', 'sa').group('').resource('pods').check('get').allowed()", false);
    let program = compile("authorizer.group('').resource('pods').check('get')", &env).unwrap();
    assert_eq!(program.result_type().to_string(), "kubernetes.authorization.Decision");
}

/// Nothing an expression says makes it run long, grow or overflow the stack.
#[test]
fn hostile() {
    let object = json!({"l": (0..1000).collect::<Vec<i32>>(), "s": "x".repeat(100_000)});
    let nested = "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))";
    assert_eq!(eval(nested, &object), "error: operation cancelled: actual cost limit exceeded");
    let doubled = format!("[[1]]{}.size() > 0", ".map(x, x + x)".repeat(60));
    assert_eq!(eval(&doubled, &object), "true");
    let shared = format!("[[1]]{0} == [[1]]{0}", ".map(x, [x, x])".repeat(40));
    assert_eq!(eval(&shared, &object), "error: operation cancelled: actual cost limit exceeded");
    let printed = format!("'%s'.format([[[1]]{}])", ".map(x, [x, x])".repeat(40));
    assert_eq!(eval(&printed, &object), "error: operation cancelled: actual cost limit exceeded");
    assert_eq!(
        eval("object.s.replace('', object.s)", &object),
        "error: operation cancelled: actual cost limit exceeded"
    );
    assert_eq!(
        eval("lists.range(1000000000).size()", &object),
        "error: operation cancelled: actual cost limit exceeded"
    );
    let limit = "compilation failed: ERROR: <input>:-1:0: expression recursion limit exceeded: 250";
    for text in
        ["(".repeat(5000), format!("1{}", " + 1".repeat(300)), format!("object{}", ".a".repeat(300)), "[".repeat(5000)]
    {
        assert_eq!(eval(&text, &object), limit);
    }
    // The walk that tells errors goes as deep, on the stack of a worker.
    assert!(eval(&format!("{})", "1<1+1*[".repeat(240)), &object).contains("Syntax error"));
    for text in ["[1,,]", "{1: 2,,}"] {
        assert!(eval(text, &object).contains("Syntax error"), "{text}");
    }
    assert_eq!(eval("[,].size() + [1,].size() + {1: 2,}.size()", &object), "2");
    assert_eq!(eval(&format!("{}1{}", "(".repeat(240), ")".repeat(240)), &object), "1");
    assert_eq!(eval(&format!("{}1{} == 1", "[".repeat(240), "][0]".repeat(240)), &object), "true");
    assert_eq!(eval(&format!("{}true", "!".repeat(50_001)), &object), "false");
    assert_eq!(eval(&format!("true{}", " && true".repeat(9000)), &object), "true");
    assert!(eval(&"x".repeat(100_001), &object).contains("expression code point size exceeds limit"));
}
