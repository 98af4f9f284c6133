//! One reflector per kind and selector in a process.

use crate::reflector::{self, Source};
use crate::store::{Informer, Store, Stored};
use kube::Client;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(PartialEq, Eq, Hash)]
struct Id {
    kind: TypeId,
    path: String,
    fields: String,
    labels: String,
}

/// Starts and shares informers.
pub struct InformerFactory {
    client: Client,
    informers: Mutex<HashMap<Id, Box<dyn Any + Send + Sync>>>,
    stop: CancellationToken,
}

impl InformerFactory {
    /// A factory whose reflectors read through `client`.
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, informers: Mutex::default(), stop: CancellationToken::new() })
    }

    /// The client the reflectors read through.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The informer of every object of a kind; the first call starts its reflector (inside a tokio runtime).
    pub fn informer<K: Stored<DynamicType = ()>>(&self) -> Informer<K> {
        self.informer_filtered("", "", "")
    }

    /// The informer of the objects of a kind that match selectors in a namespace; empty means all.
    pub fn informer_filtered<K: Stored<DynamicType = ()>>(
        &self,
        fields: &str,
        labels: &str,
        namespace: &str,
    ) -> Informer<K> {
        let namespace = Some(namespace).filter(|ns| !ns.is_empty());
        let source = Source {
            path: K::url_path(&(), namespace),
            fields: fields.into(),
            labels: labels.into(),
            metadata_only: false,
        };
        self.share(source)
    }

    /// The informer of the metadata of every object of a resource that is known from discovery.
    pub fn metadata(&self, resource: &ApiResource) -> Informer<PartialObjectMeta<DynamicObject>> {
        let path = <DynamicObject as kube::Resource>::url_path(resource, None);
        self.share(Source { path, fields: String::new(), labels: String::new(), metadata_only: true })
    }

    /// The informer of every object of a resource that has no type of its own.
    pub fn dynamic(&self, resource: &ApiResource) -> Informer<DynamicObject> {
        let path = <DynamicObject as kube::Resource>::url_path(resource, None);
        self.share(Source { path, fields: String::new(), labels: String::new(), metadata_only: false })
    }

    /// Forgets the metadata informer of a resource that is no longer served; it ends once nobody holds it.
    pub fn forget_metadata(&self, resource: &ApiResource) {
        let path = <DynamicObject as kube::Resource>::url_path(resource, None);
        let kind = TypeId::of::<PartialObjectMeta<DynamicObject>>();
        self.informers.lock().remove(&Id { kind, path, fields: String::new(), labels: String::new() });
    }

    /// Ends every reflector and subscription.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    fn share<K: Stored>(&self, source: Source) -> Informer<K> {
        let id = Id {
            kind: TypeId::of::<K>(),
            path: source.path.clone(),
            fields: source.fields.clone(),
            labels: source.labels.clone(),
        };
        let mut informers = self.informers.lock();
        if let Some(informer) = informers.get(&id).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        // A child: dropping the last informer ends its reflector, a shutdown ends all.
        let stop = self.stop.child_token();
        let store = Store::new(stop.clone());
        let reflector = reflector::run::<K>(self.client.clone(), source, Arc::downgrade(&store));
        tokio::spawn(async move { stop.run_until_cancelled(reflector).await });
        let informer = Informer { store };
        informers.insert(id, Box::new(informer.clone()));
        informer
    }
}

impl Drop for InformerFactory {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
