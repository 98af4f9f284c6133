//! What `autoscaling/v1` has no field for, as the texts of its annotations.
//!
//! Metrics have v1's own forms there, conditions the forms of both, and the behavior is the JSON of the type inside
//! the server: Go's names, nothing left out. A text that cannot be read is as good as none.

use crate::core::quantities::quantity;
use crate::field::{Fields, set_default};
use crate::metadata::ANNOTATIONS_MAX;
use api::quantity::Quantity;
use schema::Weight;
use serde_json::{Map, Value, json};

/// What a field of a metric is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text that is always written.
    Text,
    /// A quantity that is always written.
    Amount,
    /// A quantity that may be left out.
    MaybeAmount,
    /// A number that may be left out.
    MaybeNumber,
    /// A label selector that may be left out.
    Selector,
    /// A reference to an object.
    Reference,
}

use Shape::{Amount, MaybeAmount, MaybeNumber, Reference, Selector, Text};

/// A field: its name in v1, where it is in v2, and what it is.
pub type Item = (&'static str, &'static [&'static str], Shape);
/// The sources of metrics and their fields, in the order in which v1 writes them.
pub type Form = [(&'static str, &'static [Item]); 5];

const METRIC: Item = ("metricName", &["metric", "name"], Text);
const SELECTOR: Item = ("selector", &["metric", "selector"], Selector);
const OF_EXTERNAL: Item = ("metricSelector", &["metric", "selector"], Selector);
const OBJECT: Item = ("target", &["describedObject"], Reference);
const NAME: Item = ("name", &["name"], Text);
const CONTAINER: Item = ("container", &["container"], Text);
const AIM: Item = ("targetAverageUtilization", &["target", "averageUtilization"], MaybeNumber);
const AIM_VALUE: Item = ("targetAverageValue", &["target", "averageValue"], MaybeAmount);
const USED: Item = ("currentAverageUtilization", &["current", "averageUtilization"], MaybeNumber);
const USED_VALUE: Item = ("currentAverageValue", &["current", "averageValue"], Amount);

/// Metrics that are aimed at.
pub const SPEC: Form = [
    (
        "object",
        &[
            OBJECT,
            METRIC,
            ("targetValue", &["target", "value"], Amount),
            SELECTOR,
            ("averageValue", &["target", "averageValue"], MaybeAmount),
        ],
    ),
    ("pods", &[METRIC, ("targetAverageValue", &["target", "averageValue"], Amount), SELECTOR]),
    ("resource", &[NAME, AIM, AIM_VALUE]),
    ("containerResource", &[NAME, AIM, AIM_VALUE, CONTAINER]),
    ("external", &[METRIC, OF_EXTERNAL, ("targetValue", &["target", "value"], MaybeAmount), AIM_VALUE]),
];
/// Metrics as they were found.
pub const STATUS: Form = [
    (
        "object",
        &[
            OBJECT,
            METRIC,
            ("currentValue", &["current", "value"], Amount),
            SELECTOR,
            ("averageValue", &["current", "averageValue"], MaybeAmount),
        ],
    ),
    ("pods", &[METRIC, USED_VALUE, SELECTOR]),
    ("resource", &[NAME, USED, USED_VALUE]),
    ("containerResource", &[NAME, USED, USED_VALUE, CONTAINER]),
    (
        "external",
        &[
            METRIC,
            OF_EXTERNAL,
            ("currentValue", &["current", "value"], Amount),
            ("currentAverageValue", &["current", "averageValue"], MaybeAmount),
        ],
    ),
];

const LABEL_SELECTOR: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector";
const BEHAVIOR: &str = "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior";

/// The JSON of a value without a type, as Go writes it.
fn plain(value: &Value) -> String {
    schema::internal_json("", value, schema::Layout::Compact)
}

/// Members that were written, as an object in their order.
fn object(members: Vec<(&str, String)>) -> String {
    let members: Vec<String> = members.into_iter().map(|(name, text)| format!("\"{name}\":{text}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A text field and what it is, for `object`; `always`: also when it is empty.
fn member<'a>(of: &Value, name: &'a str, always: bool) -> Option<(&'a str, String)> {
    (always || !of.text(name).is_empty()).then(|| (name, plain(&of.text(name).into())))
}

/// Metrics of v2 in v1's form.
pub fn write_metrics(metrics: &[Value], form: &Form) -> String {
    let one = |metric: &Value| {
        let mut out = Vec::from_iter(member(metric, "type", true));
        for (field, items) in form.iter().filter(|(field, _)| metric.has(field)) {
            let source = metric.at(field);
            let written = items.iter().filter_map(|item| Some((item.0, write(find(source, item.1), item.2)?)));
            out.push((field, object(written.collect())));
        }
        object(out)
    };
    format!("[{}]", metrics.iter().map(one).collect::<Vec<_>>().join(","))
}

fn find<'a>(of: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(of, |of, field| of.at(field))
}

/// A field in v1's form; `None` where it is left out.
fn write(value: &Value, shape: Shape) -> Option<String> {
    let absent = value.is_null();
    match shape {
        Text => Some(plain(&value.as_str().unwrap_or("").into())),
        Amount => Some(plain(&quantity(value).to_string().into())),
        _ if absent && shape != Reference => None,
        MaybeAmount => Some(plain(&quantity(value).to_string().into())),
        MaybeNumber => Some(value.to_string()),
        Selector => Some(schema::internal_json(LABEL_SELECTOR, value, schema::Layout::Compact)),
        Reference => {
            let fields = [("kind", true), ("name", true), ("apiVersion", false)];
            Some(object(fields.into_iter().filter_map(|(name, always)| member(value, name, always)).collect()))
        }
    }
}

/// The JSON of an annotation; `None` for one that is longer than all annotations may be, or more than a document.
fn parsed(text: &str) -> Option<Value> {
    let weighed = || Weight::MOST.without(Weight::of_json(text.as_bytes()));
    (text.len() <= ANNOTATIONS_MAX && weighed().is_some()).then(|| serde_json::from_str(text).ok())?
}

/// Metrics of v2 from v1's form; `None` when the text is none.
pub fn read_metrics(text: &str, form: &Form) -> Option<Vec<Value>> {
    items(&parsed(text)?)?.iter().map(|metric| read_metric(metric, form)).collect()
}

fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Null => Some(&[]),
        value => value.as_array().map(Vec::as_slice),
    }
}

fn read_metric(metric: &Value, form: &Form) -> Option<Value> {
    let mut out = json!({"type": text_of(named(metric, "type")?)?});
    for (field, items) in form {
        let source = named(metric, field)?;
        if source.is_null() {
            continue;
        }
        let mut read = json!({});
        for (name, path, shape) in *items {
            if let Some(value) = read_field(named(source, name)?, *shape)? {
                put(&mut read, path, value);
            }
        }
        out[*field] = aimed(read, field);
    }
    Some(out)
}

/// A member by its name in any case, as Go finds it; `None` when the value has no members.
fn named<'a>(of: &'a Value, name: &str) -> Option<&'a Value> {
    const ABSENT: &Value = &Value::Null;
    match of {
        Value::Null => Some(ABSENT),
        Value::Object(map) => {
            let like = || map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            Some(map.get(name).or_else(like).unwrap_or(ABSENT))
        }
        _ => None,
    }
}

