//! Annotations of pods and templates that mean something: what they may say, and that they agree with the fields that have
//! taken their place.

use super::defaults::CONTAINER_LISTS;
use super::volume::descending_path;
use super::{MIRROR, affinity, app_armor};
use crate::field::{Errors, Fields, Path};
use crate::metadata::ANNOTATIONS_MAX;
use crate::rules::each_of;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// A pod's seccomp profile.
pub const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// That of a container, whose name follows.
pub const SECCOMP_OF: &str = "container.seccomp.security.alpha.kubernetes.io/";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const LOCAL: &str = "localhost/";

/// Errors of the annotations of a pod or template; `path` is theirs. A cost that `old` has already may be wrong.
pub fn check(errors: &mut Errors, of: &Value, old: Option<&Value>, path: &Path<'_>) {
    let (annotations, spec) = (of.at("metadata").at("annotations"), of.at("spec"));
    if annotations.has(MIRROR) && spec.text("nodeName").is_empty() {
        let text = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&path.key(MIRROR), annotations.text(MIRROR), text);
    }
    if !annotations.text(TOLERATIONS).is_empty() {
        match tolerations(annotations.text(TOLERATIONS)) {
            Ok(list) => {
                let of = Value::Object(Map::from_iter([("tolerations".to_owned(), list)]));
                affinity::tolerations(errors, &of, &path.field(TOLERATIONS));
            }
            Err(why) => errors.invalid(path, TOLERATIONS, &why),
        }
    }
    let wrong_cost = |of: &Value| of.at(DELETION_COST).as_str().is_some_and(|cost| !is_cost(cost));
    if wrong_cost(annotations) && !old.is_some_and(|old| wrong_cost(old.at("metadata").at("annotations"))) {
        errors.invalid(&path.key(DELETION_COST), annotations.text(DELETION_COST), "must be a 32bit integer");
    }
    if annotations.has(SECCOMP) {
        seccomp(errors, annotations.text(SECCOMP), &path.field(SECCOMP));
    }
    let with = |prefix: &'static str| {
        let pairs = annotations.as_object().into_iter().flatten();
        pairs.filter_map(move |(key, value)| Some((key, key.strip_prefix(prefix)?, value.as_str().unwrap_or(""))))
    };
    with(SECCOMP_OF).for_each(|(key, _, profile)| seccomp(errors, profile, &path.field(key)));
    let mut containers = None;
    with(app_armor::PREFIX).for_each(|(key, name, profile)| {
        let containers = containers.get_or_insert_with(|| names(spec));
        app_armor(errors, containers, name, profile, &path.key(key));
    });
}

/// Errors of changed annotations: some stay what they were, and the rest is looked at once more.
pub fn update<'a>(errors: &mut Errors, new: &'a Value, old: &'a Value, path: &Path<'_>) {
    let (now, was) = (new.at("metadata").at("annotations"), old.at("metadata").at("annotations"));
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key => key.starts_with(app_armor::PREFIX).then_some("AppArmor annotations"),
    };
    let mut refuse = |key: &str, done: &str| {
        if let Some(what) = fixed(key) {
            errors.forbidden(&path.key(key), &format!("may not {done} {what}"));
        }
    };
    let pairs = |of: &'a Value| of.as_object().into_iter().flatten();
    pairs(was).filter(|(key, value)| now.get(key) != Some(value)).for_each(|(key, _)| refuse(key, "remove or update"));
    pairs(now).filter(|(key, _)| was.get(key).is_none()).for_each(|(key, _)| refuse(key, "add"));
    check(errors, new, Some(old), path);
}

