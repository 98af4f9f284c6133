//! Stored objects and changed keys: what nobody can open is found at the start, what an old key sealed is written anew.

use super::{Cipher, Encryption, Error, MARK};
use crate::registry::Registry;
use crate::store::ObjectStore;
use kv::{Compare, KeyValue, Kv, Op, Range, Txn};
use std::sync::Arc;

async fn values(kv: &dyn Kv, store: &ObjectStore) -> Result<Vec<KeyValue>, kv::Error> {
    let start = format!("/registry/{}/", store.spec().prefix);
    let end = format!("/registry/{}0", store.spec().prefix);
    Ok(kv.range(Range { start, end, ..Range::default() }).await?.kvs)
}

fn sealed_stores(registry: &Registry, encryption: &Encryption) -> Vec<(Arc<ObjectStore>, Arc<Cipher>)> {
    let rows = registry.all();
    let stored = rows.iter().filter(|row| row.convert.is_none());
    stored.filter_map(|row| Some((row.store.clone(), encryption.cipher(&row.group, &row.resource)?))).collect()
}

/// Fails when there is a value that no key opens: the wrong keys must not make objects vanish.
pub async fn check(kv: &dyn Kv, registry: &Registry, encryption: &Encryption) -> Result<(), Error> {
    for (store, cipher) in sealed_stores(registry, encryption) {
        let values = values(kv, &store).await.map_err(|e| Error::Config(e.to_string()))?;
        let (mut bad, mut first) = (0, None);
        for value in &values {
            if let Err(error) = cipher.open(&value.key, &value.value) {
                bad += 1;
                first.get_or_insert((value.key.clone(), error));
            }
        }
        if let Some((key, error)) = first {
            let total = values.len();
            return Err(Error::Config(format!(
                "{bad} of {total} stored {} cannot be decrypted ({key}: {error}); restore the keys they were encrypted \
                 with: encryption.keys in the data directory, or the file of --encryption-provider-config",
                cipher.resource
            )));
        }
    }
    for row in registry.all().iter().filter(|row| row.convert.is_none()) {
        if encryption.cipher(&row.group, &row.resource).is_some() {
            continue;
        }
        let values = values(kv, &row.store).await.map_err(|e| Error::Config(e.to_string()))?;
        if let Some(sealed) = values.iter().find(|value| value.value.starts_with(MARK)) {
            return Err(Error::Config(format!(
                "{} is encrypted, but no rule of --encryption-provider-config names {}; name it, with the keys it was \
                 encrypted with",
                sealed.key, row.resource
            )));
        }
    }
    Ok(())
}

/// Seals anew what another key than the first, or none, has sealed. Objects get a new resource version.
pub async fn rewrite(kv: &dyn Kv, registry: &Registry, encryption: &Encryption) -> Result<usize, Error> {
    let mut count = 0;
    for (store, cipher) in sealed_stores(registry, encryption) {
        let values = values(kv, &store).await.map_err(|e| Error::Config(e.to_string()))?;
        for old in values.iter().filter(|value| !cipher.is_current(&value.value)) {
            let plain = cipher.open(&old.key, &old.value)?;
            let txn = Txn {
                compares: vec![Compare { key: old.key.clone(), mod_revision: old.mod_revision }],
                ops: vec![Op::Put(old.key.clone(), cipher.seal(&old.key, &plain)?)],
                ..Txn::default()
            };
            // Who was faster has sealed it anew as well.
            kv.txn(txn).await.map_err(|e| Error::Config(e.to_string()))?;
            count += 1;
        }
    }
    Ok(count)
}
