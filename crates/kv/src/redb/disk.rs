//! The file: which tables there are, how they are written in batches and read at old revisions.
//!
//! `versions` holds every kept version of every key, the newest included; `log` says which keys a
//! revision touched; `meta` holds the counters. A version is one tag byte, the create revision and
//! the value.

use super::state::Record;
use crate::{Event, KeyValue, Range, RangeReply, Revision};
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};
use std::collections::BTreeMap;
use std::sync::Arc;

const VERSIONS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("versions");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

const FORMAT: u64 = 1;
const PUT: u8 = 0;
const DELETED: u8 = 1;
/// Put and deleted by one transaction; the value is kept for watchers.
const DELETED_WITH_VALUE: u8 = 2;
const HEADER: usize = 9;

type Result<T> = std::result::Result<T, redb::Error>;

/// The counters of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest readable revision.
    pub compacted: Revision,
    /// Up to where compacted versions have been removed.
    pub swept: Revision,
}

/// Makes the tables where they are missing and reads the counters.
pub(super) fn prepare(db: &Database) -> Result<Counters> {
    let tx = db.begin_write()?;
    let counters = {
        tx.open_table(VERSIONS)?;
        tx.open_table(LOG)?;
        let mut meta = tx.open_table(META)?;
        let format = meta.get("format")?.map(|v| v.value());
        match format {
            None => drop(meta.insert("format", FORMAT)?),
            Some(FORMAT) => {}
            Some(other) => {
                return Err(redb::Error::Corrupted(format!("format {other} was written by a newer version")));
            }
        }
        let read = |name: &str| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |v| v.value()));
        Counters { revision: read("revision")?, compacted: read("compacted")?, swept: read("swept")? }
    };
    tx.commit()?;
    Ok(counters)
}

/// Notes that the file is in use. When whoever had it before did not [`close`] it, up to `lost` transactions were seen
/// and never written: their revisions must not come again with another content, so they are passed over.
pub(super) fn begin(db: &Database, counters: Counters, lost: Revision) -> Result<Counters> {
    let mut counters = counters;
    let tx = db.begin_write()?;
    {
        let mut meta = tx.open_table(META)?;
        let crashed = meta.get("open")?.is_some_and(|v| v.value() != 0);
        if crashed {
            counters.revision += lost;
            meta.insert("revision", counters.revision)?;
        }
        meta.insert("open", 1)?;
    }
    tx.commit()?;
    Ok(counters)
}

/// Notes that everything that was seen is written.
pub(super) fn close(db: &Database) -> Result<()> {
    let tx = db.begin_write()?;
    tx.open_table(META)?.insert("open", 0)?;
    Ok(tx.commit()?)
}

/// Versions of a key that are read one after another before the newest is looked up instead.
const FEW: usize = 4;

/// Reads the newest version of every key. What has a long history (leases) is not read through.
pub(super) fn load(db: &Database) -> Result<BTreeMap<Arc<str>, KeyValue>> {
    let table = db.begin_read()?.open_table(VERSIONS)?;
    let mut live = BTreeMap::new();
    let mut versions = table.iter()?;
    let mut newest: Option<(Arc<str>, Revision, Vec<u8>)> = None;
    let mut seen = 0;
    while let Some(entry) = versions.next() {
        let (key, version) = entry?;
        let (key, revision) = key.value();
        match &mut newest {
            Some((name, at, bytes)) if **name == *key => {
                seen += 1;
                if seen > FEW {
                    // There is one at least: the version just read.
                    if let Some(last) = table.range((key, revision)..=(key, Revision::MAX))?.next_back() {
                        let (last_key, last_version) = last?;
                        (*at, *bytes) = (last_key.value().1, last_version.value().to_vec());
                    }
                    versions = table.range((key, *at + 1)..)?;
                } else {
                    (*at, *bytes) = (revision, version.value().to_vec());
                }
            }
            _ => {
                insert_live(&mut live, newest.replace((key.into(), revision, version.value().to_vec())))?;
                seen = 1;
            }
        }
    }
    insert_live(&mut live, newest)?;
    Ok(live)
}

