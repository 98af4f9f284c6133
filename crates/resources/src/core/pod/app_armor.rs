//! AppArmor profiles of containers as annotations, which stood for a field before there was one.

use super::defaults::CONTAINER_LISTS;
use crate::field::{Fields, Path, items_mut, map_mut, same};
use crate::rules::each_of;
use serde_json::{Value, json};

/// What an annotation is told.
pub const DEPRECATED: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";

/// What the key of a container's annotation begins with; its name follows.
pub const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The key of a container's annotation.
pub fn annotation(container: &str) -> String {
    format!("{PREFIX}{container}")
}

/// The field that an annotation stands for, if it can be one.
pub fn profile(text: &str) -> Option<Value> {
    match text {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        text => {
            let name = text.strip_prefix("localhost/").filter(|name| !name.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// Sets the fields that annotations of a new pod stand for.
pub fn set_fields(pod: &mut Value) {
    let (annotations, of_pod) = (pod.at("metadata").at("annotations").clone(), of_pod(pod).clone());
    let Some(spec) = pod.get_mut("spec").filter(|spec| !is_windows(spec)) else { return };
    for list in CONTAINER_LISTS {
        for c in items_mut(spec, list) {
            let Some(Replaced::By(profile)) = replaced(c, &annotations, &of_pod) else { continue };
            if let Some(context) = map_mut(c, "securityContext") {
                context["appArmorProfile"] = profile;
            }
        }
    }
}

/// Warnings about annotations of a new pod in whose place fields are set, or that are no good for any.
pub fn warnings(pod: &Value) -> Vec<String> {
    let (mut out, annotations) = (Vec::new(), pod.at("metadata").at("annotations"));
    if is_windows(pod.at("spec")) {
        return out;
    }
    let path = Path::root("metadata.annotations");
    each_of(pod.at("spec"), &CONTAINER_LISTS, &Path::TOP, |c, _| {
        if replaced(c, annotations, of_pod(pod)).is_some() {
            out.push(format!("{}: {DEPRECATED}", path.key(&annotation(c.text("name")))));
        }
    });
    out
}

/// Whether a pod is for Windows, which has no AppArmor.
pub fn is_windows(spec: &Value) -> bool {
    spec.at("os").text("name") == "windows"
}

fn of_pod(pod: &Value) -> &Value {
    pod.at("spec").at("securityContext").at("appArmorProfile")
}

/// What becomes of an annotation.
enum Replaced {
    By(Value),
    /// It says nothing that a field could.
    ByNothing,
}

/// What takes the place of a container's annotation, unless a field says it already.
fn replaced(c: &Value, annotations: &Value, of_pod: &Value) -> Option<Replaced> {
    let said = annotations.at(&annotation(c.text("name"))).as_str()?;
    if c.at("securityContext").has("appArmorProfile") {
        return None;
    }
    let name = |profile: &Value| profile.text("localhostProfile").to_owned();
    let valid = |profile: &Value| name(profile).trim() == name(profile) && name(profile).len() <= 4095;
    match profile(said).filter(valid) {
        Some(profile) if same(&profile, of_pod) => None,
        Some(profile) => Some(Replaced::By(profile)),
        None => Some(Replaced::ByNothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_become_fields() {
        let key = annotation("c");
        let check = |said: &str, pod: Value, own: Value, want: Value, warned: usize| {
            let mut pod = json!({"metadata": {"annotations": {&key: said}}, "spec":
                {"securityContext": {"appArmorProfile": pod}, "containers": [{"name": "c", "securityContext": {"appArmorProfile": own}}]}});
            let texts = warnings(&pod);
            assert_eq!(texts, vec![format!("metadata.annotations[{key}]: {DEPRECATED}"); warned]);
            set_fields(&mut pod);
            assert_eq!(pod.at("spec").list("containers")[0].at("securityContext").at("appArmorProfile"), &want);
        };
        let (unconfined, local) =
            (json!({"type": "Unconfined"}), json!({"type": "Localhost", "localhostProfile": "p"}));
        check("unconfined", Value::Null, Value::Null, unconfined.clone(), 1);
        check("localhost/p", unconfined.clone(), Value::Null, local.clone(), 1);
        check("localhost/p", Value::Null, local.clone(), local.clone(), 0);
        check("localhost/p", local, Value::Null, Value::Null, 0);
        check("localhost/ p", Value::Null, Value::Null, Value::Null, 1);
        check("runtime/default", Value::Null, unconfined.clone(), unconfined, 0);
    }
}
