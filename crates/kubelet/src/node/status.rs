//! The Node object: what it registers with, and its status.

use crate::context::Context;
use crate::node::machine::architecture;
use api::k8s::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus,
};
use api::machinery::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

/// Most images that are listed.
const MAX_IMAGES: usize = 50;
/// Most names per image.
const MAX_NAMES: usize = 5;

/// Labels every node has.
pub fn labels(ctx: &Context) -> BTreeMap<String, String> {
    let arch = architecture();
    let own = [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/hostname", ctx.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
    ];
    let mut out: BTreeMap<String, String> = own.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    out.extend(ctx.config.node_labels.clone());
    out
}

/// The object as it is registered.
pub fn object(ctx: &Context, status: NodeStatus) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(ctx.config.node_name.clone());
    node.metadata.labels = Some(labels(ctx));
    node.metadata.annotations =
        Some([("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into());
    let taints = (!ctx.config.taints.is_empty()).then(|| ctx.config.taints.clone());
    node.spec = Some(NodeSpec { taints, ..NodeSpec::default() });
    node.status = Some(status);
    node
}

/// Features that pods may need and not every node of this version has (KEP-5328), sorted.
const DECLARED_FEATURES: [&str; 1] = ["InPlacePodLevelResourcesVerticalScaling"];

/// The whole status; conditions that stay keep their transition times.
pub async fn generate(ctx: &Context, old: &[NodeCondition]) -> NodeStatus {
    let config = &ctx.config;
    let own = ctx.allocatable().into_iter().map(|(name, amount)| (name, ApiQuantity(amount.to_string())));
    let mut capacity = ctx.machine.capacity(config);
    let devices = ctx.plugins.devices.amounts().into_iter();
    capacity.extend(devices.map(|(name, (all, _))| (name, ApiQuantity(all.to_string()))));
    let in_use = ctx.plugins.csi.volumes_in_use();
    let allocatable = own.chain(extended(ctx, &ctx.node.read())).collect();
    let addresses =
        config.node_ips.iter().map(|ip| NodeAddress { address: ip.to_string(), type_: "InternalIP".into() });
    let hostname = NodeAddress { address: config.node_name.clone(), type_: "Hostname".into() };
    let able = config.runtime.features();
    let handler = NodeRuntimeHandler {
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(able.recursive_read_only_mounts),
            user_namespaces: Some(able.user_namespaces),
        }),
        name: Some(String::new()),
    };
    NodeStatus {
        addresses: Some(addresses.chain([hostname]).collect()),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        conditions: Some(conditions(ctx, old).await),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: config.port().into() }),
        }),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(able.supplemental_groups_policy) }),
        images: Some(images(ctx).await),
        node_info: Some(ctx.machine.info(config.runtime.version())),
        runtime_handlers: Some(vec![handler]),
        volumes_in_use: (!in_use.is_empty()).then_some(in_use),
        ..NodeStatus::default()
    }
}

/// Resources that others put into the node's capacity (`example.com/dongle`): allocatable to the last one.
fn extended(ctx: &Context, node: &Node) -> BTreeMap<String, ApiQuantity> {
    let capacity = node.status.as_ref().and_then(|s| s.capacity.clone()).unwrap_or_default();
    capacity.into_iter().filter(|(name, _)| is_extended(name) && !ctx.plugins.devices.knows(name)).collect()
}

/// Whether a resource is one the kubelet does not count itself.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

async fn images(ctx: &Context) -> Vec<ContainerImage> {
    let mut images = ctx.config.images.list_images().await.unwrap_or_default();
    images.sort_by_key(|i| std::cmp::Reverse(i.size));
    let listed = images.into_iter().take(MAX_IMAGES).map(|image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES).collect();
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    listed.collect()
}

/// Whether the runtime and its network are ready; otherwise the words of the Ready condition.
pub async fn runtime_ready(ctx: &Context) -> Result<(), String> {
    let conditions = ctx
        .config
        .runtime
        .status()
        .await
        .map_err(|e| format!("container runtime status check may not have completed yet: {e}"))?;
    let mut errors = Vec::new();
    for condition in conditions.iter().filter(|c| !c.status) {
        let (name, reason, message) = (condition.name, &condition.reason, &condition.message);
        match name {
            "NetworkReady" => errors
                .push(format!("container runtime network not ready: {name}=false reason:{reason} message:{message}")),
            "RuntimeReady" => {
                errors.push(format!("container runtime not ready: {name}=false reason:{reason} message:{message}"))
            }
            _ => {}
        }
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

async fn conditions(ctx: &Context, old: &[NodeCondition]) -> Vec<NodeCondition> {
    let under = ctx.eviction.conditions();
    let [memory, disk, pids] = ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|name| under.contains(&name));
    let pressure = |holds: bool, yes: [&'static str; 2], no: [&'static str; 2]| {
        let [reason, message] = if holds { yes } else { no };
        (holds, reason, message.to_owned())
    };
    let ready = match runtime_ready(ctx).await {
        _ if ctx.shutdown.is_under_way() => (false, "KubeletNotReady", crate::shutdown::NODE_MESSAGE.to_owned()),
        Ok(()) => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Err(why) => (false, "KubeletNotReady", why),
    };
    let all = [
        (
            "MemoryPressure",
            pressure(
                memory,
                ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
                ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
            ),
        ),
        (
            "DiskPressure",
            pressure(
                disk,
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
            ),
        ),
        (
            "PIDPressure",
            pressure(
                pids,
                ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
                ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
            ),
        ),
        ("Ready", ready),
    ];
    let now = crate::status::now();
    let condition = |(name, (holds, reason, message)): (&str, (bool, &str, String))| {
        let status = if holds { "True" } else { "False" };
        let since =
            old.iter().find(|c| c.type_ == name && c.status == status).and_then(|c| c.last_transition_time.clone());
        NodeCondition {
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            message: Some(message),
            reason: Some(reason.into()),
            status: status.into(),
            type_: name.into(),
        }
    };
    all.into_iter().map(condition).collect()
}
