//! ResourceQuotas: how much of each quota a namespace uses.
//!
//! Admission raises usage as objects are made; this controller counts afresh when a quota changes or an
//! object goes away. A count may miss an object that was charged and is not stored yet, and its write then takes
//! the charge away: what appears soon after a count is counted again, and so is what admission gives back.

use crate::context::{Context, synced};
use crate::discovery;
use crate::pods;
use api::k8s::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use api::machinery::api::resource::Quantity as ApiQuantity;
use api::quantity::{Format, Quantity};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::PostParams;
use kube::core::{DynamicObject, PartialObjectMeta};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that admission charged has stored its object, or given up, within this time.
const REQUEST: Duration = Duration::from_secs(60);

/// Resources that count objects under a short name, and what they count.
const COUNTED: [(&str, &str); 7] = [
    ("pods", "pods"),
    ("services", "services"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("resourcequotas", "resourcequotas"),
    ("secrets", "secrets"),
    ("configmaps", "configmaps"),
    ("persistentvolumeclaims", "persistentvolumeclaims"),
];

type Metadata = PartialObjectMeta<DynamicObject>;

struct Quotas {
    ctx: Context,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    /// Informers of resources that some quota counts, by `resource.group`.
    counted: Mutex<HashMap<String, Informer<Metadata>>>,
    /// When a count of a quota was last written.
    written: Written,
    queue: WorkQueue<Key>,
}

type Written = Arc<Mutex<HashMap<Key, Instant>>>;

/// Counts those quotas of a namespace again that were counted while something new may have been on its way.
fn count_soon_after(quotas: &Informer<ResourceQuota>, written: &Written, queue: &WorkQueue<Key>) -> impl Fn(Option<&str>) + use<> {
    let (quotas, written, queue) = (quotas.clone(), written.clone(), queue.clone());
    move |namespace| {
        if written.lock().is_empty() {
            return;
        }
        for quota in quotas.list_in(namespace.unwrap_or("")) {
            let key = Key::of(quota.as_ref());
            let is_recent = written.lock().get(&key).is_some_and(|at| at.elapsed() < REQUEST);
            if is_recent {
                queue.add(key);
            }
        }
    }
}

/// Whether some amount is less than before.
fn gives_back(old: &ResourceQuota, new: &ResourceQuota) -> bool {
    let amount = |q: &ApiQuantity| Quantity::parse(&q.0).ok();
    let used = |quota: &ResourceQuota| quota.status.as_ref().and_then(|s| s.used.clone()).unwrap_or_default();
    let (old, new) = (used(old), used(new));
    new.iter().any(|(name, now)| old.get(name).is_some_and(|before| amount(now) < amount(before)))
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let this = Quotas {
        quotas: ctx.informer(),
        pods: ctx.informer(),
        services: ctx.informer(),
        claims: ctx.informer(),
        counted: Mutex::default(),
        written: Written::default(),
        queue: queue.clone(),
        ctx: ctx.clone(),
    };
    let (enqueue, written) = (queue.clone(), this.written.clone());
    this.quotas.on_event(move |event| match event {
        Event::Deleted(quota) => drop(written.lock().remove(&Key::of(quota.as_ref()))),
        // Our own (and admission's) status writes need no count, unless something was given back.
        Event::Updated { old, new }
            if old.spec == new.spec
                && !gives_back(old, new)
                && hard(new) == new.status.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default() => {}
        _ => enqueue.add(Key::of(event.object().as_ref())),
    });
    let replenish = |quotas: &Informer<ResourceQuota>| {
        let (quotas, queue) = (quotas.clone(), queue.clone());
        move |namespace: Option<&str>| {
            quotas.list_in(namespace.unwrap_or("")).iter().for_each(|q| queue.add(Key::of(q.as_ref())))
        }
    };
    let created = || count_soon_after(&this.quotas, &this.written, &queue);
    let (pod_created, service_created, claim_created) = (created(), created(), created());
    let (by_pod, by_service, by_claim) = (replenish(&this.quotas), replenish(&this.quotas), replenish(&this.quotas));
    this.pods.on_event(move |event| {
        let freed = match event {
            Event::Deleted(_) => true,
            Event::Updated { old, new } => pods::is_terminal(new) && !pods::is_terminal(old),
            Event::Added(pod) => {
                pod_created(pod.metadata.namespace.as_deref());
                false
            }
        };
        if freed {
            by_pod(event.object().metadata.namespace.as_deref());
        }
    });
    this.services.on_event(move |event| match event {
        Event::Added(service) => service_created(service.metadata.namespace.as_deref()),
        _ => by_service(event.object().metadata.namespace.as_deref()),
    });
    this.claims.on_event(move |event| match event {
        Event::Added(claim) => claim_created(claim.metadata.namespace.as_deref()),
        Event::Deleted(claim) => by_claim(claim.metadata.namespace.as_deref()),
        Event::Updated { .. } => {}
    });
    synced!(this.quotas, this.pods, this.services, this.claims);
    Controller::new("resourcequota", queue, this).run(ctx.shutdown()).await;
}

fn hard(quota: &ResourceQuota) -> BTreeMap<String, ApiQuantity> {
    quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default()
}

impl Reconcile for Quotas {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(quota) = self.quotas.get_key(key) else { return Ok(Requeue::Done) };
        let hard = hard(&quota);
        let mut used = BTreeMap::new();
        for name in hard.keys() {
            if let Some(amount) = self.usage(&quota, name).await? {
                used.insert(name.clone(), ApiQuantity(amount.to_string()));
            }
        }
        let status = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
        if quota.status.as_ref() == Some(&status) {
            return Ok(Requeue::Done);
        }
        let wanted = ResourceQuota { status: Some(status), ..ResourceQuota::clone(&quota) };
        // Before the write: what comes between must not be missed.
        self.written.lock().insert(key.clone(), Instant::now());
        self.ctx
            .api::<ResourceQuota>(&key.namespace)
            .replace_status(&key.name, &PostParams::default(), &wanted)
            .await?;
        Ok(Requeue::Done)
    }
}

