//! What the status of a job may become. A rule holds only where what it is about changes, so that a status which
//! broke it before may still be written for other reasons.

use super::job_policy::{indexes, interval};
use crate::field::{Errors, Fields, IMMUTABLE, Path, same};
use crate::{age, rules::Unique};
use api::{Cause, Object};
use serde_json::Value;

const COUNTS: [&str; 5] = ["active", "succeeded", "failed", "ready", "terminating"];
const UNCOUNTED: &str = "io.k8s.api.batch.v1.UncountedTerminatedPods";
/// Conditions that stay once they are true.
const TERMINAL: [&str; 3] = ["Failed", "Complete", "FailureTarget"];

/// A job before and after the write.
struct Change<'a> {
    spec: &'a Value,
    now: &'a Value,
    was: &'a Value,
}

fn holds(status: &Value, kind: &str) -> bool {
    status.list("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
}

impl Change<'_> {
    fn is(&self, kind: &str) -> bool {
        holds(self.now, kind)
    }

    /// Whether a condition or field is not what it was.
    fn changes(&self, what: &str) -> bool {
        match what {
            "Complete" | "Failed" | "FailureTarget" | "SuccessCriteriaMet" => self.is(what) != holds(self.was, what),
            "finished" => self.finished() != (holds(self.was, "Complete") || holds(self.was, "Failed")),
            field => !same(self.now.at(field), self.was.at(field)),
        }
    }

    fn finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn count(&self, field: &str) -> i64 {
        self.now.int(field).unwrap_or(0)
    }

    fn completions(&self) -> Option<i64> {
        self.spec.int("completions")
    }
}

/// A rule: what must change for it to be looked at, the field it blames, whether it is broken, and the detail.
type Rule = (&'static [&'static str], &'static str, fn(&Change<'_>) -> bool, &'static str);

