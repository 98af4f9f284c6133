//! The cgroups that pods' cgroups are in: `/kubepods` and one for each class but Guaranteed.

use crate::context::Context;
use crate::events::{EventType, reason};
use crate::kubelet::Pods;
use crate::qos;
use cri::LinuxContainerResources;
use parking_lot::Mutex;

/// Makes them; `/kubepods` gets what pods may use together.
pub async fn make(ctx: &Context) {
    let allocatable = ctx.allocatable_of_pods();
    let amount = |name: &str| allocatable.get(name);
    let mut root = LinuxContainerResources {
        cpu_shares: qos::cpu_shares(amount("cpu").map_or(0, |q| q.milli_value())),
        ..Default::default()
    };
    let enforced = ctx.config.settings.enforce_node_allocatable.iter().any(|e| e == "pods");
    if enforced {
        root.memory_limit_in_bytes = amount("memory").map_or(0, |q| q.value());
        root.pids_limit = amount("pid").map_or(0, |q| q.value());
        for (name, bytes) in allocatable.iter().filter(|(name, _)| name.starts_with("hugepages-")) {
            let page = qos::page_size(name);
            root.hugepage_limits.push((page, u64::try_from(bytes.value()).unwrap_or(0)));
        }
    }
    let class = LinuxContainerResources { cpu_shares: 2, ..Default::default() };
    for (path, resources) in
        [("/kubepods", root), ("/kubepods/burstable", class.clone()), ("/kubepods/besteffort", class)]
    {
        if let Err(error) = ctx.config.runtime.update_pod_cgroup(path, resources).await {
            tracing::warn!(path, %error, "cannot make cgroup");
        }
    }
    limit_reserved(ctx).await;
}

/// Limits the cgroups of the system and of Kubernetes' own daemons to what is reserved for them, where asked for.
async fn limit_reserved(ctx: &Context) {
    let settings = &ctx.config.settings;
    let both = [
        ("system-reserved", &settings.system_reserved_cgroup, &settings.system_reserved),
        ("kube-reserved", &settings.kube_reserved_cgroup, &settings.kube_reserved),
    ];
    for (name, cgroup, reserved) in both {
        let enforced = settings.enforce_node_allocatable.iter().any(|e| e == name);
        if !enforced || cgroup.is_empty() {
            continue;
        }
        let amount = |what: &str| reserved.get(what).and_then(|t| api::quantity::Quantity::parse(t).ok());
        let resources = LinuxContainerResources {
            cpu_shares: amount("cpu").map_or(0, |q| qos::cpu_shares(q.milli_value())),
            memory_limit_in_bytes: amount("memory").map_or(0, |q| q.value()),
            pids_limit: amount("pid").map_or(0, |q| q.value()),
            ..Default::default()
        };
        if let Err(error) = ctx.config.runtime.update_pod_cgroup(cgroup, resources).await {
            let (about, text) =
                (ctx.node.read().clone(), format!("Failed to enforce {name} Cgroup Limits on {cgroup:?}: {error}"));
            ctx.recorder.node(&about, EventType::Warning, reason::FAILED_NODE_ALLOCATABLE, text);
        }
    }
}

/// Tells that node allocatable is enforced.
pub fn announce(ctx: &Context) {
    if ctx.config.settings.enforce_node_allocatable.iter().any(|e| e == "pods") {
        let about = ctx.node.read().clone();
        let text = "Updated Node Allocatable limit across pods";
        ctx.recorder.node(&about, EventType::Normal, reason::NODE_ALLOCATABLE_ENFORCED, text);
    }
}

/// Weight of the burstable class: what its pods request together.
#[derive(Default)]
pub struct Burstable(Mutex<i64>);

impl Burstable {
    /// Brings the weight in line with the pods that are there; called when one comes or has gone.
    pub async fn update(&self, ctx: &Context, pods: &Pods) {
        let of = |pod: &std::sync::Arc<api::k8s::core::v1::Pod>| {
            qos::pod_requests(pod).get("cpu").map_or(0, |q| q.milli_value())
        };
        let milli: i64 = pods.active().iter().filter(|p| qos::class(p) == "Burstable").map(of).sum();
        let shares = qos::cpu_shares(milli);
        if std::mem::replace(&mut *self.0.lock(), shares) == shares {
            return;
        }
        let resources = LinuxContainerResources { cpu_shares: shares, ..Default::default() };
        if let Err(error) = ctx.config.runtime.update_pod_cgroup("/kubepods/burstable", resources).await {
            tracing::warn!(%error, "cannot set the weight of burstable pods");
        }
    }
}
