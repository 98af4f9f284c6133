//! `flowcontrol.apiserver.k8s.io`: flow schemas and priority levels.

pub mod mandatory;

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, set_default};
use crate::rules::{self, Check, Rule, Unique};
use crate::{Ctx, MetadataChecks, Strategy, names};
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

const METHOD: &str = "io.k8s.api.flowcontrol.v1.FlowDistinguisherMethod";

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
            let (method, kinds) = (spec.at("distinguisherMethod"), ["ByNamespace", "ByUser"]);
            if !kinds.contains(&method.text("type")) {
                let printed = || schema::internal_json(METHOD, method, schema::Layout::Compact);
                errors.not_supported_printed(&SPEC.field("distinguisherMethod.type"), printed, &kinds);
            }
        }
        let path = SPEC.field("priorityLevelConfiguration.name");
        match spec.at("priorityLevelConfiguration").text("name") {
            "" => errors.required(&path, "must reference a priority level"),
            level => errors.invalid_each(&path, level, names::dns1123_subdomain(level, false)),
        }
        rules::check(&mut errors, spec, &SPEC, &[("rules", Check::Each(rule))]);
        mandatory::check_schema(&mut errors, obj);
        errors.0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        condition_types(new)
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

/// Every condition has a type of its own.
fn condition_types(obj: &Object) -> Vec<Cause> {
    let (mut errors, path) = (Errors::default(), Path::root("status.conditions"));
    let mut kinds = Unique::default();
    for (i, condition) in obj.at("status").list("conditions").iter().enumerate() {
        let (kind, at) = (condition.text("type"), path.index(i));
        kinds.add(&mut errors, kind, &at.field("type"));
        if kind.is_empty() {
            errors.required(&at.field("type"), "");
        }
    }
    errors.0
}

/// What must hold of a schema's rule, in the order of the errors.
const RULE: &[Rule] = &[
    ("subjects", Check::Given("subjects must contain at least one value")),
    ("subjects", Check::Each(subject)),
    ("", Check::In(some_requests)),
    ("resourceRules", Check::Each(resource_rule)),
    ("nonResourceRules", Check::Each(non_resource_rule)),
];

fn rule(errors: &mut Errors, rule: &Value, path: &Path<'_>) {
    rules::check(errors, rule, path, RULE);
}

fn some_requests(errors: &mut Errors, rule: &Value, path: &Path<'_>) {
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
}

/// Kinds of subjects, each with the one field that it has.
const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(errors: &mut Errors, subject: &Value, path: &Path<'_>) {
    let kind = subject.text("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind) else {
        return errors.not_supported(&path.field("kind"), kind, &["Group", "ServiceAccount", "User"]);
    };
    let (of, own_path) = (subject.at(own), path.field(own));
    if of.is_null() {
        errors.required(&own_path, &format!("{own} is required when subject kind is '{kind}'"));
    } else {
        subject_names(errors, of, kind == "ServiceAccount", &own_path);
    }
    for (other, field) in SUBJECTS.iter().filter(|(name, field)| *name != kind && subject.has(field)) {
        errors.forbidden(&path.field(field), &format!("{field} is forbidden when subject kind is not '{other}'"));
    }
}

fn subject_names(errors: &mut Errors, of: &Value, service_account: bool, path: &Path<'_>) {
    match of.text("name") {
        "" => errors.required(&path.field("name"), ""),
        "*" => {}
        name if service_account => {
            errors.invalid_each(&path.field("name"), name, names::dns1123_subdomain(name, false));
        }
        _ => {}
    }
    match of.text("namespace") {
        _ if !service_account => {}
        "" => errors.required(&path.field("namespace"), "must specify namespace for service account"),
        namespace => errors.invalid_each(&path.field("namespace"), namespace, names::dns1123_label(namespace, false)),
    }
}

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn resource_rule(errors: &mut Errors, rule: &Value, path: &Path<'_>) {
    verbs(errors, rule, path);
    for (field, one, others) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        if rule.list(field).is_empty() {
            errors.required(&path.field(field), &format!("resource rules must supply at least one {one}"));
        }
        star_alone(errors, rule, field, others, path);
    }
    let (namespaces, at) = (rule.texts("namespaces"), path.field("namespaces"));
    if namespaces.is_empty() && !rule.flag("clusterScope") {
        errors.required(&at, "resource rules that are not cluster scoped must supply at least one namespace");
    } else if !star_alone(errors, rule, "namespaces", "namespaces", path) {
        for (i, namespace) in namespaces.into_iter().enumerate() {
            for why in names::dns1123_label(namespace, false) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                errors.invalid(&at.index(i), namespace, &why);
            }
        }
    }
}

fn non_resource_rule(errors: &mut Errors, rule: &Value, path: &Path<'_>) {
    verbs(errors, rule, path);
    let (urls, at) = (rule.texts("nonResourceURLs"), path.field("nonResourceURLs"));
    if urls.is_empty() {
        errors.required(&at, "nonResourceURLs must contain at least one value");
    } else if !star_alone(errors, rule, "nonResourceURLs", "non-resource URLs", path) {
        urls.into_iter().enumerate().for_each(|(i, url)| url_path(errors, url, &at.index(i)));
    }
}

