//! The way of a new object.

use super::{Resource, access, meta as system};
use crate::admission::{self, Attributes, Operation};
use crate::allocators;
use crate::authz;
use crate::handlers::Request;
use crate::server::ApiServer;
use crate::store::Stored;
use api::{Object, Status, meta};
use merge::Write;
use serde_json::Value;

/// How often a name is generated anew when it is taken.
const GENERATE_ATTEMPTS: usize = 8;

/// How a write is done.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Everything but the write.
    pub dry_run: bool,
    /// Who writes.
    pub manager: String,
    /// Subresource that is written, or empty.
    pub subresource: String,
}

/// Creates an object that has been decoded; defaults, admission and validation happen here.
pub async fn create(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    namespace: &str,
    mut object: Object,
    options: &WriteOptions,
) -> Result<Stored, Status> {
    super::decode::check_namespace(resource, &mut object, namespace)?;
    refuse_terminating(resource, &object)?;
    let unlabelled = is_empty(object.pointer("/metadata/labels"));
    resource.strategy.default(&mut object);
    schema::complete_unstored(resource.schema, &mut object);
    system::wipe(&mut object);
    request.warn_all(system::dedup_owners(&mut object, false).into_iter().collect());
    track_new(request, resource, &mut object, options);
    create_tracked(server, request, resource, namespace, object, unlabelled, options).await
}

fn is_empty(map: Option<&Value>) -> bool {
    map.and_then(Value::as_object).is_none_or(serde_json::Map::is_empty)
}

/// Whether nobody gave the labels that an object has by now.
pub fn is_unlabelled(object: &Object) -> bool {
    let managers = object.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    managers.into_iter().all(|manager| manager.pointer("/fieldsV1/f:metadata/f:labels").is_none())
}

/// As [`create`], for an object whose managedFields are in place (an apply). `unlabelled`: its author gave no labels.
pub async fn create_tracked(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    namespace: &str,
    mut object: Object,
    unlabelled: bool,
    options: &WriteOptions,
) -> Result<Stored, Status> {
    let name = meta::name(&object).to_owned();
    let attributes = Attributes {
        request,
        resource,
        operation: Operation::Create,
        subresource: &options.subresource,
        namespace,
        name: &name,
        old: None,
        dry_run: options.dry_run,
        options: None,
        reinvocation: None,
    };
    admission::admit(server, &attributes, &mut object).await?;
    authz::escalation::check(server, request, resource, namespace, &object, None).await?;
    request.warn_all(system::dedup_owners(&mut object, true).into_iter().collect());
    let base = meta::string(&object, "generateName").to_owned();
    if !meta::name(&object).is_empty() || base.is_empty() {
        let name = meta::name(&object).to_owned();
        let written = write(server, &Attributes { name: &name, ..attributes }, object, unlabelled).await;
        // a name was given, but upstream only looks whether one could be generated
        let told = |status: Status| match status.reason.as_str() {
            "AlreadyExists" if !base.is_empty() => exhausted(status),
            _ => status,
        };
        return written.map_err(told);
    }
    for attempt in 1.. {
        let mut object = object.clone();
        meta::set(&mut object, "name", system::generate_name(&base));
        let name = meta::name(&object).to_owned();
        match write(server, &Attributes { name: &name, ..attributes }, object, unlabelled).await {
            Err(status) if status.reason == "AlreadyExists" && attempt < GENERATE_ATTEMPTS => {}
            Err(status) if status.reason == "AlreadyExists" => return Err(exhausted(status)),
            result => return result,
        }
    }
    unreachable!("the loop above returns")
}

fn exhausted(mut status: Status) -> Status {
    status.message.push_str(", the server was not able to generate a unique name for the object");
    status.details["retryAfterSeconds"] = 1.into();
    status
}

