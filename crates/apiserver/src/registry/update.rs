//! The way of a changed object.

use super::create::{WriteOptions, create, create_tracked, invalid};
use super::{Resource, access, meta as system};
use crate::admission::{self, Attributes, Operation};
use crate::allocators;
use crate::authz;
use crate::handlers::Request;
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored, Update, Updated};
use api::{Cause, Object, Status, meta};
use merge::Write;
use resources::{Ctx, Strategy};
use serde_json::{Value, json};

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";
/// How often a change is made anew because another writer was faster.
const ATTEMPTS: usize = 20;

/// What a change function makes of the present object (`None`: there is none).
pub struct Changed {
    /// The object wanted, in the version of the resource, decoded and with `apiVersion` and `kind`.
    pub object: Object,
    /// Whether its managedFields are in place (an apply).
    pub tracked: bool,
}

/// What an update did.
pub struct Outcome {
    /// The object.
    pub stored: Stored,
    /// Whether it is new.
    pub created: bool,
    /// Whether it is gone: the last finalizer was removed.
    pub deleted: bool,
}

/// A change of one object.
pub struct Change<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Creates the object where it does not exist, whatever its strategy says (an apply).
    pub upsert: bool,
    /// Takes an object without a resource version for one without the condition (patches).
    pub unconditional: bool,
    /// Conditions of the caller.
    pub preconditions: Preconditions,
}

/// Changes an object; `make` may run several times.
pub async fn update(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    change: &Change<'_>,
    options: &WriteOptions,
    make: &mut (dyn FnMut(Option<&Object>) -> Result<Changed, Status> + Send),
) -> Result<Outcome, Status> {
    for attempt in 1.. {
        let Some(current) = resource.store.get(change.namespace, change.name).await? else {
            return create_instead(server, request, resource, change, options, make).await;
        };
        let mut old = resource.whole_object(&current)?;
        if let Some(custom) = &resource.custom {
            // Shown as stored or not: its schema may have changed since it was written.
            custom.schema.prune(&mut old);
        }
        let mut wanted = make(Some(&old))?;
        // A patch's owners are looked at after mutation alone.
        if !change.unconditional {
            request.warn_all(system::dedup_owners(&mut wanted.object, false).into_iter().collect());
        }
        let sent = meta::resource_version(&wanted.object).to_owned();
        check_versions(resource, &options.subresource, change, &wanted.object, &old)?;
        let attributes = Attributes {
            request,
            resource,
            operation: Operation::Update,
            subresource: &options.subresource,
            namespace: change.namespace,
            name: change.name,
            old: Some(&old),
            dry_run: options.dry_run,
            options: None,
            reinvocation: None,
        };
        match write(server, &attributes, &current, wanted, change, options).await {
            // Another writer came between: only a client that named a version is to hear of it.
            Err(status) if status.code == 409 && status.message.ends_with(MODIFIED) && attempt < ATTEMPTS => {
                let named = !sent.is_empty() && sent != "0" && !change.unconditional;
                if named {
                    return Err(status);
                }
            }
            result => return result,
        }
    }
    unreachable!("the loop above returns")
}

async fn create_instead(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    change: &Change<'_>,
    options: &WriteOptions,
    make: &mut (dyn FnMut(Option<&Object>) -> Result<Changed, Status> + Send),
) -> Result<Outcome, Status> {
    // A patch that is no apply has nothing to patch.
    let replaces = !change.unconditional && resource.strategy.allow_create_on_update();
    let allowed = change.upsert || replaces;
    if !allowed || !options.subresource.is_empty() {
        return Err(resource.not_found(change.name));
    }
    let Changed { mut object, tracked } = make(None)?;
    if !meta::uid(&object).is_empty() {
        let uid = meta::uid(&object);
        let why = match change.upsert {
            true => format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found"),
            false => format!("Precondition failed: UID in precondition: {uid}, UID in object meta: "),
        };
        return Err(Status::conflict(&resource.group, &resource.resource, change.name, &why));
    }
    if !matches!(meta::resource_version(&object), "" | "0") && !change.upsert {
        return Err(resource.not_found(change.name));
    }
    if meta::name(&object).is_empty() {
        meta::set(&mut object, "name", change.name);
    }
    // The request was let through as an update or a patch.
    let create_it = authz::Attributes { verb: "create", ..authz::Attributes::of(&request.user, &request.info) };
    authz::authorize(server, &create_it, None).await?;
    if change.upsert {
        // An apply that creates is unconditional.
        meta::set(&mut object, "resourceVersion", Value::Null);
    }
    let stored = if tracked {
        super::decode::check_namespace(resource, &mut object, change.namespace)?;
        let unlabelled = super::create::is_unlabelled(&object);
        create_tracked(server, request, resource, change.namespace, object, unlabelled, options).await?
    } else {
        create(server, request, resource, change.namespace, object, options).await?
    };
    Ok(Outcome { stored, created: true, deleted: false })
}

