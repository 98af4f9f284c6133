//! The contract of [`Kv`] as a suite that every engine passes; it panics where an engine does not.
//!
//! Each case gets a store of its own, empty, from `open`.

use crate::{Compare, Durability, Error, KeyValue, Kv, Op, Range, Revision, Stamp, Txn, TxnOutcome, WatchBatch, WatchStream};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every case.
pub async fn run(open: impl Fn() -> Arc<dyn Kv>) {
    revisions_count_transactions(open()).await;
    compares_guard_transactions(open()).await;
    ranges_read_in_order(open()).await;
    old_revisions_stay_readable(open()).await;
    compaction_forgets(open()).await;
    watches_have_no_gaps(open()).await;
    watches_begin_in_the_past(open()).await;
    watches_see_their_prefix(open()).await;
    one_event_for_each_key(open()).await;
    relaxed_transactions_keep_order(open()).await;
    slow_watchers_are_told(open()).await;
    concurrent_writers_conflict(open()).await;
    stamps_know_their_revision(open()).await;
}

async fn revisions_count_transactions(kv: Arc<dyn Kv>) {
    assert_eq!(revision(&kv).await, 0);
    assert_eq!(put(&kv, "a", "1").await, 1);
    assert_eq!(put(&kv, "b", "1").await, 2);
    assert_eq!(delete(&kv, "a").await, 3);
    assert_eq!(delete(&kv, "a").await, 3, "nothing to delete takes no revision");
    assert_eq!(commit(&kv, vec![Op::Put("c".into(), "1".into()), Op::Delete("b".into())]).await, 4);
    assert_eq!(revision(&kv).await, 4);
}

async fn stamps_know_their_revision(kv: Arc<dyn Kv>) {
    put(&kv, "a", "1").await;
    let stamp = Stamp::new(|revision| format!("at {revision}").into());
    let at = commit(&kv, vec![Op::Stamp("b".into(), stamp.clone()), Op::Stamp("c".into(), stamp.clone())]).await;
    for key in ["b", "c"] {
        let value = get(&kv, key, 0).await.map(|kv| kv.value);
        assert_eq!(value.as_deref(), Some(format!("at {at}").as_bytes()), "{key}");
    }
    let compares = vec![Compare { key: "b".into(), mod_revision: 0 }];
    let never = Stamp::new(|_| panic!("a transaction that fails has no revision"));
    let outcome = transact(&kv, compares, vec![Op::Stamp("b".into(), never)]).await;
    assert!(matches!(outcome, TxnOutcome::Conflict(_)));
}

async fn compares_guard_transactions(kv: Arc<dyn Kv>) {
    let at = put(&kv, "a", "1").await;
    let table: [(&[(&str, Revision)], bool); 6] = [
        (&[("a", at)], true),
        (&[("a", at)], false),
        (&[("a", 0)], false),
        (&[("b", 0)], true),
        (&[("a", at + 1), ("b", 0)], false),
        (&[("a", at + 1), ("b", at + 2)], true),
    ];
    for (compares, holds) in table {
        let list = compares.iter().map(|(key, rev)| Compare { key: (*key).into(), mod_revision: *rev }).collect();
        let key: Arc<str> = compares.last().map_or("a", |c| c.0).into();
        let before = revision(&kv).await;
        match transact(&kv, list, vec![Op::Put(key, "x".into())]).await {
            TxnOutcome::Committed(at) => assert!(holds && at == before + 1, "{compares:?}"),
            TxnOutcome::Conflict(states) => {
                assert!(!holds, "{compares:?}");
                let mut present = Vec::new();
                for (key, _) in compares {
                    present.push(get(&kv, key, 0).await);
                }
                assert_eq!((states, revision(&kv).await), (present, before), "{compares:?}");
            }
        }
    }
}

