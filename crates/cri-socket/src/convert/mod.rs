//! `cri`'s types as protobuf, and back.
//!
//! `to_*` makes a message, `from_*` reads one. What a message leaves out gets CRI's default; numbers that cannot be
//! meant (a negative port) become zero.

mod container;
mod image;
mod sandbox;
mod stats;

pub use container::*;
pub use image::*;
pub use sandbox::*;
pub use stats::*;

use cri::{Error, IdMapping, NamespaceMode, NamespaceOption, SeccompProfile, SupplementalGroupsPolicy};
use protos::cri as p;
use std::collections::{BTreeMap, HashMap};
use tonic::{Code, Status};

/// Labels or annotations for the wire.
pub fn to_map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.clone().into_iter().collect()
}

/// Labels or annotations from the wire.
pub fn from_map(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

/// An error as gRPC says it.
pub fn to_status(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NotFound(_) => Status::not_found(message),
        Error::FailedPrecondition(_) => Status::failed_precondition(message),
        Error::InvalidArgument(_) => Status::invalid_argument(message),
        Error::DeadlineExceeded(_) => Status::deadline_exceeded(message),
        Error::Image { .. } | Error::Internal(_) => Status::unknown(message),
    }
}

/// An error as the kubelet expects it; texts are those of Go's gRPC, which events have always shown.
pub fn from_status(status: &Status) -> Error {
    let message = status.message();
    let text = || format!("rpc error: code = {:?} desc = {message}", status.code());
    match status.code() {
        Code::NotFound => Error::NotFound(message.trim_end_matches("not found").trim_end().to_owned()),
        Code::FailedPrecondition => Error::FailedPrecondition(text()),
        Code::InvalidArgument => Error::InvalidArgument(text()),
        Code::DeadlineExceeded => Error::DeadlineExceeded(message.to_owned()),
        _ => Error::Internal(text()),
    }
}

/// A 64-bit number as its wrapper.
pub fn to_int(value: i64) -> p::Int64Value {
    p::Int64Value { value }
}

fn to_mode(mode: NamespaceMode) -> i32 {
    match mode {
        NamespaceMode::Pod => p::NamespaceMode::Pod,
        NamespaceMode::Container => p::NamespaceMode::Container,
        NamespaceMode::Node => p::NamespaceMode::Node,
    }
    .into()
}

fn from_mode(mode: i32) -> NamespaceMode {
    match p::NamespaceMode::try_from(mode) {
        Ok(p::NamespaceMode::Container) => NamespaceMode::Container,
        Ok(p::NamespaceMode::Node) => NamespaceMode::Node,
        // A target stands beside its mode; the container's security context carries it on.
        Ok(p::NamespaceMode::Pod | p::NamespaceMode::Target) | Err(_) => NamespaceMode::Pod,
    }
}

fn to_mappings(list: &[IdMapping]) -> Vec<p::IdMapping> {
    let to = |m: &IdMapping| p::IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length };
    list.iter().map(to).collect()
}

fn from_mappings(list: Vec<p::IdMapping>) -> Vec<IdMapping> {
    let from = |m: p::IdMapping| IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length };
    list.into_iter().map(from).collect()
}

fn to_namespaces(from: &NamespaceOption, target_id: &str) -> p::NamespaceOption {
    let pid = if target_id.is_empty() { to_mode(from.pid) } else { p::NamespaceMode::Target.into() };
    let userns = from.userns.as_ref().map(|(uids, gids)| p::UserNamespace {
        mode: p::NamespaceMode::Pod.into(),
        uids: to_mappings(uids),
        gids: to_mappings(gids),
    });
    p::NamespaceOption {
        network: to_mode(from.network),
        pid,
        ipc: to_mode(from.ipc),
        target_id: target_id.to_owned(),
        userns_options: userns,
    }
}

fn from_namespaces(from: Option<p::NamespaceOption>) -> NamespaceOption {
    let from = from.unwrap_or_default();
    let userns = from.userns_options.filter(|u| u.mode == i32::from(p::NamespaceMode::Pod) && !u.uids.is_empty());
    NamespaceOption {
        network: from_mode(from.network),
        pid: from_mode(from.pid),
        ipc: from_mode(from.ipc),
        userns: userns.map(|u| (from_mappings(u.uids), from_mappings(u.gids))),
    }
}

fn profile(kind: p::security_profile::ProfileType, path: &str) -> p::SecurityProfile {
    p::SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() }
}

fn to_seccomp(from: &SeccompProfile) -> p::SecurityProfile {
    use p::security_profile::ProfileType;
    match from {
        SeccompProfile::RuntimeDefault => profile(ProfileType::RuntimeDefault, ""),
        SeccompProfile::Unconfined => profile(ProfileType::Unconfined, ""),
        SeccompProfile::Localhost(path) => profile(ProfileType::Localhost, path),
    }
}

fn from_seccomp(from: Option<p::SecurityProfile>) -> SeccompProfile {
    use p::security_profile::ProfileType;
    let Some(from) = from else { return SeccompProfile::Unconfined };
    match from.profile_type() {
        ProfileType::RuntimeDefault => SeccompProfile::RuntimeDefault,
        ProfileType::Unconfined => SeccompProfile::Unconfined,
        ProfileType::Localhost => SeccompProfile::Localhost(from.localhost_ref),
    }
}

fn to_groups_policy(from: SupplementalGroupsPolicy) -> i32 {
    match from {
        SupplementalGroupsPolicy::Merge => p::SupplementalGroupsPolicy::Merge,
        SupplementalGroupsPolicy::Strict => p::SupplementalGroupsPolicy::Strict,
    }
    .into()
}

fn from_groups_policy(from: p::SupplementalGroupsPolicy) -> SupplementalGroupsPolicy {
    match from {
        p::SupplementalGroupsPolicy::Merge => SupplementalGroupsPolicy::Merge,
        p::SupplementalGroupsPolicy::Strict => SupplementalGroupsPolicy::Strict,
    }
}

#[cfg(test)]
mod tests;
