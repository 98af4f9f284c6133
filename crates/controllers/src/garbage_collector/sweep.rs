//! One object at a time: does it still have an owner, and what becomes of it?

use super::graph::{FOREGROUND, Graph, Node, ORPHAN, Task};
use super::{Metadata, Monitors};
use crate::context::Context;
use crate::discovery::Served;
use crate::ownership::is_not_found;
use api::machinery::apis::meta::v1::{ObjectMeta, OwnerReference};
use informer::{Error, Key, Reconcile, Requeue, WorkQueue};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;

pub(super) struct Sweeper {
    ctx: Context,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<Task>,
    monitors: Arc<Monitors>,
}

/// What an owner reference points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is there.
    Solid,
    /// It is gone.
    Dangling,
    /// It waits for its dependents to be deleted.
    Waiting,
}

impl Reconcile for Sweeper {
    type Key = Task;

    async fn reconcile(&self, task: &Task) -> Result<Requeue, Error> {
        let (Task::Delete(uid) | Task::Orphan(uid)) = task;
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(Requeue::Done) };
        match task {
            Task::Delete(_) => self.attempt_to_delete(&node).await,
            Task::Orphan(_) => self.attempt_to_orphan(&node).await,
        }
    }
}

impl Sweeper {
    pub fn new(ctx: Context, graph: Arc<Mutex<Graph>>, queue: WorkQueue<Task>, monitors: Arc<Monitors>) -> Self {
        Self { ctx, graph, queue, monitors }
    }

    fn api(&self, resource: &Served, namespace: &str) -> Api<DynamicObject> {
        if resource.namespaced {
            Api::namespaced_with(self.ctx.client.clone(), namespace, &resource.resource)
        } else {
            Api::all_with(self.ctx.client.clone(), &resource.resource)
        }
    }

    /// The present metadata of an object with this name, as the server has it.
    async fn live(&self, resource: &Served, key: &Key) -> Result<Option<ObjectMeta>, Error> {
        let found: Option<Metadata> = self.api(resource, &key.namespace).get_metadata_opt(&key.name).await?;
        Ok(found.map(|m| m.metadata))
    }

    async fn attempt_to_delete(&self, node: &Node) -> Result<Requeue, Error> {
        if node.deleting && !node.deletes_dependents() {
            return Ok(Requeue::Done);
        }
        let Some(meta) = self.live(&node.resource, &node.key).await?.filter(|m| m.uid.as_deref() == Some(&node.uid))
        else {
            // The informer will say so, too.
            return Ok(Requeue::Done);
        };
        let live = Node::new(&node.resource, &meta);
        if live.deletes_dependents() {
            return self.delete_dependents_first(&live, &meta).await;
        }
        if live.owners.is_empty() || live.deleting {
            return Ok(Requeue::Done);
        }
        let mut owners = Vec::with_capacity(live.owners.len());
        for owner in &live.owners {
            owners.push(self.classify(&live, owner).await?);
        }
        self.decide(&live, &meta, &owners).await
    }

    async fn decide(&self, live: &Node, meta: &ObjectMeta, owners: &[Owner]) -> Result<Requeue, Error> {
        if owners.contains(&Owner::Solid) {
            let gone = live.owners.iter().zip(owners).filter(|(_, state)| **state != Owner::Solid);
            let gone: Vec<&str> = gone.map(|(owner, _)| owner.uid.as_str()).collect();
            return if gone.is_empty() { Ok(Requeue::Done) } else { self.drop_owners(live, meta, &gone).await };
        }
        let dependents = self.graph.lock().dependents(&live.uid);
        let has_dependents = !dependents.is_empty();
        let unblocked = match owners.contains(&Owner::Waiting) && dependents.iter().any(Node::deletes_dependents) {
            true => Some(self.unblock_owners(live, meta).await?),
            false => None,
        };
        let meta = unblocked.as_ref().unwrap_or(meta);
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        let params = match () {
            () if owners.contains(&Owner::Waiting) && has_dependents => DeleteParams::foreground(),
            () if has(ORPHAN) => DeleteParams::orphan(),
            () if has(FOREGROUND) => DeleteParams::foreground(),
            () => DeleteParams::background(),
        };
        self.delete(live, meta, params).await
    }

    async fn delete(&self, live: &Node, meta: &ObjectMeta, params: DeleteParams) -> Result<Requeue, Error> {
        // The resource version guards against an owner that was added meanwhile.
        let guard = Preconditions { uid: Some(live.uid.clone()), resource_version: meta.resource_version.clone() };
        let api = self.api(&live.resource, &live.key.namespace);
        settled(api.delete(&live.key.name, &params.preconditions(guard)).await.map(drop))
    }

