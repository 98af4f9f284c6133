//! From the chosen node to a bound pod: what was decided is held, written, waited for, or taken back.

use super::{Binding, DynamicResources, Found, allocation, binding, claim_uid, is_reserved_for};
use crate::Handle;
use crate::dynamic_resources::conditions::{self, Readiness};
use crate::dynamic_resources::extended::Extended;
use crate::dynamic_resources::needs::claim_name;
use crate::framework::{PostBind, PreBind, Rejection, Reserve};
use crate::pod_info::uid;
use crate::version;
use crate::waiters::{Object, Waiting};
use api::k8s::core::v1::Pod;
use api::k8s::resource::v1::ResourceClaim;
use futures::FutureExt;
use futures::future::BoxFuture;
use informer::{EventType, Key, reference};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a claim that was made here may take to come back through the informer.
const SEEN_TIMEOUT: Duration = Duration::from_secs(120);

impl Reserve for DynamicResources {
    fn reserve(&self, pod: &Pod, node: &str) -> Result<(), Rejection> {
        let Found { pod: of, claims, mut by_node, .. } = std::mem::take(&mut *self.found.lock());
        if of != uid(pod) {
            return Ok(());
        }
        let on_node = by_node.remove(node).unwrap_or_default();
        let open: Vec<_> = claims.iter().filter(|c| allocation(c).is_none()).map(|c| claim_uid(c).to_owned()).collect();
        if on_node.results.len() != open.len() + usize::from(on_node.extended.is_some()) {
            return Err(Rejection::error("claim allocation not found for node"));
        }
        let (mut ledger, mut decided) = (self.ledger.lock(), HashMap::new());
        let mut results = on_node.results.into_iter();
        for (claim, result) in open.into_iter().zip(results.by_ref()) {
            ledger.add(&claim, &of, result.clone());
            decided.insert(claim, result);
        }
        if let Some((extended, result)) = on_node.extended.as_ref().zip(results.next()) {
            let claim = claim_uid(&extended.needs.claim);
            ledger.add_unborn(claim, &of, result.clone());
            decided.insert(claim.to_owned(), result);
        }
        let extended = on_node.extended.map(|extended| (extended, None));
        self.bindings.lock().insert(of, Binding { claims, decided, extended });
        Ok(())
    }

    fn unreserve(&self, handle: &Arc<Handle>, pod: &Pod, _node: &str) {
        let Some(Binding { claims, decided, extended }) = self.bindings.lock().remove(uid(pod)) else {
            return;
        };
        let mut ledger = self.ledger.lock();
        decided.keys().for_each(|claim| ledger.remove(claim, uid(pod)));
        for claim in claims {
            if is_reserved_for(&claim, pod) {
                binding::unreserve(handle, claim, uid(pod).to_owned());
            }
        }
        if let Some((_, Some(claim))) = extended {
            ledger.forget(claim_uid(&claim));
            binding::delete(handle, claim);
        }
    }
}

impl PreBind for DynamicResources {
    fn pre_bind<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, node: &'a str) -> BoxFuture<'a, Result<(), Rejection>> {
        async move {
            let Some((count, extended)) = self.with(pod, |b| (b.claims.len(), b.extended.clone())) else {
                return Ok(());
            };
            for index in 0..count {
                self.bind_claim(handle, pod, index).await.map_err(Rejection::error)?;
            }
            if let Some((extended, _)) = extended {
                self.bind_extended(handle, pod, &extended).await.map_err(Rejection::error)?;
            }
            let claims = self.with(pod, |b| {
                b.claims
                    .iter()
                    .chain(b.extended.iter().filter_map(|(_, made)| made.as_ref()))
                    .cloned()
                    .collect::<Vec<_>>()
            });
            let claims = claims.unwrap_or_default();
            if claims.iter().any(|c| conditions::any(c)) {
                let message = format!("waiting for binding conditions for device on node {node}");
                handle.recorder.action(
                    &reference(pod),
                    EventType::Normal,
                    "BindingConditionsPending",
                    "Scheduling",
                    message,
                );
                self.wait_ready(handle, &claims).await.map_err(Rejection::error)?;
            }
            Ok(())
        }
        .boxed()
    }
}

impl PostBind for DynamicResources {
    fn post_bind(&self, pod: &Pod, _node: &str) {
        self.bindings.lock().remove(uid(pod));
    }
}

