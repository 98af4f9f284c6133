//! `scale`: the number of replicas of any workload, as `autoscaling/v1` Scale.

use crate::body::Body;
use crate::handlers::patch::{self, PatchType};
use crate::handlers::{Request, answer, namespace, options, table};
use crate::media::{self, Shape};
use crate::registry::create::WriteOptions;
use crate::registry::decode::{Expected, body, canonical_quantity};
use crate::registry::update::{Change, Changed, update};
use crate::registry::{Resource, facts::BuiltIn, meta as system};
use crate::server::ApiServer;
use crate::store::Preconditions;
use api::table::Column;
use api::{Cause, Gvk, Object, Status, meta};
use http::Response;
use serde_json::{Value, json};

const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The columns of a table of scales.
const COLUMNS: [Column; 4] = [
    Column::string("Name").field(OBJECT_META, "name"),
    Column::integer("Desired").field("io.k8s.api.autoscaling.v1.ScaleSpec", "replicas"),
    Column::integer("Available").field("io.k8s.api.autoscaling.v1.ScaleStatus", "replicas"),
    Column::string("Age").field(OBJECT_META, "creationTimestamp"),
];
/// Where the scaled object has the number of replicas.
const REPLICAS: [&str; 2] = ["f:spec", "f:replicas"];

/// Answers a request for the scale.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    let (namespace, name) = (namespace(resource, request), &request.info.name);
    if request.info.verb == "get" {
        let stored = resource.store.get(namespace, name).await?.ok_or_else(|| resource.not_found(name))?;
        let object = resource.whole_object(&stored)?;
        if let Some(why) = resource.custom.as_ref().and_then(|custom| custom.no_replicas(&object)) {
            return Err(Status::internal(why));
        }
        return shown(request, resource, &object);
    }
    let gvk = Gvk::new("autoscaling", "v1", "Scale");
    let (mut patch, mut put) = (None, None);
    let options = if request.info.verb == "patch" {
        let (read, options) = patch::read(request, "scale").await?;
        patch = Some(read);
        options
    } else {
        let options = options::write_options(request, "UpdateOptions", "scale")?;
        put = Some(body(request, &Expected::new(SCHEMA, &gvk)).await?);
        options
    };
    let change = Change {
        namespace,
        name,
        upsert: false,
        unconditional: patch.is_some() || resource.custom.is_some(),
        preconditions: Preconditions::default(),
    };
    let mut make = |old: Option<&Object>| {
        let old = old.ok_or_else(|| resource.not_found(name))?;
        let mut tracked = false;
        let wanted = match (&patch, &put) {
            (Some(patch), _) if patch.kind == PatchType::Apply => {
                tracked = true;
                if resource.custom.is_some() {
                    return Err(unconvertible());
                }
                applied(request, &show(resource, old)?, old, patch, &options)?
            }
            (Some(patch), _) => patched(request, &show(resource, old)?, patch)?,
            (None, Some(scale)) if meta::name(scale).is_empty() => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({name} based on URL) was undeterminable: name must be provided"
                )));
            }
            (None, Some(scale)) => scale.clone(),
            (None, None) => return Err(Status::internal("a scale without a body")),
        };
        let mut wanted = wanted;
        if !tracked && resource.custom.is_none() {
            tracked = true;
            track(request, &show(resource, old)?, old, &mut wanted, &options);
        }
        check(resource, &wanted, namespace, name)?;
        let mut object = old.clone();
        meta::set(&mut object, "resourceVersion", meta::resource_version(&wanted));
        if !meta::uid(&wanted).is_empty() {
            meta::set(&mut object, "uid", meta::uid(&wanted));
        }
        let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        resource.strategy.set_scale(&mut object, replicas);
        if tracked {
            merge::managers_from_scale(&wanted, &REPLICAS, &mut object);
        }
        Ok(Changed { object, tracked })
    };
    let outcome = update(server, request, resource, &change, &options, &mut make).await?;
    shown(request, resource, &resource.whole_object(&outcome.stored)?)
}

/// Answers with the scale, as a row of a table where that is asked for.
fn shown(request: &Request, resource: &Resource, object: &Object) -> Result<Response<Body>, Status> {
    let (media, scale) = (request.media()?, show(resource, object)?);
    if resource.custom.is_some() || media.shape == Shape::Object {
        return answer::plain(request, 200, &scale);
    }
    media::check_shape(&request.headers, media, false, "Scale", "autoscaling")?;
    let shown = match media.shape {
        Shape::Table => {
            let replicas = |part: &str| scale.pointer(part).cloned().unwrap_or(json!(0));
            let age = resources::age::since_creation(&scale, request.now);
            let cells = json!([meta::name(&scale), replicas("/spec/replicas"), replicas("/status/replicas"), age]);
            table::of_one(request, &scale, &COLUMNS, cells)?
        }
        _ => table::partial(&scale),
    };
    answer::value(request, 200, media, &table::in_version(shown, request))
}

