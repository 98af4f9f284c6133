//! The suite of [`ObjectStore`], over the embedded engine.

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

#[tokio::test]
async fn creates_and_gets() {
    let f = Fixture::new();
    let made = f.pod("ns", "a", "").await;
    let want = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"app":"a"},"name":"a","namespace":"ns","resourceVersion":"1","uid":"uid-a"},"spec":{"nodeName":""}}"#;
    assert_eq!(made.json, want);
    let read = f.pods.get("ns", "a").await.expect("get").expect("there");
    assert_eq!((&read.json, &read.meta), (&made.json, &made.meta));
    assert_eq!(
        (read.meta.uid.as_str(), read.meta.resource_version, read.meta.field("metadata.name")),
        ("uid-a", 1, "a")
    );
    assert_eq!(f.pods.get("ns", "b").await.expect("get").map(|s| s.json), None);
    assert_eq!(f.pods.get("other", "a").await.expect("get").map(|s| s.json), None);
    for dry_run in [false, true] {
        let error = f.pods.create(pod("ns", "a", ""), dry_run).await.expect_err("exists");
        assert_eq!((error.code, error.message.as_str()), (409, "pods \"a\" already exists"));
    }
    let dry = f.pods.create(pod("ns", "dry", ""), true).await.expect("dry run");
    assert_eq!(meta::resource_version(&dry.object().expect("json")), "");
    let node = json!({"apiVersion": "old/v1", "metadata": {"name": "n", "resourceVersion": "77"}});
    let node = f.nodes.create(node, false).await.expect("create");
    assert_eq!(
        node.json,
        r#"{"apiVersion":"g.example/v1","kind":"Node","metadata":{"name":"n","resourceVersion":"2"}}"#
    );
    assert_eq!((f.pods.count().await, f.nodes.count().await, f.pods.resource_version().await), (Ok(1), Ok(1), Ok(2)));
}

#[tokio::test]
async fn a_restart_keeps_objects_and_versions() {
    let f = Fixture::new();
    f.pod("ns", "a", "n1").await;
    let before = f.set("a", "/spec/nodeName", "n2").await.stored;
    let f = f.restart();
    let after = f.pods.get("ns", "a").await.expect("get").expect("there");
    assert_eq!((&after.json, &after.meta), (&before.json, &before.meta));
    assert_eq!(f.pod("ns", "b", "").await.meta.resource_version, 3);
    let mut watch = f.watch(Selection::default(), WatchStart::After(1)).await;
    assert_eq!(next(&mut watch).await, "ERROR 410 too old resource version: 1 (2)");
    assert_eq!(next(&mut watch).await, "END");
}

#[tokio::test]
async fn updates_until_nobody_is_faster() {
    let f = Fixture::new();
    f.pod("ns", "a", "0").await;
    let runs = AtomicUsize::new(0);
    let increment = |_: &Stored, mut object: Object| {
        runs.fetch_add(1, Ordering::Relaxed);
        let count: u32 = object["spec"]["nodeName"].as_str().and_then(|s| s.parse().ok()).expect("number");
        object["spec"]["nodeName"] = (count + 1).to_string().into();
        Ok(Update::Write(object))
    };
    let none = Preconditions::default();
    let updates = (0..20).map(|_| f.pods.guaranteed_update("ns", "a", &none, increment, false));
    let updated = futures::future::join_all(updates).await;
    let mut versions: Vec<u64> = updated.into_iter().map(|u| u.expect("update").stored.meta.resource_version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..22).collect::<Vec<_>>());
    assert!(runs.load(Ordering::Relaxed) > 20, "there were conflicts");
    let now = f.pods.get("ns", "a").await.expect("get").expect("there");
    assert_eq!(now.meta.field("spec.nodeName"), "20");
}

