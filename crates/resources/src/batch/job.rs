//! Jobs.

use super::job_policy;
use super::job_spec::{self, SPEC};
use crate::age;
use crate::apps;
use crate::columns::{AGE, CONTAINERS, IMAGES, NAME};
use crate::core::pod::{copy_node_affinity, defaults, warnings};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, set_default};
use crate::semantic;
use crate::{Ctx, MetadataChecks, Propagation, StatusRules, Strategy, copy_field, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Jobs.
pub struct Job;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status").describe("Status of the job."),
    Column::string("Completions").field("io.k8s.api.batch.v1.JobStatus", "succeeded"),
    Column::string("Duration").describe("Time required to complete the job."),
    AGE,
    CONTAINERS.wide(),
    IMAGES.wide(),
    Column::string("Selector").wide().field("io.k8s.api.batch.v1.JobSpec", "selector"),
];
const UID: &str = "batch.kubernetes.io/controller-uid";
const JOB: &str = "batch.kubernetes.io/job-name";
/// Labels of a job's pods under their new and old names.
const LABELS: [(&str, bool); 4] = [("controller-uid", true), ("job-name", false), (UID, true), (JOB, false)];

const TEMPLATE: &str = "io.k8s.api.core.v1.PodTemplateSpec";
const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
/// What stays as it was made, and how it is printed.
const FIXED: [(&str, &str); 5] = [
    ("completionMode", ""),
    ("podFailurePolicy", "io.k8s.api.batch.v1.PodFailurePolicy"),
    ("backoffLimitPerIndex", ""),
    ("managedBy", ""),
    ("successPolicy", job_policy::SUCCESS),
];