    /// Lets a foreground-deleted object go once nothing blocks it.
    async fn delete_dependents_first(&self, live: &Node, meta: &ObjectMeta) -> Result<Requeue, Error> {
        let blocking: Vec<Node> =
            self.graph.lock().dependents(&live.uid).into_iter().filter(|d| d.blocks(&live.uid)).collect();
        if blocking.is_empty() {
            return self.remove_finalizer(live, meta, FOREGROUND).await;
        }
        for dependent in blocking.iter().filter(|d| !d.deletes_dependents()) {
            self.queue.add(Task::Delete(dependent.uid.clone()));
        }
        Ok(Requeue::Done)
    }

    async fn attempt_to_orphan(&self, node: &Node) -> Result<Requeue, Error> {
        let dependents = self.graph.lock().dependents(&node.uid);
        for dependent in dependents {
            if let Some(meta) = self
                .live(&dependent.resource, &dependent.key)
                .await?
                .filter(|m| m.uid.as_deref() == Some(&dependent.uid))
            {
                self.drop_owners(&dependent, &meta, &[&node.uid]).await?;
            }
        }
        match self.live(&node.resource, &node.key).await?.filter(|m| m.uid.as_deref() == Some(&node.uid)) {
            Some(meta) => self.remove_finalizer(node, &meta, ORPHAN).await,
            None => Ok(Requeue::Done),
        }
    }

    async fn classify(&self, dependent: &Node, owner: &OwnerReference) -> Result<Owner, Error> {
        if let Some(known) = self.graph.lock().get(&owner.uid)
            && same_scope(dependent, known)
        {
            return Ok(if known.deletes_dependents() { Owner::Waiting } else { Owner::Solid });
        }
        // An owner of an unknown kind cannot be judged; nor can a namespaced owner of a cluster-scoped object.
        let Some(resource) = self.monitors.resolve(&owner.api_version, &owner.kind) else { return Ok(Owner::Solid) };
        if resource.namespaced && dependent.key.namespace.is_empty() {
            return Ok(Owner::Solid);
        }
        let namespace = if resource.namespaced { dependent.key.namespace.as_str() } else { "" };
        let live = self.live(&resource, &Key::new(namespace, owner.name.clone())).await?;
        let Some(meta) = live.filter(|m| m.uid.as_deref() == Some(&owner.uid)) else { return Ok(Owner::Dangling) };
        Ok(if Node::new(&resource, &meta).deletes_dependents() { Owner::Waiting } else { Owner::Solid })
    }

    /// Takes references to owners away.
    async fn drop_owners(&self, node: &Node, meta: &ObjectMeta, gone: &[&str]) -> Result<Requeue, Error> {
        let rest: Vec<&OwnerReference> =
            meta.owner_references.iter().flatten().filter(|o| !gone.contains(&o.uid.as_str())).collect();
        if rest.len() == meta.owner_references.as_ref().map_or(0, Vec::len) {
            return Ok(Requeue::Done);
        }
        self.patch(node, meta, json!({"ownerReferences": rest})).await
    }

    /// Lets the owners of an object go without it: it is part of a circle, each waiting for the next.
    async fn unblock_owners(&self, node: &Node, meta: &ObjectMeta) -> Result<ObjectMeta, Error> {
        let free = |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
        let owners: Vec<OwnerReference> = meta.owner_references.iter().flatten().map(free).collect();
        let guard = json!({"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners});
        let patch = Patch::Merge(json!({"metadata": guard}));
        let api = self.api(&node.resource, &node.key.namespace);
        Ok(api.patch_metadata(&node.key.name, &PatchParams::default(), &patch).await?.metadata)
    }

    async fn remove_finalizer(&self, node: &Node, meta: &ObjectMeta, finalizer: &str) -> Result<Requeue, Error> {
        let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        self.patch(node, meta, json!({"finalizers": rest})).await
    }

    async fn patch(&self, node: &Node, meta: &ObjectMeta, mut change: serde_json::Value) -> Result<Requeue, Error> {
        change["uid"] = json!(meta.uid);
        change["resourceVersion"] = json!(meta.resource_version);
        let patch = Patch::Merge(json!({"metadata": change}));
        let api = self.api(&node.resource, &node.key.namespace);
        settled(api.patch_metadata(&node.key.name, &PatchParams::default(), &patch).await.map(drop))
    }
}

/// An owner reference cannot cross namespaces.
fn same_scope(dependent: &Node, owner: &Node) -> bool {
    !owner.resource.namespaced || owner.key.namespace == dependent.key.namespace
}

/// An object that is gone needs nothing; one that changed is looked at again.
fn settled(result: Result<(), kube::Error>) -> Result<Requeue, Error> {
    match result {
        Err(error) if is_not_found(&error) => Ok(Requeue::Done),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Requeue::Done),
    }
}
