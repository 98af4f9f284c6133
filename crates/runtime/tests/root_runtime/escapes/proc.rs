//! /proc, /sys and /dev that are not what they seem, and writes of ours that are led elsewhere.

use super::{TREASURE, directory, escaped, layer, link_in_image, output, rewrite, volume};
use crate::bed::{Bed, shell};
use cri::*;
use std::path::Path;

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: /proc and /sys of the image are links.
pub async fn linked_system_directories(bed: &mut Bed) {
    std::fs::create_dir(layer(bed, "elsewhere")).unwrap();
    for name in ["proc", "sys"] {
        let sandbox = bed.sandbox().await;
        link_in_image(bed, name, "elsewhere");
        let tried = output(bed, &sandbox, shell(&rewrite(TREASURE))).await;
        std::fs::remove_file(layer(bed, name)).unwrap();
        std::fs::create_dir(layer(bed, name)).unwrap();
        refused(name, tried);
    }
}

/// CVE-2026-41579: /dev of the image is a link.
pub async fn linked_dev(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    link_in_image(bed, "dev", "root");
    refused("dev", output(bed, &sandbox, shell("[ -c /root/null ] && echo REWROTE /root")).await);
}

fn refused(name: &str, tried: Result<String>) {
    match tried {
        Ok(text) if text.contains("REWROTE") => escaped!("/{name} is a link: {text}"),
        Ok(text) => panic!("/{name} is a link, and the container ran: {text}"),
        Err(error) => assert!(error.to_string().contains("not a directory"), "{name}: {error}"),
    }
}

/// CVE-2019-16884: a volume over /proc, or inside it, would take what is written to /proc/self.
pub async fn volumes_over_proc(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let fake = directory(bed, "fake");
    std::fs::create_dir_all(fake.join("self/attr")).unwrap();
    for file in ["self/attr/exec", "attr/exec", "exec"] {
        std::fs::create_dir_all(fake.join(file).parent().unwrap()).unwrap();
        std::fs::write(fake.join(file), "FAKE").unwrap();
    }
    link_in_image(bed, "alias", "/proc");
    for target in
        ["/proc", "/proc/", "/proc/self", "/proc/sys/kernel", "/proc/./sys", "/alias", "/alias/sys", "/tmp/../proc"]
    {
        let mut config = shell("cat /proc/self/attr/exec /proc/sys/exec /proc/sys/kernel/exec /proc/self/exec");
        config.mounts = vec![volume(target, &fake)];
        match output(bed, &sandbox, config).await {
            Ok(text) if text.contains("FAKE") => escaped!("{target}: /proc is the container's own"),
            Ok(text) => panic!("{target}: {text}"),
            Err(error) => assert!(error.to_string().contains("inside /proc"), "{target}: {error}"),
        }
    }
}

/// CVE-2025-52881, CVE-2025-62596: a container mounts its own files where an exec would write to /proc/self.
pub async fn redirected_writes(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let files = "oom_score_adj attr/exec attr/apparmor/exec attr/keycreate uid_map gid_map setgroups";
    let mut config = shell(&format!(
        "mount -t tmpfs t /proc; mkdir -p /proc/self/attr/apparmor /proc/thread-self; \
         for f in {files}; do echo mine > /proc/self/$f; done; echo ready; sleep 100"
    ));
    config.security_context.add_capabilities = vec!["SYS_ADMIN".into()];
    config.resources.oom_score_adj = 500;
    let id = bed.run(&sandbox, config).await;
    crate::life::wait_for_log(bed, "stdout F ready").await;
    let seen = bed.exec(&id, &format!("cd /proc/self && cat {files}")).await;
    let seen = String::from_utf8(seen.stdout).unwrap();
    if seen.lines().any(|line| line != "mine") {
        escaped!("what an exec writes of itself went to the container's file: {seen:?}");
    }
    assert_eq!(seen.lines().count(), 7);
}

/// CVE-2022-0811 and the sysctls of CVE-2025-52881: only those of the pod's own namespaces are written.
pub async fn sysctls_of_the_node(bed: &mut Bed) {
    let path = |name: &str| Path::new("/proc/sys").join(name);
    let now = |name: &str| std::fs::read_to_string(path(name)).unwrap().trim().to_owned();
    let panic = now("kernel/panic");
    for (name, value) in [
        ("kernel.core_pattern", now("kernel/core_pattern")),
        ("vm.swappiness", now("vm/swappiness")),
        ("kernel.panic", "7".into()),
        ("net.ipv4/../../../kernel/panic", "7".into()),
        ("net/../kernel/panic", "7".into()),
        ("../sys/kernel/panic", "7".into()),
        ("net.ipv4.ip_forward+kernel.panic", "7".into()),
    ] {
        let mut config = bed.sandbox_config();
        config.sysctls = [(name.to_owned(), value)].into();
        let made = bed.service().run_pod_sandbox(config).await;
        let changed = now("kernel/panic") != panic;
        std::fs::write(path("kernel/panic"), &panic).unwrap();
        if changed || made.is_ok() {
            escaped!("{name} of the node was written");
        }
    }
}
