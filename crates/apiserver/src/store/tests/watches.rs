//! Watches of a selection, bookmarks, slow watchers.

use super::*;

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
