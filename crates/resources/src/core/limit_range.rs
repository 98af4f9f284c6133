//! Limit ranges.

use crate::core::quantities::{container_resource_name, may_overcommit, quantity, resource_name, round_up};
use crate::field::{Errors, Fields, Path, field_mut, items_mut, map_mut, set_default};
use crate::names;
use crate::{Ctx, Strategy};
use api::quantity::Quantity;
use api::{Cause, Object};
use serde_json::Value;
use std::collections::BTreeSet;

/// Limit ranges.
pub struct LimitRange;

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

impl Strategy for LimitRange {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            if !spec.has("limits") {
                spec["limits"] = Value::Null;
            }
            items_mut(spec, "limits").for_each(item_defaults);
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        // a limit range without a name gets a unique one, other than its uid
        if api::meta::name(obj).is_empty() {
            let (head, tail) = api::meta::uid(obj).split_once('-').unwrap_or_default();
            let name = format!("{}-{tail}", head.chars().rev().collect::<String>());
            api::meta::set(obj, "name", name);
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Create
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("spec.limits"));
        let mut kinds = std::collections::HashSet::new();
        for (i, limit) in obj.at("spec").list("limits").iter().enumerate() {
            let (path, kind) = (path.index(i), limit.text("type"));
            type_name(&mut errors, kind, &path.field("type"));
            if !kinds.insert(kind) {
                errors.duplicate(&path.field("type"), kind);
            }
            item(&mut errors, limit, kind, &path);
        }
        errors.0
    }
}

/// For containers: the default is the maximum, the default request the default or the minimum.
fn item_defaults(limit: &mut Value) {
    for list in LISTS {
        field_mut(limit, list).into_iter().for_each(round_up);
    }
    if limit.text("type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let source = limit.at(from).clone();
        if let Some(target) = map_mut(limit, to) {
            source.as_object().into_iter().flatten().for_each(|(name, value)| set_default(target, name, value.clone()));
        }
    }
    for list in ["default", "defaultRequest"] {
        crate::field::drop_empty(limit, list);
    }
}

fn type_name(errors: &mut Errors, kind: &str, path: &Path<'_>) {
    let wrong = names::qualified_name(kind);
    let known = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind);
    if !wrong.is_empty() {
        errors.invalid_each(path, kind, wrong);
    } else if !kind.contains('/') && !known {
        errors.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

fn item(errors: &mut Errors, limit: &Value, kind: &str, path: &Path<'_>) {
    let mut keys: BTreeSet<&str> = BTreeSet::new();
    for list in LISTS {
        let path_of = path.field(list);
        if kind == "Pod" && ["default", "defaultRequest"].contains(&list) {
            if limit.entries(list).next().is_some() {
                errors.forbidden(&path_of, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        if list == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            claim(errors, limit, path);
        }
        for (name, _) in limit.entries(list) {
            match kind {
                "Pod" | "Container" => container_resource_name(errors, name, &path_of.key(name)),
                _ => drop(resource_name(errors, name, &path_of.key(name))),
            }
            keys.insert(name);
        }
    }
    keys.into_iter().for_each(|key| amounts(errors, limit, key, path));
}

fn claim(errors: &mut Errors, limit: &Value, path: &Path<'_>) {
    if !limit.at("min").has("storage") && !limit.at("max").has("storage") {
        let text = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.field("limits"), text);
    }
}

fn amounts(errors: &mut Errors, limit: &Value, key: &str, path: &Path<'_>) {
    let of = |list: &str| Some(limit.at(list).at(key)).filter(|v| !v.is_null()).map(quantity);
    let (min, max, default, request) = (of("min"), of("max"), of("default"), of("defaultRequest"));
    let mut check =
        |low: Option<Quantity>, high: Option<Quantity>, list: &str, shown: Option<Quantity>, words: (&str, &str)| {
            if let (Some(low), Some(high), Some(shown)) = (low, high, shown) {
                if low > high {
                    let text = format!("{} value {low} is greater than {} value {high}", words.0, words.1);
                    errors.invalid(&path.field(list).key(key), shown.to_string(), &text);
                }
            }
        };
    check(min, max, "min", min, ("min", "max"));
    check(min, request, "defaultRequest", request, ("min", "default request"));
    check(request, max, "defaultRequest", request, ("default request", "max"));
    check(request, default, "defaultRequest", request, ("default request", "default limit"));
    check(min, default, "default", min, ("min", "default"));
    check(default, max, "default", max, ("default", "max"));
    if let Some(ratio) = of("maxLimitRequestRatio") {
        self::ratio(errors, ratio, min, max, &path.field("maxLimitRequestRatio").key(key));
    }
    if let (false, Some(default), Some(request)) = (may_overcommit(key), default, request) {
        if default != request {
            let text = format!("default value {default} must equal to defaultRequest value {request} in {key}");
            errors.invalid(&path.field("defaultRequest").key(key), request.to_string(), &text);
        }
    }
}

fn ratio(errors: &mut Errors, ratio: Quantity, min: Option<Quantity>, max: Option<Quantity>, path: &Path<'_>) {
    if ratio.milli_value() < 1000 {
        errors.invalid(path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let bound = max.milli_value() as f64 / min.milli_value() as f64;
        if ratio.milli_value() as f64 / 1000.0 > bound {
            errors.invalid(path, ratio.to_string(), &format!("ratio {ratio} is greater than max/min = {bound:.6}"));
        }
    }
}
