//! Rules in CEL (`x-kubernetes-validations`): compiled with the schema, evaluated on every write.
//!
//! A rule on a place of the schema sees the value there as `self` and, of a changed object, the old value as
//! `oldSelf`. All rules of one object share a budget of cost.

use super::correlate::{Correlated, old_item};
use super::{Kind, Schema};
use api::{Cause, CauseType};
use expression::{Bindings, DeclType, Env, Program, Type, compile, limits};
use serde_json::Value;
use std::sync::Arc;

const OUT_OF_BUDGET: &str = "failed due to running out of cost budget, no further validation rules will be run";
/// The longest message that an expression may make.
const MESSAGE_MAX: usize = 5 << 10;

/// The rules of one place.
#[derive(Debug)]
pub(crate) struct Rules {
    decl: Arc<DeclType>,
    list: Vec<Rule>,
}

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    /// As it was given.
    source: Value,
    /// What it is, or why it is none.
    pub program: Result<Program, String>,
    /// Makes the message, or why it cannot.
    pub message: Option<Result<Program, String>>,
    /// Whether it is about a change.
    pub uses_old: bool,
    /// Whether it also holds where there is no old value.
    optional_old: bool,
    /// The field it blames.
    blamed: String,
}

/// What the rules of an object may still cost.
pub(crate) struct Budget(i64);

impl Budget {
    /// That of one object.
    pub fn of_object() -> Self {
        Self(i64::try_from(limits::RUNTIME_CEL_COST_BUDGET).unwrap_or(i64::MAX))
    }

    /// Takes a cost off; false: there is not enough.
    fn take(&mut self, cost: u64) -> bool {
        let left = i64::try_from(cost).ok().and_then(|cost| self.0.checked_sub(cost)).filter(|left| *left >= 0);
        self.0 = left.unwrap_or(-1);
        left.is_some()
    }

    fn is_spent(&self) -> bool {
        self.0 < 0
    }

    fn stop(&mut self) {
        self.0 = -1;
    }
}

impl Rules {
    /// Compiles the rules of a place; `None`: there are none, or nothing that they could see.
    pub fn new(source: &Value, root: bool) -> Option<Self> {
        let list = source.get("x-kubernetes-validations")?.as_array().filter(|list| !list.is_empty())?;
        let decl = DeclType::from_schema(source, root)?;
        let list = list.iter().map(|rule| Rule::new(rule, source, &decl)).collect();
        Some(Self { decl, list })
    }

    /// The rules, as they were given.
    pub fn list(&self) -> &[Rule] {
        &self.list
    }

    /// How often a value of this type fits into the largest request.
    pub fn max_cardinality(&self) -> u64 {
        let size = self.decl.min_serialized_size.max(0) + 1;
        u64::try_from(limits::MAX_REQUEST_SIZE_BYTES / size).unwrap_or(u64::MAX)
    }
}

fn text<'a>(rule: &'a Value, field: &str) -> &'a str {
    rule.get(field).and_then(Value::as_str).unwrap_or("")
}

impl Rule {
    fn new(rule: &Value, schema: &Value, decl: &Arc<DeclType>) -> Self {
        let optional_old = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
        let env = Env::new().variable("self", decl.clone());
        let env = match optional_old {
            true => env.optional_variable("oldSelf", decl.clone()),
            false => env.variable("oldSelf", decl.clone()),
        };
        let program = of_type(text(rule, "rule"), &env, &Type::Bool, "cel expression must evaluate to a bool", "");
        let message = text(rule, "messageExpression");
        let message = (program.is_ok() && !message.is_empty()).then(|| {
            of_type(message, &env, &Type::String, "messageExpression must evaluate to a string", "messageExpression ")
        });
        let blamed = super::definition::find(schema, text(rule, "fieldPath"), true).map(|(path, _)| path);
        Self {
            uses_old: program.as_ref().is_ok_and(|p| p.uses("oldSelf")),
            blamed: blamed.unwrap_or_default(),
            source: rule.clone(),
            program,
            message,
            optional_old,
        }
    }