/// In upstream's order; a detail that begins with `required: ` is of a missing value.
const RULES: &[Rule] = &[
    (
        &["Complete", "Failed"],
        "conditions",
        |c| c.is("Complete") && c.is("Failed"),
        "cannot set Complete=True and Failed=true conditions",
    ),
    (
        &["Complete", "FailureTarget"],
        "conditions",
        |c| c.is("Complete") && c.is("FailureTarget"),
        "cannot set Complete=True and FailureTarget=true conditions",
    ),
    (
        &["Complete", "completionTime"],
        "completionTime",
        |c| c.now.has("completionTime") && !c.is("Complete"),
        "cannot set completionTime when there is no Complete=True condition",
    ),
    (
        &["Complete", "completionTime"],
        "completionTime",
        |c| !c.now.has("completionTime") && c.is("Complete"),
        "required: completionTime is required for Complete jobs",
    ),
    (
        &["startTime", "completionTime"],
        "completionTime",
        ends_before_it_starts,
        "must be equal to or after `startTime`",
    ),
    (
        &["Failed", "failedIndexes"],
        "conditions",
        |c| c.is("Failed") && !c.is("FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    ),
    (
        &["Complete", "SuccessCriteriaMet"],
        "conditions",
        |c| c.is("Complete") && !c.is("SuccessCriteriaMet"),
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    ),
    (
        &["finished", "active"],
        "active",
        |c| c.finished() && c.count("active") > 0,
        "active>0 is invalid for finished job",
    ),
    (&["finished", "startTime"], "startTime", never_started, "required: startTime is required for finished job"),
    (
        &["finished", "uncountedTerminatedPods"],
        "uncountedTerminatedPods",
        |c| c.finished() && uncounted(c) > 0,
        "must be empty for finished job",
    ),
];
const LATER_RULES: &[Rule] = &[
    (
        &["completedIndexes"],
        "completedIndexes",
        |c| !c.now.text("completedIndexes").is_empty() && c.spec.text("completionMode") != "Indexed",
        "cannot set non-empty completedIndexes when non-indexed completion mode",
    ),
    (
        &["failedIndexes"],
        "failedIndexes",
        |c| c.now.has("failedIndexes") && !c.spec.has("backoffLimitPerIndex"),
        "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
    ),
];
const LAST_RULES: &[Rule] = &[
    (
        &["finished", "terminating"],
        "terminating",
        |c| c.finished() && c.count("terminating") > 0,
        "terminating>0 is invalid for finished job",
    ),
    (
        &["ready", "active"],
        "ready",
        |c| c.now.has("ready") && c.count("ready") > c.count("active"),
        "cannot set more ready pods than active",
    ),
    (
        &[],
        "conditions",
        |c| c.is("SuccessCriteriaMet") && c.is("Failed"),
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    ),
    (
        &[],
        "conditions",
        |c| c.is("SuccessCriteriaMet") && c.is("FailureTarget"),
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    ),
    (
        &[],
        "conditions",
        |c| c.spec.has("successPolicy") && c.is("Complete") && !c.is("SuccessCriteriaMet"),
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    ),
];

fn ends_before_it_starts(c: &Change<'_>) -> bool {
    let time = |field: &str| age::parse(c.now.get(field));
    matches!((time("startTime"), time("completionTime")), (Some(start), Some(end)) if end < start)
}

fn never_started(c: &Change<'_>) -> bool {
    let nothing_to_do = c.spec.flag("suspend") && c.completions() == Some(0);
    c.finished() && !c.now.has("startTime") && !nothing_to_do
}

fn uncounted(c: &Change<'_>) -> usize {
    let pods = c.now.at("uncountedTerminatedPods");
    pods.list("succeeded").len() + pods.list("failed").len()
}

/// Errors of a changed status.
pub fn check(job: &Object, old: &Object) -> Vec<Cause> {
    let (mut errors, path) = (Errors::default(), Path::root("status"));
    let change = Change { spec: job.at("spec"), now: job.at("status"), was: old.at("status") };
    COUNTS.iter().for_each(|count| errors.non_negative(&path.field(count), change.count(count)));
    uncounted_pods(&mut errors, change.now.at("uncountedTerminatedPods"), &path.field("uncountedTerminatedPods"));
    apply(&mut errors, &change, RULES, &path);
    formats(&mut errors, &change, &path);
    apply(&mut errors, &change, LATER_RULES, &path);
    overlap(&mut errors, &change, &path);
    apply(&mut errors, &change, LAST_RULES, &path);
    transitions(&mut errors, &change, &path);
    errors.0
}

fn apply(errors: &mut Errors, change: &Change<'_>, rules: &[Rule], path: &Path<'_>) {
    for (of, field, broken, detail) in rules {
        let looked_at = of.is_empty() || of.iter().any(|what| change.changes(what));
        if looked_at && broken(change) {
            let (path, value) = (path.field(field), change.now.at(field));
            match (detail.strip_prefix("required: "), *field) {
                (Some(detail), _) => errors.required(&path, detail),
                (None, "conditions") => without_value(errors, &path, detail),
                (None, "uncountedTerminatedPods") => errors.invalid_struct(&path, UNCOUNTED, value, detail),
                (None, _) => errors.invalid(&path, value.clone(), detail),
            }
        }
    }
}

/// Upstream leaves the conditions out of the message.
fn without_value(errors: &mut Errors, path: &Path<'_>, detail: &str) {
    errors.invalid_printed(path, || detail.to_owned(), "");
}

fn uncounted_pods(errors: &mut Errors, pods: &Value, path: &Path<'_>) {
    let mut seen = Unique::default();
    for list in ["succeeded", "failed"] {
        let path = path.field(list);
        for (i, uid) in pods.texts(list).into_iter().enumerate() {
            match uid {
                "" => errors.invalid(&path.index(i), "", "must not be empty"),
                uid => seen.add(errors, uid, &path.index(i)),
            }
        }
    }
}

fn formats(errors: &mut Errors, change: &Change<'_>, path: &Path<'_>) {
    let Some(completions) = change.completions() else { return };
    for field in ["completedIndexes", "failedIndexes"] {
        let judged = field == "completedIndexes" || change.spec.has("backoffLimitPerIndex");
        if let Some(why) =
            indexes(change.now.text(field), completions).err().filter(|_| judged && change.changes(field))
        {
            errors.invalid(&path.field(field), change.now.text(field), &format!("error parsing {field}: {why}"));
        }
    }
}

/// No index is both completed and failed; intervals that cannot be read were blamed before.
fn overlap(errors: &mut Errors, change: &Change<'_>, path: &Path<'_>) {
    let (completed, failed) = (change.now.text("completedIndexes"), change.now.text("failedIndexes"));
    let judged = change.changes("failedIndexes") || change.changes("completedIndexes");
    let Some(completions) = change.completions().filter(|_| judged && !completed.is_empty() && !failed.is_empty())
    else {
        return;
    };
    let read = |text: &str| text.split(',').filter_map(|part| interval(part, completions).ok()).collect::<Vec<_>>();
    let (completed, failed_intervals) = (read(completed), read(failed));
    let (mut c, mut f) = (0, 0);
    while let (Some(done), Some(bad)) = (completed.get(c), failed_intervals.get(f)) {
        if done.0 <= bad.1 && bad.0 <= done.1 {
            let why = format!("failedIndexes and completedIndexes overlap at index: {}", done.0.max(bad.0));
            return errors.invalid(&path.field("failedIndexes"), failed, &why);
        }
        if done.0 <= bad.0 { c += 1 } else { f += 1 }
    }
}

/// What was told of a job is not taken back.
fn transitions(errors: &mut Errors, change: &Change<'_>, path: &Path<'_>) {
    let (now, was, conditions) = (change.now, change.was, path.field("conditions"));
    for kind in TERMINAL.into_iter().filter(|kind| holds(was, kind) && !holds(now, kind)) {
        without_value(errors, &conditions, &format!("cannot disable the terminal {kind}=True condition"));
    }
    let scales_down = change.spec.text("completionMode") == "Indexed"
        && change.spec.int("completions") == change.spec.int("parallelism");
    for count in ["failed", "succeeded"].into_iter().filter(|count| *count == "failed" || !scales_down) {
        if change.count(count) < was.int(count).unwrap_or(0) {
            errors.invalid(&path.field(count), change.count(count), &format!("cannot decrease the {count} counter"));
        }
    }
    if now.has("completionTime") && was.has("completionTime") && change.changes("completionTime") {
        errors.invalid(&path.field("completionTime"), now.at("completionTime").clone(), IMMUTABLE);
    }
    let suspended = |status: &Value, value: &str| {
        status.list("conditions").iter().any(|c| c.text("type") == "Suspended" && c.text("status") == value)
    };
    let resumes = suspended(was, "True") && suspended(now, "False");
    if was.has("startTime") && change.changes("startTime") && !change.spec.flag("suspend") && !resumes {
        let detail = "field is immutable for unsuspended job once set";
        errors.invalid(&path.field("startTime"), now.at("startTime").clone(), detail);
    }
    let met = |status: &Value| holds(status, "SuccessCriteriaMet");
    if met(was) && !met(now) {
        without_value(errors, &conditions, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if holds(was, "Complete") && !met(was) && met(now) {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        without_value(errors, &conditions, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_only_moves_forward() {
        let check = |spec: Value, was: Value, now: Value, want: &[&str]| {
            let got = check(&json!({"spec": spec, "status": now}), &json!({"status": was}));
            let got: Vec<String> = got.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, want);
        };
        let one = json!({"completions": 1});
        check(one.clone(), json!({}), json!({"active": 1, "ready": 1}), &[]);
        check(
            one.clone(),
            json!({}),
            json!({"ready": 1}),
            &["status.ready: Invalid value: 1: cannot set more ready pods than active"],
        );
        check(
            one.clone(),
            json!({"failed": 1}),
            json!({"completedIndexes": "x"}),
            &[
                "status.completedIndexes: Invalid value: \"x\": error parsing completedIndexes: cannot convert string to integer for index: \"x\"",
                "status.completedIndexes: Invalid value: \"x\": cannot set non-empty completedIndexes when non-indexed completion mode",
                "status.failed: Invalid value: 0: cannot decrease the failed counter",
            ],
        );
        check(
            json!({"completions": 5, "completionMode": "Indexed", "backoffLimitPerIndex": 1}),
            json!({}),
            json!({"completedIndexes": "0,2-3", "failedIndexes": "1,3"}),
            &["status.failedIndexes: Invalid value: \"1,3\": failedIndexes and completedIndexes overlap at index: 3"],
        );
        check(
            one,
            json!({}),
            json!({"conditions": [{"type": "Failed", "status": "True"}], "startTime": "2020-01-01T00:00:00Z"}),
            &[
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
            ],
        );
    }
}