#[tokio::test]
async fn updates_say_what_they_did() {
    let f = Fixture::new();
    f.pod("ns", "a", "n").await;
    let set = |value: &'static str, delete: bool| {
        move |_: &Stored, mut object: Object| {
            object["spec"]["nodeName"] = value.into();
            Ok(if delete { Update::Delete(object) } else { Update::Write(object) })
        }
    };
    let table = [
        // value, delete, dry run → version, changed, deleted
        ("n", false, false, 1, false, false),
        ("m", false, true, 1, true, false),
        ("m", false, false, 2, true, false),
        ("m", true, true, 2, true, true),
        ("last", true, false, 3, true, true),
    ];
    for (value, delete, dry_run, version, changed, deleted) in table {
        let updated = f.pods.guaranteed_update("ns", "a", &Preconditions::default(), set(value, delete), dry_run).await;
        let updated = updated.expect(value);
        let stored = &updated.stored;
        assert_eq!(
            (stored.meta.field("spec.nodeName"), stored.meta.resource_version),
            (value, version),
            "{value} {delete}"
        );
        assert_eq!((updated.changed, updated.deleted), (changed, deleted), "{value} {delete}");
    }
    let gone = f.pods.guaranteed_update("ns", "a", &Preconditions::default(), set("x", false), false).await;
    assert_eq!(gone.expect_err("gone").message, "pods \"a\" not found");
    let node = f.nodes.guaranteed_update("", "n", &Preconditions::default(), set("x", false), false).await;
    assert_eq!(node.expect_err("none").message, "nodes.g.example \"n\" not found");
}

#[tokio::test]
async fn errors_of_the_change_and_preconditions_are_handed_on() {
    let f = Fixture::new();
    f.pod("ns", "a", "n").await;
    let keep = |_: &Stored, _: Object| Ok(Update::Keep);
    let check = async |uid: Option<&str>, resource_version: Option<u64>, want: &str| {
        let wanted = Preconditions { uid: uid.map(str::to_owned), resource_version };
        let result = f.pods.guaranteed_update("ns", "a", &wanted, keep, false).await;
        assert_eq!(result.map_or_else(|e| format!("{} {}", e.code, e.message), |u| format!("{:?}", u.changed)), want);
    };
    check(Some("uid-a"), Some(1), "false").await;
    let uid = "409 Operation cannot be fulfilled on pods \"a\": StorageError: invalid object, Code: 4, Key: \
        /registry/pods/ns/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in \
        object meta: uid-a";
    check(Some("x"), None, uid).await;
    let version = "409 Operation cannot be fulfilled on pods \"a\": the ResourceVersion in the precondition (7) does not \
        match the ResourceVersion in record (1). The object might have been modified";
    check(None, Some(7), version).await;
    let refuse = |_: &Stored, _: Object| Err(Status::bad_request("no"));
    let refused = f.pods.guaranteed_update("ns", "a", &Preconditions::default(), refuse, false).await;
    assert_eq!(refused.expect_err("refused").message, "no");
}

#[tokio::test]
async fn lists_what_is_selected() {
    let f = Fixture::new();
    for (namespace, name, node) in [("ns", "b", "n1"), ("ns", "a", "n2"), ("ns2", "c", "n1"), ("ns-3", "d", "")] {
        f.pod(namespace, name, node).await;
    }
    f.set("a", "/metadata/labels/app", "z").await;
    let table = [
        ("", "", "", "d a b c"),
        ("ns", "", "", "a b"),
        ("ns2", "", "", "c"),
        ("none", "", "", ""),
        ("", "app=z", "", "a"),
        ("", "app!=z", "", "d b c"),
        ("", "", "spec.nodeName=n1", "b c"),
        ("ns", "", "spec.nodeName=n1", "b"),
        ("", "", "spec.nodeName=", "d"),
        ("", "", "spec.nodeName!=n1", "d a"),
        ("", "", "metadata.name=c", "c"),
        ("", "app=z", "spec.nodeName=n1", ""),
        ("", "", "spec.nodeName=n9", ""),
        ("", "", "metadata.namespace=ns", "a b"),
    ];
    for (namespace, labels, fields, want) in table {
        let result = f.pods.list(list(select(namespace, labels, fields))).await.expect("list");
        assert_eq!((names(&result).as_str(), result.resource_version), (want, 5), "{namespace} {labels} {fields}");
        assert_eq!((result.continue_token.as_str(), result.remaining), ("", None));
    }
    for (namespace, want) in [("ns", "b"), ("ns2", ""), ("", "b")] {
        let selection = Selection { name: "b".into(), ..select(namespace, "", "") };
        assert_eq!(names(&f.pods.list(list(selection)).await.expect("list")), want, "{namespace}");
    }
    f.set("b", "/spec/nodeName", "n2").await;
    f.delete("a").await;
    let moved = f.pods.list(list(select("", "", "spec.nodeName=n2"))).await.expect("list");
    assert_eq!(names(&moved), "b");
}