fn insert_live(live: &mut BTreeMap<Arc<str>, KeyValue>, newest: Option<(Arc<str>, Revision, Vec<u8>)>) -> Result<()> {
    let Some((key, revision, version)) = newest else { return Ok(()) };
    if let Some(kv) = put_version(key, revision, &version)? {
        live.insert(kv.key.clone(), kv);
    }
    Ok(())
}

/// Writes transactions and waits until they are durable.
pub(super) fn write<'a>(db: &Database, records: impl Iterator<Item = &'a Record>) -> Result<()> {
    let tx = db.begin_write()?;
    {
        let mut versions = tx.open_table(VERSIONS)?;
        let mut log = tx.open_table(LOG)?;
        let mut revision = 0;
        for record in records {
            revision = record.revision;
            let mut keys = Vec::new();
            for event in record.events.iter() {
                let (key, version) = encode(event, revision);
                versions.insert((key, revision), version.as_slice())?;
                keys.extend_from_slice(&(key.len() as u32).to_le_bytes());
                keys.extend_from_slice(key.as_bytes());
            }
            log.insert(revision, keys.as_slice())?;
        }
        if revision > 0 {
            tx.open_table(META)?.insert("revision", revision)?;
        }
    }
    Ok(tx.commit()?)
}

fn encode(event: &Event, revision: Revision) -> (&str, Vec<u8>) {
    let build = |tag: u8, create: Revision, value: &[u8]| {
        let mut out = Vec::with_capacity(HEADER + value.len());
        out.push(tag);
        out.extend_from_slice(&create.to_le_bytes());
        out.extend_from_slice(value);
        out
    };
    match (&event.kv, &event.previous) {
        (Some(kv), _) => (&kv.key, build(PUT, kv.create_revision, &kv.value)),
        (None, Some(p)) if p.mod_revision == revision => {
            (&p.key, build(DELETED_WITH_VALUE, p.create_revision, &p.value))
        }
        (None, Some(p)) => (&p.key, build(DELETED, 0, &[])),
        (None, None) => ("", build(DELETED, 0, &[])),
    }
}

/// The state a version put; `None` for a deletion.
fn put_version(key: Arc<str>, revision: Revision, version: &[u8]) -> Result<Option<KeyValue>> {
    match split(version)? {
        (PUT, create, value) => Ok(Some(key_value(key, create, revision, value))),
        _ => Ok(None),
    }
}

fn split(version: &[u8]) -> Result<(u8, Revision, &[u8])> {
    match version.split_first_chunk::<HEADER>() {
        Some(([tag @ PUT..=DELETED_WITH_VALUE, a, b, c, d, e, f, g, h], value)) => {
            Ok((*tag, u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), value))
        }
        _ => Err(redb::Error::Corrupted("a version has an unknown form".into())),
    }
}

fn key_value(key: Arc<str>, create_revision: Revision, mod_revision: Revision, value: &[u8]) -> KeyValue {
    KeyValue { key, value: Bytes::copy_from_slice(value), create_revision, mod_revision }
}

/// Reads a range at an old revision.
pub(super) fn range_at(db: &Database, range: &Range) -> Result<RangeReply> {
    let table = db.begin_read()?.open_table(VERSIONS)?;
    let (start, at) = (range.start.as_str(), range.revision);
    let versions = match range.end.as_str() {
        "" => table.range((start, 0)..=(start, at))?,
        end if end <= start => return Ok(RangeReply { kvs: Vec::new(), count: 0, revision: at }),
        end => table.range((start, 0)..(end, 0))?,
    };
    let mut out = RangeReply { kvs: Vec::new(), count: 0, revision: at };
    let mut newest: Option<KeyState> = None;
    for entry in versions {
        let (key, version) = entry?;
        let (key, revision) = key.value();
        if newest.as_ref().is_some_and(|n| &*n.key != key) {
            keep(&mut out, newest.take());
        }
        if revision <= at {
            let key: Arc<str> = key.into();
            let put = split(version.value())?.0 == PUT;
            // Values beyond the limit are only counted.
            let wanted = range.limit == 0 || out.kvs.len() < range.limit;
            let kv = if wanted { put_version(key.clone(), revision, version.value())? } else { None };
            newest = Some(KeyState { key, put, kv });
        }
    }
    keep(&mut out, newest);
    Ok(out)
}

