//! The status of a pod: made from its spec, the runtime's state, and what was last written.

pub mod conditions;
pub mod container;
pub mod phase;
mod resources;
pub mod writer;

use crate::context::Context;
use crate::pod::{ContainerType, PodExt, from_ephemeral, restarts_after};
use crate::probes::results::ProbeKind;
use crate::qos;
use crate::state::PodState;
use api::k8s::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, HostIP, Pod, PodIP, PodStatus,
};
use api::machinery::apis::meta::v1::Time;
use container::Waiting;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a pod's status is made of.
pub struct Facts<'a> {
    /// The kubelet.
    pub ctx: &'a Context,
    /// The pod, with what it was granted.
    pub pod: &'a Pod,
    /// The runtime's state.
    pub state: &'a PodState,
    /// The status as last made.
    pub old: &'a PodStatus,
    /// Why containers wait.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// Reason and message of a failure of the pod itself.
    pub failure: Option<&'a (String, String)>,
    /// Reason and message of `DisruptionTarget`, where the node ends the pod.
    pub disruption: Option<&'a (String, String)>,
    /// Whether a resize is under way.
    pub resizing: bool,
    /// Why a resize waits.
    pub resize_pending: Option<&'a (&'static str, String)>,
    /// Whether no container of the pod is started again.
    pub over: bool,
}

/// Whether a regular container has ever started.
pub fn has_started(statuses: &[ContainerStatus]) -> bool {
    statuses.iter().any(|status| {
        let state = status.state.as_ref();
        let ended = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
        ended || state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    })
}

/// Now, in the API's precision of seconds.
pub fn now() -> Time {
    let now = jiff::Timestamp::now();
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Makes the status.
pub fn generate(facts: &Facts<'_>) -> PodStatus {
    let (spec, old) = (facts.pod.spec(), facts.old);
    let init_list = spec.init_containers.as_deref().unwrap_or_default();
    let ephemeral: Vec<Container> = spec.ephemeral_containers.iter().flatten().map(from_ephemeral).collect();
    let init = statuses(facts, init_list, &old.init_container_statuses, ContainerType::Init);
    let regular = statuses(facts, &spec.containers, &old.container_statuses, ContainerType::Regular);
    let ephemeral = statuses(facts, &ephemeral, &old.ephemeral_container_statuses, ContainerType::Ephemeral);

    let mut phase = phase::phase(facts.pod, &init, &regular, facts.over, has_started(&regular)).to_owned();
    if facts.failure.is_some() {
        phase = "Failed".into();
    }
    // A terminal phase is never left.
    for written in [old.phase.as_deref(), Some(facts.pod.phase())].into_iter().flatten() {
        if crate::pod::TERMINAL.contains(&written) {
            phase = written.to_owned();
        }
    }
    let (reason, message) = match facts.failure {
        Some((reason, message)) => (Some(reason.clone()), Some(message.clone())),
        None if old.phase.as_deref() == Some(&phase) => (old.reason.clone(), old.message.clone()),
        None => (None, None),
    };
    let conditions = conditions::all(&conditions::Facts {
        pod: facts.pod,
        phase: &phase,
        init: &init,
        regular: &regular,
        sandbox: facts.state.sandbox().is_some(),
        resize_pending: facts.resize_pending,
        resizing: facts.resizing,
        disruption: facts.disruption,
        old: old.conditions.as_deref().unwrap_or_default(),
        now: now(),
    });
    let some = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    let mut out = PodStatus {
        conditions: Some(conditions),
        container_statuses: some(regular),
        ephemeral_container_statuses: some(ephemeral),
        init_container_statuses: some(init),
        message,
        observed_generation: facts.pod.metadata.generation,
        phase: Some(phase),
        qos_class: Some(qos::class(facts.pod).into()),
        reason,
        start_time: old.start_time.clone().or_else(|| Some(now())),
        ..PodStatus::default()
    };
    addresses(facts, &mut out);
    resources::set(&mut out, facts.pod, &facts.ctx.node_limits());
    out
}

/// Addresses of the pod, primary family first; those of the node with host networking.
pub fn pod_ips(ctx: &Context, pod: &Pod, state: &PodState) -> Vec<IpAddr> {
    let nodes = &ctx.config.node_ips;
    if pod.host_network() {
        return nodes.clone();
    }
    let mut ips = state.newest_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
    let primary_v4 = nodes.first().is_none_or(IpAddr::is_ipv4);
    ips.sort_by_key(|ip| ip.is_ipv4() != primary_v4);
    ips.dedup_by_key(|ip| ip.is_ipv4());
    ips
}

fn addresses(facts: &Facts<'_>, out: &mut PodStatus) {
    let hosts: Vec<String> = facts.ctx.config.node_ips.iter().map(ToString::to_string).collect();
    out.host_ip = hosts.first().cloned();
    out.host_ips = (!hosts.is_empty()).then(|| hosts.into_iter().map(|ip| HostIP { ip }).collect());
    let ips = pod_ips(facts.ctx, facts.pod, facts.state);
    if ips.is_empty() {
        // Addresses outlive the sandbox: a finished pod still shows where it was.
        out.pod_ip.clone_from(&facts.old.pod_ip);
        out.pod_ips.clone_from(&facts.old.pod_ips);
        return;
    }
    out.pod_ip = ips.first().map(ToString::to_string);
    out.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
}

fn statuses(
    facts: &Facts<'_>,
    containers: &[Container],
    old: &Option<Vec<ContainerStatus>>,
    kind: ContainerType,
) -> Vec<ContainerStatus> {
    let has_init = facts.pod.spec().init_containers.as_ref().is_some_and(|l| !l.is_empty());
    let (runtime, _) = facts.ctx.config.runtime.version();
    let of = |container: &Container| {
        let history = facts.state.history(&container.name);
        let newest = history.first();
        let result = |kind: ProbeKind| newest.and_then(|n| facts.ctx.probes.get(&n.id, kind));
        let mut status = container::status(&container::Facts {
            container,
            old: old.iter().flatten().find(|s| s.name == container.name),
            waiting: facts.waiting.get(&container.name).filter(|_| is_awaited(facts.pod, container, newest.copied())),
            default_waiting: if has_init { "PodInitializing" } else { "ContainerCreating" },
            kind,
            runtime: &runtime,
            startup: result(ProbeKind::Startup),
            readiness: result(ProbeKind::Readiness),
            deleted: facts.pod.is_deleted(),
            history: &history,
        });
        if kind == ContainerType::Regular {
            status.allocated_resources_status =
                crate::plugins::health::of_container(&facts.ctx.plugins, facts.pod, container);
        }
        status
    };
    containers.iter().map(of).collect()
}

/// Whether a container is to run, and does not: what stays ended shows its end instead of what it waited for.
fn is_awaited(pod: &Pod, container: &Container, newest: Option<&cri::ContainerStatus>) -> bool {
    let state = newest.map(|n| (n.state, n.exit_code));
    !pod.is_deleted()
        && match state {
            None | Some((cri::ContainerState::Created, _)) => true,
            Some((cri::ContainerState::Running, _)) => false,
            Some((cri::ContainerState::Exited, code)) => restarts_after(container, pod, code),
            Some((cri::ContainerState::Unknown, _)) => restarts_after(container, pod, 137),
        }
}

/// The status of a pod that this node does not run: it failed before anything of it was made.
pub fn rejected(pod: &Pod, reason: &str, message: &str) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    PodStatus {
        message: Some(message.into()),
        observed_generation: pod.metadata.generation,
        phase: Some("Failed".into()),
        qos_class: Some(qos::class(pod).into()),
        reason: Some(reason.into()),
        start_time: old.start_time.or_else(|| Some(now())),
        conditions: old.conditions,
        ..PodStatus::default()
    }
}

