//! Pod templates, as all workloads hold them.

use super::{annotations, pod_spec};
use crate::field::{Errors, Fields, Path};
use crate::metadata;
use serde_json::Value;

/// Errors of a `PodTemplateSpec`.
pub fn validate(errors: &mut Errors, template: &Value, path: &Path<'_>) {
    let spec = template.at("spec");
    described(errors, template, path);
    pod_spec(errors, spec, &Value::Null, false, &path.field("spec"));
    annotations::agree(errors, template, &path.field("spec"));
    if !spec.list("ephemeralContainers").is_empty() {
        errors.forbidden(&path.field("spec.ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Errors of its labels and annotations.
pub fn described(errors: &mut Errors, template: &Value, path: &Path<'_>) {
    let meta = template.at("metadata");
    metadata::labels(errors, meta.at("labels"), &path.field("labels"));
    metadata::annotations(errors, meta.at("annotations"), &path.field("annotations"));
    annotations::check(errors, template, None, &path.field("annotations"));
}

/// The error of a template that the selector does not match.
pub fn labels_mismatch(errors: &mut Errors, template: &Value, path: &Path<'_>) {
    let labels = template.at("metadata").at("labels");
    errors.invalid(&path.field("metadata.labels"), labels.clone(), "`selector` does not match template `labels`");
}

/// Errors when pods do not restart always, or end by themselves.
pub fn restart_always(errors: &mut Errors, template: &Value, kind: &str, path: &Path<'_>) {
    let spec = template.at("spec");
    if spec.text("restartPolicy") != "Always" {
        errors.not_supported(&path.field("spec.restartPolicy"), spec.text("restartPolicy"), &["Always"]);
    }
    if spec.has("activeDeadlineSeconds") {
        let text = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.field("spec.activeDeadlineSeconds"), &text);
    }
}