fn text_of(value: &Value) -> Option<&str> {
    if value.is_null() { Some("") } else { value.as_str() }
}

fn number_of(value: &Value) -> Option<Option<i64>> {
    if value.is_null() { Some(None) } else { i32::try_from(value.as_i64()?).ok().map(|number| Some(number.into())) }
}

fn amount_of(value: &Value) -> Option<Option<String>> {
    let parsed = match value {
        Value::Null => return Some(None),
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => return None,
    };
    parsed.ok().map(|amount| Some(amount.to_string()))
}

/// A field of v2, which may be absent; `None` when it is of another type.
fn read_field(value: &Value, shape: Shape) -> Option<Option<Value>> {
    Some(match shape {
        Text => Some(text_of(value)?.into()),
        Amount => Some(amount_of(value)?.unwrap_or_else(|| "0".into()).into()),
        MaybeAmount => amount_of(value)?.map(Value::from),
        MaybeNumber => number_of(value)?.map(Value::from),
        Selector if value.is_null() => None,
        Selector => {
            let mut selector = value.clone();
            // there are no quantities in a selector
            schema::decode(LABEL_SELECTOR, &mut selector, |text| Some(text.to_owned())).ok()?;
            Some(selector)
        }
        Reference => {
            let mut out = json!({});
            for (name, always) in [("kind", true), ("name", true), ("apiVersion", false)] {
                let text = text_of(named(value, name)?)?;
                if always || !text.is_empty() {
                    out[name] = text.into();
                }
            }
            Some(out)
        }
    })
}

