//! Who owns whom, by UID, as the metadata informers tell it.

use crate::discovery::Served;
use api::machinery::apis::meta::v1::{ObjectMeta, OwnerReference};
use informer::Key;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// An object as the garbage collector sees it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub resource: Arc<Served>,
    pub key: Key,
    pub uid: String,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl Node {
    pub fn new(resource: &Arc<Served>, meta: &ObjectMeta) -> Self {
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        Self {
            resource: resource.clone(),
            key: Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()),
            uid: meta.uid.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }

    /// Waits for its dependents to be deleted.
    pub fn deletes_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    /// Waits for its dependents to be let go.
    pub fn orphans_dependents(&self) -> bool {
        self.deleting && self.orphan
    }

    pub fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }
}

/// What a change asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Task {
    /// Look whether the object with this UID should go.
    Delete(String),
    /// Let the dependents of the object with this UID go.
    Orphan(String),
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delete(uid) => write!(f, "delete {uid}"),
            Self::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

/// The owner graph; owners may be missing from it.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> Vec<Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d).cloned()).collect()
    }

    /// Takes a new or changed object; answers what is to be looked at.
    pub fn set(&mut self, node: Node) -> Vec<Task> {
        let mut tasks = Vec::new();
        let uid = node.uid.clone();
        let old = self.nodes.get(&uid).cloned();
        let same_owners = old.as_ref().is_some_and(|o| o.owners == node.owners);
        if !same_owners {
            self.unlink(&uid);
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            }
            // The owner of a new object may be gone, or be waiting for its dependents.
            let settled = |o: &OwnerReference| self.nodes.get(&o.uid).is_some_and(|n| !n.deletes_dependents());
            if !node.owners.iter().all(settled) {
                tasks.push(Task::Delete(uid.clone()));
            }
            // An owner that waits may have been waiting for a reference that is gone now.
            let before = old
                .iter()
                .flat_map(|o| &o.owners)
                .filter(|o| self.nodes.get(&o.uid).is_some_and(Node::deletes_dependents));
            tasks.extend(before.map(|o| Task::Delete(o.uid.clone())));
        }
        let begins = |test: fn(&Node) -> bool| test(&node) && !old.as_ref().is_some_and(test);
        if begins(Node::orphans_dependents) {
            tasks.push(Task::Orphan(uid.clone()));
        }
        if begins(Node::deletes_dependents) {
            tasks.push(Task::Delete(uid.clone()));
            tasks.extend(self.dependents.get(&uid).into_iter().flatten().cloned().map(Task::Delete));
        }
        self.nodes.insert(uid, node);
        tasks
    }

    /// Forgets an object; answers what is to be looked at: its dependents, and owners that wait for it.
    pub fn remove(&mut self, uid: &str) -> Vec<Task> {
        let Some(node) = self.nodes.get(uid).cloned() else { return Vec::new() };
        self.unlink(uid);
        self.nodes.remove(uid);
        let dependents = self.dependents.get(uid).into_iter().flatten().cloned().map(Task::Delete);
        let waiting = node.owners.iter().filter(|o| self.nodes.get(&o.uid).is_some_and(Node::deletes_dependents));
        dependents.chain(waiting.map(|o| Task::Delete(o.uid.clone()))).collect()
    }

    /// Forgets every object of a resource that is no longer served.
    pub fn remove_resource(&mut self, resource: &Served) -> Vec<Task> {
        let gone: Vec<String> =
            self.nodes.values().filter(|n| *n.resource == *resource).map(|n| n.uid.clone()).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn unlink(&mut self, uid: &str) {
        for owner in self.nodes.get(uid).map(|n| n.owners.clone()).unwrap_or_default() {
            if let Some(set) = self.dependents.get_mut(&owner.uid) {
                set.remove(uid);
                if set.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::ApiResource;
    use serde_json::json;

    fn node(uid: &str, owners: &[&str], deleting: bool, finalizers: &[&str]) -> Node {
        let api = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            plural: "configmaps".into(),
        };
        let served = Arc::new(Served { resource: api, namespaced: true, verbs: vec![] });
        let owners: Vec<_> = owners
            .iter()
            .map(|o| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o, "uid": o, "blockOwnerDeletion": true}))
            .collect();
        let mut meta =
            json!({"uid": uid, "name": uid, "namespace": "n", "ownerReferences": owners, "finalizers": finalizers});
        if deleting {
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Node::new(&served, &serde_json::from_value(meta).expect("meta"))
    }

    fn names(mut tasks: Vec<Task>) -> Vec<String> {
        tasks.sort();
        tasks.iter().map(Task::to_string).collect()
    }

    #[test]
    fn changes_ask_for_the_right_looks() {
        let mut graph = Graph::default();
        assert!(graph.set(node("owner", &[], false, &[])).is_empty());
        assert!(graph.set(node("child", &["owner"], false, &[])).is_empty());
        assert_eq!(names(graph.set(node("lost", &["nobody"], false, &[]))), ["delete lost"]);
        assert_eq!(names(graph.set(node("owner", &[], true, &[FOREGROUND]))), ["delete child", "delete owner"]);
        assert_eq!(names(graph.remove("child")), ["delete owner"]);
        graph.set(node("child", &["owner"], false, &[]));
        assert_eq!(names(graph.remove("owner")), ["delete child"]);
        assert_eq!(names(graph.set(node("other", &[], true, &[ORPHAN]))), ["orphan other"]);
    }
}