    /// What the rule is called in errors of its evaluation.
    fn shown(&self) -> &str {
        let message = text(&self.source, "message");
        if message.is_empty() { text(&self.source, "rule").trim() } else { message.trim() }
    }

    fn detail(&self) -> String {
        match text(&self.source, "message") {
            "" => format!("failed rule: {}", text(&self.source, "rule").trim()),
            message => message.trim().to_owned(),
        }
    }
}

fn of_type(text: &str, env: &Env, wanted: &Type, otherwise: &str, prefix: &str) -> Result<Program, String> {
    let program = compile(text, env).map_err(|error| format!("{prefix}{error}"))?;
    if program.result_type() == wanted { Ok(program) } else { Err(otherwise.to_owned()) }
}

/// A value as rules see it.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: usize,
    value: &'a Value,
    old: Option<&'a Value>,
    /// The same place of the old object, for what may stay as it is.
    part: Option<Correlated<'a>>,
    /// The nearest place above that has one.
    above: Option<Correlated<'a>>,
    root: bool,
}

impl<'a> Place<'a> {
    fn below(&self, node: usize, value: &'a Value, old: Option<&'a Value>, part: Option<Correlated<'a>>) -> Self {
        let above = if self.part.is_some() { self.part } else { self.above };
        Self { node, value, old: old.filter(|old| !old.is_null()), part, above, root: false }
    }

    /// Whether what it fails of is forgiven: nothing changed.
    fn is_unchanged(&self) -> bool {
        self.part.or(self.above).is_some_and(|part| part.is_unchanged())
    }
}

/// What an evaluation finds.
struct Found<'o> {
    errors: &'o mut Vec<Cause>,
    warnings: &'o mut Vec<String>,
}

impl Schema {
    /// Whether there are rules.
    pub fn has_rules(&self) -> bool {
        self.nodes.iter().any(|node| node.rules.is_some())
    }

    /// Checks the rules of an object; what fails and did not change is a warning.
    pub fn check_rules(&self, new: &Value, old: Option<&Value>, errors: &mut Vec<Cause>, warnings: &mut Vec<String>) {
        if !self.has_rules() {
            return;
        }
        let part = old.map(|old| Correlated::of(self, new, old));
        let place = Place { node: 0, value: new, old, part, above: None, root: true };
        self.rules_at(place, "", &mut Budget::of_object(), &mut Found { errors, warnings });
    }

    /// Checks a default: as a value that stays, and as one that comes.
    pub(super) fn rules_of_default(&self, default: &Value, budget: &mut Budget, out: &mut Vec<Cause>) {
        if !self.has_rules() {
            return;
        }
        let before = budget.0;
        for old in [Some(default), None] {
            let mut cost = Budget(before);
            let place = Place { node: 0, value: default, old, part: None, above: None, root: false };
            self.rules_at(place, "", &mut cost, &mut Found { errors: out, warnings: &mut Vec::new() });
            budget.0 = budget.0.min(cost.0);
            if !out.is_empty() {
                return;
            }
        }
    }

    fn rules_at(&self, place: Place<'_>, path: &str, budget: &mut Budget, found: &mut Found<'_>) {
        if place.value.is_null() {
            return;
        }
        self.rules_here(place, path, budget, found);
        let node = self.node(place.node);
        match place.value {
            Value::Array(list) => {
                let Some(items) = node.items else { return };
                for (i, item) in list.iter().enumerate() {
                    if budget.is_spent() {
                        return;
                    }
                    let old = place.old.and_then(|old| old_item(node, item, old));
                    let below = place.below(items, item, old, place.part.and_then(|part| part.index(i)));
                    self.rules_at(below, &format!("{path}[{i}]"), budget, found);
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let (below, at) = match (node.properties.get(key), node.additional) {
                        (Some(below), _) => {
                            (*below, if path.is_empty() { key.clone() } else { format!("{path}.{key}") })
                        }
                        (None, Some(below)) => (below, format!("{path}[{key}]")),
                        (None, None) => continue,
                    };
                    if budget.is_spent() {
                        return;
                    }
                    let old = place.old.and_then(|old| old.get(key));
                    // Old and new are of one type: a change of it would not be seen.
                    let hidden = place.root && matches!(key.as_str(), "apiVersion" | "kind");
                    let part = place.part.filter(|_| !hidden).and_then(|part| part.key(key));
                    self.rules_at(place.below(below, value, old, part), &at, budget, found);
                }
            }
            _ => {}
        }
    }

