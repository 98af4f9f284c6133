//! The engine beyond the contract suite: files, crashes, full disks.

use super::*;
use crate::{Compare, Durability, Op};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, StorageBackend, backends::FileBackend};
use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().expect("directory");
    let number = AtomicU64::new(0);
    let open = || {
        let path = dir.path().join(format!("kv{}", number.fetch_add(1, Ordering::Relaxed)));
        RedbKv::open(path, Options::default()).expect("open") as Arc<dyn Kv>
    };
    crate::suite::run(open).await;
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("kv");
    {
        let kv = RedbKv::open(&path, Options::default()).expect("open");
        assert_eq!(put(&kv, "a", "1", Durability::Immediate).await, Ok(1));
        assert_eq!(put(&kv, "a", "2", Durability::Immediate).await, Ok(2));
        assert_eq!(put(&kv, "b", "relaxed", Durability::Relaxed).await, Ok(3));
        kv.compact(2).await.expect("compact");
    }
    let kv = RedbKv::open(&path, Options::default()).expect("open again");
    assert_eq!(kv.revision().await.ok(), Some(3));
    assert_eq!((value(&kv, "a", 2).await, value(&kv, "b", 0).await), (Some("2".into()), Some("relaxed".into())));
    assert!(matches!(
        kv.range(Range { start: "a".into(), revision: 1, ..Range::default() }).await,
        Err(Error::Compacted { .. })
    ));
    assert_eq!(put(&kv, "a", "4", Durability::Immediate).await, Ok(4));
    let mut watch = kv.watch("", 2).await.expect("watch");
    let first = watch.recv().await.expect("open").expect("batch");
    assert_eq!((first.revision, first.events[0].previous.clone()), (3, None));
    let second = watch.recv().await.expect("open").expect("batch");
    assert_eq!(
        second.events[0].previous.as_ref().map(|kv| (kv.create_revision, kv.value.clone())),
        Some((1, "2".into()))
    );
}

#[tokio::test]
async fn revisions_that_a_crash_lost_do_not_come_again() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, crashed) = (dir.path().join("kv"), dir.path().join("crashed"));
    let kv = RedbKv::open(&path, Options::default()).expect("open");
    assert_eq!(put(&kv, "a", "1", Durability::Immediate).await, Ok(1));
    // What the file is at this moment is what a crash leaves of it.
    let seen = put(&kv, "b", "seen", Durability::Relaxed).await.expect("relaxed");
    std::fs::copy(&path, &crashed).expect("copy");
    drop(kv);
    let kv = RedbKv::open(&crashed, Options::default()).expect("open");
    let now = kv.revision().await.expect("revision");
    assert!(now > seen, "{now} is not to be taken for {seen}");
    assert_eq!((value(&kv, "a", 1).await.as_deref(), value(&kv, "b", 0).await), (Some("1"), None));
    let mut early = kv.watch("", 0).await.expect("watch");
    assert_eq!(early.recv().await.expect("open").expect("batch").revision, 1);
    drop(kv);
    // What is closed as it should be loses nothing.
    let kv = RedbKv::open(&crashed, Options::default()).expect("open");
    assert_eq!(kv.revision().await.expect("revision"), now);
    let mut late = kv.watch("", seen).await.expect("watch");
    let mut early = kv.watch("", 0).await.expect("watch");
    assert_eq!(put(&kv, "a", "2", Durability::Immediate).await, Ok(now + 1));
    assert_eq!(late.recv().await.expect("open").expect("batch").revision, now + 1);
    for revision in [1, now + 1] {
        assert_eq!(early.recv().await.expect("open").expect("batch").revision, revision);
    }
}

#[tokio::test]
async fn a_store_with_a_full_disk_can_be_closed() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("kv");
    let full = Arc::new(AtomicBool::new(false));
    let kv = RedbKv::with_opener(&path, faulty(&path, &full)).expect("open");
    full.store(true, Ordering::SeqCst);
    put(&kv, "a", "lost", Durability::Immediate).await.expect_err("the disk is full");
    let closed = tokio::time::timeout(Duration::from_secs(10), tokio::task::spawn_blocking(move || drop(kv))).await;
    closed.expect("closed in time").expect("closed");
}