#[tokio::test]
async fn lists_are_as_fresh_as_asked() {
    let f = Fixture::new();
    f.pod("ns", "a", "").await;
    f.pod("ns", "b", "").await;
    f.delete("a").await;
    let table = [
        (Freshness::Latest, Ok(("b", 3))),
        (Freshness::Any, Ok(("b", 3))),
        (Freshness::NotOlderThan(2), Ok(("b", 3))),
        (Freshness::Exact(3), Ok(("b", 3))),
        (Freshness::Exact(2), Ok(("a b", 2))),
        (Freshness::Exact(1), Ok(("a", 1))),
        (Freshness::Exact(9), Err((504, "Timeout: Too large resource version: 9, current: 3"))),
        (Freshness::NotOlderThan(9), Err((504, "Timeout: Too large resource version: 9, current: 3"))),
    ];
    for (freshness, want) in table {
        let result = f.pods.list(ListOptions { freshness, ..ListOptions::default() }).await;
        match (result, want) {
            (Ok(result), Ok(want)) => {
                assert_eq!((names(&result).as_str(), result.resource_version), want, "{freshness:?}")
            }
            (Err(status), Err(want)) => {
                assert_eq!((status.code, status.message.as_str()), want, "{freshness:?}");
                assert_eq!(status.retry_after(), Some(1));
            }
            (result, _) => panic!("{freshness:?}: {result:?}"),
        }
    }
    f.nodes.create(json!({"metadata": {"name": "n"}}), false).await.expect("create");
    let quiet = f.pods.list(ListOptions::default()).await.expect("list");
    assert_eq!((names(&quiet).as_str(), quiet.resource_version), ("b", 4), "other resources move the version");
    f.dispatcher.kv().compact(3).await.expect("compact");
    let expired = f.pods.list(ListOptions { freshness: Freshness::Exact(2), ..ListOptions::default() }).await;
    let expired = expired.expect_err("compacted");
    assert_eq!(
        (expired.code, expired.message.as_str()),
        (410, "The resourceVersion for the provided list is too old.")
    );
    let read = async |freshness| f.pods.get_at("ns", "b", freshness).await.map(|s| s.map(|s| s.meta.resource_version));
    assert_eq!((read(Freshness::Any).await, read(Freshness::NotOlderThan(4)).await), (Ok(Some(2)), Ok(Some(2))));
    assert_eq!(read(Freshness::NotOlderThan(5)).await.map_err(|e| e.code), Err(504));
}

async fn page(f: &Fixture, selection: Selection, token: &str) -> Result<ListResult, Status> {
    f.pods.list(ListOptions { selection, limit: 2, continue_token: token.into(), ..ListOptions::default() }).await
}

#[tokio::test]
async fn pages_show_one_revision() {
    let f = Fixture::new();
    for name in ["a", "b", "c", "d", "e"] {
        f.pod("ns", name, "").await;
    }
    for change_between in [false, true] {
        let first = page(&f, select("ns", "", ""), "").await.expect("page");
        assert_eq!((names(&first).as_str(), first.remaining), ("a b", Some(3)));
        if change_between {
            f.delete("c").await;
            f.pod("ns", "dd", "").await;
        }
        let second = page(&f, select("ns", "", ""), &first.continue_token).await.expect("page");
        assert_eq!(
            (names(&second).as_str(), second.remaining, second.resource_version),
            ("c d", Some(1), first.resource_version)
        );
        let third = page(&f, select("ns", "", ""), &second.continue_token).await.expect("page");
        assert_eq!((names(&third).as_str(), third.remaining, third.continue_token.as_str()), ("e", None, ""));
    }
    let selected = page(&f, select("", "app=a", ""), "").await.expect("page");
    assert_eq!((names(&selected).as_str(), selected.remaining), ("a b", None));
    let any = ListOptions { limit: 2, freshness: Freshness::Any, ..ListOptions::default() };
    assert_eq!(names(&f.pods.list(any).await.expect("list")), "a b d dd e");
}

