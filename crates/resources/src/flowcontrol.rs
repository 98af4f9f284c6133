//! `flowcontrol.apiserver.k8s.io`: flow schemas and priority levels.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, set_default};
use crate::{Ctx, MetadataChecks, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Flow schemas.
pub struct FlowSchema;

/// Priority level configurations.
pub struct PriorityLevelConfiguration;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("PriorityLevel").field("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationReference", "name"),
    Column::string("MatchingPrecedence").field("io.k8s.api.flowcontrol.v1.FlowSchemaSpec", "matchingPrecedence"),
    Column::string("DistinguisherMethod").field("io.k8s.api.flowcontrol.v1.FlowSchemaSpec", "distinguisherMethod"),
    AGE,
    Column::string("MissingPL").describe("references a broken or non-existent PriorityLevelConfiguration"),
];
const LEVEL_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Type").field("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", "type"),
    Column::string("NominalConcurrencyShares")
        .field("io.k8s.api.flowcontrol.v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares"),
    Column::string("Queues").field("io.k8s.api.flowcontrol.v1.QueuingConfiguration", "queues"),
    Column::string("HandSize").field("io.k8s.api.flowcontrol.v1.QueuingConfiguration", "handSize"),
    Column::string("QueueLengthLimit").field("io.k8s.api.flowcontrol.v1.QueuingConfiguration", "queueLengthLimit"),
    AGE,
];

