//! Long runs, asked for by name: `root_runtime soak`.

use crate::bed::{Bed, children, shell};
use std::collections::BTreeSet;
use std::path::Path;

/// Descriptors, capabilities and seccomp mode of a process, as the script below prints them.
const SCRIPT: &str =
    "echo $(ls /proc/self/fd | wc -w) $(grep CapEff /proc/self/status) $(grep Seccomp: /proc/self/status)";

/// A thousand containers and a thousand execs: nothing leaks into any of them.
pub async fn a_thousand_processes(bed: &mut Bed) {
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let sandbox = bed.sandbox().await;
        for _ in 0..10 {
            let (code, lines) = bed.script(&sandbox, shell(SCRIPT)).await;
            assert_eq!(code, 0);
            seen.extend(lines.into_iter().map(|l| l.trim_start_matches("stdout F ").to_owned()));
        }
        let id = bed.run(&sandbox, shell("sleep 1000")).await;
        for _ in 0..10 {
            let output = bed.exec(&id, SCRIPT).await;
            seen.insert(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        }
        bed.service().remove_pod_sandbox(&sandbox).await.unwrap();
    }
    // 0, 1, 2 and the directory that `ls` reads.
    assert_eq!(seen, BTreeSet::from(["4 CapEff: 00000000a80425fb Seccomp: 2".to_owned()]));
}

fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|l| l.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What is there: descriptors, mounts, namespaces of ours, cgroups, children.
fn inventory(bed: &Bed) -> Vec<(&'static str, usize)> {
    let lines = |path: &str| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let cgroup = Path::new("/sys/fs/cgroup/memory").join(&bed.cgroup_root[1..]);
    let cgroups = crate::bed::entries(&cgroup).into_iter().filter(|e| Path::new(e).is_dir()).count();
    vec![
        ("descriptors", std::fs::read_dir("/proc/self/fd").unwrap().count()),
        ("mounts", lines("/proc/self/mountinfo")),
        ("cgroups", cgroups),
        ("children", children().len()),
        ("threads below the limit", usize::from(std::fs::read_dir("/proc/self/task").unwrap().count() < 600)),
    ]
}

/// Two thousand lives of a pod: everything is back where it was.
pub async fn two_thousand_lives(bed: &mut Bed) {
    let life = async |bed: &Bed| {
        let sandbox = bed.sandbox().await;
        let id = bed.run(&sandbox, shell("true")).await;
        bed.exited(&id).await;
        bed.service().remove_pod_sandbox(&sandbox).await.unwrap();
        bed.service().remove_pod_cgroup(crate::bed::CGROUP_PARENT).await.unwrap();
    };
    for _ in 0..100 {
        life(bed).await;
    }
    let (before, memory_before) = (inventory(bed), memory());
    for _ in 0..1900 {
        life(bed).await;
    }
    let (after, memory_after) = (inventory(bed), memory());
    println!("     {after:?}, private memory {memory_before} kB before, {memory_after} kB after");
    assert_eq!(after, before);
    assert_eq!(bed.leftovers(), Vec::<String>::new());
    assert!(memory_after < memory_before + 4096, "{memory_before} kB became {memory_after} kB");
}