    fn rules_here<'a>(&'a self, place: Place<'a>, path: &str, budget: &mut Budget, found: &mut Found<'_>) {
        let node = self.node(place.node);
        let Some(rules) = node.rules.as_ref().filter(|_| !budget.is_spent()) else { return };
        let kind = if node.int_or_string { "" } else { kind_name(node.kind) };
        let at = if path.is_empty() { "<nil>" } else { path };
        let wrong = |why: String| Cause::invalid(at, &kind.into(), &why);
        for rule in &rules.list {
            let program = match &rule.program {
                Ok(program) => program,
                Err(why) => {
                    found.errors.push(wrong(format!("rule compile error: {why}")));
                    continue;
                }
            };
            if rule.uses_old && place.old.is_none() && !rule.optional_old {
                continue;
            }
            let bindings = bindings(rule, rules, &place);
            let evaluation = program.eval(&bindings, limits::PER_CALL_LIMIT);
            if !budget.take(evaluation.cost) {
                found.errors.push(wrong(format!("validation {OUT_OF_BUDGET}")));
                return;
            }
            match evaluation.value.map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(_) => self.failed(rule, &bindings, &place, at, budget, found),
                Err(error) => {
                    let text = error.to_string();
                    if text.starts_with("operation cancelled: actual cost limit exceeded") {
                        let shown = rule.shown();
                        found.errors.push(wrong(format!(
                            "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                        )));
                        return budget.stop();
                    }
                    found.errors.push(wrong(evaluation_error(&text, rule)));
                }
            }
            if budget.is_spent() {
                return;
            }
        }
    }

    fn failed<'a>(
        &'a self,
        rule: &'a Rule,
        bindings: &Bindings<'a>,
        place: &Place<'a>,
        at: &str,
        budget: &mut Budget,
        found: &mut Found<'_>,
    ) {
        let node = self.node(place.node);
        let at = match (at, rule.blamed.as_str()) {
            (at, "") => at.to_owned(),
            ("<nil>", blamed) => blamed.to_owned(),
            (at, blamed) => format!("{at}.{blamed}"),
        };
        let whole = matches!(node.kind, Kind::Object | Kind::Array);
        let cause = match message(rule, bindings, budget) {
            Err(why) => Cause::invalid(at, &kind_name(node.kind).into(), &why),
            Ok(detail) => for_reason(text(&rule.source, "reason"), at, (!whole).then_some(place.value), &detail),
        };
        match !rule.uses_old && place.is_unchanged() {
            true => found.warnings.push(format!("{}: {}", cause.field, cause.message)),
            false => found.errors.push(cause),
        }
    }
}

fn bindings<'a>(rule: &'a Rule, rules: &'a Rules, place: &Place<'a>) -> Bindings<'a> {
    let view = |value: &'a Value| expression::Value::typed(value, &rules.decl);
    let bindings = Bindings::new().set("self", view(place.value));
    match (rule.uses_old, rule.optional_old, place.old) {
        (false, _, _) => bindings,
        (true, true, old) => bindings.set("oldSelf", expression::Value::optional(old.map(view))),
        (true, false, Some(old)) => bindings.set("oldSelf", view(old)),
        (true, false, None) => bindings,
    }
}

/// The message of a failed rule; the error ends the evaluation of all rules.
fn message<'a>(rule: &'a Rule, bindings: &Bindings<'a>, budget: &mut Budget) -> Result<String, String> {
    let Some(Ok(program)) = &rule.message else { return Ok(rule.detail()) };
    let evaluation = program.eval(bindings, limits::PER_CALL_LIMIT);
    if !budget.take(evaluation.cost) {
        return Err(format!("messageExpression evaluation {OUT_OF_BUDGET}"));
    }
    let made = match evaluation.value {
        Ok(value) => value.as_str().map(|text| text.trim().to_owned()),
        Err(error) if error.to_string().starts_with("operation cancelled: actual cost limit exceeded") => {
            budget.stop();
            let source = text(&rule.source, "messageExpression");
            return Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {source:?}"
            ));
        }
        Err(_) => None,
    };
    let usable = made.filter(|text| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n'));
    Ok(usable.unwrap_or_else(|| rule.detail()))
}

