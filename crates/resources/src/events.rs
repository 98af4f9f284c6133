//! `events.k8s.io/v1`: the same objects as core events under other names.

use crate::table::Conversion;
use api::Object;
use serde_json::{Value, json};

/// `events.k8s.io/v1` ⇄ the stored core form.
pub static CONVERSION: Conversion = Conversion { stored: "v1", to_stored, from_stored, stored_field };

/// Served names and stored names.
const NAMES: [(&str, &str); 8] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("apiVersion", "apiVersion"),
];

fn stored_field(served: &str) -> Option<String> {
    match served {
        "reason" | "type" | "metadata.name" | "metadata.namespace" => Some(served.to_owned()),
        "reportingController" => Some("reportingComponent".to_owned()),
        _ => served.strip_prefix("regarding.").map(|field| format!("involvedObject.{field}")),
    }
}

fn to_stored(obj: &mut Object) {
    rename(obj, "v1", |(served, stored)| (served, stored));
}

fn from_stored(obj: &mut Object) {
    rename(obj, "events.k8s.io/v1", |(served, stored)| (stored, served));
    // The core form always has them, this one only with a text.
    for field in ["reportingController", "reportingInstance"] {
        crate::field::drop_empty(obj, field);
    }
}

fn rename(
    obj: &mut Object,
    api_version: &str,
    order: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Value::Object(map) = obj else { return };
    for (from, to) in NAMES.map(order) {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".into(), api_version.into());
    if api_version == "v1" {
        map.entry("involvedObject").or_insert_with(|| json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_both_ways() {
        let mut event =
            json!({"apiVersion": "events.k8s.io/v1", "regarding": {"kind": "Pod"}, "note": "n", "deprecatedCount": 2});
        let served = event.clone();
        to_stored(&mut event);
        assert_eq!(event, json!({"apiVersion": "v1", "involvedObject": {"kind": "Pod"}, "message": "n", "count": 2}));
        event["reportingInstance"] = json!("");
        from_stored(&mut event);
        assert_eq!(event, served);
    }
}
