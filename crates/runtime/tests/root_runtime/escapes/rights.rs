//! Rights that a container should not come by.

use super::{escaped, layer, output};
use crate::bed::{Bed, shell};
use std::os::unix::fs::MetadataExt;

/// Capabilities of a file: version 2, effective, nothing permitted, DAC_OVERRIDE and NET_BIND_SERVICE inheritable.
fn inheriting() -> Vec<u8> {
    [0x0200_0001u32, 0, 1 << 1 | 1 << 10, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// CVE-2022-29162, CVE-2025-27612: a user without rights regains them by a file with inheritable capabilities.
pub async fn inheritable_capabilities(bed: &mut Bed) {
    let file = layer(bed, "bin/gain");
    std::fs::copy("/usr/bin/busybox", &file).unwrap();
    rustix::fs::setxattr(&file, "security.capability", &inheriting(), rustix::fs::XattrFlags::empty()).unwrap();
    let sandbox = bed.sandbox().await;
    // Its name tells busybox nothing: the applet is its first argument.
    let busybox = layer(bed, "bin/busybox-gain");
    std::fs::rename(&file, &busybox).unwrap();
    let mut config =
        shell("/bin/busybox-gain grep Cap /proc/self/status; grep -e Cap -e NoNewPrivs /proc/self/status; sleep 0.2");
    config.security_context.run_as_user = Some(1000);
    let first = output(bed, &sandbox, config.clone()).await.unwrap();
    config.command[2] = "sleep 100".into();
    let id = bed.run(&sandbox, config).await;
    let exec = bed.exec(&id, "/bin/busybox-gain grep Cap /proc/self/status; grep Cap /proc/self/status").await;
    for text in [first, String::from_utf8(exec.stdout).unwrap()] {
        let values = |key: &str| -> Vec<u64> {
            let of = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
            text.lines().filter(|line| line.starts_with(key)).map(of).collect()
        };
        if values("CapEff:").iter().any(|set| *set != 0) {
            escaped!("user 1000 has capabilities: {text}");
        }
        assert_eq!((values("CapInh:"), values("CapAmb:"), values("CapPrm:")), (vec![0; 2], vec![0; 2], vec![0; 2]));
    }
}

/// An exec has no more than the first process.
pub async fn rights_of_execs(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let mut config = shell("sleep 100");
    config.security_context.drop_capabilities = vec!["ALL".into()];
    config.security_context.add_capabilities = vec!["NET_BIND_SERVICE".into()];
    config.security_context.no_new_privs = true;
    let id = bed.run(&sandbox, config).await;
    let text = bed.exec(&id, "grep -e Cap -e NoNewPrivs -e Seccomp: /proc/self/status").await;
    let text = String::from_utf8(text.stdout).unwrap();
    let words: Vec<_> = text.split_whitespace().collect();
    let (none, one) = ("0000000000000000", "0000000000000400");
    assert_eq!(
        words,
        [
            "CapInh:",
            none,
            "CapPrm:",
            one,
            "CapEff:",
            one,
            "CapBnd:",
            one,
            "CapAmb:",
            none,
            "NoNewPrivs:",
            "1",
            "Seccomp:",
            "2"
        ]
    );
}

/// GHSA-g54h-m393-cpwq: a device that nobody allowed is made by its number and opened.
pub async fn devices_by_number(bed: &mut Bed) {
    // Nothing but the cgroup guards this one.
    let number = std::fs::metadata("/dev/cpu_dma_latency").unwrap().rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let sandbox = bed.sandbox().await;
    let script = format!("mknod /tmp/d c {major} {minor} && head -c0 /tmp/d 2>&1 && echo OPENED");
    let text = output(bed, &sandbox, shell(&script)).await.unwrap();
    if text.contains("OPENED") {
        escaped!("device {major}:{minor} was opened");
    }
    assert!(text.contains("not permitted"), "{text}");
}

/// CVE-2024-40635: an id that wraps around, or that the kernel takes for "leave it", runs as root.
pub async fn wrapping_ids(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    std::fs::write(
        layer(bed, "etc/passwd"),
        "wide:x:4294967296:4294967296::/:/bin/sh\nmost:x:4294967295:4294967295::/:\n",
    )
    .unwrap();
    for user in ["4294967296", "4294967295", "4294967295:4294967295", "1000:4294967295", "-1", "wide", "most"] {
        let mut config = shell("id -u; id -g");
        config.security_context.run_as_username = user.into();
        match output(bed, &sandbox, config).await {
            Ok(ids) if ids.lines().any(|id| id == "0") => escaped!("user {user} runs as root: {ids:?}"),
            Ok(ids) => panic!("{user}: {ids:?}"),
            Err(_) => {}
        }
    }
}