async fn ranges_read_in_order(kv: Arc<dyn Kv>) {
    for key in ["b/2", "a", "b/1", "c", "b/10", "b0"] {
        put(&kv, key, key).await;
    }
    let table = [
        ("a", "", 0, "a", 1),
        ("z", "", 0, "", 0),
        ("b/", "b0", 0, "b/1 b/10 b/2", 3),
        ("b/", "b0", 2, "b/1 b/10", 3),
        ("b/1\0", "b0", 0, "b/10 b/2", 2),
        ("a", "z", 0, "a b/1 b/10 b/2 b0 c", 6),
        ("z", "a", 0, "", 0),
    ];
    let last = revision(&kv).await;
    for revision in [0, last, last - 1] {
        for (start, end, limit, keys, count) in table {
            let range = Range { start: start.into(), end: end.into(), limit, revision };
            let reply = kv.range(range).await.expect("range");
            let found: Vec<&str> = reply.kvs.iter().map(|kv| &*kv.key).filter(|k| *k != "b0").collect();
            let keys: Vec<&str> = keys.split(' ').filter(|k| !k.is_empty() && *k != "b0").collect();
            let missing = usize::from(revision == last - 1 && count == 6);
            assert_eq!((found, reply.count), (keys, count - missing), "{start}..{end} limit {limit} at {revision}");
        }
    }
}

async fn old_revisions_stay_readable(kv: Arc<dyn Kv>) {
    put(&kv, "a", "1").await;
    put(&kv, "a", "2").await;
    delete(&kv, "a").await;
    put(&kv, "a", "4").await;
    let versions = [(1, Some(("1", 1, 1))), (2, Some(("2", 1, 2))), (3, None), (4, Some(("4", 4, 4)))];
    for (at, want) in versions {
        let found = get(&kv, "a", at).await;
        let found = found
            .as_ref()
            .map(|kv| (std::str::from_utf8(&kv.value).unwrap_or("?"), kv.create_revision, kv.mod_revision));
        assert_eq!(found, want, "at {at}");
    }
    let future = kv.range(Range { start: "a".into(), revision: 5, ..Range::default() }).await;
    assert!(matches!(future, Err(Error::Future { requested: 5, current: 4 })), "{future:?}");
}

async fn compaction_forgets(kv: Arc<dyn Kv>) {
    for value in ["1", "2", "3", "4"] {
        put(&kv, "a", value).await;
        put(&kv, "b", value).await;
    }
    delete(&kv, "b").await;
    assert!(matches!(kv.compact(10).await, Err(Error::Future { .. })));
    kv.compact(6).await.expect("compact");
    kv.compact(3).await.expect("compacting less does nothing");
    for at in 1..6 {
        let range = kv.range(Range { start: "a".into(), revision: at, ..Range::default() }).await;
        assert!(matches!(range, Err(Error::Compacted { oldest: 6, .. })), "{at}: {range:?}");
        let watch = kv.watch("", at).await;
        assert!(matches!(watch, Err(Error::Compacted { oldest: 6, .. })), "{at}");
    }
    assert_eq!(value_at(&kv, "a", 6).await.as_deref(), Some("3"));
    assert_eq!(value_at(&kv, "b", 6).await.as_deref(), Some("3"));
    assert_eq!(value_at(&kv, "b", 8).await.as_deref(), Some("4"));
    assert_eq!(value_at(&kv, "b", 0).await, None);
    let mut watch = kv.watch("", 6).await.expect("watch");
    assert_eq!(next(&mut watch).await.revision, 7);
    kv.compact(9).await.expect("compact");
    put(&kv, "b", "new").await;
    assert_eq!(value_at(&kv, "a", 9).await.as_deref(), Some("4"));
    assert_eq!(value_at(&kv, "b", 9).await, None);
}

async fn watches_have_no_gaps(kv: Arc<dyn Kv>) {
    let mut watch = kv.watch("", 0).await.expect("watch");
    for at in 1..=50 {
        put(&kv, &format!("k{}", at % 7), &at.to_string()).await;
    }
    for at in 1..=50 {
        let batch = next(&mut watch).await;
        assert_eq!((batch.revision, batch.events.len()), (at, 1));
        let event = &batch.events[0];
        let previous = event.previous.as_ref().map(|kv| kv.mod_revision);
        assert_eq!(
            (event.kv.as_ref().map(|kv| kv.mod_revision), previous),
            (Some(at), at.checked_sub(7).filter(|p| *p > 0))
        );
    }
    let future = kv.watch("", 51).await;
    assert!(matches!(future, Err(Error::Future { .. })));
}

