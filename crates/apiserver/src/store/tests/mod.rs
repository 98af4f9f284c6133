//! The suite of [`ObjectStore`], over the embedded engine.

mod engine;
mod lists;
mod watches;
mod writes;

use super::*;
use api::selector::{FieldSelector, LabelSelector};
use api::{Status, meta};
use futures::{FutureExt, StreamExt};
use kv::{Durability, Kv, RedbKv};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Fixture {
    pods: Arc<ObjectStore>,
    nodes: Arc<ObjectStore>,
    dispatcher: Arc<Dispatcher>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("directory"))
    }

    fn open(dir: tempfile::TempDir) -> Self {
        let kv = RedbKv::open(dir.path().join("kv"), kv::Options::default()).expect("store");
        let dispatcher = Dispatcher::new(kv);
        let (pods, nodes) = (ObjectStore::new(&dispatcher, pod_spec()), ObjectStore::new(&dispatcher, node_spec()));
        Self { pods, nodes, dispatcher, dir }
    }

    /// Stops everything and opens the same directory.
    fn restart(self) -> Self {
        let Self { dir, pods, nodes, dispatcher } = self;
        drop((pods, nodes, dispatcher));
        Self::open(dir)
    }

    async fn pod(&self, namespace: &str, name: &str, node: &str) -> Stored {
        self.pods.create(pod(namespace, name, node), false).await.expect("create")
    }

    async fn set(&self, name: &str, pointer: &str, value: &str) -> Updated {
        let change = |_: &Stored, mut object: Object| {
            *object.pointer_mut(pointer).expect("field") = value.into();
            Ok(Update::Write(object))
        };
        self.pods.guaranteed_update("ns", name, &Preconditions::default(), change, false).await.expect("update")
    }

    async fn delete(&self, name: &str) -> Updated {
        let change = |_: &Stored, object: Object| Ok(Update::Delete(object));
        self.pods.guaranteed_update("ns", name, &Preconditions::default(), change, false).await.expect("delete")
    }

    async fn watch(&self, selection: Selection, start: WatchStart) -> Watch {
        self.pods.watch(WatchOptions { selection, start, bookmarks: true }).await.expect("watch")
    }
}

fn pod_spec() -> StoreSpec {
    StoreSpec {
        prefix: "pods".into(),
        group_resource: (String::new(), "pods".into()),
        namespaced: true,
        durability: Durability::Immediate,
        fields: Arc::new(|pod| {
            let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
            vec![("spec.nodeName", node.to_owned())]
        }),
        indexed: vec!["spec.nodeName"],
        api_version: "v1".into(),
        kind: "Pod".into(),
    }
}

fn node_spec() -> StoreSpec {
    let none: FieldsFn = Arc::new(|_| Vec::new());
    let group_resource = ("g.example".to_owned(), "nodes".to_owned());
    let (prefix, api_version, kind) = ("g.example/nodes".into(), "g.example/v1".into(), "Node".into());
    StoreSpec {
        prefix,
        group_resource,
        namespaced: false,
        fields: none,
        indexed: Vec::new(),
        api_version,
        kind,
        ..pod_spec()
    }
}

fn pod(namespace: &str, name: &str, node: &str) -> Object {
    json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "labels": {"app": "a"}},
        "spec": {"nodeName": node},
    })
}

fn select(namespace: &str, labels: &str, fields: &str) -> Selection {
    Selection {
        namespace: namespace.into(),
        name: String::new(),
        labels: LabelSelector::parse(labels).expect("labels"),
        fields: FieldSelector::parse(fields).expect("fields"),
    }
}

fn list(selection: Selection) -> ListOptions {
    ListOptions { selection, ..ListOptions::default() }
}

fn names(result: &ListResult) -> String {
    result.items.iter().map(|i| i.meta.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// `ADDED a@3`
fn show(event: WatchEvent) -> String {
    let of = |kind: &str, stored: Stored| {
        let object = stored.object().expect("json");
        assert_eq!(
            meta::resource_version(&object),
            stored.meta.resource_version.to_string(),
            "in the object as in its meta"
        );
        format!("{kind} {}@{}", stored.meta.name, stored.meta.resource_version)
    };
    match event {
        WatchEvent::Added(stored) => of("ADDED", stored),
        WatchEvent::Modified(stored) => of("MODIFIED", stored),
        WatchEvent::Deleted(stored) => of("DELETED", stored),
        WatchEvent::Bookmark { resource_version, initial_events_end } => {
            format!("BOOKMARK@{resource_version}{}", if initial_events_end { " end" } else { "" })
        }
        WatchEvent::Error(status) => format!("ERROR {} {}", status.code, status.message),
    }
}

async fn next(watch: &mut Watch) -> String {
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("an event in time");
    event.map_or_else(|| "END".into(), show)
}

async fn expect(watch: &mut Watch, events: &[&str]) {
    for want in events {
        assert_eq!(next(watch).await, *want);
    }
    assert!(watch.next().now_or_never().is_none(), "nothing more after {events:?}");
}