fn units(count: usize) -> Quantity {
    Quantity::from_units(count as i64, Format::DecimalSi)
}

impl Quotas {
    /// How much of one resource the quota's namespace uses; `None` for resources nobody measures.
    async fn usage(&self, quota: &ResourceQuota, name: &str) -> Result<Option<Quantity>, Error> {
        let namespace = quota.namespace().unwrap_or_default();
        if name == "pods" || name == "count/pods" && has_scopes(quota) {
            return Ok(Some(units(self.pods_of(quota).len())));
        }
        if let Some(compute) = compute_resource(name) {
            let sum = self.pods_of(quota).iter().map(|p| pod_amount(p, compute)).fold(units(0), |sum, q| sum.plus(&q));
            return Ok(Some(sum));
        }
        if let Some(amount) = self.service_usage(&namespace, name).or_else(|| self.storage_usage(&namespace, name)) {
            return Ok(Some(amount));
        }
        let counted = COUNTED.iter().find(|(short, _)| *short == name).map(|(_, resource)| *resource);
        let Some(resource) = counted.or_else(|| name.strip_prefix("count/")) else { return Ok(None) };
        let Some(informer) = self.counter(resource).await? else { return Ok(Some(units(0))) };
        Ok(Some(units(informer.list_in(&namespace).len())))
    }

    /// Unfinished pods that the quota's scopes cover.
    fn pods_of(&self, quota: &ResourceQuota) -> Vec<Arc<Pod>> {
        let mut list = self.pods.list_in(&quota.namespace().unwrap_or_default());
        list.retain(|p| !pods::is_terminal(p) && in_scope(quota, p));
        list
    }

