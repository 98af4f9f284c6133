//! The status of one container, from its instances and what was last written.

use crate::pod::ContainerType;
use api::k8s::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, ResourceRequirements, VolumeMountStatus,
};
use api::machinery::apis::meta::v1::Time;
use cri::ContainerState as CriState;

/// Text of a container that vanished while it ran.
const VANISHED: &str = "The container could not be located when the pod was deleted.  The container used to be Running";

/// Why a container waits: reason and message.
pub type Waiting = (String, String);

/// What a container's status is made of.
pub struct Facts<'a> {
    /// Its spec.
    pub container: &'a Container,
    /// Its instances, the newest first.
    pub history: &'a [&'a cri::ContainerStatus],
    /// Its status as last written.
    pub old: Option<&'a ContainerStatus>,
    /// Why it is not running, where it should be.
    pub waiting: Option<&'a Waiting>,
    /// Reason of a container nothing is known of.
    pub default_waiting: &'a str,
    /// Where it stands in the spec.
    pub kind: ContainerType,
    /// Runtime name of container ids.
    pub runtime: &'a str,
    /// Result of the startup probe, where there is one.
    pub startup: Option<bool>,
    /// Result of the readiness probe, where there is one.
    pub readiness: Option<bool>,
    /// Whether the pod is being deleted.
    pub deleted: bool,
}

/// The status.
pub fn status(facts: &Facts<'_>) -> ContainerStatus {
    let mut out = match facts.history.split_first() {
        Some((newest, older)) => from_runtime(facts, newest, older.first().copied()),
        None => from_memory(facts),
    };
    if let Some((reason, message)) = facts.waiting {
        let state = out.state.take().unwrap_or_default();
        if state.terminated.is_some() {
            out.last_state = Some(ContainerState { terminated: state.terminated, ..ContainerState::default() });
        }
        out.state = Some(waiting(reason, message));
    }
    readiness(facts, &mut out);
    out
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: text(reason), message: text(message) }),
        ..ContainerState::default()
    }
}

fn base(facts: &Facts<'_>) -> ContainerStatus {
    let mounts = facts.container.volume_mounts.iter().flatten().map(|m| VolumeMountStatus {
        mount_path: m.mount_path.clone(),
        name: m.name.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: m.read_only.filter(|r| *r).map(|_| match m.recursive_read_only.as_deref() {
            Some("Enabled" | "IfPossible") => "Enabled".into(),
            _ => "Disabled".into(),
        }),
        volume_status: None,
    });
    let mounts: Vec<_> = mounts.collect();
    ContainerStatus {
        name: facts.container.name.clone(),
        image: facts.container.image.clone().unwrap_or_default(),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        last_state: Some(ContainerState::default()),
        ..ContainerStatus::default()
    }
}

/// Without an instance: what was written stays true where it is final.
fn from_memory(facts: &Facts<'_>) -> ContainerStatus {
    let mut out = base(facts);
    out.state = Some(waiting(facts.default_waiting, ""));
    let Some(old) = facts.old else { return out };
    let state = old.state.clone().unwrap_or_default();
    if state.terminated.is_some() {
        return old.clone();
    }
    out.restart_count = old.restart_count;
    out.last_state.clone_from(&old.last_state);
    let had_ended = old.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    if state.running.is_some() && !had_ended {
        let vanished = ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(VANISHED.into()),
            ..ContainerStateTerminated::default()
        };
        out.last_state = Some(ContainerState { terminated: Some(vanished), ..ContainerState::default() });
        out.restart_count += i32::from(!facts.deleted);
    }
    out
}

fn from_runtime(
    facts: &Facts<'_>,
    newest: &cri::ContainerStatus,
    before: Option<&cri::ContainerStatus>,
) -> ContainerStatus {
    let mut out = base(facts);
    let id = format!("{}://{}", facts.runtime, newest.id);
    out.restart_count = i32::try_from(newest.metadata.attempt).unwrap_or(i32::MAX);
    out.image.clone_from(&newest.image);
    out.image_id.clone_from(&newest.image_ref);
    out.state = Some(state(facts.runtime, newest));
    out.last_state = match (before, facts.old) {
        (Some(before), _) => Some(state(facts.runtime, before)).filter(|s| s.terminated.is_some()),
        // The runtime has forgotten the instance before this one; what was written of it stays true.
        (None, Some(old)) if old.container_id.as_ref() == Some(&id) => old.last_state.clone(),
        (None, Some(old)) => match &old.state {
            Some(s) if s.terminated.is_some() => old.state.clone(),
            _ => old.last_state.clone(),
        },
        _ => None,
    };
    out.last_state.get_or_insert_default();
    out.container_id = Some(id);
    out.resources = facts.container.resources.clone();
    let empty = |r: &ResourceRequirements| r.limits.is_none() && r.requests.is_none() && r.claims.is_none();
    if out.resources.as_ref().is_none_or(empty) {
        out.resources = Some(Default::default());
    }
    out.allocated_resources = facts.container.resources.as_ref().and_then(|r| r.requests.clone());
    out.user = newest.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: *uid,
            gid: *gid,
            supplemental_groups: Some(groups.clone()).filter(|g| !g.is_empty()),
        }),
    });
    out
}

/// Unix nanoseconds in the API's precision of seconds.
pub fn time(nanoseconds: i64) -> Option<Time> {
    jiff::Timestamp::from_second(nanoseconds.div_euclid(1_000_000_000)).ok().map(Time)
}

fn state(runtime: &str, status: &cri::ContainerStatus) -> ContainerState {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    match status.state {
        CriState::Created => waiting("", ""),
        CriState::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(status.started_at) }),
            ..ContainerState::default()
        },
        CriState::Exited => ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(format!("{runtime}://{}", status.id)),
                exit_code: status.exit_code,
                finished_at: time(status.finished_at),
                message: text(&status.message),
                reason: text(&status.reason),
                signal: None,
                started_at: time(status.started_at),
            }),
            ..ContainerState::default()
        },
        CriState::Unknown => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("The container could not be located when the pod was terminated".into()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        },
    }
}

fn readiness(facts: &Facts<'_>, out: &mut ContainerStatus) {
    let state = out.state.clone().unwrap_or_default();
    let sidecar = crate::pod::is_sidecar(facts.container);
    if facts.kind == ContainerType::Ephemeral {
        return;
    }
    let running = state.running.is_some();
    let started = running && (facts.container.startup_probe.is_none() || facts.startup == Some(true));
    out.started = Some(started);
    out.ready = match facts.kind {
        ContainerType::Init if !sidecar => state.terminated.is_some_and(|t| t.exit_code == 0),
        _ => started && (facts.container.readiness_probe.is_none() || facts.readiness == Some(true)),
    };
}