#[tokio::test]
async fn relaxed_writes_reach_the_file_within_a_second() {
    let dir = tempfile::tempdir().expect("directory");
    let kv = RedbKv::open(dir.path().join("kv"), Options::default()).expect("open");
    assert_eq!(put(&kv, "a", "1", Durability::Relaxed).await, Ok(1));
    tokio::time::timeout(Duration::from_secs(10), async {
        while kv.shared.written.load(Ordering::Acquire) < 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("written");
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("kv");
    let failure = |path: &Path| RedbKv::open(path, Options::default()).err().map(|e| e.to_string()).unwrap_or_default();
    let first = RedbKv::open(&path, Options::default()).expect("open");
    let held = failure(&path);
    assert!(held.contains("another process uses it; stop that server"), "{held}");
    drop(first);
    assert_eq!(failure(&path), "");
    let missing = failure(&dir.path().join("no/kv"));
    assert!(missing.contains("create the directory"), "{missing}");
    let other = dir.path().join("other");
    std::fs::write(&other, vec![7u8; 8192]).expect("write");
    let damaged = failure(&other);
    assert!(damaged.contains("damaged"), "{damaged}");
    let full = engine_error(&path, "write to", &redb::Error::Io(io::Error::from_raw_os_error(28)));
    assert!(full.to_string().contains("free space on its file system"), "{full}");
}

/// A file whose writes can be made to fail.
#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Faulty {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check().and_then(|()| self.file.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check().and_then(|()| self.file.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check().and_then(|()| self.file.write(offset, data))
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn faulty(path: &Path, full: &Arc<AtomicBool>) -> Opener {
    let (path, full) = (path.to_owned(), full.clone());
    Box::new(move || {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let backend = Faulty { file: FileBackend::new(file)?, full: full.clone() };
        Ok(Database::builder().create_with_backend(backend)?)
    })
}

#[tokio::test]
async fn a_failed_commit_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("kv");
    let full = Arc::new(AtomicBool::new(false));
    let kv = RedbKv::with_opener(&path, faulty(&path, &full)).expect("open");
    assert_eq!(put(&kv, "a", "1", Durability::Immediate).await, Ok(1));
    assert_eq!(put(&kv, "r", "kept", Durability::Relaxed).await, Ok(2));
    let mut watch = kv.watch("", 2).await.expect("watch");
    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let failed = put(&kv, "a", "lost", Durability::Immediate).await.expect_err("the disk is full");
        assert!(failed.contains("free space"), "{failed}");
    }
    assert_eq!((value(&kv, "a", 0).await.as_deref(), kv.revision().await.ok()), (Some("1"), Some(2)));
    full.store(false, Ordering::SeqCst);
    assert_eq!(put(&kv, "a", "3", Durability::Immediate).await, Ok(3));
    assert_eq!(watch.recv().await.expect("open").expect("batch").revision, 3);
    drop(kv);
    let kv = RedbKv::open(&path, Options::default()).expect("open again");
    assert_eq!(value(&kv, "r", 0).await.as_deref(), Some("kept"));
    assert_eq!((value(&kv, "a", 0).await.as_deref(), value(&kv, "a", 2).await.as_deref()), (Some("3"), Some("1")));
}

