//! Resource claims of pods: made from templates, let go when their pods are done.
//!
//! Two queues. A pod ([`generated`]) gets a claim for each template it names, and its status tells which; a claim
//! ([`released`]) loses the reservations of pods that will not run any more, then its allocation, then, when it was
//! made for such a pod, itself. The scheduler allocates and reserves; the node's drivers prepare.
//!
//! Absent: claims of pod groups.

mod generated;
mod released;

use crate::context::{Context, synced};
use crate::pods;
use api::k8s::core::v1::Pod;
use api::k8s::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use informer::{Controller, Event, Informer, Key, WorkQueue};
use kube::ResourceExt;

/// Names the pod's own claim that a generated one is for.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Held while a claim is allocated.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
const BY_POD: &str = "pod";

/// What both halves share.
#[derive(Clone)]
struct Claims {
    ctx: Context,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
}

pub(crate) async fn run(ctx: Context) {
    let (pod_queue, claim_queue) = (WorkQueue::new(), WorkQueue::new());
    let (pods, claims, templates) =
        (ctx.informer::<Pod>(), ctx.informer::<ResourceClaim>(), ctx.informer::<ResourceClaimTemplate>());
    claims.add_index(BY_POD, |claim| owner(claim).map(|(_, uid)| uid).into_iter().collect());
    let (of_pods, of_claims) = (pod_queue.clone(), claim_queue.clone());
    pods.on_event(move |event: &Event<Pod>| {
        let pod = event.object();
        let Some(names) = pod.spec.as_ref().and_then(|s| s.resource_claims.as_ref()).filter(|c| !c.is_empty()) else {
            return;
        };
        of_pods.add(Key::of(pod.as_ref()));
        if matches!(event, Event::Deleted(_)) || is_done(pod) {
            let namespace = pod.namespace().unwrap_or_default();
            let made = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
            let made = made.filter_map(|s| s.resource_claim_name.clone());
            let given = names.iter().filter_map(|c| c.resource_claim_name.clone());
            made.chain(given).for_each(|name| of_claims.add(Key::new(namespace.clone(), name)));
        }
    });
    let (of_claims, of_pods) = (claim_queue.clone(), pod_queue.clone());
    claims.on_event(move |event: &Event<ResourceClaim>| {
        let claim = event.object();
        of_claims.add(Key::of(claim.as_ref()));
        if let Some((pod, _)) = owner(claim) {
            of_pods.add(Key::new(claim.namespace().unwrap_or_default(), pod));
        }
    });
    let (of_pods, known) = (pod_queue.clone(), pods.clone());
    templates.on_event(move |event: &Event<ResourceClaimTemplate>| {
        let template = event.object();
        let names = |pod: &Pod| {
            let mut claims = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
            claims.any(|c| c.resource_claim_template_name.as_deref() == Some(&template.name_any()))
        };
        let waiting = known.list_in(&template.namespace().unwrap_or_default());
        waiting.iter().filter(|p| names(p)).for_each(|p| of_pods.add(Key::of(p.as_ref())));
    });
    synced!(pods, claims, templates);
    let shared = Claims { ctx: ctx.clone(), pods, claims, templates };
    let of_pods = Controller::new("resource-claims-of-pods", pod_queue, generated::Pods(shared.clone()));
    let of_claims = Controller::new("resource-claims", claim_queue, released::Released(shared));
    tokio::join!(of_pods.run(ctx.shutdown()), of_claims.run(ctx.shutdown()));
}

/// Name and uid of the pod a claim was made for.
fn owner(claim: &ResourceClaim) -> Option<(String, String)> {
    let owner = crate::ownership::controlled_by::<Pod>(claim)?;
    Some((owner.name.clone(), owner.uid.clone()))
}

/// Whether a pod will not run any more: it has ended, or is deleted and was never placed.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || (pods::is_deleting(pod) && pods::node_name(pod).is_empty())
}
