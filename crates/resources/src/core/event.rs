//! Events. They are stored in this form whichever group they come by; only the rules of a new one differ.

use crate::age;
use crate::columns::{NAME, or_none};
use crate::field::{Errors, Fields, Path, map_mut};
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

    /// Its finalizers are not held against the standard ones.
    fn is_built_in(&self) -> bool {
        false
    }

    /// The old form is hardly validated.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::names::path_segment(name, prefix)
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
        series(&mut errors, obj);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        either_form(&mut errors, new, "reportingController");
        if !crate::field::same(new.at("series"), old.at("series")) {
            series(&mut errors, new);
        }
        for field in [
            "involvedObject",
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "reason",
            "type",
            "eventTime",
            "action",
            "related",
            "reportingComponent",
            "reportingInstance",
        ] {
            let shown = if field == "reportingComponent" { "reportingController" } else { field };
            let (path, now, was) = (Path::root(shown), new.at(field), old.at(field));
            match field {
                "source" if !crate::field::same(now, was) => {
                    errors.invalid_struct(&path, "io.k8s.api.core.v1.EventSource", now, crate::field::IMMUTABLE);
                }
                "involvedObject" | "related" if !crate::field::same(now, was) => {
                    errors.invalid_struct(&path, "io.k8s.api.core.v1.ObjectReference", now, crate::field::IMMUTABLE);
                }
                "source" | "involvedObject" | "related" => {}
                "firstTimestamp" | "lastTimestamp" | "eventTime" | "count" => drop(errors.immutable(&path, now, was)),
                _ => errors.immutable_text(&path, now, was),
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
        return;
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
}

fn row(obj: &Object, now: Timestamp) -> Vec<Value> {
    let time = |field: &str| obj.get(field).filter(|v| !v.is_null()).or(obj.get("eventTime"));
    let (mut first, mut last) = (age::since(time("firstTimestamp"), now), age::since(time("lastTimestamp"), now));
    let (series, mut count) = (obj.at("series"), obj.int("count").unwrap_or(0));
    if !obj.has("firstTimestamp") {
        first = age::since(obj.get("eventTime"), now);
    }
    if !obj.has("lastTimestamp") {
        last = first.clone();
    }
    if !series.is_null() {
        last = age::since(series.get("lastObservedTime"), now);
        count = series.int("count").unwrap_or(0);
    } else if count == 0 {
        // an event without a series happened once
        count = 1;
    }
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
