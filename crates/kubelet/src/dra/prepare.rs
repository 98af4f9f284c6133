//! Preparing a pod's claims, and undoing it.

use super::{Claim, Manager};
use crate::context::{Context, api_message};
use crate::pod::PodExt;
use api::k8s::core::v1::{Container, Pod, PodExtendedResourceClaimStatus};
use api::k8s::resource::v1::ResourceClaim;
use std::collections::{BTreeMap, BTreeSet};

/// Names of a pod's claims: the pod's own name of each, and the object's; no object where none is needed.
pub fn names(pod: &Pod) -> Result<Vec<(String, Option<String>)>, String> {
    let statuses = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    let made: BTreeMap<&str, Option<&String>> =
        statuses.map(|s| (s.name.as_str(), s.resource_claim_name.as_ref())).collect();
    let one = |claim: &api::k8s::core::v1::PodResourceClaim| match (
        &claim.resource_claim_name,
        made.get(claim.name.as_str()),
    ) {
        (Some(name), _) => Ok((claim.name.clone(), Some(name.clone()))),
        (None, Some(name)) => Ok((claim.name.clone(), name.cloned())),
        (None, None) => {
            Err(format!("pod {}/{}: ResourceClaim not created yet for {}", pod.namespace(), pod.name(), claim.name))
        }
    };
    pod.spec().resource_claims.iter().flatten().map(one).collect()
}

/// The claim that the scheduler has made for a pod's extended resources.
fn extended(pod: &Pod) -> Option<&PodExtendedResourceClaimStatus> {
    pod.status.as_ref()?.extended_resource_claim_status.as_ref()
}

impl Manager {
    /// Prepares all claims of a pod; idempotent.
    pub async fn prepare(&self, ctx: &Context, pod: &Pod) -> Result<(), String> {
        let own = names(pod)?.into_iter().filter_map(|(_, object)| object);
        let objects: Vec<String> = own.chain(extended(pod).map(|claim| claim.resource_claim_name.clone())).collect();
        let api: kube::Api<ResourceClaim> = kube::Api::namespaced(ctx.config.client.clone(), pod.namespace());
        for name in objects {
            let _turn = self.turn.lock().await;
            if self.is_prepared(pod, &name) {
                continue;
            }
            let found = api.get(&name).await;
            let claim = found.map_err(|e| {
                format!("failed to fetch ResourceClaim {name} referenced by pod {}: {}", pod.name(), api_message(&e))
            })?;
            let claim = self.enlist(pod, &name, &claim)?;
            self.prepare_one(&claim.0, &claim.1)
                .await
                .map_err(|why| format!("failed to prepare dynamic resources: {why}"))?;
        }
        Ok(())
    }

    fn is_prepared(&self, pod: &Pod, name: &str) -> bool {
        let claims = self.claims.lock();
        let mut own = claims.values().filter(|c| c.namespace == pod.namespace() && c.name == name);
        own.any(|c| c.prepared && c.pods.contains(pod.uid()))
    }

    /// Checks that the claim is the pod's to use, and notes that it does.
    pub(super) fn enlist(&self, pod: &Pod, name: &str, object: &ResourceClaim) -> Result<(String, Claim), String> {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let reserved = status.reserved_for.iter().flatten().any(|r| r.uid == pod.uid());
        if !reserved {
            return Err(format!("pod {}({}) is not allowed to use ResourceClaim {name}({uid})", pod.name(), pod.uid()));
        }
        let allocation = status.allocation.ok_or_else(|| format!("ResourceClaim {name} is not allocated"))?;
        let results = allocation.devices.and_then(|d| d.results).unwrap_or_default();
        // A driver that is not there prepares nothing, and could not undo it.
        let missing = |why| format!("failed to prepare dynamic resources: {why}");
        results.iter().try_for_each(|r| self.driver(&r.driver).map(drop).map_err(missing))?;
        let mut claims = self.claims.lock();
        let claim = claims.entry(uid.clone()).or_insert_with(|| Claim {
            name: name.to_owned(),
            namespace: pod.namespace().to_owned(),
            ..Claim::default()
        });
        claim.pods.insert(pod.uid().to_owned());
        claim.drivers.extend(results.into_iter().map(|r| r.driver));
        let claim = claim.clone();
        // Written before any driver is called: what may have been prepared is undone even after a crash.
        self.save(&claims)?;
        Ok((uid, claim))
    }

