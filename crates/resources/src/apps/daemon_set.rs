//! Daemon sets.

use crate::age;
use crate::apps::status::Counts;
use crate::apps::{self, SPEC};
use crate::columns::{AGE, CONTAINERS, IMAGES, NAME, or_none};
use crate::core::pod::{defaults, template};
use crate::field::{Errors, Fields, Path, map_mut, same, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, StatusRules, Strategy, copy_field, metadata};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Daemon sets.
pub struct DaemonSet;

const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired").field("io.k8s.api.apps.v1.DaemonSetStatus", "desiredNumberScheduled"),
    Column::integer("Current").field("io.k8s.api.apps.v1.DaemonSetStatus", "currentNumberScheduled"),
    Column::integer("Ready").field("io.k8s.api.apps.v1.DaemonSetStatus", "numberReady"),
    Column::integer("Up-to-date").field("io.k8s.api.apps.v1.DaemonSetStatus", "updatedNumberScheduled"),
    Column::integer("Available").field("io.k8s.api.apps.v1.DaemonSetStatus", "numberAvailable"),
    Column::string("Node Selector").field("io.k8s.api.core.v1.PodSpec", "nodeSelector"),
    AGE,
    CONTAINERS.wide(),
    IMAGES.wide(),
    Column::string("Selector").wide().field("io.k8s.api.apps.v1.DaemonSetSpec", "selector"),
];
const SHOWN: [&str; 4] = ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];
const GENERATION: &str = "deprecated.daemonset.template.generation";
const RULES: &[Rule] = &[
    ("minReadySeconds", Check::NotNegative),
    ("updateStrategy", Check::By(strategy)),
    ("revisionHistoryLimit", Check::NotNegative),
];
const COUNTS: Counts = Counts {
    numbers: &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ],
    parts: &[],
    ready: "",
};

const STRATEGY: &str = "io.k8s.api.apps.v1.DaemonSetUpdateStrategy";

impl Strategy for DaemonSet {
    fn unreadable(&self, obj: &Object) -> Option<String> {
        let text = api::meta::annotation(obj, GENERATION)?;
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        let why = if number { "value out of range" } else { "invalid syntax" };
        text.parse::<i64>().is_err().then(|| format!("strconv.ParseInt: parsing {}: {why}", api::quoted(text)))
    }

    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "revisionHistoryLimit", 10);
            map_mut(spec, "updateStrategy").into_iter().for_each(|s| apps::rolling_defaults(s, 1, 0));
            map_mut(spec, "template").into_iter().for_each(defaults::template);
        }
        apps::zero_counts(obj, &SHOWN);
        // the template's generation is a field of the object that is written as an annotation
        let generation: i64 = api::meta::annotation(obj, GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0);
        api::meta::set_annotation(obj, GENERATION, &generation.to_string());
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| SHOWN.iter().map(|count| (*count, 0)).collect())
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        self.status_rules().keep(new, old);
        // It is a field of the spec for upstream.
        if let Some(generation) = api::meta::annotation(old, GENERATION).map(str::to_owned) {
            api::meta::set_annotation(new, GENERATION, &generation);
        }
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        self.status_rules().begin(obj);
        api::meta::set_annotation(obj, GENERATION, "1");
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "status");
        let was: i64 = api::meta::annotation(old, GENERATION).and_then(|t| t.parse().ok()).unwrap_or(0);
        let changed = !same(new.at("spec").at("template"), old.at("spec").at("template"));
        api::meta::set_annotation(new, GENERATION, &(was + i64::from(changed)).to_string());
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        let (selector, of) = (spec.at("selector"), spec.at("template"));
        let path = SPEC.field("template");
        metadata::label_selector(&mut errors, selector, &SPEC.field("selector"));
        if apps::selects(selector, of.at("metadata").at("labels")) == Some(false) {
            template::labels_mismatch(&mut errors, of, &path);
        }
        if !selector.is_null() && metadata::selector_is_empty(selector) {
            errors.invalid_printed(&SPEC.field("selector"), || "{}".into(), "empty selector is invalid for daemonset");
        }
        template::validate(&mut errors, of, &path);
        template::restart_always(&mut errors, of, "DaemonSet", &path);
        rules::check(&mut errors, spec, &SPEC, RULES);
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        apps::fixed_selector(&mut errors, new.at("spec"), old.at("spec"));
        errors.0.extend(self.validate(ctx, new));
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let template = |of: &Object| api::meta::annotation(of, GENERATION).map(str::to_owned);
        match old.is_none_or(|old| template(old) != template(obj)) {
            true => apps::template_warnings(obj, None),
            false => Vec::new(),
        }
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        COUNTS.check(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let of = |field: &str| Value::from(status.int(field).unwrap_or(0));
        let (names, images) = apps::containers(spec.at("template"));
        let nodes = metadata::format_labels(spec.at("template").at("spec").at("nodeSelector"));
        vec![
            api::meta::name(obj).into(),
            of("desiredNumberScheduled"),
            of("currentNumberScheduled"),
            of("numberReady"),
            of("updatedNumberScheduled"),
            of("numberAvailable"),
            or_none(&nodes),
            age::since_creation(obj, now).into(),
            names.into(),
            images.into(),
            metadata::format_selector(spec.at("selector")).into(),
        ]
    }
}

fn strategy(errors: &mut Errors, strategy: &Value, path: &Path<'_>) {
    let (rolling, path_of) = (strategy.at("rollingUpdate"), path.field("rollingUpdate"));
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_null() => errors.required(&path_of, ""),
        "RollingUpdate" => rolling_update(errors, rolling, &path_of),
        _ => {
            let printed = || schema::internal_json(STRATEGY, strategy, schema::Layout::Compact);
            errors.not_supported_printed(path, printed, &["RollingUpdate", "OnDelete"]);
        }
    }
}

fn rolling_update(errors: &mut Errors, rolling: &Value, path: &Path<'_>) {
    let fields = ["maxUnavailable", "maxSurge"];
    fields.iter().for_each(|f| apps::int_or_percent(errors, rolling.at(f), &path.field(f)));
    fields.iter().for_each(|f| apps::at_most_all(errors, rolling.at(f), &path.field(f)));
    match fields.map(|f| apps::number(rolling.at(f)) != 0) {
        [true, true] => {
            let text = "may not be set when maxUnavailable is non-zero";
            errors.invalid(&path.field("maxSurge"), rolling.at("maxSurge").clone(), text);
        }
        [false, false] => errors.required(&path.field("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}