async fn write(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    mut object: Object,
    unlabelled: bool,
) -> Result<Stored, Status> {
    let (request, resource) = (attributes.request, attributes.resource);
    let ctx = request.strategy_ctx(attributes.dry_run);
    if !resource.namespaced {
        // A namespace given for a cluster-scoped object is an error that validation reports.
        meta::metadata_mut(&mut object).remove("selfLink");
    }
    let version = meta::resource_version(&object).to_owned();
    system::fill_new(&mut object, request.now);
    if resource.strategy.counts_generation() {
        meta::set(&mut object, "generation", 1);
    }
    let allocation = allocators::on_create(server, resource, &mut object, attributes.dry_run).await?;
    // From here on, strategies see the stored form.
    object = resource.to_stored(object);
    resources::drop_disabled(resource.stored_schema(), &mut object, None);
    request.warn_all(resource.strategy.preparation_warnings(&object));
    resource.strategy.prepare_for_create(&ctx, &mut object);
    if unlabelled {
        resource.strategy.prepare_unlabelled(&mut object);
    }
    let mut causes = access::causes(server, attributes, &object).await;
    causes.extend(resources::validate_create(&*resource.strategy, &ctx, &object, resource.namespaced));
    if !causes.is_empty() {
        return Err(invalid(resource, &object, &causes));
    }
    request.warn_all(resource.strategy.warnings(&object, None));
    admission::validate(server, attributes, Some(&object)).await?;
    let undo = admission::Undo::of(server, attributes, &object);
    if let Err(error) = refuse_version(&version, attributes.dry_run) {
        undo.run(server, attributes).await;
        return Err(error);
    }
    resource.strategy.prepare_to_store(&mut object);
    resource.complete(&mut object);
    system::drop_empty(&mut object);
    match record_and_store(server, resource, allocation, object, attributes.dry_run).await {
        Ok(stored) => Ok(stored),
        Err(error) => {
            undo.run(server, attributes).await;
            Err(told_of_deletion(resource, attributes, error).await)
        }
    }
}

async fn record_and_store(
    server: &ApiServer,
    resource: &Resource,
    mut allocation: allocators::Allocation,
    mut object: Object,
    dry_run: bool,
) -> Result<Stored, Status> {
    if dry_run || !allocation.has_addresses() {
        let stored = resource.store.create(object, dry_run).await?;
        if !dry_run {
            allocation.keep(server, &Value::Null).await;
        }
        return Ok(stored);
    }
    allocation.record(server, &mut object).await?;
    match resource.store.create(object.clone(), false).await {
        Ok(stored) => {
            allocation.keep(server, &object).await;
            Ok(stored)
        }
        Err(error) => {
            allocation.unrecord(server, &object).await;
            Err(error)
        }
    }
}

/// Says so where the object that stands in the way is about to go.
async fn told_of_deletion(resource: &Resource, attributes: &Attributes<'_>, mut error: Status) -> Status {
    if error.reason == "AlreadyExists"
        && let Ok(Some(present)) = resource.store.get(attributes.namespace, attributes.name).await
        && present.object().is_ok_and(|object| meta::is_deleting(&object))
    {
        error.message = format!("object is being deleted: {}", error.message);
    }
    error
}

/// A new object has no version yet; a version that is no number is dropped, as upstream drops it.
fn refuse_version(version: &str, dry_run: bool) -> Result<(), Status> {
    match version.parse::<u64>() {
        Ok(version) if version != 0 && !dry_run => {
            Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"))
        }
        _ => Ok(()),
    }
}

/// No new custom resources while their definition is being deleted.
fn refuse_terminating(resource: &Resource, object: &Object) -> Result<(), Status> {
    match &resource.custom {
        Some(custom) if custom.terminating => {
            let why = "create not allowed while custom resource definition is terminating";
            Err(Status::forbidden(&resource.group, &resource.resource, meta::name(object), why))
        }
        _ => Ok(()),
    }
}

/// 422 for an object of a resource.
pub fn invalid(resource: &Resource, object: &Object, causes: &[api::Cause]) -> Status {
    // Both groups of events share one internal kind, which is of the core group.
    let group = if resource.is_events() { "" } else { resource.group.as_str() };
    Status::invalid(group, &resource.kind, meta::name(object), causes)
}

fn track_new(request: &Request, resource: &Resource, object: &mut Object, options: &WriteOptions) {
    if resource.custom.is_some() && !merge::is_typed(object, resource.schema, resource.facts()) {
        return meta::set(object, "managedFields", Value::Null);
    }
    // What the strategy will drop belongs to nobody.
    let mut shown = object.clone();
    schema::drop_empty(resource.schema, &mut shown);
    let zero = system::zero(resource.schema);
    for path in resource.facts().reset_fields(resource.schema, "") {
        resources::copy_field(&mut shown, &zero, path[0]);
    }
    resource.set_type(&mut shown);
    let time = system::time(request.now);
    let write = Write {
        old: &zero,
        manager: &options.manager,
        time: &time,
        subresource: &options.subresource,
        schema: resource.schema,
    };
    if resource.custom.is_none() && !super::facts::has_keys(resource.schema, &shown) {
        return meta::set(object, "managedFields", Value::Null);
    }
    merge::update_managed_fields(&write, &mut shown, resource.facts());
    super::facts::forget_foreign(resource, &mut shown);
    let managed = shown.pointer_mut("/metadata/managedFields").map(Value::take).unwrap_or(Value::Null);
    meta::set(object, "managedFields", managed);
}