fn verbs(errors: &mut Errors, rule: &Value, path: &Path<'_>) {
    let (verbs, at) = (rule.texts("verbs"), path.field("verbs"));
    if verbs.is_empty() {
        errors.required(&at, "verbs must contain at least one value");
    } else if !star_alone(errors, rule, "verbs", "verbs", path) && !verbs.iter().all(|verb| VERBS.contains(verb)) {
        errors.not_supported(&at, rule.at("verbs").clone(), &VERBS);
    }
}

/// Whether a list has the star, which must then be alone.
fn star_alone(errors: &mut Errors, rule: &Value, field: &str, others: &str, path: &Path<'_>) -> bool {
    let list = rule.texts(field);
    let star = list.contains(&"*");
    if star && list.len() > 1 {
        let text = format!("if '*' is present, must not specify other {others}");
        errors.invalid(&path.field(field), rule.at(field).clone(), &text);
    }
    star
}

/// An absolute path; `*` may only be its last part.
fn url_path(errors: &mut Errors, url: &str, path: &Path<'_>) {
    let text = match url {
        "" => "must not be empty",
        "/" => return,
        url if !url.starts_with('/') => "must start with slash",
        url if url.contains(' ') => "must not contain white-space",
        url if url.contains("//") => "must not contain double slash",
        url if url.strip_suffix("/*").unwrap_or(url).contains('*') => "wildcard can only do suffix matching",
        _ => return,
    };
    errors.invalid(path, url, text);
}

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            if let Some(exempt) = field_mut(spec, "exempt") {
                set_default(exempt, "nominalConcurrencyShares", 0);
                set_default(exempt, "lendablePercent", 0);
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

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Create
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        let kind = spec.text("type");
        if (api::meta::name(obj) == "exempt") != (kind == "Exempt") {
            errors.invalid(&SPEC.field("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
        }
        let others = [
            ("limited", "Exempt", "must be nil if the type is not Limited"),
            ("exempt", "Limited", "must be nil if the type is Limited"),
        ];
        for (field, _, text) in others.iter().filter(|(field, of, _)| kind == *of && spec.has(field)) {
            errors.forbidden(&SPEC.field(field), text);
        }
        match kind {
            "Limited" if !spec.has("limited") => {
                errors.required(&SPEC.field("limited"), "must not be empty when type is Limited");
            }
            "Limited" => rules::check(&mut errors, spec.at("limited"), &SPEC.field("limited"), LIMITED),
            "Exempt" => rules::check(&mut errors, spec.at("exempt"), &SPEC.field("exempt"), &[SHARES, LENDABLE]),
            other => errors.not_supported(&SPEC.field("type"), other, &["Exempt", "Limited"]),
        }
        mandatory::check_level(&mut errors, obj);
        errors.0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        condition_types(new)
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

const SHARES: Rule = ("nominalConcurrencyShares", Check::Within(0, i64::MAX, "must be a non-negative integer"));
const LENDABLE: Rule = ("lendablePercent", Check::Within(0, 100, "must be between 0 and 100, inclusive"));
const LIMITED: &[Rule] = &[
    SHARES,
    ("limitResponse", Check::By(limit_response)),
    LENDABLE,
    ("borrowingLimitPercent", Check::Within(0, i64::MAX, "if specified, must be a non-negative integer")),
];
const QUEUING: &[Rule] = &[
    ("queueLengthLimit", Check::By(positive)),
    ("queues", Check::By(positive)),
    ("queues", Check::Within(i64::MIN, 10_000_000, "must not be greater than 10000000")),
    ("handSize", Check::In(hand_size)),
];

fn limit_response(errors: &mut Errors, response: &Value, path: &Path<'_>) {
    let rule = match response.text("type") {
        "Reject" => Check::Absent("must be nil if limited.limitResponse.type is not Limited"),
        "Queue" => Check::By(queuing),
        other => return errors.not_supported(&path.field("type"), other, &["Queue", "Reject"]),
    };
    rules::check(errors, response, path, &[("queuing", rule)]);
}

fn queuing(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.is_null() {
        true => errors.required(path, "must not be empty if limited.limitResponse.type is Limited"),
        false => rules::check(errors, of, path, QUEUING),
    }
}

fn positive(errors: &mut Errors, value: &Value, path: &Path<'_>) {
    let number = value.as_i64().unwrap_or(0);
    if number <= 0 {
        errors.invalid(path, number, "must be positive");
    }
}

/// Bits of a request's hash.
const HASH_BITS: f64 = 60.0;

/// Errors of the number of queues that a flow is dealt, which a hash must suffice to choose.
fn hand_size(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (queues, hand) = (of.int("queues").unwrap_or(0), of.int("handSize").unwrap_or(0));
    let bits = || ((queues as f64).log2() * hand as f64).ceil();
    let text = match hand {
        ..=0 => "must be positive".to_owned(),
        _ if hand > queues => format!("should not be greater than queues ({queues})"),
        _ if bits() > HASH_BITS => {
            let needed = format!("required entropy bits of deckSize {queues} and handSize {hand}");
            format!("{needed} should not be greater than {HASH_BITS}")
        }
        _ => return,
    };
    errors.invalid(path, hand, &text);
}

#[cfg(test)]
mod tests;