    fn service_usage(&self, namespace: &str, name: &str) -> Option<Quantity> {
        let services = || self.services.list_in(namespace);
        let is = |s: &Service, kind: &str| s.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some(kind);
        match name {
            "services.loadbalancers" => Some(units(services().iter().filter(|s| is(s, "LoadBalancer")).count())),
            "services.nodeports" => {
                let ports = |s: &Service| {
                    s.spec
                        .iter()
                        .flat_map(|s| s.ports.iter().flatten())
                        .filter(|p| p.node_port.is_some_and(|n| n > 0))
                        .count()
                };
                Some(units(services().iter().map(|s| ports(s)).sum()))
            }
            _ => None,
        }
    }

    fn storage_usage(&self, namespace: &str, name: &str) -> Option<Quantity> {
        const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
        let (class, what) = match name.split_once(OF_CLASS) {
            Some((class, what)) => (Some(class), what),
            None => (None, name),
        };
        let claims = self.claims.list_in(namespace);
        let of_class = |c: &&Arc<PersistentVolumeClaim>| {
            class.is_none() || c.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()) == class
        };
        let size = |c: &Arc<PersistentVolumeClaim>| {
            let request = c.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?;
            Quantity::parse(&request.0).ok()
        };
        match what {
            "requests.storage" => {
                Some(claims.iter().filter(of_class).filter_map(size).fold(units(0), |sum, q| sum.plus(&q)))
            }
            "persistentvolumeclaims" if class.is_some() => Some(units(claims.iter().filter(of_class).count())),
            _ => None,
        }
    }

    /// The informer that counts a resource, started when a quota first asks for it.
    async fn counter(&self, resource: &str) -> Result<Option<Informer<Metadata>>, Error> {
        let known = self.counted.lock().get(resource).cloned();
        if let Some(informer) = known {
            return Ok(Some(informer));
        }
        let found = discovery::resources(&self.ctx.client).await?;
        let Some(served) =
            found.resources.into_iter().find(|s| s.namespaced && s.can("list") && s.group_resource() == resource)
        else {
            return Ok(None);
        };
        let informer = self.ctx.factory().metadata(&served.resource);
        let (quotas, queue) = (self.quotas.clone(), self.queue.clone());
        let created = count_soon_after(&self.quotas, &self.written, &self.queue);
        informer.on_event(move |event| {
            let namespace = event.object().metadata.namespace.clone().unwrap_or_default();
            match event {
                Event::Added(_) => created(Some(&namespace)),
                Event::Deleted(_) => quotas.list_in(&namespace).iter().for_each(|q| queue.add(Key::of(q.as_ref()))),
                Event::Updated { .. } => {}
            }
        });
        informer.synced().await;
        self.counted.lock().insert(resource.to_owned(), informer.clone());
        Ok(Some(informer))
    }
}

fn has_scopes(quota: &ResourceQuota) -> bool {
    quota.spec.as_ref().is_some_and(|s| s.scopes.is_some() || s.scope_selector.is_some())
}

/// Which list and which resource of containers a quota resource adds up.
fn compute_resource(name: &str) -> Option<(bool, &str)> {
    match name {
        "cpu" | "memory" | "ephemeral-storage" => Some((true, name)),
        _ => match name.split_once('.')? {
            ("requests", "storage") => None,
            ("requests", rest) => Some((true, rest)),
            ("limits", rest) => Some((false, rest)),
            _ => None,
        },
    }
}

/// What a pod requests (or is limited to) of a resource: its containers together, or one init container at its peak.
fn pod_amount(pod: &Pod, (requests, name): (bool, &str)) -> Quantity {
    let of = |c: &api::k8s::core::v1::Container| {
        let resources = c.resources.as_ref();
        let list = resources.and_then(|r| if requests { r.requests.as_ref() } else { r.limits.as_ref() });
        list.and_then(|l| l.get(name)).and_then(|q| Quantity::parse(&q.0).ok()).unwrap_or_else(|| units(0))
    };
    let Some(spec) = &pod.spec else { return units(0) };
    let mut sum = spec.containers.iter().map(of).fold(units(0), |sum, q| sum.plus(&q));
    let (mut sidecars, mut peak) = (units(0), units(0));
    for init in spec.init_containers.iter().flatten() {
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(&of(init));
            sum = sum.plus(&of(init));
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.plus(&of(init)));
        }
    }
    let overhead = spec.overhead.as_ref().and_then(|l| l.get(name)).and_then(|q| Quantity::parse(&q.0).ok());
    sum.max(peak).plus(&overhead.unwrap_or_else(|| units(0)))
}