fn check_versions(
    resource: &Resource,
    subresource: &str,
    change: &Change<'_>,
    new: &Object,
    old: &Object,
) -> Result<(), Status> {
    let conflict = |why: &str| Status::conflict(&resource.group, &resource.resource, change.name, why);
    let (uid, old_uid) = (meta::uid(new), meta::uid(old));
    // That of a patched object is judged with the rest of its metadata.
    if !uid.is_empty() && uid != old_uid && !(change.unconditional && subresource != "scale") {
        // Worded as etcd's storage does.
        let namespace = change.namespace;
        let prefix = match (resource.group.as_str(), resource.resource.as_str()) {
            ("", "services") => "services/specs",
            ("", "endpoints") => "services/endpoints",
            ("", "nodes") => "minions",
            ("", "replicationcontrollers") => "controllers",
            ("networking.k8s.io", "ingresses") => "ingress",
            (_, resource) => resource,
        };
        let group = if resource.custom.is_some() { resource.group.as_str() } else { "" };
        let key =
            [group, prefix, namespace, change.name].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
        return Err(conflict(&format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}"
        )));
    }
    match meta::resource_version(new) {
        "" | "0" => {
            if !change.unconditional && !resource.strategy.allow_unconditional_update() {
                let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
                // Upstream names the resource in place of the kind here.
                return Err(Status::invalid(&resource.group, &resource.resource, meta::name(old), &[cause]));
            }
            Ok(())
        }
        sent if sent == meta::resource_version(old) => Ok(()),
        sent if sent.parse::<u64>().is_err() => Err(Status::new(
            500,
            "",
            format!("strconv.ParseUint: parsing {sent}: invalid syntax", sent = api::quoted(sent)),
        )),
        _ => Err(conflict(MODIFIED)),
    }
}

/// The strategy that a subresource writes with.
enum Way<'a> {
    Main(&'a dyn Strategy),
    Status(&'a dyn Strategy),
}

fn way<'a>(resource: &'a Resource, subresource: &str) -> Way<'a> {
    let strategy = &*resource.strategy;
    match subresource {
        "status" => Way::Status(strategy),
        "" | "scale" => Way::Main(strategy),
        name => Way::Main(strategy.subresource(name).unwrap_or(strategy)),
    }
}

