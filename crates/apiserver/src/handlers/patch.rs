//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use super::{Request, answer, namespace, options, update::check_name};
use crate::body::Body;
use crate::registry::create::WriteOptions;
use crate::registry::decode::{canonical_quantity, invalid_options, parse_yaml_body, validate_fields};
use crate::registry::update::{Change, Changed, update};
use crate::registry::{Resource, meta as system};
use crate::server::ApiServer;
use crate::store::Preconditions;
use api::{Cause, Object, Status, meta};
use http::Response;
use http::header::CONTENT_TYPE;
use merge::Apply;
use serde_json::{Value, json};

/// What is told to who sends another patch for a custom resource.
const CUSTOM_PATCHES: &str = "the body of the request was in an unknown format - accepted media types include: \
    application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// The four ways to patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// By the merge keys of the kind.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// The type of a request's body.
    pub fn of(request: &Request) -> Result<Self, Status> {
        let value = request.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        match value.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => {
                let message = "415: Unsupported Media Type";
                Err(Status { details: json!({}), ..Status::new(415, "UnsupportedMediaType", message) })
            }
        }
    }
}

/// A patch, read.
pub struct Patch {
    /// How it is applied.
    pub kind: PatchType,
    /// It.
    pub body: Value,
    /// Takes fields from other managers (apply).
    pub force: bool,
}

/// Patches the object, by a subresource or itself.
pub async fn handle(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    subresource: &str,
) -> Result<Response<Body>, Status> {
    request.media()?;
    if resource.custom.is_some() && PatchType::of(request)? == PatchType::Strategic {
        return Err(Status::new(415, "UnsupportedMediaType", CUSTOM_PATCHES));
    }
    let (patch, options) = read(request, subresource).await?;
    let upsert = patch.kind == PatchType::Apply;
    if upsert {
        check_applied(request, resource, &patch.body)?;
    }
    let change = Change {
        namespace: namespace(resource, request),
        name: &request.info.name,
        upsert,
        unconditional: true,
        preconditions: Preconditions::default(),
    };
    let mut make = |old: Option<&Object>| apply(request, resource, &patch, old, &options);
    let outcome = update(server, request, resource, &change, &options, &mut make).await?;
    answer::object(request, resource, &outcome.stored, if outcome.created { 201 } else { 200 })
}

