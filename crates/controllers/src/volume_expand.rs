//! Claims that were asked to grow: each is a CSI driver's, whose resizer does it; the claim's events say so.

use crate::context::{Context, synced};
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::quantity::Quantity;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};

struct Claims {
    ctx: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

/// Whether more is asked for than there is.
fn grows(claim: &PersistentVolumeClaim) -> bool {
    let size = |q: Option<&api::machinery::api::resource::Quantity>| q.and_then(|q| Quantity::parse(&q.0).ok());
    let spec = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let status = claim.status.as_ref().filter(|s| s.phase.as_deref() == Some("Bound"));
    let has = size(status.and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")));
    match (size(spec.and_then(|r| r.get("storage"))), has) {
        (Some(wanted), Some(has)) => wanted.value() > has.value(),
        _ => false,
    }
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (claims, volumes) = (ctx.informer::<PersistentVolumeClaim>(), ctx.informer());
    let filed = queue.clone();
    claims.on_event(move |event: &Event<PersistentVolumeClaim>| {
        let requests = |c: &PersistentVolumeClaim| c.spec.as_ref().and_then(|s| s.resources.clone());
        let asked = match event {
            Event::Added(claim) => grows(claim),
            Event::Updated { old, new } => requests(old) != requests(new) && grows(new),
            Event::Deleted(_) => false,
        };
        if asked {
            filed.add(Key::of(event.object().as_ref()));
        }
    });
    synced!(claims, volumes);
    let reconciler = Claims { ctx: ctx.clone(), claims, volumes };
    Controller::new("volume-expand", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for Claims {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(claim) = self.claims.get_key(key).filter(|c| grows(c)) else { return Ok(Requeue::Done) };
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        if self.volumes.get("", &name).is_some() {
            let why = "waiting for an external controller to expand this PVC";
            self.ctx.normal(claim.as_ref(), "ExternalExpanding", why);
        }
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_bound_claims_grow() {
        let check = |wanted: &str, phase: &str, expect: bool| {
            let claim = json!({"spec": {"resources": {"requests": {"storage": wanted}}},
                "status": {"phase": phase, "capacity": {"storage": "1Gi"}}});
            assert_eq!(grows(&serde_json::from_value(claim).expect("claim")), expect);
        };
        check("2Gi", "Bound", true);
        check("1Gi", "Bound", false);
        check("2Gi", "Pending", false);
    }
}