async fn write(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    current: &Stored,
    wanted: Changed,
    change: &Change<'_>,
    options: &WriteOptions,
) -> Result<Outcome, Status> {
    let (request, resource) = (attributes.request, attributes.resource);
    let old = attributes.old.unwrap_or(&Value::Null);
    let way = way(resource, &options.subresource);
    let mut new = wanted.object;
    super::decode::check_namespace(resource, &mut new, change.namespace)?;
    schema::complete_unstored(resource.schema, &mut new);
    if matches!(meta::resource_version(&new), "" | "0") {
        meta::set(&mut new, "resourceVersion", meta::resource_version(old));
    }
    if !wanted.tracked {
        track(request, resource, &way, &mut new, old, options);
    }
    admission::admit(server, attributes, &mut new).await?;
    authz::escalation::check(server, request, resource, change.namespace, &new, Some(old)).await?;
    request.warn_all(system::dedup_owners(&mut new, true).into_iter().collect());
    let ctx = request.strategy_ctx(options.dry_run);
    system::keep_system_fields(&mut new, old);
    let allocation = match &way {
        Way::Main(_) => allocators::on_update(server, resource, &mut new, old, options.dry_run).await?,
        Way::Status(_) => allocators::Allocation::none(),
    };
    // From here on, strategies see the stored form.
    new = resource.to_stored(new);
    let stored_old = resource.convert.map(|_| resource.to_stored(old.clone()));
    let old = stored_old.as_ref().unwrap_or(old);
    resources::drop_disabled(resource.stored_schema(), &mut new, Some(old));
    let found = prepare_and_validate(resource, &way, &ctx, &mut new, old);
    let mut causes = access::causes(server, attributes, &new).await;
    causes.extend(found);
    if !causes.is_empty() {
        return Err(invalid(resource, old, &causes));
    }
    if matches!(options.subresource.as_str(), "" | "scale") {
        request.warn_all(resource.strategy.warnings(&new, Some(old)));
    } else if options.subresource == "status" {
        request.warn_all(resource.strategy.status_warnings(&new));
    }
    admission::validate(server, attributes, Some(&new)).await?;
    let undo = admission::Undo::of(server, attributes, &new);
    if matches!(way, Way::Main(_)) {
        resource.strategy.prepare_to_store(&mut new);
    }
    resource.complete(&mut new);
    system::drop_empty(&mut new);
    let updated = match store_allocated(server, resource, current, change, (new, old), allocation, options).await {
        Ok(updated) => updated,
        Err(error) => {
            undo.run(server, attributes).await;
            return Err(error);
        }
    };
    Ok(Outcome { stored: updated.stored, created: false, deleted: updated.deleted })
}

/// Whether an object will differ from the present one where its generation counts, as it will be stored: what is empty
/// and dropped then is no change.
fn changes(resource: &Resource, strategy: &dyn Strategy, new: &Object, old: &Object) -> bool {
    strategy.generation_changes(new, old) && {
        let mut kept = new.clone();
        resource.complete(&mut kept);
        strategy.generation_changes(&kept, old)
    }
}

/// Prepares a changed object the way it came, and gives what is wrong with it.
fn prepare_and_validate(
    resource: &Resource,
    way: &Way<'_>,
    ctx: &Ctx<'_>,
    new: &mut Object,
    old: &Object,
) -> Vec<Cause> {
    match way {
        Way::Main(strategy) => {
            strategy.prepare_for_update(ctx, new, old);
            if strategy.counts_generation() && changes(resource, *strategy, new, old) {
                meta::set(new, "generation", meta::generation(old) + 1);
            }
            resources::validate_update(*strategy, ctx, new, old)
        }
        Way::Status(strategy) => {
            strategy.prepare_for_status_update(ctx, new, old);
            resources::validate_status_update(*strategy, ctx, new, old)
        }
    }
}

/// Stores what was changed, with the record of what was taken for it; nothing stays taken for what could not be stored.
async fn store_allocated(
    server: &ApiServer,
    resource: &Resource,
    current: &Stored,
    change: &Change<'_>,
    (mut new, old): (Object, &Object),
    mut allocation: allocators::Allocation,
    options: &WriteOptions,
) -> Result<Updated, Status> {
    if options.dry_run {
        return store(resource, current, change, new, true).await;
    }
    allocation.record(server, &mut new).await?;
    match store(resource, current, change, new, false).await {
        Ok(updated) if updated.deleted => {
            allocation.end(server, resource, old).await;
            Ok(updated)
        }
        Ok(updated) => {
            allocation.keep(server, old).await;
            Ok(updated)
        }
        Err(error) => {
            allocation.unrecord(server, old).await;
            Err(error)
        }
    }
}

