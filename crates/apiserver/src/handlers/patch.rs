//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use super::{Request, answer, namespace, options, update::check_name};
use crate::body::Body;
use crate::registry::create::WriteOptions;
use crate::registry::decode::{FieldValidation, canonical_quantity, no_kind, unknown_conversion, validate_fields};
use crate::registry::update::{Change, Changed, update};
use crate::registry::{Resource, meta as system, yaml};
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

    /// What strict decoding says of the text of a patch.
    fn strict(self, bytes: &[u8], body: &Value) -> Vec<String> {
        let twice = schema::duplicate_fields(bytes);
        if self != Self::Json {
            return twice;
        }
        let known = |key: &String| ["op", "from", "path", "value"].iter().any(|k| key.eq_ignore_ascii_case(k));
        let operations = body.as_array().into_iter().flatten().enumerate();
        let fields =
            operations.flat_map(|(i, o)| o.as_object().into_iter().flat_map(move |o| o.keys().map(move |k| (i, k))));
        let unknown = fields.filter(|(_, key)| !known(key)).map(|(i, key)| format!("unknown field \"[{i}].{key}\""));
        twice.into_iter().chain(unknown).map(|found| format!("json patch {found}")).collect()
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
    /// What strict decoding found in its text.
    pub found: Vec<String>,
}