/// Reads a patch and its options.
pub async fn read(request: &Request, subresource: &str) -> Result<(Patch, WriteOptions), Status> {
    let kind = PatchType::of(request)?;
    let options = options::write_options(request, "PatchOptions", subresource)?;
    let force = request.query.optional_flag("force");
    let mut causes = Vec::new();
    match kind {
        PatchType::Apply if request.query.get("fieldManager").is_empty() => {
            causes.push(Cause::required("fieldManager", "is required for apply patch"));
        }
        PatchType::Apply => {}
        _ if force.is_some() => {
            causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    if !causes.is_empty() {
        return Err(invalid_options("PatchOptions", &causes));
    }
    let bytes = request.read_body().await?;
    if kind != PatchType::Apply {
        return Ok((Patch { kind, body: parse(&bytes)?, force: force.unwrap_or(false) }, options));
    }
    let (body, twice) = parse_yaml_body(&bytes)
        .map_err(|why| Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {why}")))?;
    let found = twice.map_or_else(|| schema::duplicate_fields(&bytes), |twice| vec![twice]);
    validate_fields(request, found, &|list| Status::bad_request(format!("error strict decoding YAML: {list}")))?;
    Ok((Patch { kind, body, force: force.unwrap_or(false) }, options))
}

fn parse(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(|_| {
        // The decoder of `schema` words syntax errors as Go does.
        let why = schema::decode_slice("io.k8s.apimachinery.pkg.apis.meta.v1.Status", bytes, canonical_quantity);
        let why = why.err().unwrap_or_default();
        let why = why.strip_prefix("syntax: ").unwrap_or(&why);
        Status::bad_request(format!("error decoding patch: {why}"))
    })
}

fn check_applied(request: &Request, resource: &Resource, body: &Value) -> Result<(), Status> {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version != resource.api_version() || kind != resource.kind {
        let gv = api::GroupVersion::parse(version).unwrap_or_else(|| api::GroupVersion::new("", ""));
        let gvk = format!("{}/{}, Kind={kind}", gv.group, gv.version);
        return Err(Status::bad_request(format!("invalid object type: {gvk}")));
    }
    let name = meta::name(body);
    if !name.is_empty() {
        check_name(&mut body.clone(), &request.info.name)?;
    }
    if body.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// What a patch makes of the present object.
pub fn apply(
    request: &Request,
    resource: &Resource,
    patch: &Patch,
    old: Option<&Object>,
    options: &WriteOptions,
) -> Result<Changed, Status> {
    let zero = || {
        let mut zero = system::zero(resource.schema);
        resource.set_type(&mut zero);
        zero
    };
    let base = &old.cloned().unwrap_or_else(zero);
    let patched = match patch.kind {
        PatchType::Json => merge::json_patch(base, &patch.body),
        PatchType::Merge => merge::merge_patch(base, &patch.body),
        PatchType::Strategic => merge::strategic_merge(base, &patch.body, resource.schema, resource.facts()),
        // An apply that creates merges into nothing: what every object has belongs to nobody.
        PatchType::Apply => return applied(request, resource, patch, old.unwrap_or(&json!({})), options),
    };
    let mut object = patched.map_err(|e| failure(&e))?;
    let shown = || match patch.kind {
        PatchType::Strategic => go_map(&patch.body),
        _ => object_text(base, &patch.body, patch.kind),
    };
    let strict = resource.decode(&mut object).map_err(|why| invalid_patch(&shown(), &why))?;
    validate_fields(request, strict, &|list| invalid_patch(&shown(), &format!("strict decoding error: {list}")))?;
    check_kept(resource, &mut object, request)?;
    resource.strategy.default(&mut object);
    Ok(Changed { object, tracked: false })
}

fn applied(
    request: &Request,
    resource: &Resource,
    patch: &Patch,
    base: &Object,
    options: &WriteOptions,
) -> Result<Changed, Status> {
    let time = system::time(request.now);
    let apply = Apply {
        live: base,
        applied: &patch.body,
        manager: &options.manager,
        force: patch.force,
        time: &time,
        subresource: &options.subresource,
        schema: resource.schema,
    };
    let mut object = merge::apply(&apply, resource.facts()).map_err(|e| failure(&e))?.object;
    resource.decode(&mut object).map_err(Status::bad_request)?;
    if meta::name(&object).is_empty() {
        meta::set(&mut object, "name", request.info.name.as_str());
    }
    resource.strategy.default(&mut object);
    Ok(Changed { object, tracked: true })
}

/// A patch may not make another kind, name or namespace of an object.
fn check_kept(resource: &Resource, object: &mut Object, request: &Request) -> Result<(), Status> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
    if version != resource.api_version() || kind != resource.kind {
        let why = format!("unable to decode patched object as {}/{}", resource.api_version(), resource.kind);
        return Err(Status::bad_request(why));
    }
    check_name(object, &request.info.name)
}

/// How HTTP answers when a patch cannot be applied.
pub fn failure(error: &merge::Error) -> Status {
    let message = error.to_string();
    match error {
        merge::Error::BadRequest(_) => Status::bad_request(message),
        merge::Error::Invalid(_) => Status { details: json!({}), ..Status::new(422, "Invalid", message) },
        merge::Error::TooLarge(_) => Status::new(413, "RequestEntityTooLarge", message),
        merge::Error::Internal(_) => Status::new(500, "", message),
        merge::Error::Conflict(conflicts) => {
            let causes: Vec<_> = conflicts
                .iter()
                .map(|c| {
                    json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", c.manager),
                        "field": c.field})
                })
                .collect();
            Status { details: json!({"causes": causes}), ..Status::new(409, "Conflict", message) }
        }
    }
}

fn invalid_patch(shown: &str, why: &str) -> Status {
    let mut cause = Cause::invalid("patch", &json!(""), why);
    cause.message = format!("Invalid value: \"{}\": {why}", shown.replace('\\', "\\\\").replace('"', "\\\""));
    Status::invalid("", "", "", &[cause])
}

fn object_text(base: &Object, patch: &Value, kind: PatchType) -> String {
    let patched = match kind {
        PatchType::Json => merge::json_patch(base, patch),
        _ => merge::merge_patch(base, patch),
    };
    patched.map(|p| p.to_string()).unwrap_or_default()
}

/// A value as Go prints a map: `map[a:b c:[1 2]]`.
fn go_map(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<_> = map.iter().map(|(k, v)| format!("{k}:{}", go_map(v))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        other => other.to_string(),
    }
}
