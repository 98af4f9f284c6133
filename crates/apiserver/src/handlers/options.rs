//! The options of a request, from its parameters or its body, checked.

use super::Request;
use crate::registry::create::WriteOptions;
use crate::registry::decode::{canonical_quantity, invalid_options, of_yaml};
use crate::registry::delete::DeleteOptions;
use crate::registry::{Resource, meta};
use crate::store::{Freshness, ListOptions, Selection};
use api::selector::{FieldSelector, LabelSelector, Requirement};
use api::{Cause, Status};
use resources::names;
use serde_json::{Value, json};

/// Longest field manager.
const MANAGER_MAX: usize = 128;

/// The options of a create, update or patch; `kind` names them in errors.
pub fn write_options(request: &Request, kind: &str, subresource: &str) -> Result<WriteOptions, Status> {
    write_options_after(request, kind, subresource, Vec::new())
}

/// As [`write_options`], with errors that are told before those of the options that all writes have.
pub fn write_options_after(
    request: &Request,
    kind: &str,
    subresource: &str,
    mut causes: Vec<Cause>,
) -> Result<WriteOptions, Status> {
    let query = &request.query;
    causes.extend(manager_causes(query.get("fieldManager")));
    causes.extend(dry_run_cause(&query.all("dryRun")));
    let validation = query.get("fieldValidation");
    if !matches!(validation, "" | "Ignore" | "Warn" | "Strict") {
        causes.push(Cause::not_supported("fieldValidation", &json!(validation), &["", "Ignore", "Strict", "Warn"]));
    }
    if !causes.is_empty() {
        return Err(invalid_options(kind, &causes));
    }
    Ok(WriteOptions {
        dry_run: query.has("dryRun"),
        manager: meta::manager(query.get("fieldManager"), request.user_agent()),
        subresource: subresource.into(),
    })
}

fn dry_run_cause(values: &[&str]) -> Option<Cause> {
    if values.iter().all(|v| *v == "All") {
        return None;
    }
    Some(Cause::not_supported("dryRun", &json!(values), &["All"]))
}

fn manager_causes(manager: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if manager.len() > MANAGER_MAX {
        causes.push(Cause::too_long("fieldManager", MANAGER_MAX));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !api::quote::is_printable(*c)) {
        let detail = format!("invalid character U+{:04X} (at position {at})", c as u32);
        causes.push(Cause::invalid("fieldManager", &json!(manager), &detail));
    }
    causes
}

/// The selectors of a request, read.
pub fn selectors(request: &Request) -> Result<(LabelSelector, FieldSelector), Status> {
    let labels = request.query.get("labelSelector");
    let labels = LabelSelector::parse(labels).map_err(Status::bad_request)?;
    check_labels(&labels).map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))?;
    let fields = FieldSelector::parse(request.query.get("fieldSelector")).map_err(Status::bad_request)?;
    Ok((labels, fields))
}

/// The selection that selectors make of a resource.
pub fn selection_of(
    request: &Request,
    resource: &Resource,
    labels: LabelSelector,
    mut fields: FieldSelector,
) -> Result<Selection, Status> {
    // A term that says nothing selects everything.
    fields.0.retain(|term| !(term.field.is_empty() && term.value.is_empty()));
    for requirement in &mut fields.0 {
        if let Some(conversion) = resource.convert {
            requirement.field = (conversion.stored_field)(&requirement.field)
                .ok_or_else(|| Status::bad_request(resource.unknown_field(&requirement.field)))?;
        }
    }
    check_fields(resource, &fields)?;
    let mut namespace = super::namespace(resource, request).to_owned();
    if namespace.is_empty()
        && resource.namespaced
        && let Some(only) = fields.exact("metadata.namespace")
    {
        namespace = only.to_owned();
    }
    let name = if request.info.verb == "get" || request.info.name.is_empty() {
        fields.exact("metadata.name").unwrap_or("").to_owned()
    } else {
        request.info.name.clone()
    };
    Ok(Selection { namespace, name, labels, fields })
}