/// Patches the object, by a subresource or itself.
pub async fn handle(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    subresource: &str,
) -> Result<Response<Body>, Status> {
    request.media()?;
    if resource.custom.is_some() && PatchType::of(request).map_or(true, |kind| kind == PatchType::Strategic) {
        return Err(Status::new(415, "UnsupportedMediaType", CUSTOM_PATCHES));
    }
    let (patch, options) = match read(request, subresource).await {
        // What a patch says is read once there is what it patches.
        Err(status) if status.code == 400 && !has(resource, request).await? => {
            return Err(if PatchType::of(request) == Ok(PatchType::Apply) {
                status
            } else {
                resource.not_found(&request.info.name)
            });
        }
        read => read?,
    };
    let upsert = patch.kind == PatchType::Apply;
    if upsert {
        check_applied(resource, &patch.body)?;
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

/// Whether there is an object of the name.
async fn has(resource: &Resource, request: &Request) -> Result<bool, Status> {
    Ok(resource.store.get(namespace(resource, request), &request.info.name).await?.is_some())
}

/// Reads a patch and its options.
pub async fn read(request: &Request, subresource: &str) -> Result<(Patch, WriteOptions), Status> {
    let kind = PatchType::of(request)?;
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
    let options = options::write_options_after(request, "PatchOptions", subresource, causes)?;
    let bytes = request.read_body().await?;
    if kind != PatchType::Apply {
        let strict = request.field_validation()? != FieldValidation::Ignore;
        let body = parse(kind, &bytes, strict)?;
        let found = kind.strict(&bytes, &body);
        return Ok((Patch { kind, body, force: force.unwrap_or(false), found }, options));
    }
    let (body, twice) = yaml::parse_body(&bytes)
        .map_err(|why| Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {why}")))?;
    let found = twice.map_or_else(|| schema::duplicate_fields(&bytes), |twice| vec![twice.replace(TWICE, "")]);
    if !body.is_object() && !body.is_null() {
        let why = merge::strategic_kind(&body);
        let why = format!("error unmarshaling JSON: while decoding JSON: {why}");
        return Err(Status::bad_request(format!("error decoding YAML: {why}")));
    }
    Ok((Patch { kind, body, force: force.unwrap_or(false), found }, options))
}

/// What was given twice in an applied text is told once it could be applied.
pub fn check_applied_twice(request: &Request, patch: &Patch) -> Result<(), Status> {
    let failed = |list: &str| {
        Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {TWICE}{list}"))
    };
    validate_fields(request, patch.found.clone(), &failed)
}

const TWICE: &str = "yaml: unmarshal errors:\n  ";

fn parse(kind: PatchType, bytes: &[u8], strict: bool) -> Result<Value, Status> {
    match (kind, serde_json::from_slice::<Value>(bytes)) {
        // Who does not ask for strictness is answered by the patch itself.
        (PatchType::Json, Ok(found)) if !strict && !found.is_array() && !found.is_null() => {
            let why = merge::json_patch(&json!({}), &found).err().map(|e| e.to_string()).unwrap_or_default();
            let why = why.trim_start_matches("error decoding patch: ");
            return Err(Status::bad_request(why.replace("[]handlers.jsonPatchOp", "jsonpatch.Patch")));
        }
        (PatchType::Merge, Ok(found)) if !strict && !found.is_object() && !found.is_array() => {
            return Err(Status::bad_request("Invalid JSON Patch"));
        }
        (PatchType::Merge, Err(_)) if !strict => return Err(Status::bad_request("Invalid JSON Patch")),
        (PatchType::Merge, Ok(Value::Null)) => return Err(Status::bad_request("Invalid JSON Patch")),
        (PatchType::Strategic, Ok(found)) if !found.is_object() && !found.is_null() => {
            let text =
                failure(&merge::merge_patch(&json!({}), &found).err().unwrap_or(merge::Error::Internal(String::new())));
            return Err(Status::bad_request(text.message.trim_start_matches("error decoding patch: ")));
        }
        (_, Ok(value)) => return Ok(value),
        (_, Err(_)) => {}
    }
    serde_json::from_slice(bytes).map_err(|_| {
        // The decoder of `schema` words syntax errors as Go does.
        let why = schema::decode_slice("io.k8s.apimachinery.pkg.apis.meta.v1.Status", bytes, canonical_quantity);
        let why = why.err().unwrap_or_default();
        let why = why.strip_prefix("syntax: ").unwrap_or(&why);
        Status::bad_request(match kind {
            PatchType::Strategic => why.to_owned(),
            PatchType::Json if !strict => why.to_owned(),
            _ => format!("error decoding patch: {why}"),
        })
    })
}

fn check_applied(resource: &Resource, body: &Value) -> Result<(), Status> {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version != resource.api_version() || kind != resource.kind {
        let gv = api::GroupVersion::parse(version).unwrap_or_else(|| api::GroupVersion::new("", ""));
        let gvk = format!("{}/{}, Kind={kind}", gv.group, gv.version);
        return Err(Status::bad_request(format!("invalid object type: {gvk}")));
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
    let new = old.is_none().then(zero);
    let base = old.or(new.as_ref()).unwrap_or(&Value::Null);
    let patched = match patch.kind {
        PatchType::Json => merge::json_patch(base, &patch.body),
        PatchType::Merge => merge::merge_patch(base, &patch.body),
        PatchType::Strategic => merge::strategic_merge(base, &patch.body, resource.schema, resource.facts()),
        // An apply that creates merges into nothing: what every object has belongs to nobody.
        PatchType::Apply => return applied(request, resource, patch, old.unwrap_or(&json!({})), options),
    };
    let mut object = patched.map_err(|e| failure(&e))?;
    if patch.kind == PatchType::Strategic {
        // Merged into the type of the object itself, whatever the patch says of its kind.
        resource.set_type(&mut object);
    } else {
        check_type(resource, &object, request, &|| shown(patch, base))?;
    }
    let decoded = match patch.kind {
        PatchType::Strategic => resource.decode_merged(&mut object),
        _ => resource.decode(&mut object),
    };
    check_decoded(request, patch, base, decoded)?;
    check_name(&object, &request.info.name)?;
    resource.strategy.default(&mut object);
    Ok(Changed { object, tracked: false })
}

/// Refuses what cannot be decoded of a patched object, and what strict decoding found in it and in the patch.
pub fn check_decoded(
    request: &Request,
    patch: &Patch,
    base: &Object,
    decoded: Result<Vec<String>, String>,
) -> Result<(), Status> {
    let strict = decoded.map_err(|why| invalid_patch(&shown(patch, base), &why))?;
    let found = patch.found.iter().cloned().chain(strict).collect();
    let failed = |list: &str| invalid_patch(&shown(patch, base), &format!("strict decoding error: {list}"));
    validate_fields(request, found, &failed)
}

/// What errors show of a patch and what it makes.
fn shown(patch: &Patch, base: &Object) -> String {
    match patch.kind {
        PatchType::Strategic => go_map(&patch.body),
        _ => object_text(base, &patch.body, patch.kind),
    }
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
    crate::registry::facts::forget_foreign(resource, &mut object);
    resource.decode_merged(&mut object).map_err(|why| {
        let whole = format!("{}/{}", meta::namespace(&patch.body), meta::name(&patch.body));
        let gvk = resource.gvk();
        let (group, version, kind) = (&gvk.group, &gvk.version, &gvk.kind);
        let what = format!("{group}/{version}, Kind={kind}");
        let why = format!("unable to convert unstructured object to {what}: {why}");
        Status::new(500, "", format!("failed to convert new object ({whole}; {what}) to proper version: {why}"))
    })?;
    check_applied_twice(request, patch)?;
    check_name(&object, &request.info.name)?;
    resource.strategy.default(&mut object);
    Ok(Changed { object, tracked: true })
}

/// A patch may not make another kind of an object.
fn check_type(
    resource: &Resource,
    object: &Object,
    request: &Request,
    shown: &dyn Fn() -> String,
) -> Result<(), Status> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    let (found, kind) = (text("apiVersion"), text("kind"));
    // A built-in object that names no type is of the one of the path.
    let unnamed = |text: &str| text.is_empty() && resource.custom.is_none();
    let same_version = unnamed(found) || found == resource.api_version();
    let same_kind = unnamed(kind) || kind == resource.kind;
    if same_version && same_kind {
        return Ok(());
    }
    let version = api::GroupVersion::parse(found).unwrap_or_else(|| api::GroupVersion::new("", ""));
    if resource.custom.is_some() {
        let mut causes = Vec::new();
        if !same_kind {
            causes.push(Cause::invalid("kind", &json!(kind), &format!("must be {}", resource.kind)));
        }
        if !same_version {
            causes.push(Cause::invalid("apiVersion", &json!(found), &format!("must be {}", resource.api_version())));
        }
        return Err(Status::invalid(&version.group, kind, &request.info.name, &causes));
    }
    let known = schema::schema_name(&version.group, &version.version, kind).is_some();
    Err(invalid_patch(
        &shown(),
        &match known {
            true => unknown_conversion(&version.version, kind, &resource.gvk()),
            false => no_kind(&version.group, &version.version, kind, &resource.gvk()),
        },
    ))
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
    cause.message = format!("Invalid value: {}: {why}", api::quoted(shown));
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
