//! Service CIDRs: says which are ready, and keeps one that is being deleted for as long as addresses need it.

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use api::k8s::networking::v1::{IPAddress, ServiceCIDR};
use api::machinery::apis::meta::v1::Condition;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGER: &str = "service-cidr-controller";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
const READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
/// Servers that have not yet seen the deletion may still allocate from the range.
const GRACE: Duration = Duration::from_secs(10);

struct ServiceCidrs {
    ctx: Context,
    cidrs: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (cidrs, addresses) = (ctx.informer::<ServiceCIDR>(), ctx.informer::<IPAddress>());
    let (enqueue, known) = (queue.clone(), cidrs.clone());
    cidrs.on_event(move |event| {
        enqueue.add(Key::of(event.object().as_ref()));
        // Another range may hold the addresses of one that is being deleted.
        if !matches!(event, Event::Updated { .. }) {
            deleting(&known).iter().for_each(|cidr| enqueue.add(Key::of(cidr.as_ref())));
        }
    });
    let (enqueue, known) = (queue.clone(), cidrs.clone());
    addresses.on_event(move |event| {
        if !matches!(event, Event::Updated { .. }) {
            deleting(&known).iter().for_each(|cidr| enqueue.add(Key::of(cidr.as_ref())));
        }
    });
    synced!(cidrs, addresses);
    let reconciler = ServiceCidrs { ctx: ctx.clone(), cidrs, addresses };
    Controller::new("service-cidr", queue, reconciler).run(ctx.shutdown()).await;
}

fn deleting(cidrs: &Informer<ServiceCIDR>) -> Vec<std::sync::Arc<ServiceCIDR>> {
    cidrs.list().into_iter().filter(|cidr| cidr.metadata.deletion_timestamp.is_some()).collect()
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    base: IpAddr,
    prefix: u32,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        Some(Self { base: base.parse().ok()?, prefix: prefix.parse().ok()? })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.base, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= self.prefix
    }

    fn contains_range(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }
}

fn ranges(cidr: &ServiceCIDR) -> Vec<Range> {
    let list = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    list.filter_map(|text| Range::parse(text)).collect()
}

/// Whether the other ranges hold all of this one, or all of its addresses that are in use.
fn is_replaceable(own: &[Range], others: &[Range], in_use: &[IpAddr]) -> bool {
    let held = |address: &IpAddr| others.iter().any(|other| other.contains(*address));
    let needs = |address: &&IpAddr| own.iter().any(|range| range.contains(**address));
    own.iter().all(|range| others.iter().any(|other| other.contains_range(range)))
        || in_use.iter().filter(needs).all(held)
}

impl ServiceCidrs {
    fn may_go(&self, cidr: &ServiceCIDR) -> bool {
        let name = cidr.name_any();
        let others: Vec<Range> =
            self.cidrs.list().iter().filter(|other| other.name_any() != name).flat_map(|other| ranges(other)).collect();
        let allocated = |address: &IPAddress| address.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
        let addresses = self.addresses.list();
        let in_use: Vec<IpAddr> =
            addresses.iter().filter(|a| allocated(a)).filter_map(|a| a.name_any().parse().ok()).collect();
        is_replaceable(&ranges(cidr), &others, &in_use)
    }

    async fn patch(&self, name: &str, patch: serde_json::Value) -> Result<Requeue, Error> {
        let api = self.ctx.cluster_api::<ServiceCIDR>();
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }

    async fn set_ready(&self, cidr: &ServiceCIDR, status: &str, reason: &str, message: &str) -> Result<Requeue, Error> {
        let conditions = cidr.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let same =
            |c: &Condition| c.type_ == "Ready" && c.status == status && c.reason == reason && c.message == message;
        if conditions.into_iter().any(same) {
            return Ok(Requeue::Done);
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition =
            json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
        let name = cidr.name_any();
        let apply = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
            "status": {"conditions": [condition]}});
        let params = PatchParams::apply(MANAGER).force();
        match self.ctx.cluster_api::<ServiceCIDR>().patch_status(&name, &params, &Patch::Apply(apply)).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

impl Reconcile for ServiceCidrs {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(cidr) = self.cidrs.get_key(key) else { return Ok(Requeue::Done) };
        let held = cidr.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        let Some(deleted) = &cidr.metadata.deletion_timestamp else {
            if !held {
                self.patch(&key.name, json!({"metadata": {"finalizers": [FINALIZER]}})).await?;
            }
            return self.set_ready(&cidr, "True", "", READY).await;
        };
        if !self.may_go(&cidr) {
            return self.set_ready(&cidr, "False", "Terminating", IN_USE).await;
        }
        let since = Timestamp::now().duration_since(deleted.0);
        let left = GRACE.saturating_sub(Duration::try_from(since).unwrap_or_default());
        match (held, left.is_zero()) {
            (false, _) => Ok(Requeue::Done),
            (true, false) => Ok(Requeue::After(left)),
            (true, true) => {
                self.patch(&key.name, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_when_nothing_needs_it() {
        let check = |own: &str, others: &[&str], in_use: &[&str], want: bool| {
            let own = [Range::parse(own).expect("range")];
            let others: Vec<Range> = others.iter().filter_map(|text| Range::parse(text)).collect();
            let in_use: Vec<IpAddr> = in_use.iter().filter_map(|text| text.parse().ok()).collect();
            assert_eq!(is_replaceable(&own, &others, &in_use), want, "{own:?} {others:?} {in_use:?}");
        };
        check("10.97.0.0/24", &["10.96.0.0/16"], &["10.96.0.1"], true);
        check("10.97.0.0/24", &["10.96.0.0/16"], &["10.97.0.9"], false);
        check("10.97.0.0/24", &["10.96.0.0/15"], &["10.97.0.9"], true);
        check("10.97.0.0/24", &["10.97.0.0/28"], &["10.97.0.9"], true);
        check("10.97.0.0/24", &["fd00::/108"], &["10.97.0.9"], false);
    }
}