struct KeyState {
    key: Arc<str>,
    put: bool,
    kv: Option<KeyValue>,
}

fn keep(out: &mut RangeReply, newest: Option<KeyState>) {
    if let Some(newest) = newest {
        out.count += usize::from(newest.put);
        out.kvs.extend(newest.kv);
    }
}

/// Reads at most `limit` transactions after a revision, with the state before each change.
pub(super) fn records_after(db: &Database, after: Revision, limit: usize) -> Result<Vec<Record>> {
    let tx = db.begin_read()?;
    let (versions, log) = (tx.open_table(VERSIONS)?, tx.open_table(LOG)?);
    let mut out = Vec::new();
    for entry in log.range(after + 1..)?.take(limit) {
        let (revision, keys) = entry?;
        let revision = revision.value();
        let events: Result<Vec<Event>> =
            split_keys(keys.value())?.into_iter().map(|key| event(&versions, key, revision)).collect();
        out.push(Record { revision, events: events?.into() });
    }
    Ok(out)
}

fn event(
    versions: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    key: &str,
    revision: Revision,
) -> Result<Event> {
    let shared: Arc<str> = key.into();
    let version = versions.get((key, revision))?;
    let version = version.ok_or_else(|| redb::Error::Corrupted("the log names a version that is missing".into()))?;
    let (tag, create, value) = split(version.value())?;
    if tag == DELETED_WITH_VALUE {
        return Ok(Event { kv: None, previous: Some(key_value(shared, create, revision, value)) });
    }
    let kv = (tag == PUT).then(|| key_value(shared.clone(), create, revision, value));
    let previous = match versions.range((key, 0)..(key, revision))?.next_back() {
        None => None,
        Some(entry) => {
            let (at, version) = entry?;
            put_version(shared, at.value().1, version.value())?
        }
    };
    Ok(Event { kv, previous })
}

fn split_keys(mut bytes: &[u8]) -> Result<Vec<&str>> {
    let damaged = || redb::Error::Corrupted("a log entry has an unknown form".into());
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
        out.push(std::str::from_utf8(key).map_err(|_| damaged())?);
        bytes = rest;
    }
    Ok(out)
}

/// Writes down that history before `revision` is gone; [`sweep`] removes it afterwards.
pub(super) fn set_compacted(db: &Database, revision: Revision) -> Result<()> {
    let tx = db.begin_write()?;
    tx.open_table(META)?.insert("compacted", revision)?;
    Ok(tx.commit()?)
}

/// Removes superseded versions of the next `limit` log entries; returns up to where it got. Not durable
/// by itself: it is simply done again after a crash.
pub(super) fn sweep(db: &Database, counters: Counters, limit: usize) -> Result<Revision> {
    let mut tx = db.begin_write()?;
    tx.set_durability(Durability::None)?;
    let mut swept = counters.compacted;
    {
        let mut versions = tx.open_table(VERSIONS)?;
        let mut log = tx.open_table(LOG)?;
        let mut done = Vec::new();
        for entry in log.range(counters.swept + 1..=counters.compacted)?.take(limit) {
            let (revision, keys) = entry?;
            for key in split_keys(keys.value())? {
                remove_superseded(&mut versions, key, counters.compacted)?;
            }
            done.push(revision.value());
        }
        if done.len() == limit {
            swept = done.last().copied().unwrap_or(swept);
        }
        for revision in done {
            log.remove(revision)?;
        }
        tx.open_table(META)?.insert("swept", swept)?;
    }
    tx.commit()?;
    Ok(swept)
}

fn remove_superseded(
    versions: &mut Table<'_, (&'static str, u64), &'static [u8]>,
    key: &str,
    upto: Revision,
) -> Result<()> {
    let mut old = Vec::new();
    let mut newest_is_put = false;
    for entry in versions.range((key, 0)..=(key, upto))? {
        let (at, version) = entry?;
        old.push(at.value().1);
        newest_is_put = split(version.value())?.0 == PUT;
    }
    if newest_is_put {
        old.pop();
    }
    for revision in old {
        versions.remove((key, revision))?;
    }
    Ok(())
}