#[tokio::test]
async fn expired_pages_can_be_continued() {
    let f = Fixture::new();
    for name in ["a", "b", "c", "d"] {
        f.pod("ns", name, "").await;
    }
    let first = page(&f, select("ns", "", ""), "").await.expect("page");
    f.delete("c").await;
    f.pod("ns", "e", "").await;
    f.dispatcher.kv().compact(5).await.expect("compact");
    let expired = page(&f, select("ns", "", ""), &first.continue_token).await.expect_err("compacted");
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    assert!(
        expired
            .message
            .contains("or use the continue token in this response to retrieve the remainder of the results.")
    );
    assert_eq!(expired.to_object()["metadata"]["continue"], expired.continue_token.as_str());
    let rest = page(&f, select("ns", "", ""), &expired.continue_token).await.expect("inconsistent page");
    assert_eq!((names(&rest).as_str(), rest.resource_version), ("d e", 6));
    let bad = page(&f, select("ns", "", ""), "!").await.expect_err("no token");
    assert_eq!((bad.code, bad.reason.as_str()), (400, "BadRequest"));
}

#[tokio::test]
async fn watches_follow_a_selection() {
    let f = Fixture::new();
    f.pod("ns", "a", "n1").await;
    let mut all = f.watch(Selection::default(), WatchStart::Initial).await;
    let mut node = f.watch(select("", "", "spec.nodeName=n1"), WatchStart::Initial).await;
    let mut namespace = f.watch(select("ns2", "", ""), WatchStart::Initial).await;
    let named = Selection { name: "a".into(), ..select("ns", "", "") };
    let mut named = f.watch(named, WatchStart::After(1)).await;
    let mut labels = f.watch(select("ns", "app=z", ""), WatchStart::After(1)).await;
    f.pod("ns2", "b", "").await;
    f.set("a", "/metadata/labels/app", "z").await;
    f.set("a", "/spec/nodeName", "n2").await;
    f.set("a", "/metadata/labels/app", "y").await;
    f.set("a", "/spec/nodeName", "n1").await;
    f.delete("a").await;
    f.pods.wait(Freshness::Latest).await.expect("seen");
    let to_a = ["MODIFIED a@3", "MODIFIED a@4", "MODIFIED a@5", "MODIFIED a@6", "DELETED a@7"];
    expect(&mut all, &[&["ADDED a@1", "ADDED b@2"][..], &to_a].concat()).await;
    expect(&mut node, &["ADDED a@1", "MODIFIED a@3", "DELETED a@4", "ADDED a@6", "DELETED a@7"]).await;
    expect(&mut namespace, &["ADDED b@2"]).await;
    expect(&mut named, &to_a).await;
    expect(&mut labels, &["ADDED a@3", "MODIFIED a@4", "DELETED a@5"]).await;
    // The same from the window.
    let mut node = f.watch(select("", "", "spec.nodeName=n1"), WatchStart::After(1)).await;
    expect(&mut node, &["MODIFIED a@3", "DELETED a@4", "ADDED a@6", "DELETED a@7"]).await;
    let mut all = f.watch(Selection::default(), WatchStart::After(5)).await;
    expect(&mut all, &["MODIFIED a@6", "DELETED a@7"]).await;
    let mut future = f.watch(Selection::default(), WatchStart::After(8)).await;
    f.pod("ns", "c", "").await;
    f.pod("ns", "d", "").await;
    f.pods.wait(Freshness::Latest).await.expect("seen");
    expect(&mut future, &["ADDED d@9"]).await;
}

