//! Cron jobs.

use super::job_spec::{self, SPEC};
use super::{job, schedule};
use crate::age;
use crate::apps;
use crate::columns::{AGE, CONTAINERS, IMAGES, NAME};
use crate::core::pod::warnings;
use crate::field::{Errors, Fields, Path, map_mut, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, StatusRules, Strategy, metadata};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Cron jobs.
pub struct CronJob;

/// Jobs are named after their cron job, with a number of eleven digits.
const NAME_MAX: usize = 52;
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Schedule").field("io.k8s.api.batch.v1.CronJobSpec", "schedule"),
    Column::string("Timezone").field("io.k8s.api.batch.v1.CronJobSpec", "timeZone"),
    Column { kind: "boolean", ..Column::string("Suspend") }.field("io.k8s.api.batch.v1.CronJobSpec", "suspend"),
    Column::integer("Active").field("io.k8s.api.batch.v1.CronJobStatus", "active"),
    Column::string("Last Schedule").field("io.k8s.api.batch.v1.CronJobStatus", "lastScheduleTime"),
    AGE,
    CONTAINERS.wide(),
    IMAGES.wide(),
    Column::string("Selector").wide().field("io.k8s.api.batch.v1.JobSpec", "selector"),
];

impl Strategy for CronJob {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "concurrencyPolicy", "Allow");
            set_default(spec, "suspend", false);
            set_default(spec, "successfulJobsHistoryLimit", 3);
            set_default(spec, "failedJobsHistoryLimit", 1);
            if let Some(template) = map_mut(spec, "jobTemplate") {
                map_mut(template, "metadata");
                map_mut(template, "spec").into_iter().for_each(job::template_defaults);
            }
        }
        map_mut(obj, "status");
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({}))
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"), None);
        let name = api::meta::name(obj);
        if name.len() > NAME_MAX {
            let text = format!("must be no more than {NAME_MAX} characters");
            errors.invalid(&Path::root("metadata.name"), name, &text);
        }
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, new.at("spec"), Some(old.at("spec")));
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let mut out = Vec::from_iter(warnings::host_name(obj, old, warnings::OF_PODS));
        if warnings::due(obj, old) {
            let spec = obj.at("spec").at("jobTemplate").at("spec");
            out.extend(job::spec_warnings(spec, &SPEC.field("jobTemplate.spec")));
        }
        if old.is_some() && obj.at("spec").text("schedule").contains("TZ") {
            out.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".into());
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let job = spec.at("jobTemplate").at("spec");
        let (names, images) = apps::containers(job.at("template"));
        let last = if status.has("lastScheduleTime") {
            age::since(status.get("lastScheduleTime"), now)
        } else {
            "<none>".into()
        };
        let zone = if spec.has("timeZone") { spec.text("timeZone") } else { "<none>" };
        let suspended = match spec.at("suspend").as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        vec![
            api::meta::name(obj).into(),
            spec.text("schedule").into(),
            zone.into(),
            suspended.into(),
            status.list("active").len().into(),
            last.into(),
            age::since_creation(obj, now).into(),
            names.into(),
            images.into(),
            metadata::format_selector(job.at("selector")).into(),
        ]
    }
}

const CRON_JOB: &[Rule] = &[
    ("concurrencyPolicy", Check::OneOf(&["Allow", "Forbid", "Replace"])),
    ("jobTemplate", Check::By(job_template)),
    ("successfulJobsHistoryLimit", Check::NotNegative),
    ("failedJobsHistoryLimit", Check::NotNegative),
];

fn spec(errors: &mut Errors, spec: &Value, old: Option<&Value>) {
    schedule(errors, spec, old, &SPEC.field("schedule"));
    rules::check(errors, spec, &SPEC, &[("startingDeadlineSeconds", Check::NotNegative)]);
    if spec.has("timeZone") && old.is_none_or(|o| o.at("timeZone") != spec.at("timeZone")) {
        time_zone(errors, spec.text("timeZone"), &SPEC.field("timeZone"));
    }
    rules::check(errors, spec, &SPEC, CRON_JOB);
}

/// A zone in the schedule is kept where there was one, and has a field of its own elsewhere.
fn schedule(errors: &mut Errors, spec: &Value, old: Option<&Value>, path: &Path<'_>) {
    let text = spec.text("schedule");
    if text.is_empty() {
        return errors.required(path, "");
    }
    if let Err(why) = schedule::check(text) {
        errors.invalid(path, text, &why);
    }
    let had = old.is_some_and(|o| o.text("schedule").contains("TZ"));
    let why = match had {
        true if spec.has("timeZone") => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        true => return,
        false => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
    };
    if text.contains("TZ") {
        errors.invalid(path, text, why);
    }
}

fn job_template(errors: &mut Errors, template: &Value, path: &Path<'_>) {
    let (spec, path) = (template.at("spec"), path.field("spec"));
    job_spec::spec(errors, spec, &path);
    if spec.has("selector") {
        let schema = "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector";
        let text = "`selector` will be auto-generated";
        errors.invalid_struct(&path.field("selector"), schema, spec.at("selector"), text);
    }
    if spec.flag("manualSelector") {
        errors.0.push(Cause {
            kind: api::CauseType::FieldValueNotSupported,
            field: path.field("manualSelector").to_string(),
            message: "Unsupported value: true: supported values: \"nil\", \"false\"".into(),
        });
    }
}

/// The longest part of a zone's name.
const ZONE_PART_MAX: usize = 14;

fn time_zone(errors: &mut Errors, zone: &str, path: &Path<'_>) {
    if zone.is_empty() {
        return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let fine = |part: &str| part.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.+-".contains(&c));
    let named = |part: &str| !part.starts_with('-') && (1..=ZONE_PART_MAX).contains(&part.len()) && fine(part);
    let unknown = format!("unknown time zone {zone}");
    if zone.split('/').any(|part| part == "." || part == ".." || !named(part)) {
        return errors.invalid(path, zone, &unknown);
    }
    if zone.eq_ignore_ascii_case("Local") {
        let text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, text);
    }
    // names of zones are names of files, where case matters
    let known = jiff::tz::TimeZone::get(zone).is_ok_and(|found| found.iana_name() == Some(zone));
    if zone.contains("..") {
        errors.invalid(path, zone, "time: invalid location name");
    } else if !known && zone != "UTC" && zone != "Local" {
        errors.invalid(path, zone, &unknown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_their_exact_names() {
        let check = |zone: &str, want: &[&str]| {
            let mut errors = Errors::default();
            time_zone(&mut errors, zone, &Path::root("z"));
            let got: Vec<&str> = errors.0.iter().filter_map(|cause| cause.message.splitn(3, ": ").nth(2)).collect();
            assert_eq!(got, want, "{zone}");
        };
        check("Europe/Berlin", &[]);
        check("UTC", &[]);
        check("europe/berlin", &["unknown time zone europe/berlin"]);
        check("abcdefghijklmno", &["unknown time zone abcdefghijklmno"]);
        check(
            "local",
            &[
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                "unknown time zone local",
            ],
        );
        check("a..b", &["time: invalid location name"]);
    }
}
