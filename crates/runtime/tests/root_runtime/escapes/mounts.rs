//! Mounts whose targets lead out of the root, and what is mounted writable.

use super::{directory, escaped, layer, link_in_image, output, volume};
use crate::bed::{Bed, shell};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// CVE-2024-45310: what is made for a mount to stand on is made on the node, where a link leads there.
pub async fn links_to_the_node(bed: &mut Bed) {
    let victim = directory(bed, "victim");
    let (first, second) = (directory(bed, "first"), directory(bed, "second"));
    std::fs::write(second.join("f"), "x").unwrap();
    link_in_image(bed, "absolute", &victim);
    link_in_image(bed, "up", Path::new("../../../../../../../..").join(victim.strip_prefix("/").unwrap()));
    // A link inside a volume that is mounted first.
    symlink(&victim, first.join("link")).unwrap();
    let sandbox = bed.sandbox().await;
    let mut config = shell("cat /absolute/a/f /first/link/b/f /up/c/f; cat /first/link/d");
    config.mounts = vec![
        volume("/absolute/a", &second),
        volume("/first", &first),
        volume("/first/link/b", &second),
        volume("/first/link/d", &second.join("f")),
        volume("/up/c", &second),
    ];
    let ran = output(bed, &sandbox, config).await;
    let made: Vec<_> = std::fs::read_dir(&victim).unwrap().flatten().map(|e| e.file_name()).collect();
    if !made.is_empty() {
        escaped!("{made:?} were made on the node");
    }
    assert_eq!(ran.unwrap(), "xxxx", "each is where the link leads inside");
}

/// CVE-2021-30465: while a container is made, another exchanges the target's directory for a link to the node.
pub async fn exchanged_targets(bed: &mut Bed) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let victim = directory(bed, "victim");
    let (shared, second) = (directory(bed, "shared"), directory(bed, "second"));
    std::fs::create_dir(shared.join("real")).unwrap();
    symlink(&victim, shared.join("link")).unwrap();
    let sandbox = bed.sandbox().await;
    let stop = AtomicBool::new(false);
    let won = || std::fs::read_dir(&victim).unwrap().count() > 0;
    let (a, b) = (shared.join("real"), shared.join("link"));
    let exchange = || {
        while !stop.load(Ordering::Relaxed) {
            renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
        }
    };
    let until = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        let handle = tokio::runtime::Handle::current();
        scope.spawn(exchange);
        tokio::task::block_in_place(|| {
            handle.block_on(async {
                for round in (0..200).take_while(|_| !won() && Instant::now() < until) {
                    let mut config = shell("true");
                    config.mounts = vec![volume("/v", &shared), volume(&format!("/v/real/made{round}"), &second)];
                    // Either is right: where the link leads inside, or a refusal.
                    let _ = output(bed, &sandbox, config).await;
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
    });
    if won() {
        escaped!("a mount's target was made on the node");
    }
}

/// CVE-2023-25809: the container raises its own limits.
pub async fn writable_cgroups(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let mut config = shell(
        "for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do \
         [ -e $f ] || continue; echo 268435456 > $f; echo limit $(cat $f); done; \
         ls -d /sys/fs/cgroup/*/release_agent",
    );
    config.resources.memory_limit_in_bytes = 64 << 20;
    let text = output(bed, &sandbox, config).await.unwrap();
    if text.contains("limit 268435456") {
        escaped!("the container raised its own limit");
    }
    assert!(text.contains("limit 67108864") && !text.contains("/release_agent\n"), "{text}");
    assert!(layer(bed, "sys").exists());
}