#[tokio::test]
async fn a_deletion_shows_the_last_state() {
    let f = Fixture::new();
    f.pod("ns", "a", "n1").await;
    let mut watch = f.watch(Selection::default(), WatchStart::After(1)).await;
    let change = |_: &Stored, mut object: Object| {
        object["metadata"]["deletionTimestamp"] = "now".into();
        Ok(Update::Delete(object))
    };
    f.pods.guaranteed_update("ns", "a", &Preconditions::default(), change, false).await.expect("delete");
    let Some(WatchEvent::Deleted(last)) = watch.next().await else { panic!("one event") };
    let object = last.object().expect("json");
    assert_eq!((meta::is_deleting(&object), meta::resource_version(&object)), (false, "2"));
    assert_eq!(f.pods.get("ns", "a").await.expect("get").map(|s| s.json), None);
}

#[tokio::test]
async fn watch_lists_end_with_a_bookmark() {
    let f = Fixture::new();
    f.pod("ns", "a", "").await;
    f.pod("ns", "b", "").await;
    f.nodes.create(json!({"metadata": {"name": "n"}}), false).await.expect("create");
    let mut watch = f.watch(Selection::default(), WatchStart::InitialEvents(2)).await;
    expect(&mut watch, &["ADDED a@1", "ADDED b@2", "BOOKMARK@3 end"]).await;
    f.pod("ns", "c", "").await;
    assert_eq!(next(&mut watch).await, "ADDED c@4");
    let mut large = f.watch(Selection::default(), WatchStart::InitialEvents(99)).await;
    assert_eq!(next(&mut large).await, "ERROR 504 Timeout: Too large resource version: 99, current: 4");
    assert_eq!(next(&mut large).await, "END");
}

#[tokio::test]
async fn bookmarks_tell_what_is_new() {
    let f = Fixture::new();
    f.pod("ns", "a", "").await;
    f.pods.wait(Freshness::Latest).await.expect("seen");
    let options = WatchOptions { selection: Selection::default(), start: WatchStart::Initial, bookmarks: true };
    let registered = f.pods.register(&options).await.expect("registered");
    let every = Some(Duration::from_millis(30));
    let mut watch = Watch::new(registered, Arc::downgrade(&f.pods.cacher), f.dispatcher.progress(), every);
    assert_eq!(next(&mut watch).await, "ADDED a@1");
    let quiet = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
    assert!(quiet.is_err(), "nothing new to say");
    f.nodes.create(json!({"metadata": {"name": "n"}}), false).await.expect("create");
    assert_eq!(next(&mut watch).await, "BOOKMARK@2");
}

#[tokio::test]
async fn frames_are_shared_by_watchers() {
    let f = Fixture::new();
    let mut one = f.watch(Selection::default(), WatchStart::Initial).await;
    let mut two = f.watch(select("ns", "", ""), WatchStart::Initial).await;
    f.pod("ns", "a", "").await;
    let (first, second) = (one.next().await.expect("event"), two.next().await.expect("event"));
    let (first, second) = (first.frame("v1", "Pod"), second.frame("v1", "Pod"));
    assert_eq!(first.as_ptr(), second.as_ptr(), "the same bytes");
    let read = f.pods.get("ns", "a").await.expect("get").expect("there");
    assert_eq!(first, [b"{\"type\":\"ADDED\",\"object\":", &read.json[..], b"}\n"].concat());
    let bookmark = WatchEvent::Bookmark { resource_version: 7, initial_events_end: true };
    let want = r#"{"object":{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"k8s.io/initial-events-end":"true"},"resourceVersion":"7"}},"type":"BOOKMARK"}"#;
    assert_eq!(bookmark.frame("v1", "Pod"), format!("{want}\n"));
}

#[tokio::test]
async fn slow_watchers_are_closed_and_others_go_on() {
    let f = Fixture::new();
    let mut slow = f.watch(Selection::default(), WatchStart::Initial).await;
    f.pod("ns", "a", "0").await;
    for n in 1..9000 {
        let put = kv::Op::Put("/registry/pods/ns/a".into(), pod("ns", "a", &n.to_string()).to_string().into());
        let txn = kv::Txn { ops: vec![put], durability: Durability::Relaxed, ..kv::Txn::default() };
        f.dispatcher.kv().txn(txn).await.expect("put");
    }
    f.pods.wait(Freshness::Latest).await.expect("seen");
    let mut at = 0;
    while let Some(event) = slow.next().await {
        let version = event.resource_version().expect("an object");
        assert_eq!(version, at + 1);
        at = version;
    }
    assert!(at < 9000, "it was closed");
    let mut again = f.watch(Selection::default(), WatchStart::After(8999)).await;
    assert_eq!(next(&mut again).await, "MODIFIED a@9000");
    let mut old = f.watch(Selection::default(), WatchStart::After(0)).await;
    assert_eq!(next(&mut old).await, "ADDED a@1", "the window remembers a young burst");
}

