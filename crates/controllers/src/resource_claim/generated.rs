//! Claims that are made for pods.

use super::{Claims, POD_CLAIM, is_done};
use crate::ownership::reference_to;
use crate::pods;
use api::k8s::core::v1::{Pod, PodResourceClaim};
use api::k8s::resource::v1::ResourceClaim;
use informer::{Error, Key, Reconcile, Requeue};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

/// The queue of pods.
pub(super) struct Pods(pub Claims);

impl Reconcile for Pods {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(pod) = self.0.pods.get_key(key).filter(|p| !pods::is_deleting(p) && !is_done(p)) else {
            return Ok(Requeue::Done);
        };
        let mut made = Vec::new();
        for wanted in pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()) {
            let Some(template) = wanted.resource_claim_template_name.as_deref() else { continue };
            match self.claim(&pod, wanted, template).await {
                Ok(name) => made.push((wanted.name.clone(), name)),
                Err(why) => {
                    let text = format!("PodResourceClaim {}: {why}", wanted.name);
                    self.0.ctx.warning(pod.as_ref(), "FailedResourceClaimCreation", text);
                    return Ok(Requeue::After(std::time::Duration::from_secs(30)));
                }
            }
        }
        let known = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
        let known: Vec<(String, String)> =
            known.filter_map(|s| Some((s.name.clone(), s.resource_claim_name.clone()?))).collect();
        if made.iter().all(|one| known.contains(one)) {
            return Ok(Requeue::Done);
        }
        let list: Vec<_> = made.iter().map(|(name, claim)| json!({"name": name, "resourceClaimName": claim})).collect();
        let patch =
            Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"resourceClaimStatuses": list}}));
        let api = self.0.ctx.api::<Pod>(&key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &patch).await {
            Err(error) if !crate::ownership::is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

impl Pods {
    /// The name of a pod's claim; made where there is none.
    async fn claim(&self, pod: &Pod, wanted: &PodResourceClaim, template: &str) -> Result<String, String> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let is_for = |claim: &ResourceClaim| claim.annotations().get(POD_CLAIM) == Some(&wanted.name);
        if let Some(found) = self.0.claims.by_index(super::BY_POD, &uid).into_iter().find(|c| is_for(c)) {
            return Ok(found.name_any());
        }
        let namespace = pod.namespace().unwrap_or_default();
        // The informer may not show yet what was made just before: a second claim would stay allocated for nothing.
        let api = self.0.ctx.api::<ResourceClaim>(&namespace);
        let all = api.list(&Default::default()).await.map_err(|e| Error::from(e).text())?;
        let own = |c: &&ResourceClaim| super::owner(c).is_some_and(|(_, owner)| owner == uid) && is_for(c);
        if let Some(found) = all.items.iter().find(own) {
            return Ok(found.name_any());
        }
        let missing = || {
            format!(
                "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found"
            )
        };
        let template = self.0.templates.get(&namespace, template).ok_or_else(missing)?;
        let meta = template.spec.metadata.clone().unwrap_or_default();
        let mut claim = ResourceClaim { metadata: Default::default(), spec: template.spec.spec.clone(), status: None };
        (claim.metadata.labels, claim.metadata.annotations) = (meta.labels, meta.annotations);
        claim.metadata.annotations.get_or_insert_default().insert(POD_CLAIM.into(), wanted.name.clone());
        claim.metadata.generate_name = Some(format!("{}-{}-", pod.name_any(), wanted.name));
        claim.metadata.owner_references = Some(vec![reference_to(pod)]);
        let made = api.create(&PostParams::default(), &claim).await;
        made.map(|c| c.name_any()).map_err(|e| format!("create ResourceClaim : {}", Error::from(e).text()))
    }
}
