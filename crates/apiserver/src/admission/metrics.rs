//! The metrics of admission, with upstream's names.

use super::webhooks::{Failure, Webhook};
use super::{Attributes, review::Verdict};
use crate::metrics::Family;
use api::Status;
use std::time::Duration;

/// Every family.
pub const ALL: &[&Family] = &[&STEPS, &DURATIONS, &REQUESTS, &REJECTIONS, &FAILED_OPEN];

static STEPS: Family = Family::histogram(
    "apiserver_admission_step_admission_duration_seconds",
    "How long a side of admission takes, by type of step, operation and outcome.",
    &["operation", "rejected", "type"],
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5],
);
static DURATIONS: Family = Family::histogram(
    "apiserver_admission_webhook_admission_duration_seconds",
    "How long admission webhooks take, by name, type, operation and outcome.",
    &["name", "operation", "rejected", "type"],
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0],
);
static REQUESTS: Family = Family::counter(
    "apiserver_admission_webhook_request_total",
    "Calls of admission webhooks, by name, type, operation, code and outcome.",
    &["code", "name", "operation", "rejected", "type"],
);
static REJECTIONS: Family = Family::counter(
    "apiserver_admission_webhook_rejection_count",
    "Requests that admission webhooks, or failures to call them, refused.",
    &["error_type", "name", "operation", "rejection_code", "type"],
);
static FAILED_OPEN: Family = Family::counter(
    "apiserver_admission_webhook_fail_open_count",
    "Requests that went on though an admission webhook could not be called.",
    &["name", "type"],
);

/// Notes a side of admission: `admit` or `validate`.
pub fn step(a: &Attributes<'_>, step: &str, outcome: &Result<(), Status>, took: Duration) {
    STEPS.observe(&[a.operation.word(), rejected(outcome.is_err()), step], took.as_secs_f64());
}

fn rejected(rejected: bool) -> &'static str {
    if rejected { "true" } else { "false" }
}

/// Notes a call of a webhook of a type: `admit` or `validating`.
pub fn webhook(a: &Attributes<'_>, hook: &Webhook, kind: &str, outcome: &Result<Verdict, Failure>, took: Duration) {
    let (operation, name) = (a.operation.word(), hook.name.as_str());
    let (code, refused, error) = match outcome {
        Ok(_) => (200, false, ""),
        Err(Failure::Refused(status)) => (status.code, true, "no_error"),
        Err(Failure::Calling(_)) => (503, !hook.ignores_failures, "calling_webhook_error"),
    };
    let code = code.min(600).to_string();
    DURATIONS.observe(&[name, operation, rejected(refused), kind], took.as_secs_f64());
    REQUESTS.inc(&[&code, name, operation, rejected(refused), kind]);
    if refused {
        REJECTIONS.inc(&[error, name, operation, &code, kind]);
    } else if outcome.is_err() {
        FAILED_OPEN.inc(&[name, kind]);
    }
}