fn put(of: &mut Value, path: &[&str], value: Value) {
    match path {
        [name] => of[*name] = value,
        [name, rest @ ..] => {
            set_default(of, name, Map::new());
            put(&mut of[*name], rest, value);
        }
        [] => {}
    }
}

/// What v1 aims at follows from what it says; of v1's metrics as they were found nothing is aimed at.
fn aimed(mut source: Value, field: &str) -> Value {
    let target = source.at("target").clone();
    let of_value = match field {
        // the value, which v1 always has, means nothing beside an average when it is zero
        "object" if target.has("averageValue") && quantity(target.at("value")).sign() == 0 => {
            source["target"].as_object_mut().and_then(|map| map.remove("value"));
            false
        }
        "object" => !target.has("averageValue"),
        "external" => target.has("value"),
        _ => false,
    };
    let kind = match (of_value, target.has("averageUtilization")) {
        (true, _) => "Value",
        (_, true) => "Utilization",
        _ => "AverageValue",
    };
    if source.has("target") || !source.has("current") {
        put(&mut source, &["target", "type"], kind.into());
    }
    source
}

/// Conditions, whose fields are the same in both.
pub fn write_conditions(conditions: &[Value]) -> String {
    let one = |condition: &Value| {
        let mut out = Vec::from_iter(["type", "status"].iter().filter_map(|name| member(condition, name, true)));
        out.push(("lastTransitionTime", plain(condition.at("lastTransitionTime"))));
        out.extend(["reason", "message"].iter().filter_map(|name| member(condition, name, false)));
        object(out)
    };
    format!("[{}]", conditions.iter().map(one).collect::<Vec<_>>().join(","))
}

/// Conditions from their text.
pub fn read_conditions(text: &str) -> Option<Vec<Value>> {
    let one = |condition: &Value| {
        let mut out = json!({});
        for (name, always) in [("type", true), ("status", true), ("reason", false), ("message", false)] {
            let text = text_of(named(condition, name)?)?;
            if always || !text.is_empty() {
                out[name] = text.into();
            }
        }
        let time = named(condition, "lastTransitionTime")?;
        let known = time.is_null() || crate::age::parse(Some(time)).is_some();
        out["lastTransitionTime"] = known.then(|| time.clone())?;
        Some(out)
    };
    items(&parsed(text)?)?.iter().map(one).collect()
}

/// A behavior.
pub fn write_behavior(behavior: &Value) -> String {
    schema::internal_json(BEHAVIOR, behavior, schema::Layout::Compact)
}

/// A behavior from its text; one that says nothing is none.
pub fn read_behavior(text: &str) -> Option<Value> {
    let value = parsed(text)?;
    let mut out = json!({});
    for (name, field) in [("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown")] {
        let rules = named(&value, name)?;
        if !rules.is_null() {
            out[field] = read_rules(rules)?;
        }
    }
    out.as_object().is_some_and(|map| !map.is_empty()).then_some(out)
}

