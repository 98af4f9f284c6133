//! Selectors of devices: expressions in CEL over the variable `device`.

use crate::field::{Errors, Fields, Path};
use expression::{DeclType, Env, Type, compile};
use serde_json::Value;
use std::sync::LazyLock;

/// Selectors of one request or class.
const SELECTORS_MAX: usize = 32;
/// Bytes of an expression.
const EXPRESSION_MAX: usize = 10 * 1024;
/// What one evaluation may cost at most, by estimate.
const COST_MAX: u64 = 1_000_000;
/// Attributes and capacities of a device.
const ATTRIBUTES_MAX: i64 = 32;
/// Characters of an attribute's value.
const VALUE_MAX: i64 = 64;

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let by_domain = |value| DeclType::map(DeclType::map(value).at_most(ATTRIBUTES_MAX)).at_most(ATTRIBUTES_MAX);
    let device = DeclType::object(
        "kubernetes.DRADevice",
        [
            ("driver", DeclType::string().at_most(63)),
            ("allowMultipleAllocations", DeclType::boolean()),
            ("attributes", by_domain(DeclType::any().at_most(VALUE_MAX))),
            ("capacity", by_domain(DeclType::quantity())),
        ],
    );
    Env::new().with_bind().variable("device", device)
});

/// Checks a list of selectors.
pub(super) fn check(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let list = of.list("selectors");
    if !errors.at_most(path, list, SELECTORS_MAX) {
        return;
    }
    for (i, selector) in list.iter().enumerate() {
        let item = path.index(i);
        match selector.has("cel") {
            false => errors.required(&item.field("cel"), ""),
            true => expression(errors, selector.at("cel").text("expression"), &item.field("cel.expression")),
        }
    }
}

fn expression(errors: &mut Errors, text: &str, path: &Path<'_>) {
    if text.len() > EXPRESSION_MAX {
        return errors.too_long(path, EXPRESSION_MAX);
    }
    let program = match compile(text, &ENV) {
        Ok(program) => program,
        Err(error) => return errors.invalid(path, text, &error.to_string()),
    };
    let kind = program.result_type();
    if !matches!(kind, Type::Bool | Type::Any) {
        let kind = kind.runtime_text();
        errors.invalid(path, text, &format!("must evaluate to bool or the unknown type, not {kind}"));
    } else if program.estimate().max > COST_MAX {
        errors.forbidden(path, "too complex, exceeds cost limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_compiled() {
        let check = |text: &str, want: &[&str]| {
            let mut errors = Errors::default();
            super::check(&mut errors, &json!({"selectors": [{"cel": {"expression": text}}]}), &Path::root("s"));
            let got: Vec<_> = errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got.len(), want.len(), "{text}: {got:?}");
            assert!(got.iter().zip(want).all(|(g, w)| g.starts_with(w)), "{got:?}");
        };
        check("device.driver == 'd.example.com'", &[]);
        check("device.attributes['d.example.com'].model == 'a' && device.attributes['d.example.com'].size > 3", &[]);
        check("device.attributes['d.example.com'].ok", &[]);
        check("cel.bind(d, device.attributes['x'], d.a && d.b)", &[]);
        check("device.capacity['x'].memory.isGreaterThan(quantity('1Gi'))", &[]);
        check(
            "device.attributes['x'].l.all(a, a == 1)",
            &[
                "s[0].cel.expression: Invalid value: \"device.attributes['x'].l.all(a, a == 1)\": compilation failed: ERROR: <input>:1:23: expression of type 'any' cannot be range of a comprehension",
            ],
        );
        check("[1, null]", &["s[0].cel.expression: Invalid value: \"[1, null]\": compilation failed"]);
        check(
            "duration('1s')",
            &[
                "s[0].cel.expression: Invalid value: \"duration('1s')\": must evaluate to bool or the unknown type, not google.protobuf.Duration",
            ],
        );
        check("1", &["s[0].cel.expression: Invalid value: \"1\": must evaluate to bool or the unknown type, not int"]);
        check(
            "device.nope",
            &[
                "s[0].cel.expression: Invalid value: \"device.nope\": compilation failed: ERROR: <input>:1:7: undefined field 'nope'",
            ],
        );
    }
}