    async fn prepare_one(&self, uid: &str, claim: &Claim) -> Result<(), String> {
        if claim.prepared {
            return Ok(());
        }
        let mut devices = BTreeMap::new();
        for name in &claim.drivers {
            devices.insert(name.clone(), self.driver(name)?.prepare(message(uid, claim)).await?);
        }
        let mut claims = self.claims.lock();
        if let Some(known) = claims.get_mut(uid) {
            (known.devices, known.prepared) = (devices, true);
        }
        self.save(&claims)
    }

    /// Lets a pod's claims go; what no pod uses any more is undone by its drivers. Tried again when it fails.
    pub async fn unprepare(&self, pod_uid: &str) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let used: Vec<(String, Claim)> = {
            let claims = self.claims.lock();
            claims.iter().filter(|(_, c)| c.pods.contains(pod_uid)).map(|(u, c)| (u.clone(), c.clone())).collect()
        };
        for (uid, claim) in used {
            if claim.pods.len() == 1 {
                for name in &claim.drivers {
                    self.driver(name)?.unprepare(message(&uid, &claim)).await?;
                }
            }
            let mut claims = self.claims.lock();
            if claim.pods.len() == 1 {
                claims.remove(&uid);
            } else if let Some(known) = claims.get_mut(&uid) {
                known.pods.remove(pod_uid);
            }
            self.save(&claims)?;
        }
        Ok(())
    }

    /// Uids of the pods that have claims here.
    pub fn pods(&self) -> BTreeSet<String> {
        self.claims.lock().values().flat_map(|c| c.pods.iter().cloned()).collect()
    }

    /// The claims of a container with the request of each, by uid.
    pub fn claims_of(&self, pod: &Pod, container: &Container) -> Vec<(String, Option<String>)> {
        self.named_claims_of(pod, container).into_iter().map(|(_, uid, request)| (uid, request)).collect()
    }

    /// As [`Self::claims_of`], with the pod's name of each before it; that of extended resources has none of its own.
    pub fn named_claims_of(&self, pod: &Pod, container: &Container) -> Vec<(String, String, Option<String>)> {
        let Ok(names) = names(pod) else { return Vec::new() };
        let known = self.claims.lock();
        let uid = |object: &str| {
            let mut own = known.iter().filter(|(_, c)| c.namespace == pod.namespace() && c.name == object);
            own.find(|(_, c)| c.pods.contains(pod.uid())).map(|(uid, _)| uid.clone())
        };
        let wanted = container.resources.iter().flat_map(|r| r.claims.iter().flatten());
        let one = |claim: &api::k8s::core::v1::ResourceClaim| {
            let object = names.iter().find(|(name, _)| *name == claim.name)?.1.as_deref()?;
            Some((claim.name.clone(), uid(object)?, claim.request.clone()))
        };
        let mapped = extended(pod).into_iter().flat_map(|claim| {
            let own = claim.request_mappings.iter().filter(|mapping| mapping.container_name == container.name);
            own.map(|mapping| (&claim.resource_claim_name, &mapping.request_name))
        });
        let mapped = mapped.filter_map(|(name, request)| Some((name.clone(), uid(name)?, Some(request.clone()))));
        wanted.filter_map(one).chain(mapped).collect()
    }
}

fn message(uid: &str, claim: &Claim) -> protos::dra::Claim {
    protos::dra::Claim { namespace: claim.namespace.clone(), uid: uid.to_owned(), name: claim.name.clone() }
}