async fn watches_begin_in_the_past(kv: Arc<dyn Kv>) {
    // More than an engine is likely to hold in memory.
    let tasks = (1..=1500).map(|at| {
        let kv = kv.clone();
        tokio::spawn(async move { put(&kv, &format!("k{}", at % 10), &at.to_string()).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("task");
    }
    delete(&kv, "k0").await;
    for after in [0, 1, 700, 1499, 1500, 1501] {
        let mut watch = kv.watch("", after).await.expect("watch");
        let writer = tokio::spawn({
            let kv = kv.clone();
            async move { put(&kv, "late", "x").await }
        });
        let mut states = std::collections::HashMap::new();
        let mut at = after;
        let last = writer.await.expect("task");
        while at < last {
            let batch = next(&mut watch).await;
            assert_eq!(batch.revision, at + 1, "after {after}");
            at = batch.revision;
            for event in batch.events.iter() {
                let key = event.kv.as_ref().or(event.previous.as_ref()).map(|kv| kv.key.clone()).expect("a key");
                if let Some(before) = states.insert(key, event.kv.clone()) {
                    assert_eq!(event.previous, before, "revision {at}");
                }
            }
        }
    }
}

async fn watches_see_their_prefix(kv: Arc<dyn Kv>) {
    let mut watch = kv.watch("a/", 0).await.expect("watch");
    put(&kv, "a/1", "1").await;
    put(&kv, "b/1", "1").await;
    commit(&kv, vec![Op::Put("a/2".into(), "2".into()), Op::Put("b/2".into(), "2".into())]).await;
    delete(&kv, "a/1").await;
    for (revision, keys) in [(1, vec!["a/1"]), (2, vec![]), (3, vec!["a/2"]), (4, vec!["a/1"])] {
        let batch = next(&mut watch).await;
        let key = |e: &crate::Event| e.kv.as_ref().or(e.previous.as_ref()).map(|kv| kv.key.to_string());
        let found: Vec<String> = batch.events.iter().filter_map(key).collect();
        assert_eq!((batch.revision, found), (revision, keys.into_iter().map(str::to_owned).collect()));
    }
}

async fn one_event_for_each_key(kv: Arc<dyn Kv>) {
    put(&kv, "a", "1").await;
    let ops = |value: &'static str| vec![Op::Put("a".into(), Bytes::from(value)), Op::Delete("a".into())];
    let at = commit(&kv, ops("last")).await;
    // Both from memory and from history.
    for _ in 0..2 {
        let mut watch = kv.watch("", at - 1).await.expect("watch");
        let batch = next(&mut watch).await;
        assert_eq!(batch.events.len(), 1);
        let previous =
            batch.events[0].previous.as_ref().map(|kv| (kv.value.clone(), kv.create_revision, kv.mod_revision));
        assert_eq!((&batch.events[0].kv, previous), (&None, Some(("last".into(), 1, at))));
        assert_eq!((get(&kv, "a", 0).await, get(&kv, "a", at).await), (None, None));
        for filler in 0..600 {
            relaxed(&kv, "filler", &filler.to_string()).await;
        }
    }
}

async fn relaxed_transactions_keep_order(kv: Arc<dyn Kv>) {
    let mut watch = kv.watch("", 0).await.expect("watch");
    for at in 1..=20 {
        let revision = if at % 5 == 0 { put(&kv, "a", "x").await } else { relaxed(&kv, "a", &at.to_string()).await };
        assert_eq!(revision, at);
        assert_eq!(get(&kv, "a", 0).await.map(|kv| kv.mod_revision), Some(at));
        assert_eq!(next(&mut watch).await.revision, at);
    }
    relaxed(&kv, "a", "unwritten").await;
    relaxed(&kv, "a", "newest").await;
    assert_eq!(value_at(&kv, "a", 21).await.as_deref(), Some("unwritten"));
}

async fn slow_watchers_are_told(kv: Arc<dyn Kv>) {
    let mut slow = kv.watch("", 0).await.expect("watch");
    for at in 0..10_000 {
        relaxed(&kv, "a", &at.to_string()).await;
    }
    let mut at = 0;
    loop {
        match tokio::time::timeout(PATIENCE, slow.recv()).await.expect("in time") {
            Some(Ok(batch)) => {
                assert_eq!(batch.revision, at + 1);
                at = batch.revision;
            }
            Some(Err(Error::Lagged)) => break,
            other => panic!("a watch must not end with {other:?}"),
        }
    }
    assert!(slow.recv().await.is_none(), "nothing after the word");
    let mut again = kv.watch("", at).await.expect("watch");
    assert_eq!(next(&mut again).await.revision, at + 1);
}

async fn concurrent_writers_conflict(kv: Arc<dyn Kv>) {
    let writer = |kv: Arc<dyn Kv>| async move {
        for _ in 0..25 {
            loop {
                let now = get(&kv, "counter", 0).await;
                let count =
                    now.as_ref().map_or(0, |kv| String::from_utf8_lossy(&kv.value).parse::<u32>().expect("number"));
                let compare = Compare { key: "counter".into(), mod_revision: now.map_or(0, |kv| kv.mod_revision) };
                let put = Op::Put("counter".into(), (count + 1).to_string().into());
                if matches!(transact(&kv, vec![compare], vec![put]).await, TxnOutcome::Committed(_)) {
                    break;
                }
            }
        }
    };
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(writer(kv.clone()))).collect();
    for task in tasks {
        task.await.expect("task");
    }
    assert_eq!(value_at(&kv, "counter", 0).await.as_deref(), Some("200"));
    assert_eq!(revision(&kv).await, 200);
}

async fn revision(kv: &Arc<dyn Kv>) -> Revision {
    kv.revision().await.expect("revision")
}

async fn transact(kv: &Arc<dyn Kv>, compares: Vec<Compare>, ops: Vec<Op>) -> TxnOutcome {
    kv.txn(Txn { compares, ops, durability: Durability::Immediate }).await.expect("txn")
}

async fn commit(kv: &Arc<dyn Kv>, ops: Vec<Op>) -> Revision {
    match transact(kv, Vec::new(), ops).await {
        TxnOutcome::Committed(revision) => revision,
        other => panic!("nothing was compared: {other:?}"),
    }
}

async fn put(kv: &Arc<dyn Kv>, key: &str, value: &str) -> Revision {
    commit(kv, vec![Op::Put(key.into(), value.to_owned().into())]).await
}

async fn relaxed(kv: &Arc<dyn Kv>, key: &str, value: &str) -> Revision {
    let ops = vec![Op::Put(key.into(), value.to_owned().into())];
    match kv.txn(Txn { ops, durability: Durability::Relaxed, ..Txn::default() }).await.expect("txn") {
        TxnOutcome::Committed(revision) => revision,
        other => panic!("nothing was compared: {other:?}"),
    }
}

async fn delete(kv: &Arc<dyn Kv>, key: &str) -> Revision {
    commit(kv, vec![Op::Delete(key.into())]).await
}

async fn get(kv: &Arc<dyn Kv>, key: &str, revision: Revision) -> Option<KeyValue> {
    let range = Range { start: key.into(), revision, ..Range::default() };
    kv.range(range).await.expect("range").kvs.into_iter().next()
}

async fn value_at(kv: &Arc<dyn Kv>, key: &str, revision: Revision) -> Option<String> {
    get(kv, key, revision).await.map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

async fn next(watch: &mut WatchStream) -> WatchBatch {
    let item = tokio::time::timeout(PATIENCE, watch.recv()).await.expect("an event in time");
    item.expect("the watch goes on").expect("no error")
}