/// Errors where the fields of a new pod, or of a template, say other than its annotations.
pub fn agree(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (annotations, spec) = (of.at("metadata").at("annotations"), of.at("spec"));
    let (context, of_pod) = (spec.at("securityContext"), path.field("securityContext"));
    let seccomp: Words = Words { what: "seccomp", defaults: &["runtime/default", "docker/default"] };
    seccomp.agree(errors, annotations.at(SECCOMP), context.at("seccompProfile"), &of_pod.field("seccompProfile"));
    each_of(spec, &CONTAINER_LISTS, path, |c, path| {
        let said = annotations.at(&format!("{SECCOMP_OF}{}", c.text("name")));
        let field = c.at("securityContext").at("seccompProfile");
        seccomp.agree(errors, said, field, &path.field("securityContext.seccompProfile"));
    });
    if app_armor::is_windows(spec) {
        return;
    }
    let app_armor = Words { what: "apparmor", defaults: &["runtime/default"] };
    each_of(spec, &CONTAINER_LISTS, path, |c, path| {
        let said = annotations.at(&app_armor::annotation(c.text("name")));
        let own = c.at("securityContext").at("appArmorProfile");
        let field = if own.is_null() { context.at("appArmorProfile") } else { own };
        app_armor.agree(errors, said, field, &path.field("securityContext.appArmorProfile"));
    });
}

/// How the annotations of one mechanism are worded.
struct Words {
    what: &'static str,
    /// What stands for the runtime's profile.
    defaults: &'static [&'static str],
}

impl Words {
    fn agree(&self, errors: &mut Errors, said: &Value, field: &Value, path: &Path<'_>) {
        let Some(said) = said.as_str() else { return };
        let (what, local) = (self.what, said.strip_prefix(LOCAL));
        let same = match field.text("type") {
            "Unconfined" => said == "unconfined",
            "RuntimeDefault" => self.defaults.contains(&said),
            "Localhost" => local.is_some(),
            _ => true,
        };
        if !same {
            errors.forbidden(&path.field("type"), &format!("{what} type in annotation and field must match"));
        } else if field.text("type") == "Localhost" && local != field.at("localhostProfile").as_str() {
            let text = format!("{what} profile in annotation and field must match");
            errors.forbidden(&path.field("localhostProfile"), &text);
        }
    }
}

fn seccomp(errors: &mut Errors, profile: &str, path: &Path<'_>) {
    match (profile, profile.strip_prefix(LOCAL)) {
        ("runtime/default" | "docker/default" | "unconfined", _) => {}
        (_, Some(local)) => descending_path(errors, &local.into(), path),
        _ => errors.invalid(path, profile, "must be a valid seccomp profile"),
    }
}

fn names(spec: &Value) -> HashSet<&str> {
    CONTAINER_LISTS.iter().flat_map(|list| spec.list(list)).map(|c| c.text("name")).collect()
}

fn app_armor(errors: &mut Errors, containers: &HashSet<&str>, container: &str, profile: &str, path: &Path<'_>) {
    if !containers.contains(container) {
        errors.invalid(path, container, "container not found");
    }
    if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with(LOCAL) {
        errors.invalid(path, profile, &format!("invalid AppArmor profile name: {profile:?}"));
    }
}

/// Whether Go reads it as a number of 32 bits, without a plus sign or zeros before it.
fn is_cost(text: &str) -> bool {
    let first = text.starts_with('-') || text == "0" || text.starts_with(|c| ('1'..='9').contains(&c));
    first && text.parse::<i32>().is_ok()
}

