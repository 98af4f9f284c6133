//! Validation of a job's spec.

use super::job_policy;
use crate::apps;
use crate::core::pod::template;
use crate::field::{Errors, Fields, Path};
use crate::metadata;
use crate::networking::ingress_class::domain_prefixed_path;
use crate::rules::{self, Check, Rule};
use serde_json::Value;

/// `spec`
pub const SPEC: Path<'static> = Path::root("spec");
const MAX_INDEXED: i64 = 100_000;
const HIGH: i64 = 100_000;

/// Errors of a job's spec, with its selector.
pub fn with_selector(errors: &mut Errors, spec: &Value) {
    self::spec(errors, spec, &SPEC);
    let selector = spec.at("selector");
    if selector.is_null() {
        errors.required(&SPEC.field("selector"), "");
    } else {
        metadata::label_selector(errors, selector, &SPEC.field("selector"));
    }
    let of = spec.at("template");
    if apps::selects(selector, of.at("metadata").at("labels")) == Some(false) {
        template::labels_mismatch(errors, of, &SPEC.field("template"));
    }
}

const JOB: &[Rule] = &[
    ("parallelism", Check::NotNegative),
    ("completions", Check::NotNegative),
    ("activeDeadlineSeconds", Check::NotNegative),
    ("backoffLimit", Check::NotNegative),
    ("ttlSecondsAfterFinished", Check::NotNegative),
    ("backoffLimitPerIndex", Check::NotNegative),
    ("maxFailedIndexes", Check::NotNegative),
    ("backoffLimitPerIndex", Check::In(limit_per_index)),
    ("managedBy", Check::By(managed_by)),
    ("completionMode", Check::Optional(&["NonIndexed", "Indexed"])),
];
const NOT_INDEXED: &[Rule] =
    &[("backoffLimitPerIndex", Check::By(only_indexed)), ("maxFailedIndexes", Check::By(only_indexed))];
const REST: &[Rule] = &[
    ("podFailurePolicy", Check::In(job_policy::failure)),
    ("successPolicy", Check::In(job_policy::success)),
    ("podReplacementPolicy", Check::In(replacement)),
    ("template", Check::By(template::validate)),
    ("template.spec.restartPolicy", Check::In(restart_policy)),
];

/// Errors of a spec in a job or a job template.
pub fn spec(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    rules::check(errors, spec, path, JOB);
    match spec.text("completionMode") {
        "Indexed" => indexed(errors, spec, path),
        "" | "NonIndexed" => rules::check(errors, spec, path, NOT_INDEXED),
        _ => {}
    }
    rules::check(errors, spec, path, REST);
}

fn limit_per_index(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        errors.required(path, "when maxFailedIndexes is specified");
    }
}

fn only_indexed(errors: &mut Errors, value: &Value, path: &Path<'_>) {
    if let Some(value) = value.as_i64() {
        errors.invalid(path, value, "requires indexed completion mode");
    }
}

fn managed_by(errors: &mut Errors, manager: &Value, path: &Path<'_>) {
    let Some(text) = manager.as_str() else { return };
    domain_prefixed_path(errors, text, path);
    if text.len() > 63 {
        errors.too_long(path, 63);
    }
}

fn indexed(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (completions, parallelism) = (spec.int("completions"), spec.int("parallelism"));
    let max_failed = spec.int("maxFailedIndexes");
    let too_much = |value: Option<i64>, bound: i64| value.filter(|v| *v > bound);
    if completions.is_none() {
        errors.required(&path.field("completions"), "when completion mode is Indexed");
    }
    if let Some(value) = too_much(parallelism, MAX_INDEXED) {
        let text = format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
        errors.invalid(&path.field("parallelism"), value, &text);
    }
    if let Some(value) = completions.and_then(|bound| too_much(max_failed, bound)) {
        errors.invalid(&path.field("maxFailedIndexes"), value, "must be less than or equal to completions");
    }
    if let Some(value) = too_much(max_failed, MAX_INDEXED) {
        errors.invalid(&path.field("maxFailedIndexes"), value, &format!("must be less than or equal to {MAX_INDEXED}"));
    }
    if completions.is_some_and(|c| c > HIGH) && spec.has("backoffLimitPerIndex") {
        if max_failed.is_none() {
            let text = format!("must be specified when completions is above {HIGH}");
            errors.required(&path.field("maxFailedIndexes"), &text);
        }
        for (field, value) in [("parallelism", parallelism), ("maxFailedIndexes", max_failed)] {
            if let Some(value) = too_much(value, 10_000) {
                let text = format!(
                    "must be less than or equal to 10000 when completions are above {HIGH} and used with backoff limit per index"
                );
                errors.invalid(&path.field(field), value, &text);
            }
        }
    }
}

fn replacement(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if !spec.has("podReplacementPolicy") {
        return;
    }
    let policy = spec.text("podReplacementPolicy");
    let supported: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    errors.supported(path, policy, supported);
}

fn restart_policy(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    match spec.at("template").at("spec").text("restartPolicy") {
        "" | "Always" => errors.required(path, "valid values: \"OnFailure\", \"Never\""),
        policy @ ("OnFailure" | "Never") => {
            if policy == "OnFailure" && spec.has("podFailurePolicy") {
                errors.invalid(path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
            }
        }
        other => errors.not_supported(path, other, &["OnFailure", "Never"]),
    }
}