async fn store(
    resource: &Resource,
    current: &Stored,
    change: &Change<'_>,
    new: Object,
    dry_run: bool,
) -> Result<Updated, Status> {
    let gone = is_finished(resource, &new);
    let seen = current.meta.resource_version;
    let conflict = || Status::conflict(&resource.group, &resource.resource, change.name, MODIFIED);
    // It is written as what it was seen as, or not at all: there is no second time.
    let mut new = Some(new);
    let write = move |now: &Stored| match new.take().filter(|_| now.meta.resource_version == seen) {
        Some(new) if gone => Ok(Update::Delete(new)),
        Some(new) => Ok(Update::Write(new)),
        None => Err(conflict()),
    };
    resource.store.guaranteed_write(change.namespace, change.name, &change.preconditions, write, dry_run).await
}

/// An object that is being deleted goes when nothing holds it any more: no finalizer, no grace period left
/// (a pod's kubelet ends that with a delete), and no spec finalizer (namespaces).
fn is_finished(resource: &Resource, object: &Object) -> bool {
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let held = object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    let held = resource.resource == "namespaces" && resource.group.is_empty() && held;
    meta::is_deleting(object) && meta::finalizers(object).is_empty() && grace.unwrap_or(0) == 0 && !held
}

/// Records who owns the fields that this write changes.
fn track(
    request: &Request,
    resource: &Resource,
    way: &Way<'_>,
    new: &mut Object,
    old: &Object,
    options: &WriteOptions,
) {
    let typed = |object: &Object| merge::is_typed(object, resource.schema, resource.facts());
    if resource.custom.is_some() && !(typed(new) && typed(old)) {
        return meta::set(new, "managedFields", Value::Null);
    }
    let mut shown = owned(request, resource, way, new, old, options);
    if resource.custom.is_none() && !super::facts::has_keys(resource.schema, &shown) {
        return meta::set(new, "managedFields", Value::Null);
    }
    let time = system::time(request.now);
    let write = Write {
        old,
        manager: &options.manager,
        time: &time,
        subresource: &options.subresource,
        schema: resource.schema,
    };
    merge::update_managed_fields(&write, &mut shown, resource.facts());
    super::facts::forget_foreign(resource, &mut shown);
    let mut managed = shown.pointer_mut("/metadata/managedFields").map(Value::take).unwrap_or(Value::Null);
    if options.subresource == "scale" {
        forget_times_of_scale(&mut managed);
    }
    meta::set(new, "managedFields", managed);
}

/// The new object as its writer is held to have made it: what the way leaves as it was is nobody's.
fn owned(
    request: &Request,
    resource: &Resource,
    way: &Way<'_>,
    new: &Object,
    old: &Object,
    options: &WriteOptions,
) -> Object {
    let mut shown = new.clone();
    schema::drop_empty(resource.schema, &mut shown);
    let reset = |shown: &mut Object, subresource: &str| {
        for path in resource.facts().reset_fields(resource.schema, subresource) {
            resources::copy_field(shown, old, path[0]);
        }
    };
    let managed = |shown: &Object| shown.pointer("/metadata/managedFields").cloned().unwrap_or(Value::Null);
    match way {
        Way::Main(_) => reset(&mut shown, ""),
        // Of custom resources the strategy drops more than it says, and who wrote that owns it.
        Way::Status(_) if resource.custom.is_some() => {
            reset(&mut shown, "status");
            let managed = managed(&shown);
            resources::copy_field(&mut shown, old, "metadata");
            meta::set(&mut shown, "managedFields", managed);
        }
        Way::Status(strategy) => {
            let (status, managed) = (shown.get("status").cloned(), managed(&shown));
            strategy.prepare_for_status_update(&request.strategy_ctx(options.dry_run), &mut shown, old);
            meta::set(&mut shown, "managedFields", managed);
            // what is set on the way is nobody's
            if let (Some(status), Value::Object(map)) = (status, &mut shown) {
                map.insert("status".into(), status);
            }
        }
    }
    resource.set_type(&mut shown);
    shown
}

/// As upstream's handler of scales: its entries have no time.
fn forget_times_of_scale(managed: &mut Value) {
    for entry in managed.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if entry.get("subresource").and_then(Value::as_str) == Some("scale") {
            entry.remove("time");
        }
    }
}
