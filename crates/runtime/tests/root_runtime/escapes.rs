//! Published escapes of container runtimes, tried on ours.

use crate::bed::{Bed, shell};
use cri::*;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn layer(bed: &Bed, path: &str) -> PathBuf {
    bed.dir.join("layer").join(path)
}

/// Puts a link where the image has a directory.
fn replace_by_link(bed: &Bed, path: &str, to: &Path) {
    std::fs::remove_dir_all(layer(bed, path)).unwrap();
    symlink(to, layer(bed, path)).unwrap();
}

async fn create(bed: &Bed, sandbox: &str, config: ContainerConfig) -> Result<String> {
    bed.service().create_container(sandbox, config).await
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc, /sys and /dev of the image are links to elsewhere.
pub async fn linked_system_directories(bed: &mut Bed) {
    for name in ["proc", "sys", "dev"] {
        replace_by_link(bed, name, Path::new("/root"));
        let sandbox = bed.sandbox().await;
        let error = create(bed, &sandbox, shell("cat /proc/self/status")).await.expect_err(name);
        assert!(error.to_string().contains("not a directory"), "{name}: {error}");
        std::fs::remove_file(layer(bed, name)).unwrap();
        std::fs::create_dir(layer(bed, name)).unwrap();
    }
}

/// CVE-2019-16884: a volume over /proc, or inside it, would hide what LSMs and masks are written to.
pub async fn volumes_over_proc(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let volume = bed.dir.join("volume");
    std::fs::create_dir_all(volume.join("self/attr")).unwrap();
    std::fs::create_dir_all(bed.dir.join("layer/alias")).unwrap();
    for target in ["/proc", "/proc/", "/proc/self", "/proc/sys/kernel", "/proc/./sys"] {
        let mut config = shell("true");
        config.mounts =
            vec![Mount { container_path: target.into(), host_path: volume.display().to_string(), ..Mount::default() }];
        let error = create(bed, &sandbox, config).await.expect_err(target);
        assert!(error.to_string().contains("inside /proc"), "{target}: {error}");
    }
}

/// CVE-2021-30465, CVE-2024-45310: the way to a mount's target leads over links out of the root.
pub async fn links_on_the_way_to_a_mount(bed: &mut Bed) {
    let victim = bed.dir.join("victim");
    std::fs::create_dir_all(&victim).unwrap();
    symlink(&victim, layer(bed, "absolute")).unwrap();
    symlink("../../../../../../../../..", layer(bed, "up")).unwrap();
    let (first, second) = (bed.dir.join("first"), bed.dir.join("second"));
    std::fs::create_dir_all(&first).unwrap();
    std::fs::create_dir_all(&second).unwrap();
    std::fs::write(second.join("f"), "x").unwrap();
    // A link inside a volume that is mounted first.
    symlink(&victim, first.join("link")).unwrap();
    let sandbox = bed.sandbox().await;
    let mount = |target: String, source: &Path| Mount {
        container_path: target,
        host_path: source.display().to_string(),
        ..Mount::default()
    };
    let mut config = shell("cat /absolute/made/f /first/link/made/f /up/made/f");
    config.mounts = vec![
        mount("/absolute/made".into(), &second),
        mount("/first".into(), &first),
        mount("/first/link/made".into(), &second),
        mount("/up/made".into(), &second),
    ];
    let (code, lines) = bed.script(&sandbox, config).await;
    let text: String = lines.iter().filter_map(|line| line.splitn(3, ' ').nth(2)).collect();
    assert_eq!((code, text.as_str()), (0, "xxx"), "each is where the link leads inside");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0, "nothing was made on the node");
    assert!(!Path::new("/made").exists());
}