/// The tolerations of an annotation, or why they cannot be read.
fn tolerations(text: &str) -> Result<Value, String> {
    const ANY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
    if text.len() > ANNOTATIONS_MAX {
        return Err("the annotations are too long".into());
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        // The decoder words syntax errors as Go does.
        let why = schema::decode_slice(ANY, text.as_bytes(), |_| None).err().unwrap_or_default();
        return Err(why.strip_prefix("syntax: ").unwrap_or(&why).to_owned());
    };
    let go = |value: &Value| match value {
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
        Value::Object(_) | Value::Null => None,
    };
    let items = match &value {
        Value::Array(items) => items.as_slice(),
        Value::Null => &[],
        other => {
            let found = go(other).unwrap_or("object");
            return Err(format!("json: cannot unmarshal {found} into Go value of type []core.Toleration"));
        }
    };
    match items.iter().find_map(go) {
        Some(found) => Err(format!("json: cannot unmarshal {found} into Go value of type core.Toleration")),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PATH: Path<'_> = Path::root("a");

    fn texts(errors: Errors) -> Vec<String> {
        errors.0.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    fn pod(annotations: Value) -> Value {
        json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "c"}]}})
    }

    #[test]
    fn annotations_are_checked() {
        let check = |key: &str, value: &str, want: &str| {
            let mut errors = Errors::default();
            super::check(&mut errors, &pod(json!({key: value})), None, &PATH);
            assert_eq!(texts(errors), Vec::from_iter((!want.is_empty()).then_some(want)), "{key}: {value}");
        };
        let cost = format!("a[{DELETION_COST}]: Invalid value: ");
        for fine in ["0", "-5", "2147483647"] {
            check(DELETION_COST, fine, "");
        }
        for wrong in ["+1", "01", "", "2147483648"] {
            check(DELETION_COST, wrong, &format!("{cost}{wrong:?}: must be a 32bit integer"));
        }
        check(SECCOMP, "docker/default", "");
        check(SECCOMP, "localhost/a/b", "");
        check(SECCOMP, "odd", &format!("a.{SECCOMP}: Invalid value: \"odd\": must be a valid seccomp profile"));
        check(SECCOMP, "localhost/../b", &format!("a.{SECCOMP}: Invalid value: \"../b\": must not contain '..'"));
        let of = app_armor::annotation;
        check(&of("c"), "runtime/default", "");
        let odd = "Invalid value: \"odd\": invalid AppArmor profile name: \"odd\"";
        check(&of("c"), "odd", &format!("a[{}]: {odd}", of("c")));
        check(&of("d"), "", &format!("a[{}]: Invalid value: \"d\": container not found", of("d")));
        check(TOLERATIONS, "[]", "");
        let array = "json: cannot unmarshal object into Go value of type []core.Toleration";
        check(TOLERATIONS, "{}", &format!("a: Invalid value: {TOLERATIONS:?}: {array}"));
        let syntax = "invalid character 'x' looking for beginning of value";
        check(TOLERATIONS, "x", &format!("a: Invalid value: {TOLERATIONS:?}: {syntax}"));
    }

    #[test]
    fn some_annotations_stay() {
        let key = app_armor::annotation("c");
        let check = |was: Value, now: Value, want: &[String]| {
            let mut errors = Errors::default();
            update(&mut errors, &pod(now), &pod(was), &PATH);
            assert_eq!(texts(errors), want);
        };
        let (none, set, other) = (json!({}), json!({&key: "unconfined"}), json!({&key: "runtime/default"}));
        check(set.clone(), set.clone(), &[]);
        check(none.clone(), set.clone(), &[format!("a[{key}]: Forbidden: may not add AppArmor annotations")]);
        for now in [none, other] {
            let text = format!("a[{key}]: Forbidden: may not remove or update AppArmor annotations");
            check(set.clone(), now, &[text]);
        }
        check(json!({DELETION_COST: "x"}), json!({DELETION_COST: "y"}), &[]);
    }

    #[test]
    fn annotations_agree_with_fields() {
        let check = |annotations: Value, context: Value, want: &str| {
            let mut pod = pod(annotations);
            pod["spec"]["containers"][0]["securityContext"] = context;
            let mut errors = Errors::default();
            agree(&mut errors, &pod, &Path::root("spec"));
            assert_eq!(texts(errors), Vec::from_iter((!want.is_empty()).then_some(want)));
        };
        let key = format!("{SECCOMP_OF}c");
        let local = |field: &str| json!({field: {"type": "Localhost", "localhostProfile": "p"}});
        check(json!({&key: "localhost/p"}), local("seccompProfile"), "");
        let at = "spec.containers[0].securityContext";
        let words = "profile in annotation and field must match";
        let text = format!("{at}.seccompProfile.localhostProfile: Forbidden: seccomp {words}");
        check(json!({&key: "localhost/q"}), local("seccompProfile"), &text);
        let key = app_armor::annotation("c");
        let text = format!("{at}.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match");
        check(json!({&key: "unconfined"}), local("appArmorProfile"), &text);
        check(json!({&key: "unconfined"}), json!({"appArmorProfile": {"type": "Unconfined"}}), "");
    }
}