fn read_rules(rules: &Value) -> Option<Value> {
    let mut out = json!({});
    let of = |name: &str| named(rules, name);
    if let Some(seconds) = number_of(of("StabilizationWindowSeconds")?)? {
        out["stabilizationWindowSeconds"] = seconds.into();
    }
    if !of("SelectPolicy")?.is_null() {
        out["selectPolicy"] = text_of(of("SelectPolicy")?)?.into();
    }
    if !of("Policies")?.is_null() {
        out["policies"] = items(of("Policies")?)?.iter().map(read_policy).collect::<Option<Vec<_>>>()?.into();
    }
    if let Some(tolerance) = amount_of(of("Tolerance")?)? {
        out["tolerance"] = tolerance.into();
    }
    Some(out)
}

fn read_policy(policy: &Value) -> Option<Value> {
    let number = |name: &str| Some(number_of(named(policy, name)?)?.unwrap_or(0));
    let kind = text_of(named(policy, "Type")?)?;
    Some(json!({"type": kind, "value": number("Value")?, "periodSeconds": number("PeriodSeconds")?}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(metrics: Value, form: &Form, want: &str) {
        let list = metrics.as_array().cloned().unwrap_or_default();
        let text = write_metrics(&list, form);
        assert_eq!(text, want);
        assert_eq!(read_metrics(&text, form).map(Value::from), Some(metrics));
    }

    #[test]
    fn metrics_have_their_own_form() {
        check(
            json!([{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]),
            &SPEC,
            r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"1"}}]"#,
        );
        check(
            json!([{"type": "Object", "object": {"describedObject": {"kind": "K", "name": "n"}, "metric": {"name": "m"},
                "target": {"type": "AverageValue", "averageValue": "2"}}}]),
            &SPEC,
            r#"[{"type":"Object","object":{"target":{"kind":"K","name":"n"},"metricName":"m","targetValue":"0","averageValue":"2"}}]"#,
        );
        check(
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5, "averageValue": "0"}}}]),
            &STATUS,
            r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":5,"currentAverageValue":"0"}}]"#,
        );
    }

    #[test]
    fn a_bad_text_is_none() {
        for text in ["x", "{}", "[1]", r#"[{"type":1}]"#, r#"[{"pods":{"targetAverageValue":"x"}}]"#] {
            assert_eq!(read_metrics(text, &SPEC), None, "{text}");
        }
        assert_eq!(read_metrics("null", &SPEC), Some(Vec::new()));
        assert_eq!(read_behavior("{}"), None);
    }

    #[test]
    fn behavior_keeps_the_names_of_go() {
        let behavior = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}});
        let text = write_behavior(&behavior);
        assert_eq!(
            text,
            r#"{"ScaleUp":{"StabilizationWindowSeconds":null,"SelectPolicy":null,"Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":null}"#
        );
        assert_eq!(read_behavior(&text), Some(behavior));
    }

    #[test]
    fn only_what_fits_is_read() {
        let check = |text: &str, want: Option<usize>| {
            assert_eq!(read_metrics(text, &SPEC).map(|metrics| metrics.len()), want, "{:.80}", text);
        };
        let pods = |selector: &str| format!(r#"[{{"type": "Pods", "pods": {{"selector": {selector}}}}}]"#);
        check(&pods("null"), Some(1));
        check(&pods(r#"{"matchLabels": {"a": "b"}}"#), Some(1));
        check(&pods(r#"{"matchLabels": {"a": 5}}"#), None);
        check("[{},{}]", Some(2));
        check(&format!("[{}{{}}]", "{},".repeat(50_000)), None);
        check(&format!("[{}]", " ".repeat(ANNOTATIONS_MAX - 2)), Some(0));
        check(&format!("[{}]", " ".repeat(ANNOTATIONS_MAX - 1)), None);
    }
}
