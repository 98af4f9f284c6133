//! Events. They are stored in this form whichever group they come by; only the rules of a new one differ.

use crate::age;
use crate::columns::{NAME, or_none};
use crate::field::{Errors, Fields, IMMUTABLE, Path, map_mut, same};
use crate::{Ctx, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Core events.
pub struct Event;

/// `events.k8s.io` events: default on their own form, everything else on the stored one.
pub struct NewEvent;

const COLUMNS: &[Column] = &[
    Column::string("Last Seen").field("io.k8s.api.core.v1.Event", "lastTimestamp"),
    Column::string("Type").field("io.k8s.api.core.v1.Event", "type"),
    Column::string("Reason").field("io.k8s.api.core.v1.Event", "reason"),
    Column::string("Object").field("io.k8s.api.core.v1.Event", "involvedObject"),
    Column::string("Subobject").wide().field("io.k8s.api.core.v1.ObjectReference", "fieldPath"),
    Column::string("Source").wide().field("io.k8s.api.core.v1.Event", "source"),
    Column::string("Message").field("io.k8s.api.core.v1.Event", "message"),
    Column::string("First Seen").wide().field("io.k8s.api.core.v1.Event", "firstTimestamp"),
    Column::string("Count").wide().field("io.k8s.api.core.v1.Event", "count"),
    NAME.wide(),
];

impl Strategy for Event {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "source");
        map_mut(obj, "involvedObject");
        for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            if !obj.has(field) {
                obj[field] = Value::Null;
            }
        }
        for field in ["reportingComponent", "reportingInstance"] {
            if !obj.has(field) {
                obj[field] = "".into();
            }
        }
    }

    /// The old form is hardly validated.
    fn metadata_on_create(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        either_form(&mut errors, obj, "reportingComponent");
        errors.0
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        let about = obj.at("involvedObject");
        let source = match obj.at("source").text("component") {
            "" => obj.text("reportingComponent"),
            component => component,
        };
        vec![
            ("involvedObject.kind", about.text("kind").into()),
            ("involvedObject.namespace", about.text("namespace").into()),
            ("involvedObject.name", about.text("name").into()),
            ("involvedObject.uid", about.text("uid").into()),
            ("involvedObject.apiVersion", about.text("apiVersion").into()),
            ("involvedObject.resourceVersion", about.text("resourceVersion").into()),
            ("involvedObject.fieldPath", about.text("fieldPath").into()),
            ("reason", obj.text("reason").into()),
            ("reportingComponent", obj.text("reportingComponent").into()),
            ("source", source.into()),
            ("type", obj.text("type").into()),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        row(obj, now)
    }
}

impl Strategy for NewEvent {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "regarding");
        map_mut(obj, "deprecatedSource");
        for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"] {
            if !obj.has(field) {
                obj[field] = Value::Null;
            }
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        either_form(&mut errors, obj, "reportingController");
        series(&mut errors, obj);
        if !obj.has("eventTime") {
            errors.required(&Path::root("eventTime"), "");
        }
        if !["Normal", "Warning"].contains(&obj.text("type")) {
            errors.invalid(&Path::root("type"), "", "has invalid value: ");
            if let Some(cause) = errors.0.last_mut() {
                cause.message = format!("Invalid value: \"\": has invalid value: {}", obj.text("type"));
            }
        }
        let unset = [
            ("firstTimestamp", obj.has("firstTimestamp")),
            ("lastTimestamp", obj.has("lastTimestamp")),
            ("count", obj.int("count").unwrap_or(0) != 0),
            ("source", !obj.at("source").text("component").is_empty() || !obj.at("source").text("host").is_empty()),
        ];
        for (field, _) in unset.iter().filter(|(_, set)| *set) {
            errors.invalid(&Path::root(field), "", "needs to be unset");
        }
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        either_form(&mut errors, new, "reportingController");
        if !same(new.at("series"), old.at("series")) {
            series(&mut errors, new);
        }
        for (field, shown, kind) in FROZEN {
            let (path, now, was) = (Path::root(shown), new.at(field), old.at(field));
            match kind {
                As::Struct(schema) if !same(now, was) => errors.invalid_struct(&path, schema, now, IMMUTABLE),
                As::Struct(_) => {}
                As::Number => {
                    if now.as_i64().unwrap_or(0) != was.as_i64().unwrap_or(0) {
                        errors.invalid(&path, now.as_i64().unwrap_or(0), IMMUTABLE);
                    }
                }
                As::Text => errors.immutable_text(&path, now, was),
                As::MicroTime if microsecond(now) == microsecond(was) => {}
                As::Value | As::MicroTime => drop(errors.immutable(&path, now, was)),
            }
        }
        errors.0
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        Event.selectable_fields(obj)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        row(obj, now)
    }
}