/// Upstream cannot apply to the scales of custom resources, and says so like this.
fn unconvertible() -> Status {
    let why = "request to convert CR to an invalid group/version: autoscaling/v1";
    let live = "failed to convert live object (/; autoscaling/v1, Kind=Scale) to proper version";
    Status::new(500, "", format!("failed to create manager for existing fields: {live}: {why}"))
}

/// The Scale of an object.
pub fn show(resource: &Resource, object: &Object) -> Result<Value, Status> {
    let scale = resource.strategy.scale(object).ok_or_else(Status::no_such_path)?;
    let metadata: serde_json::Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter(|field| !meta::string(object, field).is_empty())
        .map(|field| (field.to_owned(), meta::string(object, field).into()))
        .collect();
    let mut spec = json!({});
    if scale.spec_replicas != 0 {
        spec["replicas"] = scale.spec_replicas.into();
    }
    let mut status = json!({"replicas": scale.status_replicas});
    if !scale.selector.is_empty() {
        status["selector"] = scale.selector.into();
    }
    Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}))
}

fn patched(request: &Request, scale: &Value, patch: &patch::Patch) -> Result<Value, Status> {
    let result = match patch.kind {
        PatchType::Json => merge::json_patch(scale, &patch.body),
        PatchType::Strategic => merge::strategic_merge(scale, &patch.body, SCHEMA, &BuiltIn),
        PatchType::Merge | PatchType::Apply => merge::merge_patch(scale, &patch.body),
    };
    let mut value = result.map_err(|e| patch::failure(&e))?;
    let decoded = match patch.kind {
        PatchType::Strategic => schema::convert(SCHEMA, &mut value, canonical_quantity),
        _ => schema::decode(SCHEMA, &mut value, canonical_quantity),
    };
    patch::check_decoded(request, patch, scale, decoded)?;
    Ok(value)
}

/// An apply is made on the scale of a built-in kind, with the managers that the object's replicas have.
fn applied(
    request: &Request,
    scale: &Value,
    object: &Object,
    patch: &patch::Patch,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let mut live = scale.clone();
    merge::managers_to_scale(object, &REPLICAS, &mut live);
    let time = system::time(request.now);
    let apply = merge::Apply {
        live: &live,
        applied: &patch.body,
        manager: &options.manager,
        force: patch.force,
        time: &time,
        subresource: "scale",
        schema: SCHEMA,
    };
    let mut value = merge::apply(&apply, &BuiltIn).map_err(|e| patch::failure(&e))?.object;
    patch::check_applied_twice(request, patch)?;
    schema::decode(SCHEMA, &mut value, canonical_quantity).map_err(Status::bad_request)?;
    Ok(value)
}

/// A write changes the managers that the object's replicas have, as the scale has them.
fn track(request: &Request, scale: &Value, object: &Object, wanted: &mut Value, options: &WriteOptions) {
    let mut live = scale.clone();
    merge::managers_to_scale(object, &REPLICAS, &mut live);
    // Absent is how a scale shows none.
    if wanted.pointer("/spec/replicas") == Some(&json!(0))
        && let Some(spec) = wanted.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.remove("replicas");
    }
    let time = system::time(request.now);
    let write =
        merge::Write { old: &live, manager: &options.manager, time: &time, subresource: "scale", schema: SCHEMA };
    merge::update_managed_fields(&write, wanted, &BuiltIn);
}

fn check(resource: &Resource, scale: &Value, namespace: &str, name: &str) -> Result<(), Status> {
    let found = meta::name(scale);
    if !found.is_empty() && found != name {
        let why = format!("the name of the object ({found}) does not match the name on the URL ({name})");
        return Err(Status::bad_request(why));
    }
    // Custom resources are validated as a whole.
    if resource.custom.is_some() {
        return Ok(());
    }
    let mut named = scale.clone();
    meta::set(&mut named, "namespace", namespace);
    let mut causes =
        resources::metadata::validate_object_meta(&named, true, &resources::names::dns1123_subdomain, true);
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        causes.push(Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0"));
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("autoscaling", "Scale", name, &causes)),
    }
}