#[tokio::test]
async fn stores_of_one_prefix_see_each_other() {
    let f = Fixture::new();
    f.pod("ns", "a", "").await;
    let again = ObjectStore::new(&f.dispatcher, pod_spec());
    assert_eq!(again.count().await, Ok(1));
    f.pod("ns", "b", "").await;
    assert!(again.get("ns", "b").await.expect("get").is_some());
    again.create(pod("ns", "c", ""), false).await.expect("create");
    assert_eq!(names(&f.pods.list(ListOptions::default()).await.expect("list")), "a b c");
    drop(again);
    f.pod("ns", "d", "").await;
    assert_eq!(f.pods.count().await, Ok(4));
}

/// An engine whose watches can be held and cut.
struct Controlled {
    inner: Arc<RedbKv>,
    hold: tokio::sync::watch::Sender<bool>,
    cut: tokio::sync::watch::Sender<u32>,
}

impl Controlled {
    fn new(dir: &tempfile::TempDir) -> Arc<Self> {
        let inner = RedbKv::open(dir.path().join("kv"), kv::Options::default()).expect("store");
        Arc::new(Self { inner, hold: tokio::sync::watch::channel(false).0, cut: tokio::sync::watch::channel(0).0 })
    }
}

#[async_trait::async_trait]
impl Kv for Controlled {
    async fn txn(&self, txn: kv::Txn) -> Result<kv::TxnOutcome, kv::Error> {
        self.inner.txn(txn).await
    }
    async fn range(&self, range: kv::Range) -> Result<kv::RangeReply, kv::Error> {
        self.inner.range(range).await
    }
    async fn revision(&self) -> Result<u64, kv::Error> {
        self.inner.revision().await
    }
    async fn watch(&self, prefix: &str, after: u64) -> Result<kv::WatchStream, kv::Error> {
        let mut inner = self.inner.watch(prefix, after).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let (mut cut, mut hold) = (self.cut.subscribe(), self.hold.subscribe());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    item = inner.recv() => {
                        let Some(item) = item else { return };
                        drop(hold.wait_for(|hold| !hold).await);
                        drop(sender.send(item).await);
                    }
                    _ = cut.changed() => return drop(sender.send(Err(kv::Error::Lagged)).await),
                }
            }
        });
        Ok(receiver)
    }
    async fn compact(&self, revision: u64) -> Result<(), kv::Error> {
        self.inner.compact(revision).await
    }
}

fn everything() -> WatchOptions {
    WatchOptions { selection: Selection::default(), start: WatchStart::Initial, bookmarks: false }
}

#[tokio::test]
async fn a_broken_watch_of_the_engine_ends_watches_and_heals() {
    let dir = tempfile::tempdir().expect("directory");
    let engine = Controlled::new(&dir);
    let pods = ObjectStore::new(&Dispatcher::new(engine.clone()), pod_spec());
    for round in 0..3 {
        let mut watch = pods.watch(everything()).await.expect("watch");
        for n in 0..round {
            assert!(next(&mut watch).await.starts_with(&format!("ADDED q{n}@")), "round {round}");
        }
        engine.cut.send_modify(|n| *n += 1);
        assert_eq!(next(&mut watch).await, "END");
        pods.create(pod("ns", &format!("q{round}"), ""), false).await.expect("create");
        let count = pods.list(ListOptions::default()).await.expect("list").items.len();
        assert_eq!(count, round + 1);
    }
}

