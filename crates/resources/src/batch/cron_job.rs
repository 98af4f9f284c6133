//! Cron jobs.

use super::job_spec::{self, SPEC};
use super::{job, schedule};
use crate::age;
use crate::apps;
use crate::columns::{AGE, NAME};
use crate::core::pod::warnings;
use crate::field::{Errors, Fields, Path, map_mut, set_default};
use crate::{Ctx, Strategy, copy_field, metadata};
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
    Column::string("Containers").wide().describe("Names of each container in the template."),
    Column::string("Images").wide().describe("Images referenced by each container in the template."),
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

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({});
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

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let template = obj.at("spec").at("jobTemplate").at("spec").at("template");
        let path = SPEC.field("jobTemplate.spec.template.spec");
        warnings::pod_spec(template.at("spec"), template.at("metadata"), &path)
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
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

fn spec(errors: &mut Errors, spec: &Value, old: Option<&Value>) {
    let (text, path) = (spec.text("schedule"), SPEC.field("schedule"));
    if text.is_empty() {
        errors.required(&path, "");
    } else {
        if let Err(why) = schedule::check(text) {
            errors.invalid(&path, text, &why);
        }
        let allowed = old.is_some_and(|o| o.text("schedule").contains("TZ"));
        match (text.contains("TZ"), allowed) {
            (true, true) if spec.has("timeZone") => {
                errors.invalid(&path, text, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
            }
            (true, false) => {
                errors.invalid(&path, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
            }
            _ => {}
        }
    }
    errors.non_negative(&SPEC.field("startingDeadlineSeconds"), spec.int("startingDeadlineSeconds").unwrap_or(0));
    if spec.has("timeZone") && old.is_none_or(|o| o.at("timeZone") != spec.at("timeZone")) {
        time_zone(errors, spec.text("timeZone"), &SPEC.field("timeZone"));
    }
    let path = SPEC.field("concurrencyPolicy");
    match spec.text("concurrencyPolicy") {
        "" => errors.required(&path, ""),
        policy => errors.one_of(&path, policy, &["Allow", "Forbid", "Replace"]),
    }
    job_template(errors, spec.at("jobTemplate").at("spec"), &SPEC.field("jobTemplate.spec"));
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.non_negative(&SPEC.field(field), spec.int(field).unwrap_or(0));
    }
}

fn job_template(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    job_spec::spec(errors, spec, path);
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

fn time_zone(errors: &mut Errors, zone: &str, path: &Path<'_>) {
    if zone.is_empty() {
        return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    let bad =
        |part: &str| part == "." || part == ".." || part.starts_with('-') || part.is_empty() || !part.chars().all(fine);
    if zone.split('/').any(bad) {
        return errors.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("Local") {
        let text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        return errors.invalid(path, zone, text);
    }
    if jiff::tz::TimeZone::get(zone).is_err() {
        errors.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
}
