//! The ConfigMap `kube-root-ca.crt` of every namespace: what pods verify the API server with.

use crate::context::{Context, synced};
use crate::serviceaccount::{is_active, settled};
use api::k8s::core::v1::{ConfigMap, Namespace};
use api::machinery::apis::meta::v1::ObjectMeta;
use informer::{Controller, Error, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::api::PostParams;
use std::collections::BTreeMap;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions \
of Kubernetes clusters.";

struct RootCa {
    ctx: Context,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let namespaces = ctx.informer::<Namespace>();
    // Only these: all ConfigMaps of a cluster would be kept in memory otherwise.
    let maps = ctx.factory().informer_filtered::<ConfigMap>(&format!("metadata.name={NAME}"), "", "");
    let enqueue = queue.clone();
    namespaces.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let enqueue = queue.clone();
    maps.on_event(move |event| {
        enqueue.add(Key::new("", event.object().metadata.namespace.clone().unwrap_or_default()))
    });
    synced!(namespaces, maps);
    let reconciler = RootCa { ctx: ctx.clone(), namespaces, maps };
    Controller::new("root-ca", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for RootCa {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let data = BTreeMap::from([("ca.crt".to_owned(), self.ctx.config().root_ca.clone())]);
        let annotations = BTreeMap::from([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())]);
        if !self.namespaces.get_key(key).is_some_and(|ns| is_active(&ns)) {
            return Ok(Requeue::Done);
        }
        let api = self.ctx.api::<ConfigMap>(&key.name);
        let Some(existing) = self.maps.get(&key.name, NAME) else {
            let metadata = ObjectMeta { name: Some(NAME.into()), annotations: Some(annotations), ..Default::default() };
            let map = ConfigMap { metadata, data: Some(data), ..Default::default() };
            return settled(api.create(&PostParams::default(), &map).await.map(drop));
        };
        let described = existing.metadata.annotations.iter().flatten().any(|(k, _)| k == DESCRIPTION);
        if existing.data.as_ref() == Some(&data) && described {
            return Ok(Requeue::Done);
        }
        let mut map = ConfigMap { data: Some(data), ..ConfigMap::clone(&existing) };
        map.metadata.annotations.get_or_insert_default().extend(annotations);
        settled(api.replace(NAME, &PostParams::default(), &map).await.map(drop))
    }
}