#[tokio::test]
async fn what_a_load_has_seen_is_not_applied_again() {
    let dir = tempfile::tempdir().expect("directory");
    let engine = Controlled::new(&dir);
    let dispatcher = Dispatcher::new(engine.clone());
    ObjectStore::new(&dispatcher, node_spec()).count().await.expect("started");
    engine.hold.send_replace(true);
    for node in ["1", "2", "3"] {
        let put = kv::Op::Put("/registry/pods/ns/a".into(), pod("ns", "a", node).to_string().into());
        engine.txn(kv::Txn { ops: vec![put], ..kv::Txn::default() }).await.expect("put");
    }
    let pods = ObjectStore::new(&dispatcher, pod_spec());
    pods.wait(Freshness::Any).await.expect("loaded while the watch is behind");
    let registered = pods.register(&everything()).await.expect("registered");
    let mut watch = Watch::new(registered, Arc::downgrade(&pods.cacher), dispatcher.progress(), None);
    engine.hold.send_replace(false);
    pods.wait(Freshness::Latest).await.expect("seen");
    expect(&mut watch, &["ADDED a@3"]).await;
    assert_eq!(pods.get("ns", "a").await.expect("get").map(|s| s.meta.resource_version), Some(3));
}

#[tokio::test]
async fn sealed_objects_are_plain_to_readers_only() {
    use crate::encryption::{Encryption, key_file};
    let dir = tempfile::tempdir().expect("directory");
    let keys = dir.path().join("keys");
    let kv = RedbKv::open(dir.path().join("kv"), kv::Options::default()).expect("store");
    let open = |kv: &Arc<RedbKv>, rules: &str| {
        let own = key_file::load_or_create(&keys).expect("keys");
        let rule = crate::encryption::Rule { resources: vec![rules.into()], providers: vec![own.clone()] };
        let dispatcher = Dispatcher::encrypted(kv.clone(), Encryption::new(vec![rule], own));
        ObjectStore::new(&dispatcher, pod_spec())
    };
    let values = async |kv: &Arc<RedbKv>| {
        let range = kv::Range { start: "/".into(), end: "0".into(), ..kv::Range::default() };
        kv.range(range).await.expect("range").kvs
    };
    let store = open(&kv, "pods");
    let created = store.create(pod("ns", "a", "node-of-a"), false).await.expect("create");
    let change = |_: &Stored, mut object: Object| {
        object["spec"]["nodeName"] = "other".into();
        Ok(Update::Write(object))
    };
    let updated = store.guaranteed_update("ns", "a", &Preconditions::default(), change, false).await.expect("update");
    let at_first = ListOptions { freshness: Freshness::Exact(created.meta.resource_version), ..ListOptions::default() };
    let old = store.list(at_first).await.expect("list");
    assert_eq!(old.items.first().map(|s| &s.json), Some(&created.json), "history is opened too");
    let sealed = values(&kv).await;
    assert!(sealed.iter().all(|kv| kv.value.starts_with(b"k8s:enc:local:v1:key1:")), "{sealed:?}");
    key_file::rotate(&keys).expect("rotate");
    let store = open(&kv, "pods");
    let read = store.get("ns", "a").await.expect("get").expect("there");
    assert_eq!(read.json, updated.stored.json);
    let change = |_: &Stored, mut object: Object| {
        object["spec"]["nodeName"] = "third".into();
        Ok(Update::Write(object))
    };
    store.guaranteed_update("ns", "a", &Preconditions::default(), change, false).await.expect("update");
    assert!(values(&kv).await.iter().all(|kv| kv.value.starts_with(b"k8s:enc:local:v1:key2:")), "the newest key seals");
}

#[tokio::test]
async fn the_engine_and_readers_share_bytes() {
    let fixture = Fixture::new();
    fixture.pod("ns", "a", "").await;
    let read = fixture.pods.get("ns", "a").await.expect("get").expect("there");
    let range = kv::Range { start: "/registry/pods/ns/a".into(), ..kv::Range::default() };
    let kept = fixture.dispatcher.kv().range(range.clone()).await.expect("range").kvs;
    assert_eq!(kept[0].value.as_ptr(), read.json.as_ptr(), "written");
    let fixture = fixture.restart();
    let read = fixture.pods.get("ns", "a").await.expect("get").expect("there");
    let kept = fixture.dispatcher.kv().range(range).await.expect("range").kvs;
    assert_eq!(kept[0].value.as_ptr(), read.json.as_ptr(), "loaded");
}