impl Strategy for FlowSchema {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            if spec.int("matchingPrecedence").unwrap_or(0) == 0 {
                spec["matchingPrecedence"] = 1000.into();
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

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Create
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        let precedence = spec.int("matchingPrecedence").unwrap_or(0);
        let path = SPEC.field("matchingPrecedence");
        if precedence <= 0 {
            errors.invalid(&path, precedence, "must be a positive value");
        }
        if precedence > 10_000 {
            errors.invalid(&path, precedence, "must not be greater than 10000");
        }
        if precedence == 1 && api::meta::name(obj) != "exempt" {
            errors.invalid(&path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        if spec.has("distinguisherMethod") {
            let kind = spec.at("distinguisherMethod").text("type");
            errors.supported(&SPEC.field("distinguisherMethod.type"), kind, &["ByNamespace", "ByUser"]);
        }
        let level = spec.at("priorityLevelConfiguration").text("name");
        if level.is_empty() {
            errors.required(&SPEC.field("priorityLevelConfiguration.name"), "must reference a priority level");
        }
        rules(&mut errors, spec.list("rules"), &SPEC.field("rules"));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let method =
            if spec.has("distinguisherMethod") { spec.at("distinguisherMethod").text("type") } else { "<none>" };
        let dangling = obj.at("status").list("conditions").iter().find(|c| c.text("type") == "Dangling");
        let missing = match dangling.map(|c| c.text("status")) {
            Some("True") => "True",
            Some("False") => "False",
            _ => "?",
        };
        vec![
            api::meta::name(obj).into(),
            spec.at("priorityLevelConfiguration").text("name").into(),
            spec.int("matchingPrecedence").unwrap_or(0).into(),
            method.into(),
            age::since_creation(obj, now).into(),
            missing.into(),
        ]
    }
}

fn rules(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    for (i, rule) in list.iter().enumerate() {
        let path = path.index(i);
        if rule.list("subjects").is_empty() {
            errors.required(&path.field("subjects"), "subjects must contain at least one value");
        }
        let subjects = path.field("subjects");
        for (j, subject) in rule.list("subjects").iter().enumerate() {
            let kinds = ["Group", "ServiceAccount", "User"];
            errors.supported(&subjects.index(j).field("kind"), subject.text("kind"), &kinds);
        }
        if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
            errors.required(&path, "at least one of resourceRules and nonResourceRules has to be non-empty");
        }
        for kind in ["resourceRules", "nonResourceRules"] {
            let list_path = path.field(kind);
            for (j, item) in rule.list(kind).iter().enumerate() {
                let at = list_path.index(j);
                let fields: &[&str] = if kind == "resourceRules" {
                    &["verbs", "apiGroups", "resources"]
                } else {
                    &["verbs", "nonResourceURLs"]
                };
                for field in fields.iter().filter(|f| item.list(f).is_empty()) {
                    errors.required(&at.field(field), &format!("{field} must contain at least one value"));
                }
            }
        }
    }
}

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            if spec.text("type") == "Exempt" {
                if let Some(exempt) = map_mut(spec, "exempt") {
                    set_default(exempt, "nominalConcurrencyShares", 0);
                    set_default(exempt, "lendablePercent", 0);
                }
            }
            if let Some(limited) = field_mut(spec, "limited") {
                set_default(limited, "nominalConcurrencyShares", 30);
                set_default(limited, "lendablePercent", 0);
                if let Some(queuing) = field_mut(limited, "limitResponse").and_then(|r| field_mut(r, "queuing")) {
                    for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                        if queuing.int(field).unwrap_or(0) == 0 {
                            queuing[field] = value.into();
                        }
                    }
                }
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
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        let kind = spec.text("type");
        match kind {
            "Exempt" if spec.has("limited") => {
                errors.forbidden(&SPEC.field("limited"), "must be nil if the type is not Limited");
            }
            "Limited" if spec.has("exempt") => {
                errors.forbidden(&SPEC.field("exempt"), "must be nil if the type is Limited");
            }
            "Limited" if !spec.has("limited") => {
                errors.required(&SPEC.field("limited"), "must not be empty when type is Limited");
            }
            "Limited" => limited(&mut errors, spec.at("limited"), &SPEC.field("limited")),
            "Exempt" => {}
            other => errors.not_supported(&SPEC.field("type"), other, &["Exempt", "Limited"]),
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        LEVEL_COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, limited) = (obj.at("spec"), obj.at("spec").at("limited"));
        let number = |of: &Value, field: &str| of.int(field).map_or("<none>".into(), Value::from);
        let queuing = limited.at("limitResponse").at("queuing");
        let shares = if limited.is_null() { spec.at("exempt") } else { limited };
        vec![
            api::meta::name(obj).into(),
            spec.text("type").into(),
            number(shares, "nominalConcurrencyShares"),
            number(queuing, "queues"),
            number(queuing, "handSize"),
            number(queuing, "queueLengthLimit"),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn limited(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if of.int("nominalConcurrencyShares").unwrap_or(0) < 0 {
        let value = of.int("nominalConcurrencyShares").unwrap_or(0);
        errors.invalid(&path.field("nominalConcurrencyShares"), value, "must be a non-negative integer");
    }
    if let Some(percent) = of.int("lendablePercent").filter(|p| !(0..=100).contains(p)) {
        errors.invalid(&path.field("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
    let (response, path) = (of.at("limitResponse"), path.field("limitResponse"));
    match response.text("type") {
        "Reject" if response.has("queuing") => {
            errors.forbidden(&path.field("queuing"), "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if !response.has("queuing") => {
            errors.required(&path.field("queuing"), "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => queuing(errors, response.at("queuing"), &path.field("queuing")),
        other => errors.not_supported(&path.field("type"), other, &["Queue", "Reject"]),
    }
}

fn queuing(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for field in ["queueLengthLimit", "queues", "handSize"] {
        let value = of.int(field).unwrap_or(0);
        if value <= 0 {
            errors.invalid(&path.field(field), value, "must be positive");
        }
    }
    let (queues, hand) = (of.int("queues").unwrap_or(0), of.int("handSize").unwrap_or(0));
    if queues > 10_000_000 {
        errors.invalid(&path.field("queues"), queues, "must not be greater than 10000000");
    }
    if hand > queues {
        let text = format!("should not be greater than queues ({queues})");
        errors.invalid(&path.field("handSize"), hand, &text);
    }
}