fn evaluation_error(text: &str, rule: &Rule) -> String {
    let shown = rule.shown();
    match text.starts_with("no such overload") {
        true => format!(
            "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
        ),
        false => format!("{text} evaluating rule: {shown}"),
    }
}

/// The error of a failed rule; objects and lists are not shown.
fn for_reason(reason: &str, at: String, value: Option<&Value>, detail: &str) -> Cause {
    match (reason, value) {
        ("FieldValueForbidden", _) => Cause::forbidden(at, detail),
        ("FieldValueRequired", _) => Cause::required(at, detail),
        ("FieldValueDuplicate", Some(value)) => Cause::duplicate(at, value),
        ("FieldValueDuplicate", None) => {
            Cause { kind: CauseType::FieldValueDuplicate, field: at, message: "Duplicate value".into() }
        }
        (_, Some(value)) => Cause::invalid(at, value, detail),
        (_, None) => {
            Cause { kind: CauseType::FieldValueInvalid, field: at, message: format!("Invalid value: {detail}") }
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "",
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors_of(schema: Value, new: Value, old: Option<Value>) -> (Vec<String>, Vec<String>) {
        let schema = Schema::new(&json!({"type": "object", "properties": {"x": schema}}));
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let old = old.map(|old| json!({"x": old}));
        schema.check_rules(&json!({"x": new}), old.as_ref(), &mut errors, &mut warnings);
        (errors.iter().map(|c| format!("{}: {}", c.field, c.message)).collect(), warnings)
    }

    #[test]
    fn rules_are_checked() {
        let check = |schema: Value, new: Value, old: Option<Value>, want: &[&str]| {
            assert_eq!(errors_of(schema, new, old).0, want);
        };
        let rule = |rule: &str| json!({"type": "integer", "x-kubernetes-validations": [{"rule": rule}]});
        check(rule("self > 3"), json!(4), None, &[]);
        check(rule("self > 3"), json!(2), None, &["x: Invalid value: 2: failed rule: self > 3"]);
        check(rule("self >= oldSelf"), json!(2), None, &[]);
        check(
            rule("self >= oldSelf"),
            json!(2),
            Some(json!(3)),
            &["x: Invalid value: 2: failed rule: self >= oldSelf"],
        );
        check(
            rule("10 / self > 1"),
            json!(0),
            None,
            &["x: Invalid value: \"integer\": division by zero evaluating rule: 10 / self > 1"],
        );
        let optional = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "oldSelf.hasValue() || self == 1",
            "optionalOldSelf": true, "message": "starts at 1", "reason": "FieldValueForbidden"}]});
        check(optional.clone(), json!(2), None, &["x: Forbidden: starts at 1"]);
        check(optional, json!(2), Some(json!(1)), &[]);
        let blamed = json!({"type": "object", "properties": {"a": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.a > 1", "fieldPath": ".a", "messageExpression": "'a is ' + string(self.a)"}]});
        check(blamed, json!({"a": 1}), None, &["x.a: Invalid value: a is 1"]);
        let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"},
                "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}});
        let old = json!([{"k": "a", "v": 3}, {"k": "b", "v": 1}]);
        let new = json!([{"k": "b", "v": 1}, {"k": "a", "v": 2}]);
        check(list, new, Some(old), &["x[1].v: Invalid value: 2: failed rule: self >= oldSelf"]);
    }

    #[test]
    fn what_did_not_change_is_warned_of() {
        let schema = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 3"}]});
        let (errors, warnings) = errors_of(schema.clone(), json!(2), Some(json!(2)));
        assert_eq!((errors.len(), warnings), (0, vec!["x: Invalid value: 2: failed rule: self > 3".to_owned()]));
        assert_eq!(errors_of(schema, json!(1), Some(json!(2))).0.len(), 1);
    }
}
