//! Rules in CEL: what is said of them, whether they compile, and what they may cost.

use super::openapi;
use super::{Options, printed};
use crate::field::{Errors, Fields, Path};
use crate::structural::rules::Rules;
use api::{Cause, CauseType};
use serde_json::Value;

const RULES: &str = "x-kubernetes-validations";
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Checks what is said of rules, but not the rules themselves.
pub(super) fn texts(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let list = path.field(RULES);
    let blames = source.list(RULES).iter().any(|rule| !rule.text("fieldPath").is_empty());
    // a schema whose fields are not known: looked for once, since all of it is looked at
    let unknown = blames && super::unstructured(source).is_some();
    for (i, rule) in source.list(RULES).iter().enumerate() {
        let item = list.index(i);
        let [text, message, expression] = ["rule", "message", "messageExpression"].map(|name| rule.text(name));
        let at = item.field("message");
        if text.trim().is_empty() {
            errors.required(&item.field("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.invalid(&at, message, "must be non-empty if specified");
        } else if has_newlines(message.trim()) {
            errors.invalid(&at, message, "must not contain line breaks");
        } else if has_newlines(text.trim()) && message.trim().is_empty() {
            errors.required(&at, "message must be specified if rule contains line breaks");
        }
        if !expression.is_empty() && expression.trim().is_empty() {
            errors.required(&item.field("messageExpression"), "messageExpression must be non-empty if specified");
        }
        if rule.has("reason") {
            errors.one_of(&item.field("reason"), rule.text("reason"), &REASONS);
        }
        let (blamed, at) = (rule.text("fieldPath"), item.field("fieldPath"));
        if !blamed.is_empty() && blamed.trim().is_empty() {
            errors.invalid(&at, blamed, "must be non-empty if specified");
        }
        if has_newlines(blamed) {
            errors.invalid(&at, blamed, "must not contain line breaks");
        }
        if !blamed.is_empty() && !unknown && !openapi::is_path(source, blamed) {
            errors.invalid(&at, blamed, "must be a valid path");
        }
    }
}

fn has_newlines(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// What one expression may cost at most, by estimate, however often it is evaluated for one object.
const EXPRESSION_MAX: u64 = 10_000_000;
/// What all expressions of a schema may cost.
const SCHEMA_MAX: u64 = 100_000_000;

/// A place of a schema as rules see it.
pub(super) struct Scope<'a> {
    source: &'a Value,
    /// Whether it is a whole object.
    whole: bool,
    /// How many values an object may have there; `None`: nothing says.
    cardinality: Option<u64>,
}

impl<'a> Scope<'a> {
    /// The root.
    pub fn root(source: &'a Value) -> Self {
        Self { source, whole: true, cardinality: Some(1) }
    }

    /// A place right below.
    pub fn child(&self, parent: &Value, source: &'a Value) -> Self {
        let bound = |field: &str| parent.int(field).map(|n| u64::try_from(n).unwrap_or(0));
        let factor = match parent.text("type") {
            "object" if parent.has("additionalProperties") => bound("maxProperties"),
            "array" => bound("maxItems"),
            _ => Some(1),
        };
        let cardinality = self.cardinality.zip(factor).map(|(all, each)| all.saturating_mul(each));
        Self { source, whole: source.flag("x-kubernetes-embedded-resource"), cardinality }
    }
}

/// What all rules of a schema cost, by estimate.
#[derive(Default)]
pub(super) struct Total {
    cost: u64,
    /// The most expensive ones.
    most: Vec<(u64, String)>,
}

impl Total {
    fn add(&mut self, path: &Path<'_>, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost < SCHEMA_MAX / 100 {
            return;
        }
        self.most.push((cost, path.to_string()));
        self.most.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.most.truncate(4);
    }

    /// Checks that all rules together are cheap enough.
    pub fn check(&self, errors: &mut Errors, path: &Path<'_>) {
        if self.cost <= SCHEMA_MAX {
            return;
        }
        for (_, place) in &self.most {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.0.push(Cause::forbidden(place.clone(), why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.forbidden(path, &too_expensive(what, self.cost, SCHEMA_MAX));
    }
}

fn too_expensive(what: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Compiles the rules of a place and estimates what they cost.
pub(super) fn check(
    errors: &mut Errors,
    source: &Value,
    path: &Path<'_>,
    scope: &Scope<'_>,
    uncorrelated: Option<&str>,
    options: Options,
    total: &mut Total,
) {
    if source.list(RULES).is_empty() {
        return;
    }
    let list = path.field(RULES);
    let Some(rules) = Rules::new(scope.source, scope.whole) else {
        let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
        let message = format!("Internal error: {why}");
        return errors.0.push(Cause { kind: CauseType::InternalError, field: list.to_string(), message });
    };
    let often = scope.cardinality.unwrap_or_else(|| rules.max_cardinality());
    for (i, (rule, given)) in rules.list().iter().zip(source.list(RULES)).enumerate() {
        let item = list.index(i);
        let mut walk = Expressions { errors, total, item: &item, given, limited: !options.unchanged };
        let cost = rule.program.as_ref().map_or(0, |program| program.estimate().max.saturating_mul(often));
        walk.expression("rule", "estimated rule cost", cost, rule.program.as_ref().err());
        match &rule.message {
            Some(Ok(program)) => {
                let cost = program.estimate().max;
                walk.expression("messageExpression", "estimated messageExpression cost", cost, None);
            }
            Some(Err(why)) => errors.invalid_printed(&item.field("messageExpression"), || printed::rule(given), why),
            None => {}
        }
        transition(errors, rule.uses_old, given, uncorrelated, &item);
    }
}

/// Errors of a rule about a change: there must be one old value for each new one.
fn transition(errors: &mut Errors, uses_old: bool, given: &Value, uncorrelated: Option<&str>, path: &Path<'_>) {
    match (uses_old, uncorrelated) {
        (true, Some(place)) => {
            let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
            errors.invalid(&path.field("rule"), given.text("rule"), &why);
        }
        (false, _) if given.has("optionalOldSelf") => {
            let why = "may not be set if oldSelf is not used in rule";
            errors.invalid(&path.field("optionalOldSelf"), given.at("optionalOldSelf").clone(), why);
        }
        _ => {}
    }
}

/// The expressions of one rule.
struct Expressions<'a> {
    errors: &'a mut Errors,
    total: &'a mut Total,
    item: &'a Path<'a>,
    given: &'a Value,
    /// Whether one expression alone may be too expensive.
    limited: bool,
}

impl Expressions<'_> {
    fn expression(&mut self, field: &str, what: &str, cost: u64, wrong: Option<&String>) {
        let at = self.item.field(field);
        if self.limited && cost > EXPRESSION_MAX {
            self.errors.forbidden(&at, &too_expensive(what, cost, EXPRESSION_MAX));
        }
        self.total.add(&at, cost);
        if let Some(why) = wrong {
            self.errors.invalid_printed(&at, || printed::rule(self.given), why);
        }
    }
}