/// How a field is compared and shown.
enum As {
    Value,
    Number,
    Text,
    /// By its schema.
    Struct(&'static str),
    /// To the microsecond: clients may have held it more exactly than it is written.
    MicroTime,
}

/// What may not change: the field, its name in errors.
const FROZEN: &[(&str, &str, As)] = &[
    ("involvedObject", "involvedObject", As::Struct("io.k8s.api.core.v1.ObjectReference")),
    ("reason", "reason", As::Text),
    ("message", "message", As::Text),
    ("source", "source", As::Struct("io.k8s.api.core.v1.EventSource")),
    ("firstTimestamp", "firstTimestamp", As::Value),
    ("lastTimestamp", "lastTimestamp", As::Value),
    ("count", "count", As::Number),
    ("reason", "reason", As::Text),
    ("type", "type", As::Text),
    ("eventTime", "eventTime", As::MicroTime),
    ("action", "action", As::Text),
    ("related", "related", As::Struct("io.k8s.api.core.v1.ObjectReference")),
    ("reportingComponent", "reportingController", As::Text),
    ("reportingInstance", "reportingInstance", As::Text),
];

fn microsecond(time: &Value) -> Option<i64> {
    let time: Timestamp = time.as_str()?.parse().ok()?;
    i64::try_from(time.as_nanosecond().div_euclid(1000)).ok()
}

fn series(errors: &mut Errors, obj: &Object) {
    let series = obj.at("series");
    if series.is_null() {
        return;
    }
    if series.int("count").unwrap_or(0) < 2 {
        errors.invalid(&Path::root("series.count"), "", "should be at least 2");
    }
    if !series.has("lastObservedTime") {
        errors.required(&Path::root("series.lastObservedTime"), "");
    }
}

/// The rules of both groups; `controller` is the group's name of the field.
fn either_form(errors: &mut Errors, obj: &Object, controller: &str) {
    let (ns, about) = (api::meta::namespace(obj), obj.at("involvedObject").text("namespace"));
    let text = "does not match event.namespace";
    let path = Path::root("involvedObject.namespace");
    if !obj.has("eventTime") {
        let fine = if about.is_empty() { ns.is_empty() || ns == "default" } else { about == ns };
        if !fine {
            errors.invalid(&path, about, text);
        }
        return namespace(errors, obj);
    }
    if about.is_empty() && ns != "default" && ns != "kube-system" {
        errors.invalid(&path, about, text);
    }
    let path = Path::root(controller);
    let component = obj.text("reportingComponent");
    if component.is_empty() {
        errors.required(&path, "");
    }
    errors.invalid_each(&path, component, names::qualified_name(component));
    for (field, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)] {
        let (text, path) = (obj.text(field), Path::root(field));
        if text.is_empty() && field != "message" {
            errors.required(&path, "");
        }
        if text.len() > max {
            errors.invalid(&path, "", &format!("can have at most {max} characters"));
        }
    }
    namespace(errors, obj);
}

/// The name of the namespace may be what that of an object may be.
fn namespace(errors: &mut Errors, obj: &Object) {
    let ns = api::meta::namespace(obj);
    errors.invalid_each(&Path::root("namespace"), ns, names::subdomain(ns));
}

fn row(obj: &Object, now: Timestamp) -> Vec<Value> {
    let given = |field: &str| obj.get(field).filter(|time| !time.is_null());
    let first = given("firstTimestamp").or(given("eventTime"));
    let (last, count) = match obj.at("series") {
        Value::Null => (given("lastTimestamp").or(first), obj.int("count").filter(|count| *count != 0).unwrap_or(1)),
        series => (series.get("lastObservedTime"), series.int("count").unwrap_or(0)),
    };
    let (first, last) = (age::since(first, now), age::since(last, now));
    let about = obj.at("involvedObject");
    let target = match about.text("name") {
        "" => about.text("kind").to_lowercase(),
        name => format!("{}/{name}", about.text("kind").to_lowercase()),
    };
    vec![
        last.into(),
        obj.text("type").into(),
        obj.text("reason").into(),
        target.into(),
        about.text("fieldPath").into(),
        source(obj).into(),
        obj.text("message").trim().into(),
        first.into(),
        count.into(),
        or_none(api::meta::name(obj)),
    ]
}

fn source(obj: &Object) -> String {
    let source = obj.at("source");
    let (component, host) = match source.text("component") {
        "" => (obj.text("reportingComponent"), obj.text("reportingInstance")),
        component => (component, source.text("host")),
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_time_stays_to_the_microsecond() {
        let ctx = Ctx { user: "u", groups: &[], now: Timestamp::UNIX_EPOCH, dry_run: false };
        let event = |time: &str| {
            json!({"metadata": {"name": "a", "namespace": "default"}, "eventTime": time, "reason": "r", "action": "a",
                "reportingComponent": "c/d", "reportingInstance": "i", "involvedObject": {"namespace": "default"}})
        };
        let check = |time: &str, want: &[&str]| {
            let errors = NewEvent.validate_update(&ctx, &event(time), &event("2026-01-01T00:00:00.000001Z"));
            assert_eq!(errors.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), want);
        };
        check("2026-01-01T00:00:00.000001Z", &[]);
        check("2026-01-01T01:00:00.000001999+01:00", &[]);
        check("2026-01-01T00:00:00.000002Z", &["eventTime"]);
    }

    #[test]
    fn a_series_says_when_and_how_often() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let check = |obj: Value, want: [&str; 3]| {
            let row = row(&obj, now);
            let shown = [&row[0], &row[7], &row[8]].map(|cell| cell.as_str().map_or(cell.to_string(), str::to_owned));
            assert_eq!(shown, want);
        };
        let at = |second: u8| format!("2026-01-01T00:00:{second:02}Z");
        check(json!({"eventTime": at(20)}), ["40s", "40s", "1"]);
        check(
            json!({"firstTimestamp": at(10), "lastTimestamp": at(30), "eventTime": at(20), "count": 3}),
            ["30s", "50s", "3"],
        );
        check(json!({"firstTimestamp": at(10), "count": 0}), ["50s", "50s", "1"]);
        let series = json!({"lastObservedTime": at(50), "count": 4});
        check(json!({"eventTime": at(20), "series": series, "count": 1}), ["10s", "40s", "4"]);
        check(json!({}), ["<unknown>", "<unknown>", "1"]);
    }
}
