//! `namespaces/finalize`: the namespace controller takes its finalizer away, and the namespace is gone.

use crate::body::Body;
use crate::handlers::{Request, answer, options};
use crate::registry::Resource;
use crate::registry::decode::{Expected, body};
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored, Update};
use api::{Object, Status, meta};
use http::Response;
use serde_json::{Value, json};

/// Replaces the spec's finalizers.
pub async fn handle(_server: &ApiServer, request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    let options = options::write_options(request, "UpdateOptions", "finalize")?;
    let gvk = resource.gvk();
    let mut object = body(request, &Expected { schema: resource.schema, gvk: &gvk }).await?;
    let name = &request.info.name;
    crate::handlers::update::check_name(&mut object, name)?;
    let version = meta::resource_version(&object).parse::<u64>().ok().filter(|v| *v > 0);
    let uid = Some(meta::uid(&object).to_owned()).filter(|u| !u.is_empty());
    let preconditions = Preconditions { uid, resource_version: version };
    let finalizers = object.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    let change = |_: &Stored, present: Object| Ok(finalize(present, finalizers.clone()));
    let updated = resource.store.guaranteed_update("", name, &preconditions, change, options.dry_run).await?;
    answer::object(request, resource, &updated.stored, 200)
}

fn finalize(mut namespace: Object, finalizers: Value) -> Update {
    let empty = finalizers.as_array().is_none_or(Vec::is_empty);
    let spec = meta::field_mut(&mut namespace, "spec");
    if empty {
        spec.remove("finalizers");
    } else {
        spec.insert("finalizers".into(), finalizers);
    }
    if empty && meta::is_deleting(&namespace) && meta::finalizers(&namespace).is_empty() {
        return Update::Delete(namespace);
    }
    Update::Write(namespace)
}