impl Strategy for Job {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            spec_defaults(spec);
            set_default(spec, "completionMode", "NonIndexed");
            set_default(spec, "suspend", false);
            set_default(spec, "manualSelector", false);
            let policy = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
            set_default(spec, "podReplacementPolicy", policy);
        }
        labels_of_template(obj);
        map_mut(obj, "status");
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({}))
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        self.status_rules().begin(obj);
        if !obj.at("spec").flag("manualSelector") {
            generate_selector(obj);
        }
    }

    /// Upstream shares the map of labels that defaulting took from the template, generated labels and all.
    fn prepare_unlabelled(&self, obj: &mut Object) {
        let labels = obj.at("spec").at("template").at("metadata").at("labels").clone();
        let shared = obj.at("metadata").entries("labels").next().is_some();
        if shared && labels.is_object() {
            api::meta::set(obj, "labels", labels);
        }
    }

    fn prepare_to_store(&self, obj: &mut Object) {
        labels_of_template(obj);
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "status");
        labels_of_template(new);
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        validate(obj, true).0
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let (now, was) = (new.at("spec"), old.at("spec"));
        let labelled = |label: &str| was.at("template").at("metadata").at("labels").has(label);
        let mut errors = validate(new, labelled(UID) && labelled(JOB));
        job_spec::with_selector(&mut errors, now);
        completions(&mut errors, now, was);
        apps::fixed_selector(&mut errors, now, was);
        template(&mut errors, new, old);
        let stays = |field: &str, schema: &str| {
            now.has(field) == was.has(field) && semantic::equal(schema, now.at(field), was.at(field))
        };
        for (field, schema) in FIXED.into_iter().filter(|(field, schema)| !stays(field, schema)) {
            let schema = if now.has(field) { schema } else { "" };
            errors.invalid_struct(&SPEC.field(field), schema, now.at(field), crate::field::IMMUTABLE);
        }
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let mut out = Vec::from_iter(warnings::host_name(obj, old, warnings::OF_PODS));
        if warnings::due(obj, old) {
            out.extend(spec_warnings(obj.at("spec"), &SPEC));
        }
        out
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        self.status_rules().keep(new, old);
        // A job without labels has those of its template whenever it is read.
        let labels = new.at("spec").at("template").at("metadata").at("labels").clone();
        if new.at("metadata").entries("labels").next().is_none() && !labels.is_null() {
            api::meta::set(new, "labels", labels);
        }
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        super::job_status::check(new, old)
    }

    fn deletion_warning(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning",
        )
    }

    fn default_propagation(&self) -> Propagation {
        Propagation::Orphan
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        vec![("status.successful", obj.at("status").int("succeeded").unwrap_or(0).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let (names, images) = apps::containers(spec.at("template"));
        vec![
            api::meta::name(obj).into(),
            status_word(obj).into(),
            completions_text(obj).into(),
            duration(obj, now).into(),
            age::since_creation(obj, now).into(),
            names.into(),
            images.into(),
            metadata::format_selector(spec.at("selector")).into(),
        ]
    }
}

/// Errors of a job. `prefixed`: the labels of Kubernetes' own prefix are among those of its pods.
fn validate(job: &Object, prefixed: bool) -> Errors {
    let mut errors = Errors::default();
    let spec = job.at("spec");
    if !spec.flag("manualSelector") {
        generated(&mut errors, job, prefixed);
    }
    job_spec::with_selector(&mut errors, spec);
    let completions = spec.int("completions").unwrap_or(0);
    if spec.text("completionMode") == "Indexed" && completions > 0 {
        let (name, path) = (api::meta::name(job), Path::root("metadata.name"));
        let host = format!("{name}-{}", completions - 1);
        if !names::dns1123_label(&host, false).is_empty() {
            errors.invalid(&path, name, &format!("will not able to create pod with invalid DNS label: {host}"));
        }
    }
    errors
}

/// Warnings about a job's spec.
pub fn spec_warnings(spec: &Value, path: &Path<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let over = |field: &str, limit: i64| spec.int(field).is_some_and(|count| count > limit);
    if spec.text("completionMode") == "Indexed" && over("completions", 100_000) && over("parallelism", 10_000) {
        out.push(format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    out.extend(warnings::template(spec.at("template"), &path.field("template")));
    out
}

/// Defaults of a job's spec in a job or a job template.
fn spec_defaults(spec: &mut Value) {
    if !spec.has("completions") && !spec.has("parallelism") {
        spec["completions"] = 1.into();
    }
    set_default(spec, "parallelism", 1);
    let limit = if spec.has("backoffLimitPerIndex") { i32::MAX } else { 6 };
    set_default(spec, "backoffLimit", limit);
    template_defaults(spec);
}

/// What a job template in a cron job gets: only what its pods get.
pub fn template_defaults(spec: &mut Value) {
    map_mut(spec, "template").into_iter().for_each(defaults::template);
    let rules = spec.get_mut("podFailurePolicy").into_iter().flat_map(|p| items_mut(p, "rules"));
    for pattern in rules.flat_map(|r| items_mut(r, "onPodConditions")) {
        if pattern.text("status").is_empty() {
            pattern["status"] = "True".into();
        }
    }
}

/// A job without labels has those of its pods.
fn labels_of_template(obj: &mut Object) {
    let labels = obj.at("spec").at("template").at("metadata").at("labels").clone();
    if labels.is_object() && obj.at("metadata").entries("labels").next().is_none() {
        api::meta::set(obj, "labels", labels);
    }
}

/// Gives the pods and the selector what tells them from others'; what is there already is for validation to judge.
fn generate_selector(obj: &mut Object) {
    let (uid, name) = (api::meta::uid(obj).to_owned(), api::meta::name(obj).to_owned());
    let Some(spec) = map_mut(obj, "spec") else { return };
    if let Some(meta) = map_mut(spec, "template").and_then(|t| map_mut(t, "metadata"))
        && let Some(own) = map_mut(meta, "labels")
    {
        for (label, by_uid) in LABELS {
            set_default(own, label, if by_uid { uid.as_str() } else { name.as_str() });
        }
    }
    if let Some(selector) = map_mut(spec, "selector").and_then(|s| map_mut(s, "matchLabels")) {
        set_default(selector, UID, uid);
    }
}

/// Errors of labels and selector that the server would have made otherwise.
fn generated(errors: &mut Errors, obj: &Object, prefixed: bool) {
    let (spec, uid, name) = (obj.at("spec"), api::meta::uid(obj), api::meta::name(obj));
    if !spec.has("selector") {
        return;
    }
    let labels = spec.at("template").at("metadata").at("labels");
    let path = SPEC.field("template.metadata.labels");
    let mut expected = serde_json::Map::new();
    for (label, by_uid) in LABELS.into_iter().filter(|(label, _)| prefixed || !label.contains('/')) {
        let want = if by_uid { uid } else { name };
        expected.insert(label.into(), want.into());
        match labels.at(label).as_str() {
            None => errors.required(&path.key(label), &format!("must be '{want}'")),
            Some(value) if value != want => {
                errors.invalid(&path.key(label), labels.clone(), &format!("must be '{want}'"));
            }
            Some(_) => {}
        }
    }
    let selector = spec.at("selector");
    if apps::selects(selector, &Value::Object(expected)) == Some(false) && !selector.is_null() {
        let printed = || apps::print_selector(selector);
        errors.invalid_printed(&SPEC.field("selector"), printed, "`selector` not auto-generated");
    }
}

fn completions(errors: &mut Errors, now: &Value, was: &Value) {
    let path = SPEC.field("completions");
    if now.text("completionMode") != "Indexed" {
        errors.immutable(&path, now.at("completions"), was.at("completions"));
        return;
    }
    let (new, old) = (now.at("completions"), was.at("completions"));
    if new != old && !new.is_null() && new != now.at("parallelism") {
        errors.invalid(&path, new.clone(), "can only be modified in tandem with spec.parallelism");
    }
}

/// The template stays; but while a job is suspended and has no pods its pods may be told to run elsewhere, and to
/// have other resources. Of such a template nothing but the pod's spec is looked at.
fn template(errors: &mut Errors, new: &Object, old: &Object) {
    let (now, mut was) = (new.at("spec").at("template"), old.at("spec").at("template").clone());
    let path = SPEC.field("template");
    if !is_paused(old) {
        if !semantic::equal(TEMPLATE, now, &was) {
            errors.invalid_struct(&path, TEMPLATE, now, crate::field::IMMUTABLE);
        }
        return;
    }
    let (spec, was) = (now.at("spec"), &mut was["spec"]);
    match (spec.has("affinity"), was.has("affinity")) {
        (true, false) => was["affinity"] = json!({"nodeAffinity": spec.at("affinity").at("nodeAffinity")}),
        _ => copy_node_affinity(was, spec),
    }
    if !spec.has("affinity") && was.at("affinity").as_object().is_some_and(serde_json::Map::is_empty) {
        copy_field(was, spec, "affinity");
    }
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        copy_field(was, spec, field);
    }
    for list in ["containers", "initContainers"] {
        copy_resources(was, spec, list);
    }
    if !semantic::equal(POD_SPEC, spec, was) {
        errors.invalid_struct(&path.field("spec"), POD_SPEC, spec, crate::field::IMMUTABLE);
    }
}

/// Whether a job is suspended, and has no pods that would not hear of a change.
fn is_paused(job: &Object) -> bool {
    let status = job.at("status");
    let idle = !status.has("startTime") || condition(job, "Suspended");
    job.at("spec").flag("suspend") && idle && status.int("active").unwrap_or(0) == 0
}

/// Makes the resources of containers what they are in another spec, where there are as many, by the same names.
fn copy_resources(spec: &mut Value, from: &Value, list: &str) {
    if from.list(list).len() == spec.list(list).len() {
        for (c, from) in items_mut(spec, list).zip(from.list(list)).filter(|(c, from)| c.at("name") == from.at("name"))
        {
            copy_field(c, from, "resources");
        }
    }
}

fn condition(obj: &Object, kind: &str) -> bool {
    obj.at("status").list("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
}

fn status_word(obj: &Object) -> &'static str {
    let words = ["Complete", "Failed"];
    match words.into_iter().find(|w| condition(obj, w)) {
        Some(word) => word,
        None if api::meta::is_deleting(obj) => "Terminating",
        None if condition(obj, "Suspended") => "Suspended",
        None if condition(obj, "FailureTarget") => "FailureTarget",
        None if condition(obj, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        None => "Running",
    }
}

fn completions_text(obj: &Object) -> String {
    let (spec, done) = (obj.at("spec"), obj.at("status").int("succeeded").unwrap_or(0));
    match (spec.int("completions"), spec.int("parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    }
}

fn duration(obj: &Object, now: Timestamp) -> String {
    let status = obj.at("status");
    let Some(start) = age::parse(status.get("startTime")) else { return String::new() };
    let end = age::parse(status.get("completionTime")).unwrap_or(now);
    age::human(end.as_second() - start.as_second())
}
