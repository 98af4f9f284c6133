//! What writes do and say.

use super::*;

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
