//! Published escapes of runc and youki (2019 to November 2026), tried on ours.
//!
//! An attack that wins panics with `ESCAPED: …`. `cargo xtask escapes` runs each against this tree, where it must
//! not win, and against a copy of it from which `weak/NAME.patch` has taken the guard, where it must.
//!
//! | advisory | what it was | here | weak/ |
//! |---|---|---|---|
//! | CVE-2019-5736 | the runtime's binary is overwritten through /proc/PID/exe | `descriptors::our_binary` | `writable-binary` |
//! | CVE-2019-16884 | a volume over /proc takes the writes of labels | `proc::volumes_over_proc` | `volumes-over-proc` |
//! | CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867 (youki) | /proc or /sys of the image is a link | `proc::linked_system_directories` | `linked-proc` |
//! | CVE-2026-41579 | /dev of the image is a link | `proc::linked_dev` | `linked-dev` |
//! | GHSA-g54h-m393-cpwq (runc, 2020) | devices are allowed unless named | `rights::devices_by_number` | `allowed-devices` |
//! | CVE-2021-30465 | a mount's target is exchanged for a link between look and use | `mounts::exchanged_targets` | `checked-targets` |
//! | CVE-2021-43784 | a length overflows in the netlink message to the C half | not here: no netlink message, no second half; frames of JSON have a checked length | |
//! | CVE-2022-29162, CVE-2025-27612 (youki) | inheritable capabilities | `rights::inheritable_capabilities` | `inheritable` |
//! | CVE-2023-25809 | cgroups are writable from inside | `mounts::writable_cgroups` | `writable-cgroups` |
//! | CVE-2024-21626 | a leaked descriptor of the node as working directory or program | `descriptors::leaked_directories` | `leaked-directory` |
//! | CVE-2024-45310 | directories and files are made on the node over a link | `mounts::links_to_the_node` | `targets-by-name` |
//! | CVE-2025-31133, CVE-2025-62161 (youki) | what masks files is a link in /dev | `devices::linked_null` | `null-by-name` |
//! | CVE-2025-52565 | what is shown as /dev/console is a link in /dev/pts | `devices::linked_terminal` | `terminal-by-name` |
//! | CVE-2025-52881, CVE-2025-62596 (youki) | writes to /proc are led elsewhere by the container | `proc::redirected_writes` | `redirected-writes` |
//! | the same, for sysctls; CVE-2022-0811 (CRI-O) | sysctls that are the node's | `proc::sysctls_of_the_node` | `any-sysctl` |
//! | CVE-2026-119101 | symlinks confuse the mounts of checkpoint and restore | not here: no checkpoints, CRI's call answers `Unimplemented` | |
//! | CVE-2024-3154 | annotations become systemd properties | not here: no systemd units, no annotations reach cgroups | |
//!
//! Of their kind, from other projects:
//!
//! | advisory | what it was | here | weak/ |
//! |---|---|---|---|
//! | CVE-2016-9962 (runc) | a process on its way in shows those inside the node's root | `descriptors::joining_processes` | `open-joiner` |
//! | log symlinks (kubelet, 2019; CVE-2021-25741's kin) | the log's path leads over links | `files::linked_logs` | `linked-logs` |
//! | CVE-2024-40635 (containerd) | an id that wraps around is root | `rights::wrapping_ids` | `wrapping-ids` |
//! | CVE-2022-1708, CVE-2024-9676 (CRI-O, storage) | user files of the image that never end, or are the node's | `files::strange_user_files` | |
//! | CVE-2020-15257 (containerd) | the shim's socket is abstract, so host networking reaches it | `files::no_abstract_sockets` | |
//! | CVE-2017-1002101, CVE-2021-25741 (kubelet) | subPath is exchanged for a link | `kubelet::volumes::subpath`, which has its weak rival beside it | |

pub mod descriptors;
pub mod devices;
pub mod files;
pub mod mounts;
pub mod proc;
pub mod rights;

use crate::bed::{Bed, read_log};
use cri::*;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Ends an attack that won.
macro_rules! escaped {
    ($($what:tt)*) => { panic!("ESCAPED: {}", format!($($what)*)) };
}
use escaped;

/// A path of the image.
fn layer(bed: &Bed, path: &str) -> PathBuf {
    bed.dir.join("layer").join(path)
}

/// Puts a link where the image has a directory, or nothing.
fn link_in_image(bed: &Bed, path: &str, to: impl AsRef<Path>) {
    let _ = std::fs::remove_dir_all(layer(bed, path));
    symlink(to, layer(bed, path)).unwrap();
}

/// A directory beside the node's other things.
fn directory(bed: &Bed, name: &str) -> PathBuf {
    let dir = bed.dir.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn volume(target: &str, source: &Path) -> Mount {
    Mount { container_path: target.into(), host_path: source.display().to_string(), ..Mount::default() }
}

/// What a container prints to its end, or why it did not start.
async fn output(bed: &Bed, sandbox: &str, config: ContainerConfig) -> Result<String> {
    let log = bed.dir.join("logs").join(&config.log_path);
    let id = bed.service().create_container(sandbox, config).await?;
    let started = bed.service().start_container(&id).await;
    if started.is_ok() {
        bed.exited(&id).await;
    }
    bed.service().remove_container(&id).await.unwrap();
    let lines = read_log(&log);
    let _ = std::fs::remove_file(log);
    started?;
    let text = |line: String| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
    Ok(lines.into_iter().map(text).collect::<Vec<_>>().join("\n"))
}

/// A file of the node that no container may change; reading and writing back what it holds does no harm.
const TREASURE: &str = "/proc/sys/kernel/core_pattern";

/// Shell that writes `file` back to itself and says so.
fn rewrite(file: &str) -> String {
    format!("cat {file} > /tmp/was && [ -s /tmp/was ] && cat /tmp/was > {file} && echo REWROTE $(cat /tmp/was)")
}
