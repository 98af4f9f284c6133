//! Claims of generic ephemeral volumes: made for their pod, gone with it (by garbage collection).

use crate::context::{Context, synced};
use crate::ownership::reference_to;
use crate::pods;
use api::k8s::core::v1::{PersistentVolumeClaim, Pod, Volume};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::PostParams;

struct Claims {
    ctx: Context,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| v.ephemeral.is_some())
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (pods, claims) = (ctx.informer::<Pod>(), ctx.informer::<PersistentVolumeClaim>());
    let filed = queue.clone();
    pods.on_event(move |event: &Event<Pod>| {
        if !matches!(event, Event::Deleted(_)) && ephemeral(event.object()).next().is_some() {
            filed.add(Key::of(event.object().as_ref()));
        }
    });
    // A claim that was in the way and is gone, or that somebody deleted too early.
    let (filed, known) = (queue.clone(), pods.clone());
    claims.on_event(move |event: &Event<PersistentVolumeClaim>| {
        let Event::Deleted(claim) = event else { return };
        let namespace = claim.namespace().unwrap_or_default();
        let names = |pod: &Pod| ephemeral(pod).any(|v| claim_name(pod, v) == claim.name_any());
        known.list_in(&namespace).iter().filter(|p| names(p)).for_each(|p| filed.add(Key::of(p.as_ref())));
    });
    synced!(pods, claims);
    let reconciler = Claims { ctx: ctx.clone(), pods, claims };
    Controller::new("ephemeral-volume", queue, reconciler).run(ctx.shutdown()).await;
}

fn claim_name(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", pod.name_any(), volume.name)
}

impl Reconcile for Claims {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(pod) = self.pods.get_key(key).filter(|p| !pods::is_deleting(p)) else { return Ok(Requeue::Done) };
        for volume in ephemeral(&pod) {
            let name = claim_name(&pod, volume);
            if let Some(claim) = self.claims.get(&key.namespace, &name) {
                let own =
                    claim.metadata.owner_references.iter().flatten().any(|o| Some(&o.uid) == pod.metadata.uid.as_ref());
                if !own {
                    let (claim, pod_key) = (Key::of(claim.as_ref()), key.to_string());
                    let why = format!(
                        "ephemeral volume {}: PVC {claim} was not created for pod {pod_key} (pod is not owner)",
                        volume.name
                    );
                    self.ctx.warning(pod.as_ref(), "FailedBinding", why);
                }
                continue;
            }
            let wanted = claim(&pod, volume, &name);
            match self.ctx.api::<PersistentVolumeClaim>(&key.namespace).create(&PostParams::default(), &wanted).await {
                Ok(_) => {}
                // The informer is behind; its event brings us back.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    let error = Error::from(error);
                    let why = format!("ephemeral volume {}: create PVC {name}: {}", volume.name, error.text());
                    self.ctx.warning(pod.as_ref(), "FailedBinding", why);
                    return Err(error);
                }
            }
        }
        Ok(Requeue::Done)
    }
}

fn claim(pod: &Pod, volume: &Volume, name: &str) -> PersistentVolumeClaim {
    let template = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.clone());
    let mut claim = PersistentVolumeClaim::default();
    if let Some(template) = template {
        let meta = template.metadata.unwrap_or_default();
        (claim.metadata.labels, claim.metadata.annotations) = (meta.labels, meta.annotations);
        claim.spec = Some(template.spec);
    }
    claim.metadata.name = Some(name.to_owned());
    claim.metadata.owner_references = Some(vec![reference_to(pod)]);
    claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_come_from_the_template() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [], "volumes": [
            {"name": "a", "emptyDir": {}},
            {"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"x": "y"}}, "spec": {"storageClassName": "s"}}}}]}}))
        .expect("pod");
        let volume = ephemeral(&pod).next().expect("one");
        let claim = claim(&pod, volume, &claim_name(&pod, volume));
        assert_eq!(claim.name_any(), "p-v");
        assert_eq!(claim.labels()["x"], "y");
        assert_eq!(claim.owner_references()[0].uid, "u");
        assert_eq!(claim.spec.and_then(|s| s.storage_class_name).as_deref(), Some("s"));
    }
}
