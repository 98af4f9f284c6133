//! create and guaranteed update.

use super::encode::{Encoded, check_depth};
use super::{Freshness, ObjectStore, Preconditions, Stored, Update, Updated};
use api::{Object, Status, meta};
use kv::{Compare, Op, Stamp, Txn, TxnOutcome};
use std::sync::Arc;

impl ObjectStore {
    /// Creates an object. Name and namespace are those of its metadata; a resource version in it is ignored.
    pub async fn create(&self, object: Object, dry_run: bool) -> Result<Stored, Status> {
        let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
        let key: Arc<str> = self.key(&namespace, &name).into();
        let (group, resource) = &self.codec.spec.group_resource;
        let exists = || Status::already_exists(group, resource, &name);
        let object = self.unshow(object).await?;
        check_depth(&object, None)?;
        let encoded = Encoded::new(&self.codec.spec, object)?;
        if dry_run {
            let present = self.get(&namespace, &name).await?;
            return if present.is_some() { Err(exists()) } else { self.show_one(encoded.stored(0)).await };
        }
        self.cacher.ready(&self.dispatcher).await?;
        match self.commit(&key, 0, Change::Put(&encoded)).await? {
            TxnOutcome::Committed(revision) => self.show_one(encoded.stored(revision)).await,
            TxnOutcome::Conflict(_) => Err(exists()),
        }
    }

    /// Changes an object to what `change` makes of it. `change` runs again, with the newer state, when somebody
    /// else was faster. NotFound when there is no such object.
    pub async fn guaranteed_update<F>(
        &self,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        mut change: F,
        dry_run: bool,
    ) -> Result<Updated, Status>
    where
        F: FnMut(&Stored, Object) -> Result<Update, Status> + Send,
    {
        let change = |stored: &Stored| change(stored, stored.object()?);
        self.guaranteed_write(namespace, name, preconditions, change, dry_run).await
    }

    /// As [`ObjectStore::guaranteed_update`], for who has parsed the object already.
    pub async fn guaranteed_write<F>(
        &self,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        mut change: F,
        dry_run: bool,
    ) -> Result<Updated, Status>
    where
        F: FnMut(&Stored) -> Result<Update, Status> + Send,
    {
        let key: Arc<str> = self.key(namespace, name).into();
        let (group, resource) = &self.codec.spec.group_resource;
        self.wait(Freshness::Latest).await?;
        let mut present = self.cacher.get(&key);
        loop {
            let stored = present.ok_or_else(|| Status::not_found(group, resource, name))?;
            self.check(&key, name, preconditions, &stored)?;
            let shown = self.show_one(stored.clone()).await?;
            let update = match change(&shown)? {
                Update::Write(object) => Update::Write(self.unshow(object).await?),
                Update::Delete(object) => Update::Delete(self.unshow(object).await?),
                Update::Keep => Update::Keep,
            };
            match self.apply(&key, stored, update, dry_run).await? {
                Ok(updated) => return Ok(Updated { stored: self.show_one(updated.stored).await?, ..updated }),
                Err(newer) => present = newer,
            }
        }
    }

    /// Writes an update; the inner error is the newer state that got in between.
    async fn apply(
        &self,
        key: &Arc<str>,
        stored: Stored,
        update: Update,
        dry_run: bool,
    ) -> Result<Result<Updated, Option<Stored>>, Status> {
        let (object, deleted) = match update {
            Update::Keep => return Ok(Ok(Updated { stored, changed: false, deleted: false })),
            Update::Write(object) => (object, false),
            Update::Delete(object) => (object, true),
        };
        let present = stored.meta.resource_version;
        if !deleted {
            check_depth(&object, Some(&stored))?;
        }
        let encoded = Encoded::new(&self.codec.spec, object)?;
        let next = encoded.stored(present);
        let same = next.json == stored.json;
        if same && !deleted {
            return Ok(Ok(Updated { stored, changed: false, deleted }));
        }
        if dry_run {
            return Ok(Ok(Updated { stored: next, changed: true, deleted }));
        }
        // Watchers see the deletion of what was stored last, whatever this write made of it.
        let change = if deleted { Change::Delete } else { Change::Put(&encoded) };
        match self.commit(key, present, change).await? {
            TxnOutcome::Committed(revision) => {
                Ok(Ok(Updated { stored: encoded.stored(revision), changed: true, deleted }))
            }
            TxnOutcome::Conflict(states) => {
                let newer = states.into_iter().next().flatten();
                Ok(Err(newer.map(|kv| self.codec.decode(&kv)).transpose()?))
            }
        }
    }

    async fn commit(&self, key: &Arc<str>, present: u64, change: Change<'_>) -> Result<TxnOutcome, Status> {
        let (encoded, delete) = match change {
            Change::Put(encoded) => (Some(encoded), false),
            Change::Delete => (None, true),
        };
        let mut ops = Vec::with_capacity(2);
        ops.extend(encoded.map(|encoded| self.put(key, encoded)).transpose()?);
        ops.extend(delete.then(|| Op::Delete(key.clone())));
        let compares = vec![Compare { key: key.clone(), mod_revision: present }];
        let txn = Txn { compares, ops, durability: self.codec.spec.durability };
        let outcome = self.dispatcher.kv().txn(txn).await.map_err(Status::internal)?;
        if let TxnOutcome::Committed(revision) = outcome {
            self.dispatcher.delivered(revision).await;
        }
        Ok(outcome)
    }

    /// What is kept is what readers get, resource version included, so that the store and the cacher share it; unless
    /// it is sealed.
    fn put(&self, key: &Arc<str>, encoded: &Encoded) -> Result<Op, Status> {
        if let Some(cipher) = &self.codec.cipher {
            return Ok(Op::Put(key.clone(), cipher.seal(key, &encoded.json).map_err(Status::internal)?));
        }
        let (cacher, json, meta) = (Arc::downgrade(&self.cacher), encoded.json.clone(), encoded.meta.clone());
        let stamp = Stamp::new(move |revision| {
            let stored = Encoded::stamped(&json, &meta, revision);
            if let Some(cacher) = cacher.upgrade() {
                cacher.prepare(&stored);
            }
            stored.json
        });
        Ok(Op::Stamp(key.clone(), stamp))
    }

    /// Checks preconditions, with the texts of upstream's storage layer and delete strategy.
    fn check(&self, key: &str, name: &str, wanted: &Preconditions, stored: &Stored) -> Result<(), Status> {
        let (group, resource) = &self.codec.spec.group_resource;
        if let Some(uid) = wanted.uid.as_ref().filter(|uid| **uid != stored.meta.uid) {
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
                 Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                stored.meta.uid
            );
            return Err(Status::conflict(group, resource, name, &why));
        }
        let record = stored.meta.resource_version;
        if let Some(rv) = wanted.resource_version.filter(|rv| *rv != record) {
            let why = format!(
                "the ResourceVersion in the precondition ({rv}) does not match the ResourceVersion in record \
                 ({record}). The object might have been modified"
            );
            return Err(Status::conflict(group, resource, name, &why));
        }
        Ok(())
    }
}

/// What is done to a key.
enum Change<'a> {
    Put(&'a Encoded),
    Delete,
}