/// Keys and values must be such as labels can have.
fn check_labels(selector: &LabelSelector) -> Result<(), String> {
    for requirement in &selector.0 {
        let key = requirement.key();
        if let Some(why) = names::label_key(key).first() {
            return Err(format!("<nil>: Invalid value: {key}: {why}", key = api::quoted(key)));
        }
        let number;
        let values = match requirement {
            Requirement::In(_, values) | Requirement::NotIn(_, values) => values,
            Requirement::Greater(_, than) | Requirement::Less(_, than) => {
                number = [than.to_string()];
                number.as_slice()
            }
            Requirement::Exists(_) | Requirement::NotExists(_) => continue,
        };
        for (at, value) in values.iter().enumerate() {
            if let Some(why) = names::label_value(value).first() {
                return Err(format!("values[{at}][{key}]: Invalid value: {value}: {why}", value = api::quoted(value)));
            }
        }
    }
    Ok(())
}

fn check_fields(resource: &Resource, fields: &FieldSelector) -> Result<(), Status> {
    let own = resource.strategy.selectable_fields(&json!({}));
    for requirement in &fields.0 {
        let field = requirement.field.as_str();
        let known = field == "metadata.name" || field == "metadata.namespace" || own.iter().any(|(f, _)| *f == field);
        if !known {
            return Err(Status::bad_request(resource.unknown_field(field)));
        }
    }
    Ok(())
}

/// The options of a list.
pub fn list_options(request: &Request, resource: &Resource) -> Result<ListOptions, Status> {
    let (selection, limit) = check_list(request, resource)?;
    let token = request.query.get("continue").to_owned();
    let freshness = freshness(request, limit > 0 || !token.is_empty())?;
    Ok(ListOptions { selection, freshness, limit, continue_token: token })
}

/// What the options of a list select and how many; versions and tokens are for the store to judge, after all else.
pub fn check_list(request: &Request, resource: &Resource) -> Result<(Selection, usize), Status> {
    let query = &request.query;
    query.integer("timeoutSeconds")?;
    let limit = query.integer("limit")?.unwrap_or(0);
    let (labels, fields) = selectors(request)?;
    let causes = list_causes(request, false);
    if !causes.is_empty() {
        return Err(invalid_options("ListOptions", &causes));
    }
    let selection = selection_of(request, resource, labels, fields)?;
    Ok((selection, usize::try_from(limit).unwrap_or(0)))
}