/// Whether every scope of the quota covers a pod.
fn in_scope(quota: &ResourceQuota, pod: &Pod) -> bool {
    let spec = quota.spec.clone().unwrap_or_default();
    let named = spec.scopes.unwrap_or_default();
    let selected = spec.scope_selector.and_then(|s| s.match_expressions).unwrap_or_default();
    let priority = pod.spec.as_ref().and_then(|s| s.priority_class_name.as_deref()).unwrap_or("");
    named.iter().all(|scope| has_scope(scope, pod))
        && selected.iter().all(|e| match (e.scope_name.as_str(), e.operator.as_str()) {
            ("PriorityClass", "In") => e.values.iter().flatten().any(|v| v == priority),
            ("PriorityClass", "NotIn") => !e.values.iter().flatten().any(|v| v == priority),
            ("PriorityClass", "DoesNotExist") => priority.is_empty(),
            ("PriorityClass", _) => !priority.is_empty(),
            (scope, _) => has_scope(scope, pod),
        })
}

fn has_scope(scope: &str, pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let terminating = spec.is_some_and(|s| s.active_deadline_seconds.is_some_and(|n| n >= 0));
    let best_effort = spec.is_none_or(|s| {
        let none = |c: &api::k8s::core::v1::Container| {
            c.resources.as_ref().is_none_or(|r| {
                r.requests.as_ref().is_none_or(BTreeMap::is_empty) && r.limits.as_ref().is_none_or(BTreeMap::is_empty)
            })
        };
        s.containers.iter().chain(s.init_containers.iter().flatten()).all(none)
    });
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => spec.is_some_and(|s| s.priority_class_name.as_deref().is_some_and(|n| !n.is_empty())),
        "CrossNamespacePodAffinity" => spec.and_then(|s| s.affinity.as_ref()).is_some_and(crosses_namespaces),
        _ => false,
    }
}

fn crosses_namespaces(affinity: &api::k8s::core::v1::Affinity) -> bool {
    let crosses = |t: &api::k8s::core::v1::PodAffinityTerm| {
        t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some()
    };
    let with = affinity.pod_affinity.clone().unwrap_or_default();
    let against = affinity.pod_anti_affinity.clone().unwrap_or_default();
    let required = [
        with.required_during_scheduling_ignored_during_execution,
        against.required_during_scheduling_ignored_during_execution,
    ];
    let preferred = [
        with.preferred_during_scheduling_ignored_during_execution,
        against.preferred_during_scheduling_ignored_during_execution,
    ];
    required.iter().flatten().flatten().any(crosses)
        || preferred.iter().flatten().flatten().any(|t| crosses(&t.pod_affinity_term))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_measured_and_scoped() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"activeDeadlineSeconds": 5, "containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}]}}))
        .expect("pod");
        for (name, want) in [("cpu", "1100m"), ("requests.cpu", "1100m"), ("limits.memory", "1Gi"), ("limits.cpu", "0")]
        {
            let resource = compute_resource(name).expect("compute resource");
            assert_eq!(pod_amount(&pod, resource).to_string(), want, "{name}");
        }
        for (scope, want) in
            [("Terminating", true), ("NotTerminating", false), ("BestEffort", false), ("NotBestEffort", true)]
        {
            assert_eq!(has_scope(scope, &pod), want, "{scope}");
        }
        assert_eq!(compute_resource("requests.storage"), None);
    }
}
