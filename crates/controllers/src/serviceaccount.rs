//! The ServiceAccount `default` of every namespace.

use crate::context::{Context, synced};
use crate::ownership::{is_already_exists, is_namespace_terminating, is_not_found};
use api::k8s::core::v1::{Namespace, ServiceAccount};
use api::machinery::apis::meta::v1::ObjectMeta;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::api::PostParams;

const DEFAULT: &str = "default";

struct ServiceAccounts {
    ctx: Context,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (namespaces, accounts) = (ctx.informer::<Namespace>(), ctx.informer::<ServiceAccount>());
    let enqueue = queue.clone();
    namespaces.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let enqueue = queue.clone();
    accounts.on_event(move |event| {
        if let Event::Deleted(account) = event
            && account.metadata.name.as_deref() == Some(DEFAULT)
        {
            enqueue.add(Key::new("", account.metadata.namespace.clone().unwrap_or_default()));
        }
    });
    synced!(namespaces, accounts);
    let reconciler = ServiceAccounts { ctx: ctx.clone(), namespaces, accounts };
    Controller::new("serviceaccount", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for ServiceAccounts {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let active = self.namespaces.get_key(key).is_some_and(|ns| is_active(&ns));
        if !active || self.accounts.get(&key.name, DEFAULT).is_some() {
            return Ok(Requeue::Done);
        }
        let metadata =
            ObjectMeta { name: Some(DEFAULT.into()), namespace: Some(key.name.clone()), ..Default::default() };
        let account = ServiceAccount { metadata, ..Default::default() };
        settled(self.ctx.api::<ServiceAccount>(&key.name).create(&PostParams::default(), &account).await.map(drop))
    }
}

/// Neither being deleted nor said to be.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

/// Turns the outcome of a create in a namespace around: present already or going away are fine.
pub(crate) fn settled(result: Result<(), kube::Error>) -> Result<Requeue, Error> {
    match result {
        Err(error) if !is_already_exists(&error) && !is_namespace_terminating(&error) && !is_not_found(&error) => {
            Err(error.into())
        }
        _ => Ok(Requeue::Done),
    }
}
