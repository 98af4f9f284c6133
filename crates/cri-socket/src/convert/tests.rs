//! What goes out comes back the same.

use super::*;
use cri::{
    ContainerConfig, ContainerMetadata, LinuxContainerSecurityContext, Mount, MountPropagation, PodSandboxConfig,
};

#[test]
fn configurations_survive_the_wire() {
    let mut config = ContainerConfig {
        metadata: ContainerMetadata { name: "c".into(), attempt: 3 },
        image: "sha256:1".into(),
        user_specified_image: "busybox".into(),
        envs: vec![("A".into(), "1".into()), ("B".into(), "ü".into())],
        stop_signal: "SIGRTMIN+3".into(),
        cdi_devices: vec!["vendor.com/gpu=0".into()],
        ..ContainerConfig::default()
    };
    config.mounts.push(Mount {
        container_path: "/a".into(),
        host_path: "/b".into(),
        propagation: MountPropagation::Bidirectional,
        ..Mount::default()
    });
    config.security_context = LinuxContainerSecurityContext {
        run_as_user: Some(0),
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(vec!["/proc/sys".into()]),
        seccomp: SeccompProfile::Localhost("/p".into()),
        target_id: "t".into(),
        ..LinuxContainerSecurityContext::default()
    };
    config.resources.unified.insert("memory.high".into(), "1".into());
    let back = from_container_config(to_container_config(&config)).expect("config");
    assert_eq!(back, config);
    let sandbox =
        PodSandboxConfig { hostname: "h".into(), cgroup_parent: "/kubepods/podx".into(), ..Default::default() };
    assert_eq!(from_sandbox_config(to_sandbox_config(&sandbox), String::new()), sandbox);
}

#[test]
fn errors_keep_their_kind_and_image_mounts_are_refused() {
    let check = |error: Error, expect: &str| {
        assert_eq!(from_status(&to_status(error)).to_string(), expect);
    };
    check(Error::NotFound("container x".into()), "container x not found");
    check(Error::FailedPrecondition("no".into()), "rpc error: code = FailedPrecondition desc = no");
    check(Error::Internal("boom".into()), "rpc error: code = Unknown desc = boom");
    let mount = p::Mount { image: Some(p::ImageSpec::default()), ..Default::default() };
    assert!(from_container_config(p::ContainerConfig { mounts: vec![mount], ..Default::default() }).is_err());
}

#[test]
fn pressure_comes_back() {
    let stalls = |total| cri::Stalls { total, avg10: 125, avg60: 7, avg300: 10_000 };
    let pressure = cri::Pressure { some: stalls(5), full: stalls(3) };
    let pressure = cri::Pressures { cpu: Some(pressure), memory: None, io: Some(pressure) };
    let counted = cri::Stats { pressure, ..cri::Stats::default() };
    let sent = p::ContainerStats {
        cpu: Some(super::stats::to_cpu(&counted)),
        memory: Some(super::stats::to_memory(&counted)),
        io: super::stats::to_io(&counted),
        ..p::ContainerStats::default()
    };
    assert_eq!(super::stats::from_stats(sent), counted);
}