impl DynamicResources {
    fn with<T>(&self, pod: &Pod, act: impl FnOnce(&mut Binding) -> T) -> Option<T> {
        self.bindings.lock().get_mut(uid(pod)).map(act)
    }

    /// Writes the decision for a claim, and the pod as its user.
    async fn bind_claim(&self, handle: &Handle, pod: &Pod, index: usize) -> Result<(), String> {
        let state = self.with(pod, |b| (b.claims[index].clone(), b.decided.get(claim_uid(&b.claims[index])).cloned()));
        let Some((claim, decided)) = state else { return Ok(()) };
        if decided.is_none() && is_reserved_for(&claim, pod) {
            return Ok(());
        }
        let written = binding::bind(handle, &claim, pod, decided).await?;
        self.ledger.lock().written(claim_uid(&claim), uid(pod), version(&written.metadata));
        self.with(pod, |b| b.claims[index] = Arc::new(written));
        Ok(())
    }

    /// Makes the claim for extended resources, writes its allocation and tells the pod's status of it.
    async fn bind_extended(&self, handle: &Handle, pod: &Pod, extended: &Arc<Extended>) -> Result<(), String> {
        let unborn = claim_uid(&extended.needs.claim);
        let decided = self.with(pod, |b| b.decided.get(unborn).cloned()).flatten();
        let made = Arc::new(binding::create(handle, &extended.needs.claim).await?);
        // Before it is written, which fails if it has an end by then: so none is missed.
        let waiting = self.waiters.wait_for([Object::of(made.as_ref())]);
        self.ledger.lock().named(unborn, claim_uid(&made));
        self.with(pod, |b| b.extended = Some((extended.clone(), Some(made.clone()))));
        let written = Arc::new(binding::bind(handle, &made, pod, decided).await?);
        self.ledger.lock().written(claim_uid(&made), uid(pod), version(&written.metadata));
        self.with(pod, |b| b.extended = Some((extended.clone(), Some(written.clone()))));
        binding::name_extended(handle, pod, &written, &extended.mappings).await?;
        // A timeout is no failure: the claim is there.
        let seen = tokio::time::timeout(SEEN_TIMEOUT, seen(handle, &waiting, &written)).await;
        self.ledger.lock().born(claim_uid(&made));
        seen.unwrap_or(Ok(()))
    }

    /// Waits until the drivers report that all devices are ready.
    async fn wait_ready(&self, handle: &Handle, claims: &[Arc<ResourceClaim>]) -> Result<(), String> {
        let waiting = self.waiters.wait_for(claims.iter().map(|c| Object::of(c.as_ref())));
        let latest = Timestamp::now().checked_add(conditions::TIMEOUT).map_err(|e| e.to_string())?;
        loop {
            let mut deadline = latest;
            let mut waits = None;
            for claim in claims {
                let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
                let current = handle.resource_claims.get(&namespace, &name);
                let current = current.ok_or_else(|| format!("resourceclaim.resource.k8s.io {name:?} not found"))?;
                match conditions::readiness(&current) {
                    Readiness::Ready => {}
                    Readiness::Waiting => {
                        deadline = conditions::deadline(&current).map_or(deadline, |d| d.min(deadline));
                        waits.get_or_insert(name);
                    }
                    Readiness::Failed(why) => return Err(why),
                }
            }
            let Some(name) = waits else { return Ok(()) };
            let left = Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::select! {
                () = waiting.woken() => {}
                () = tokio::time::sleep(left) => return Err(format!("device binding timeout: claim={name}")),
            }
        }
    }
}

/// Waits until the informer shows a claim at the version that was written here or a newer one; it fails with the claim's
/// end, of which a pod that is bound would know nothing.
async fn seen(handle: &Handle, waiting: &Waiting, claim: &ResourceClaim) -> Result<(), String> {
    let key = Key::of(claim);
    loop {
        let current = handle.resource_claims.get_key(&key);
        let shown = current.as_ref().map(|c| c.metadata.uid == claim.metadata.uid);
        if shown == Some(false) || (shown.is_none() && waiting.saw_deletion()) {
            return Err(format!("claim {} got deleted in the meantime", claim_name(claim)));
        }
        if current.is_some_and(|c| version(&c.metadata) >= version(&claim.metadata)) {
            return Ok(());
        }
        waiting.woken().await;
    }
}
