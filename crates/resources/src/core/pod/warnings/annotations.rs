//! Annotations that stood for a field before there was one.

use super::Found;
use crate::core::pod::annotations::{SECCOMP, SECCOMP_OF};
use crate::core::pod::app_armor;
use crate::field::{Fields, Path, same};
use serde_json::Value;

/// Without a function, or soon without one.
const OUTDATED: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const NO_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

/// A pod or template with its annotations.
pub struct Annotated<'a> {
    annotations: &'a Value,
    context: &'a Value,
    path: Path<'a>,
    is_template: bool,
}

impl<'a> Annotated<'a> {
    /// `path` is that of the pod or template, which the paths of its annotations begin with.
    pub fn new(of: &'a Value, path: &'a Path<'a>, is_template: bool) -> Self {
        let (annotations, context) = (of.at("metadata").at("annotations"), of.at("spec").at("securityContext"));
        Self { annotations, context, path: path.field("metadata.annotations"), is_template }
    }

    /// Those that no field of a container or pod makes good.
    pub fn outdated(&self, out: &mut Found) {
        OUTDATED.iter().for_each(|(key, text)| self.has(out, key, text));
    }

    /// The pod's seccomp profile, where its field is not set.
    pub fn seccomp_of_pod(&self, out: &mut Found) {
        if !self.context.has("seccompProfile") {
            self.has(out, SECCOMP, NO_SECCOMP);
        }
    }

    /// Profiles of a container whose fields are not set.
    pub fn of_container(&self, out: &mut Found, c: &Value) {
        let (name, context) = (c.text("name"), c.at("securityContext"));
        if !context.has("seccompProfile") {
            self.has(out, &format!("{SECCOMP_OF}{name}"), NO_SECCOMP);
        }
        let key = app_armor::annotation(name);
        // A pod is warned of when its fields are set from the annotations.
        if self.is_template && !context.has("appArmorProfile") && self.differs(&key) {
            self.has(out, &key, app_armor::DEPRECATED);
        }
    }

    /// Whether an annotation says other than the pod's field.
    fn differs(&self, key: &str) -> bool {
        let of_pod = self.context.at("appArmorProfile");
        let said = app_armor::profile(self.annotations.text(key));
        of_pod.is_null() || !said.is_some_and(|profile| same(&profile, of_pod))
    }

    fn has(&self, out: &mut Found, key: &str, text: &str) {
        if self.annotations.has(key) {
            out.add(self.path.key(key), text);
        }
    }
}