/// Errors of `resourceVersion`, `resourceVersionMatch`, `sendInitialEvents` and `continue` together.
pub fn list_causes(request: &Request, watch: bool) -> Vec<Cause> {
    let query = &request.query;
    let (version, matching) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let initial = query.optional_flag("sendInitialEvents");
    let forbidden = |why: &str| Cause::forbidden("resourceVersionMatch", why);
    let mut causes = Vec::new();
    if watch {
        match initial {
            Some(_) if matching != "NotOlderThan" => {
                causes.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
            }
            None if !matching.is_empty() => {
                causes.push(forbidden(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            _ => {}
        }
        if !query.get("continue").is_empty() {
            causes.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matching.is_empty() && matching != "NotOlderThan" {
            causes.push(Cause::not_supported("resourceVersionMatch", &json!(matching), &["NotOlderThan"]));
        }
        return causes;
    }
    if !matching.is_empty() {
        if version.is_empty() {
            causes.push(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if query.has("continue") && !query.get("continue").is_empty() {
            causes.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
        match matching {
            "Exact" if version == "0" => {
                causes.push(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
            "Exact" | "NotOlderThan" => {}
            odd => {
                let list = ["Exact", "NotOlderThan", ""];
                causes.push(Cause::not_supported("resourceVersionMatch", &json!(odd), &list));
            }
        }
    }
    if initial.is_some() {
        causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    causes
}

fn freshness(request: &Request, paged: bool) -> Result<Freshness, Status> {
    let query = &request.query;
    let (text, token) = (query.get("resourceVersion"), query.get("continue"));
    if !token.is_empty() {
        crate::store::check_continuation(token)?;
        if !matches!(text, "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
    }
    if text.is_empty() {
        return Ok(Freshness::Latest);
    }
    let version =
        resource_version(text).map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
    Ok(match (query.get("resourceVersionMatch"), version) {
        (_, 0) => Freshness::Any,
        ("Exact", version) => Freshness::Exact(version),
        // Without a match, a page at a version is that version exactly, as etcd reads it.
        ("", version) if paged => Freshness::Exact(version),
        (_, version) => Freshness::NotOlderThan(version),
    })
}

/// A resource version, as lists and watches take it.
pub fn resource_version(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    parse_version(text)
}

/// A number without a sign, as Go reads it.
pub fn parse_version(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    let shown = api::quoted(text);
    let failed = || format!("resourceVersion: Invalid value: {shown}: strconv.ParseUint: parsing {shown}: {why}");
    if digits { text.parse().map_err(|_| failed()) } else { Err(failed()) }
}

/// The options of a delete: the body when there is one, or else the parameters.
pub async fn delete_options(request: &Request) -> Result<DeleteOptions, Status> {
    let body = request.read_body().await?;
    let value = if body.is_empty() { from_query(request)? } else { from_body(request, &body)? };
    let causes = delete_causes(&value);
    if !causes.is_empty() {
        return Err(invalid_options("DeleteOptions", &causes));
    }
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Ok(DeleteOptions {
        grace_period: value.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation: text("/propagationPolicy").unwrap_or_default(),
        orphan_dependents: value.get("orphanDependents").and_then(Value::as_bool),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        dry_run: value.get("dryRun").and_then(Value::as_array).is_some_and(|d| !d.is_empty()),
    })
}

fn from_query(request: &Request) -> Result<Value, Status> {
    let query = &request.query;
    let mut value = json!({});
    if let Some(grace) = query.integer("gracePeriodSeconds")? {
        value["gracePeriodSeconds"] = grace.into();
    }
    if let Some(orphan) = query.optional_flag("orphanDependents") {
        value["orphanDependents"] = orphan.into();
    }
    if query.has("propagationPolicy") {
        value["propagationPolicy"] = query.get("propagationPolicy").into();
    }
    for field in ["uid", "resourceVersion"] {
        if !query.get(field).is_empty() {
            value["preconditions"][field] = query.get(field).into();
        }
    }
    if query.has("dryRun") {
        value["dryRun"] = json!(query.all("dryRun"));
    }
    Ok(value)
}

fn from_body(request: &Request, body: &[u8]) -> Result<Value, Status> {
    use crate::media::{Format, unsupported};
    let schema = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    let format = Format::of_content_type(&request.headers).ok_or_else(unsupported)?;
    let json = match format {
        Format::Json => body.to_vec(),
        Format::Yaml => of_yaml(body, "DeleteOptions")?.0.to_string().into_bytes(),
        Format::Protobuf => schema::from_protobuf(schema, body).map_err(Status::bad_request)?.to_string().into_bytes(),
    };
    if serde_json::from_slice::<Value>(&json).is_ok() {
        let (version, kind) = crate::registry::decode::peek(&json).map_err(Status::bad_request)?;
        let version = if version.is_empty() { "v1" } else { version.as_str() };
        let kind = if kind.is_empty() { "DeleteOptions" } else { kind.as_str() };
        if kind != "DeleteOptions" {
            let scheme = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";
            let why = format!(
                "no kind {kind} is registered for version {version:?} in scheme {scheme:?}",
                kind = api::quoted(kind)
            );
            return Err(Status::bad_request(why));
        }
    } else {
        let why = schema::decode_slice(schema, &json, canonical_quantity).err().unwrap_or_default();
        let why = why.strip_prefix("syntax: ").unwrap_or(&why);
        return Err(Status::bad_request(format!("couldn't get version/kind; json parse error: {why}")));
    }
    let decoded = schema::decode_slice(schema, &json, canonical_quantity).map_err(Status::bad_request)?;
    Ok(decoded.object)
}

/// Errors of the options of a delete.
pub fn delete_causes(value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let policy = value.get("propagationPolicy").and_then(Value::as_str);
    if let (Some(policy), true) = (policy, value.get("orphanDependents").is_some_and(|o| !o.is_null())) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        causes.push(Cause::invalid("propagationPolicy", &json!(policy), why));
    }
    if let Some(odd) = policy.filter(|p| !matches!(*p, "Foreground" | "Background" | "Orphan")) {
        let list = ["Foreground", "Background", "Orphan", "nil"];
        causes.push(Cause::not_supported("propagationPolicy", &json!(odd), &list));
    }
    let dry_run = value.get("dryRun").and_then(Value::as_array);
    let dry_run: Vec<_> = dry_run.into_iter().flatten().filter_map(Value::as_str).collect();
    causes.extend(dry_run_cause(&dry_run));
    causes
}
