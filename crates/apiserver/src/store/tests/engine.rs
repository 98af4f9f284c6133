//! What the engine below does to readers: watches that break, sealed bytes, shared bytes.

use super::*;

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