/// Ends a status whose pod has no process left: what did not end by itself is marked so, and the phase is final.
pub fn terminate(pod: &Pod, status: &mut PodStatus) {
    let has_init = pod.spec().init_containers.as_ref().is_some_and(|l| !l.is_empty());
    let init_done = status.init_container_statuses.iter().flatten().all(|s| s.ready || s.started == Some(true));
    let regular = status.container_statuses.get_or_insert_default();
    if !has_init || has_started(regular) || init_done {
        regular.iter_mut().for_each(end);
    }
    let init = status.init_container_statuses.as_deref_mut().unwrap_or_default();
    // Init containers after the last one that ever ran have nothing to end.
    let ran = init.iter().rposition(|s| has_started(std::slice::from_ref(s))).map_or(0, |last| last + 1);
    init[..ran].iter_mut().for_each(end);
    if !status.phase.as_deref().is_some_and(|p| crate::pod::TERMINAL.contains(&p)) {
        status.phase = Some("Failed".into());
    }
    if status.container_statuses.as_ref().is_some_and(Vec::is_empty) {
        status.container_statuses = None;
    }
    let reason = if status.phase.as_deref() == Some("Succeeded") { "PodCompleted" } else { "PodFailed" };
    for condition in
        status.conditions.iter_mut().flatten().filter(|c| ["Ready", "ContainersReady"].contains(&c.type_.as_str()))
    {
        if condition.status == "True" {
            condition.last_transition_time = Some(now());
        }
        (condition.status, condition.reason, condition.message) = ("False".into(), Some(reason.into()), None);
    }
}

fn end(status: &mut ContainerStatus) {
    // An init container that did its work stays ready.
    status.ready &= status.state.as_ref().is_some_and(|s| s.terminated.as_ref().is_some_and(|t| t.exit_code == 0));
    status.started = Some(false);
    if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        return;
    }
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..ContainerStateTerminated::default()
    };
    status.state = Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() });
}