/// CVE-2025-31133, CVE-2025-52565, CVE-2025-62161, CVE-2025-62596: what masks and terminals are bound from is a link.
pub async fn links_in_dev(bed: &mut Bed) {
    for (name, to) in
        [("null", "/proc/sys/kernel/core_pattern"), ("console", "/proc/sysrq-trigger"), ("ptmx", "/etc/passwd")]
    {
        symlink(to, layer(bed, "dev").join(name)).unwrap();
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let sandbox = bed.sandbox().await;
    let mut config = shell(
        "stat -c '%F %t:%T' /dev/null; cat /proc/timer_list | wc -c; echo evil > /proc/timer_list; \
         echo evil > /proc/kcore; echo evil > /proc/sys/kernel/core_pattern; readlink /dev/console; ls -d /dev/ptmx",
    );
    config.tty = true;
    let (_, lines) = bed.script(&sandbox, config).await;
    let text = lines.join("\n");
    assert!(text.contains("character special file 1:3"), "{text}");
    assert!(text.contains("Read-only file system") || text.contains("ermission denied"), "{text}");
    assert!(!text.contains("sysrq"), "{text}");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

/// CVE-2025-52881 and older: writes of sysctls must reach those of the pod's namespaces, and only those.
pub async fn sysctls_of_the_node(bed: &mut Bed) {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap();
    let before = (read("kernel/core_pattern"), read("kernel/panic"), read("vm/swappiness"));
    for name in [
        "kernel.core_pattern",
        "vm.swappiness",
        "net.ipv4/../../../kernel/panic",
        "net/../kernel/panic",
        "../sysrq-trigger",
        "kernel.panic",
    ] {
        let mut config = bed.sandbox_config();
        config.sysctls = [(name.to_owned(), "1".to_owned())].into();
        let made = bed.service().run_pod_sandbox(config).await;
        assert!(made.is_err(), "{name}: {made:?}");
    }
    assert_eq!((read("kernel/core_pattern"), read("kernel/panic"), read("vm/swappiness")), before);
}

/// CVE-2022-29162, CVE-2025-27612: an exec must not have more than the first process, nor anything inheritable.
pub async fn capabilities_of_execs(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let mut config = shell("grep Cap /proc/self/status; sleep 100");
    config.security_context.drop_capabilities = vec!["ALL".into()];
    config.security_context.add_capabilities = vec!["NET_BIND_SERVICE".into()];
    config.security_context.no_new_privs = true;
    let id = bed.run(&sandbox, config).await;
    let text = bed.exec(&id, "grep -e Cap -e NoNewPrivs -e Seccomp: /proc/self/status").await;
    let text = String::from_utf8(text.stdout).unwrap();
    let value = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key}: {text}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!((value("CapInh:").as_str(), value("CapAmb:").as_str()), ("0000000000000000", "0000000000000000"));
    assert_eq!((value("CapEff:"), value("CapBnd:")), ("0000000000000400".into(), "0000000000000400".into()));
    assert_eq!((value("NoNewPrivs:").as_str(), value("Seccomp:").as_str()), ("1", "2"));
}

/// The log of a container is a link that somebody put there.
pub async fn linked_logs(bed: &mut Bed) {
    let victim = bed.dir.join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let sandbox = bed.sandbox().await;
    std::fs::create_dir_all(bed.dir.join("logs/c")).unwrap();
    symlink(&victim, bed.dir.join("logs/c/0.log")).unwrap();
    let _ = create(bed, &sandbox, shell("echo evil")).await;
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
}

/// Files of the image that the runtime reads never hold it up, and never lead it to the node's.
pub async fn strange_user_files(bed: &mut Bed) {
    let passwd = layer(bed, "etc/passwd");
    std::fs::remove_file(&passwd).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &passwd,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let sandbox = bed.sandbox().await;
    let mut config = shell("id");
    config.security_context.run_as_username = "web".into();
    let made = tokio::time::timeout(Duration::from_secs(5), create(bed, &sandbox, config.clone())).await;
    assert!(made.expect("a fifo does not block").is_err());
    std::fs::remove_file(&passwd).unwrap();
    // The node's users, seen over a link, are not the image's.
    let secret = bed.dir.join("users");
    std::fs::write(&secret, "web:x:0:0::/:/bin/sh\n").unwrap();
    symlink(&secret, &passwd).unwrap();
    assert!(create(bed, &sandbox, config).await.is_err());
}