#[tokio::test]
async fn sweeping_leaves_what_is_readable() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("kv");
    let kv = RedbKv::open(&path, Options::default()).expect("open");
    for at in 1..=1200u64 {
        assert_eq!(put(&kv, &format!("k{}", at % 3), &at.to_string(), Durability::Relaxed).await, Ok(at));
    }
    kv.submit(|queue, reply| queue.flushes.push(reply)).await.expect("flush");
    kv.compact(1190).await.expect("compact");
    // Stopping waits for nothing: whatever is left is swept by the next owner of the file.
    drop(kv);
    let kv = RedbKv::open(&path, Options::default()).expect("open again");
    assert_eq!(put(&kv, "x", "", Durability::Immediate).await, Ok(1201));
    let log = redb::TableDefinition::<u64, &[u8]>::new("log");
    let entries = || kv.shared.read("read", |db| Ok(db.begin_read()?.open_table(log)?.len()?)).expect("log");
    tokio::time::timeout(Duration::from_secs(10), async {
        while entries() > 11 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("swept");
    for at in 1190..=1200u64 {
        let newest = (at - 2..=at).find(|n| n % 3 == 0).map(|n| n.to_string());
        assert_eq!(value(&kv, "k0", at).await, newest, "at {at}");
    }
}

const CHILD: &str = "KV_TEST_KILLED_WRITER";

/// Writes until it is killed and prints every acknowledged revision. Not a test by itself.
#[tokio::test]
async fn killed_writer() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let kv = RedbKv::open(Path::new(&path), Options::default()).expect("open");
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let kv = kv.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let at = put(&kv, &format!("{writer}/{n}"), &"v".repeat(700), Durability::Immediate).await;
                    println!("acknowledged {writer}/{n} {}", at.expect("put"));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("kv");
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "redb::tests::killed_writer", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("child");
        let lines = BufReader::new(child.stdout.take().expect("pipe")).lines().map_while(Result::ok);
        let mut acknowledged = Vec::new();
        for line in lines {
            // The harness prints the test's name before the first line.
            if let Some((_, rest)) = line.split_once("acknowledged ") {
                let (key, at) = rest.split_once(' ').expect("key and revision");
                acknowledged.push((key.to_owned(), at.parse::<u64>().expect("revision")));
            }
            if acknowledged.len() == 200 * round {
                child.kill().expect("kill -9");
            }
        }
        child.wait().expect("child");
        assert!(acknowledged.len() >= 200 * round, "the child ended early after {}", acknowledged.len());
        let kv = RedbKv::open(&path, Options::default()).expect("open after the kill");
        for (key, at) in acknowledged {
            let range = Range { start: key.clone(), revision: at, ..Range::default() };
            let found = kv.range(range).await.expect("range").kvs;
            assert_eq!(found.first().map(|kv| kv.mod_revision), Some(at), "round {round}: {key}");
            assert!(kv.revision().await.expect("revision") >= at);
        }
    }
}

#[tokio::test]
async fn conflicts_are_seen_within_a_batch() {
    let dir = tempfile::tempdir().expect("directory");
    let kv = RedbKv::open(dir.path().join("kv"), Options::default()).expect("open");
    let create = || Txn {
        compares: vec![Compare { key: "a".into(), mod_revision: 0 }],
        ops: vec![Op::Put("a".into(), "1".into())],
        durability: Durability::Immediate,
    };
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            tokio::spawn({
                let kv = kv.clone();
                async move { kv.txn(create()).await }
            })
        })
        .collect();
    let mut committed = 0;
    for task in tasks {
        match task.await.expect("task").expect("txn") {
            TxnOutcome::Committed(at) => committed += at,
            TxnOutcome::Conflict(states) => assert_eq!(states[0].as_ref().map(|kv| kv.mod_revision), Some(1)),
        }
    }
    assert_eq!(committed, 1);
}

async fn put(kv: &Arc<RedbKv>, key: &str, value: &str, durability: Durability) -> Result<Revision, String> {
    let ops = vec![Op::Put(key.into(), value.to_owned().into())];
    match kv.txn(Txn { ops, durability, ..Txn::default() }).await.map_err(|e| e.to_string())? {
        TxnOutcome::Committed(revision) => Ok(revision),
        other => Err(format!("{other:?}")),
    }
}

async fn value(kv: &Arc<RedbKv>, key: &str, revision: Revision) -> Option<String> {
    let reply = kv.range(Range { start: key.into(), revision, ..Range::default() }).await.expect("range");
    reply.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}
