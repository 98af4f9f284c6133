//! Claims that nobody uses any more.

use super::{Claims, FINALIZER, is_done, owner};
use crate::ownership::is_not_found;
use api::k8s::core::v1::Pod;
use api::k8s::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use informer::{Error, Key, Reconcile, Requeue};
use kube::api::{DeleteParams, PostParams};

/// The queue of claims.
pub(super) struct Released(pub Claims);

impl Reconcile for Released {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(claim) = self.0.claims.get_key(key) else { return Ok(Requeue::Done) };
        let before = claim.status.as_ref().and_then(|s| s.reserved_for.clone()).unwrap_or_default();
        let mut remaining = Vec::new();
        for one in before.iter() {
            if self.keeps(&key.namespace, one).await? {
                remaining.push(one.clone());
            }
        }
        let protected = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        let deleting = claim.metadata.deletion_timestamp.is_some();
        let unused = remaining.is_empty();
        if remaining.len() < before.len() || (protected && deleting && unused) {
            self.release(key, &claim, remaining, protected).await?;
        }
        if unused && !deleting {
            self.delete_if_done(key, &claim).await?;
        }
        Ok(Requeue::Done)
    }
}

impl Released {
    async fn keeps(&self, namespace: &str, one: &ResourceClaimConsumerReference) -> Result<bool, Error> {
        if one.resource != "pods" || one.api_group.as_ref().is_some_and(|g| !g.is_empty()) {
            return Ok(true);
        }
        if let Some(pod) = self.0.pods.get(namespace, &one.name) {
            return Ok(pod.metadata.uid.as_ref() == Some(&one.uid) && !is_done(&pod));
        }
        // The informer may be behind the scheduler: the API has the last word.
        let pod = self.0.ctx.api::<Pod>(namespace).get_opt(&one.name).await?;
        Ok(pod.is_some_and(|p| p.metadata.uid.as_ref() == Some(&one.uid)))
    }

    /// Writes what is left; without users nothing stays allocated, and nothing holds the claim.
    async fn release(
        &self,
        key: &Key,
        claim: &ResourceClaim,
        remaining: Vec<ResourceClaimConsumerReference>,
        protected: bool,
    ) -> Result<(), Error> {
        let api = self.0.ctx.api::<ResourceClaim>(&key.namespace);
        let mut wanted = claim.clone();
        let unused = remaining.is_empty();
        let status = wanted.status.get_or_insert_default();
        status.reserved_for = Some(remaining).filter(|r| !r.is_empty());
        if unused && protected {
            status.allocation = None;
        }
        let mut written = match api.replace_status(&key.name, &PostParams::default(), &wanted).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            written => written?,
        };
        if unused && protected {
            written.metadata.finalizers.get_or_insert_default().retain(|f| f != FINALIZER);
            match api.replace(&key.name, &PostParams::default(), &written).await {
                Err(error) if !is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes a claim that was made for a pod which will not run any more.
    async fn delete_if_done(&self, key: &Key, claim: &ResourceClaim) -> Result<(), Error> {
        let Some((name, uid)) = owner(claim) else { return Ok(()) };
        // Gone altogether: garbage collection does it.
        let Some(pod) = self.0.pods.get(&key.namespace, &name) else { return Ok(()) };
        if pod.metadata.uid.as_deref() == Some(&uid) && !is_done(&pod) {
            return Ok(());
        }
        match self.0.ctx.api::<ResourceClaim>(&key.namespace).delete(&key.name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
