//! What a container can see and do.

use crate::bed::{Bed, shell};
use cri::*;
use std::path::Path;

async fn stdout(bed: &Bed, sandbox: &str, config: ContainerConfig) -> Vec<String> {
    let (_, lines) = bed.script(sandbox, config).await;
    lines.into_iter().map(|l| l.splitn(3, ' ').nth(2).unwrap_or_default().to_string()).collect()
}

pub async fn process_is_confined(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let lines = stdout(
        bed,
        &sandbox,
        shell("echo $$; ls /proc/$$/fd; grep -E 'Seccomp:|CapEff|CapBnd|NoNewPrivs' /proc/self/status"),
    )
    .await;
    assert_eq!(lines[0], "1");
    assert_eq!(lines[1..4], ["0", "1", "2"]);
    let status: Vec<_> = lines[4..].iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(status, ["CapEff: 00000000a80425fb", "CapBnd: 00000000a80425fb", "NoNewPrivs: 0", "Seccomp: 2"]);
    let mut config = shell("grep -E 'Seccomp:|CapEff|NoNewPrivs' /proc/self/status");
    config.security_context.no_new_privs = true;
    config.security_context.drop_capabilities = vec!["ALL".into()];
    config.security_context.add_capabilities = vec!["NET_ADMIN".into()];
    let status: Vec<_> =
        stdout(bed, &sandbox, config).await.iter().map(|l| l.split_whitespace().nth(1).unwrap().to_string()).collect();
    assert_eq!(status, ["0000000000001000", "1", "2"]);
    let id = bed.run(&sandbox, shell("sleep 100")).await;
    let seen =
        bed.exec(&id, "ls /proc/$$/fd; grep -E 'Seccomp:|CapEff' /proc/self/status; mount -t tmpfs t /tmp").await;
    let text = String::from_utf8(seen.stdout).unwrap();
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "CapEff:", "00000000a80425fb", "Seccomp:", "2"]
    );
    assert_ne!(seen.exit_code, 0);
}

pub async fn file_systems(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let volume = bed.dir.join("volume");
    std::fs::create_dir_all(volume.join("sub")).unwrap();
    std::fs::write(volume.join("file"), "from the node").unwrap();
    let mount = |container: &str, readonly| Mount {
        container_path: container.into(),
        host_path: volume.display().to_string(),
        readonly,
        ..Mount::default()
    };
    let mut config = shell(
        "cat /v/sub/deep/file; echo; touch /v/x && echo wrote; touch /ro/y || echo readonly; touch /root-file || echo root readonly; \
         ls /dev | sort | tr '\\n' ' '; echo; cat /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware | grep -v : | wc -w; \
         echo 1 > /proc/sys/kernel/panic || echo sys readonly; ls /sys/fs/cgroup | head -1; pwd; cat /var/run/secrets/f",
    );
    config.mounts = vec![mount("/v/sub/deep", false), mount("/v", false), mount("/ro", true)];
    let secret = bed.dir.join("secret");
    std::fs::create_dir_all(&secret).unwrap();
    std::fs::write(secret.join("f"), "s").unwrap();
    config.mounts.push(Mount {
        container_path: "/var/run/secrets".into(),
        host_path: secret.display().to_string(),
        readonly: true,
        ..Mount::default()
    });
    config.security_context.readonly_rootfs = true;
    config.working_dir = "/made/here".into();
    let lines = stdout(bed, &sandbox, config).await;
    let has = |line: &str| assert!(lines.iter().any(|l| l.contains(line)), "{line}: {lines:#?}");
    for line in ["from the node", "wrote", "readonly", "root readonly", "sys readonly", "/made/here"] {
        has(line);
    }
    has("core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
    assert!(volume.join("x").exists() && !volume.join("y").exists());
    assert!(!Path::new("/root-file").exists());
    let counts: Vec<_> = lines.iter().filter(|l| l.as_str() == "0").collect();
    assert_eq!(counts.len(), 2, "masked paths are empty: {lines:#?}");
}

pub async fn users(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let check =
        "id -u; id -g; id -G; echo $HOME; cat /proc/self/status | grep CapEff | tr -d '\\t'; echo ok > /dev/stdout";
    for (set, expect) in [
        (
            (|s: &mut LinuxContainerSecurityContext| s.run_as_username = "web".into())
                as fn(&mut LinuxContainerSecurityContext),
            ["33", "34", "34 60", "/srv"],
        ),
        (
            |s| (s.run_as_user, s.run_as_group, s.supplemental_groups) = (Some(1000), Some(2000), vec![3000]),
            ["1000", "2000", "2000 3000", "/"],
        ),
        (
            |s| (s.run_as_user, s.supplemental_groups_policy) = (Some(33), SupplementalGroupsPolicy::Strict),
            ["33", "34", "34", "/srv"],
        ),
    ] {
        let mut config = shell(check);
        set(&mut config.security_context);
        let lines = stdout(bed, &sandbox, config).await;
        assert_eq!(lines[..4], expect);
        assert_eq!(lines[4..], ["CapEff:0000000000000000", "ok"]);
    }
}

pub async fn privileged_and_host(bed: &mut Bed) {
    let mut sandbox_config = bed.sandbox_config();
    sandbox_config.privileged = true;
    sandbox_config.namespaces = NamespaceOption {
        network: NamespaceMode::Node,
        pid: NamespaceMode::Node,
        ipc: NamespaceMode::Node,
        userns: None,
    };
    let sandbox = bed.service().run_pod_sandbox(sandbox_config.clone()).await.unwrap();
    let mut config = shell(
        "mount -t tmpfs t /tmp && echo mounted; grep -E 'Seccomp:' /proc/self/status; for n in net pid ipc uts; do readlink /proc/self/ns/$n; done; ls /dev/kmsg; sleep 7654 & echo bg",
    );
    config.security_context.privileged = true;
    config.security_context.namespaces = sandbox_config.namespaces;
    let lines = stdout(bed, &sandbox, config).await;
    assert_eq!((lines[0].as_str(), lines[1].as_str()), ("mounted", "Seccomp:\t0"));
    for (line, name) in lines[2..6].iter().zip(["net", "pid", "ipc", "uts"]) {
        assert_eq!(*line, std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap());
    }
    assert_eq!(lines[6], "/dev/kmsg");
    // What it left in the background died with it, though its PID namespace is the node's.
    let commands = crate::bed::entries(Path::new("/proc"))
        .into_iter()
        .map(|p| std::fs::read_to_string(format!("{p}/cmdline")).unwrap_or_default());
    assert_eq!(commands.filter(|c| c == "sleep\x007654\x00").count(), 0);
}

pub async fn seccomp_profiles(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let profile = bed.dir.join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    for nnp in [false, true] {
        let mut config = shell("mkdir /tmp/x || echo refused");
        config.security_context.seccomp = SeccompProfile::Localhost(profile.display().to_string());
        config.security_context.no_new_privs = nnp;
        let lines = stdout(bed, &sandbox, config).await;
        assert!(lines.contains(&"refused".to_string()), "{lines:?}");
    }
    let mut config = shell("grep Seccomp: /proc/self/status");
    config.security_context.seccomp = SeccompProfile::Unconfined;
    assert_eq!(stdout(bed, &sandbox, config).await, ["Seccomp:\t0"]);
    let mut config = shell("true");
    config.security_context.seccomp = SeccompProfile::Localhost("/nowhere.json".into());
    let error = bed.service().create_container(&sandbox, config).await.unwrap_err().to_string();
    assert_eq!(error, "cannot load seccomp profile \"/nowhere.json\": open /nowhere.json: no such file or directory");
}

pub async fn devices_are_restricted(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    // Made at will (CAP_MKNOD), used only where allowed. Nothing but the cgroup guards this one.
    const GUARDED: &str = "/dev/cpu_dma_latency";
    use std::os::unix::fs::MetadataExt;
    let number = std::fs::metadata(GUARDED).unwrap().rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let script = format!(
        "mknod /tmp/g c {major} {minor} && mknod /tmp/z c 1 5; head -c1 /tmp/z | wc -c; head -c0 /tmp/g 2>&1 | grep -c 'not permitted'"
    );
    assert_eq!(stdout(bed, &sandbox, shell(&script)).await, ["1", "1"]);
    let mut config = shell("head -c0 /dev/given && echo open; stat -c %t:%T /dev/given");
    config.devices =
        vec![Device { container_path: "/dev/given".into(), host_path: GUARDED.into(), permissions: "r".into() }];
    assert_eq!(stdout(bed, &sandbox, config).await, ["open".to_string(), format!("{major:x}:{minor:x}")]);
}

pub async fn propagation(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let shared = bed.dir.join("shared");
    std::fs::create_dir_all(shared.join("from-node")).unwrap();
    std::fs::create_dir_all(shared.join("from-pod")).unwrap();
    rustix::mount::mount_bind(&shared, &shared).unwrap();
    let mount = |propagation| Mount {
        container_path: "/m".into(),
        host_path: shared.display().to_string(),
        propagation,
        ..Mount::default()
    };
    let privileged = |propagation, log: &str| {
        let mut config = shell("sleep 100");
        (config.mounts, config.security_context.privileged, config.log_path) =
            (vec![mount(propagation)], true, log.into());
        config
    };
    let error = bed
        .service()
        .create_container(&sandbox, privileged(MountPropagation::Bidirectional, "0"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a shared mount"), "{error}");
    rustix::mount::mount_change(&shared, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    let both = bed.run(&sandbox, privileged(MountPropagation::Bidirectional, "1")).await;
    let slave = bed.run(&sandbox, privileged(MountPropagation::HostToContainer, "2")).await;
    let none = bed.run(&sandbox, privileged(MountPropagation::Private, "3")).await;
    rustix::mount::mount("t", shared.join("from-node"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    std::fs::write(shared.join("from-node/f"), "").unwrap();
    for (id, expect) in [(&both, "1\n"), (&slave, "1\n"), (&none, "0\n")] {
        assert_eq!(String::from_utf8(bed.exec(id, "ls /m/from-node | wc -l").await.stdout).unwrap(), expect);
    }
    bed.exec(&slave, "mount -t tmpfs t /m/from-pod && touch /m/from-pod/f").await;
    assert!(!shared.join("from-pod/f").exists());
    bed.exec(&both, "mount -t tmpfs t /m/from-pod && touch /m/from-pod/f").await;
    assert!(shared.join("from-pod/f").exists());
    for dir in [shared.join("from-pod"), shared.join("from-node"), shared] {
        rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// CVE-2019-5736 and CVE-2024-21626: neither our binary nor the node's directories can be reached.
pub async fn our_binary_is_safe(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let before = std::fs::metadata("/proc/self/exe").unwrap().modified().unwrap();
    // `#!/proc/self/exe`: the interpreter is whatever binary does the exec.
    let id = bed.create(&sandbox, ContainerConfig { command: vec!["/bin/loop".into()], ..shell("") }).await;
    let _ = bed.service().start_container(&id).await;
    bed.exited(&id).await;
    assert_eq!(std::fs::metadata("/proc/self/exe").unwrap().modified().unwrap(), before);
    let mut config = shell("for d in /proc/self/fd/*; do readlink $d; done");
    for fd in 3..12 {
        config.working_dir = format!("/proc/self/fd/{fd}");
        let created = bed.service().create_container(&sandbox, config.clone()).await;
        assert!(created.is_err(), "{fd}: {created:?}");
    }
    // The shim runs from a read-only mount: busy now, read-only for ever.
    let shim = crate::bed::children()[0].split(' ').next().unwrap().to_string();
    let error = std::fs::OpenOptions::new().write(true).open(format!("/proc/{shim}/exe")).unwrap_err();
    assert!([Some(libc::EROFS), Some(libc::ETXTBSY)].contains(&error.raw_os_error()), "{error}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sealed = mounts.lines().find(|l| l.contains(bed.dir.to_str().unwrap()) && l.contains("/state/shim-")).unwrap();
    assert!(sealed.split(' ').nth(5).unwrap().starts_with("ro,"), "{sealed}");
}

pub async fn limits_and_stats(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let service = bed.service();
    let pod = LinuxContainerResources {
        cpu_shares: 512,
        memory_limit_in_bytes: 256 << 20,
        ..LinuxContainerResources::default()
    };
    service.update_pod_cgroup(crate::bed::CGROUP_PARENT, pod).await.unwrap();
    let files = match crate::bed::unified() {
        true => ["memory.max", "cpu.max", "pids.max"],
        false => ["memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "pids/pids.max"],
    };
    let show = files.map(|f| format!("/sys/fs/cgroup/{f}")).join(" ");
    let quota = |us: u32| if crate::bed::unified() { format!("{us} 100000") } else { us.to_string() };
    let mut config = shell("sleep 100");
    config.resources = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 128,
        memory_limit_in_bytes: 64 << 20,
        pids_limit: 10,
        oom_score_adj: 500,
        ..LinuxContainerResources::default()
    };
    let id = bed.run(&sandbox, config).await;
    let seen = bed.exec(&id, &format!("cat {show} /proc/self/oom_score_adj; grep -c -v ':/$' /proc/self/cgroup")).await;
    assert_eq!(String::from_utf8(seen.stdout).unwrap(), format!("{}\n{}\n10\n500\n0\n", 64 << 20, quota(50_000)));
    let update = LinuxContainerResources {
        memory_limit_in_bytes: 96 << 20,
        cpu_quota: 70_000,
        ..LinuxContainerResources::default()
    };
    service.update_container_resources(&id, update).await.unwrap();
    let seen = bed.exec(&id, &format!("cat {show}")).await;
    assert_eq!(String::from_utf8(seen.stdout).unwrap(), format!("{}\n{}\n10\n", 96 << 20, quota(70_000)));
    assert_eq!(service.container_status(&id).await.unwrap().resources.cpu_shares, 128);
    bed.exec(&id, "dd if=/dev/zero of=/tmp/f bs=1024 count=100").await;
    let stats = service.container_stats(&id).await.unwrap();
    assert!(
        stats.cpu_usage_ns > 0 && stats.memory_usage > 0 && stats.pids >= 1 && stats.rootfs_bytes >= 100 << 10,
        "{stats:?}"
    );
    for cgroup in ["/", crate::bed::CGROUP_PARENT] {
        assert!(service.cgroup_stats(cgroup).await.unwrap().memory_usage > 0);
    }
    assert!(matches!(service.cgroup_stats("/missing").await, Err(Error::NotFound(_))));
}

pub async fn pod_namespaces(bed: &mut Bed) {
    let mut config = bed.sandbox_config();
    config.namespaces.pid = NamespaceMode::Pod;
    config.sysctls.insert("net.ipv4.ping_group_range".into(), "0 5".into());
    config.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let sandbox = bed.service().run_pod_sandbox(config).await.unwrap();
    let in_pod = |script: &str, log: &str| {
        let mut config = shell(script);
        (config.security_context.namespaces.pid, config.log_path) = (NamespaceMode::Pod, log.into());
        config
    };
    let first = bed.run(&sandbox, in_pod("touch /dev/shm/shared; sleep 77", "1")).await;
    let second = bed.run(&sandbox, in_pod("sleep 78", "2")).await;
    let seen = String::from_utf8(bed.exec(&second, "ps; ls /dev/shm; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/shm_rmid_forced; (sleep 0.01 &) ; sleep 0.1; ps | grep -c 'sleep 0.01'").await.stdout).unwrap();
    for part in ["sleep 77", "sleep 78", "shared", "0\t5\n1\n"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    // Process 1 reaps and can do nothing else, nor be used for anything.
    let first_process =
        "grep -E 'CapEff|CapBnd|Uid' /proc/1/status | tr -d '\\t\\n'; ls /proc/1/root /proc/1/cwd/ || echo shut";
    let seen = String::from_utf8(bed.exec(&second, first_process).await.stdout).unwrap();
    assert_eq!(seen, "Uid:65535655356553565535CapEff:0000000000000000CapBnd:0000000000000000shut\n");
    let mut target = shell("ps; sleep 100");
    (target.security_context.target_id, target.log_path) = (first.clone(), "3".into());
    let debug = bed.run(&sandbox, target).await;
    assert!(String::from_utf8(bed.exec(&debug, "ps").await.stdout).unwrap().contains("sleep 77"));
    // One container's end leaves the others alone.
    bed.service().stop_container(&first, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(bed.service().container_status(&second).await.unwrap().state, ContainerState::Running);
    assert!(!String::from_utf8(bed.exec(&second, "ps").await.stdout).unwrap().contains("sleep 77"));
}

pub async fn user_namespace(bed: &mut Bed) {
    let volume = bed.dir.join("mapped");
    std::fs::create_dir_all(&volume).unwrap();
    for pid in [NamespaceMode::Container, NamespaceMode::Pod] {
        let range = vec![IdMapping { host_id: 65536, container_id: 0, length: 65536 }];
        let mut config = bed.sandbox_config();
        config.namespaces.userns = Some((range.clone(), range));
        config.namespaces.pid = pid;
        let sandbox = bed.service().run_pod_sandbox(config).await.unwrap();
        let mut config = shell(
            "cat /proc/self/uid_map; stat -c %u:%g / /bin/sh /etc/hostname; touch /new /v/new && stat -c %u /new /v/new; \
             hostname changed && hostname; echo ok > /dev/stdout; echo x > /dev/null && ls /sys/class/net; touch /dev/shm/y; cat /proc/timer_list | wc -c; echo end; sleep 100",
        );
        config.mounts.push(Mount {
            container_path: "/v".into(),
            host_path: volume.display().to_string(),
            ..Mount::default()
        });
        config.security_context.namespaces.pid = pid;
        config.security_context.add_capabilities = vec!["SYS_ADMIN".into()];
        let id = match bed.service().create_container(&sandbox, config).await {
            Err(error) if error.to_string().contains("doesn't support idmap mounts") => {
                return println!("     {error}");
            }
            id => id.unwrap(),
        };
        bed.service().start_container(&id).await.unwrap();
        crate::life::wait_for_log(bed, "stdout F end").await;
        let seen = bed.exec(&id, "exec 2>&1; id -u; stat -c %u /new; readlink /proc/self/ns/user").await;
        let seen = String::from_utf8(seen.stdout).unwrap();
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines[..2], ["0", "0"], "{seen}");
        assert_ne!(lines[2], std::fs::read_link("/proc/self/ns/user").unwrap().to_str().unwrap());
        let lines: Vec<_> = crate::bed::read_log(&bed.dir.join("logs/c/0.log"));
        let lines: Vec<_> = lines.iter().map(|l| l.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            ["0 65536 65536", "0:0", "0:0", "65534:65534", "0", "0", "changed", "ok", "lo", "0", "end"],
            "{pid:?}"
        );
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(volume.join("new")).unwrap().uid(), 0, "a volume holds the container's ids");
        let init = bed.service().container_status(&id).await.unwrap().pid.unwrap();
        assert_eq!(
            std::fs::metadata(format!("/proc/{init}/root/new")).unwrap().uid(),
            65536,
            "the layer holds the node's"
        );
        bed.service().remove_pod_sandbox(&sandbox).await.unwrap();
        std::fs::remove_dir_all(bed.dir.join("logs")).unwrap();
    }
}

/// The kernel tells when memory runs low in a cgroup.
pub async fn memory_watch(bed: &mut Bed) {
    let service = bed.service();
    let sandbox = bed.sandbox().await;
    let limit = LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..LinuxContainerResources::default() };
    service.update_pod_cgroup(crate::bed::CGROUP_PARENT, limit).await.unwrap();
    let mut events = service.watch_memory(crate::bed::CGROUP_PARENT, 8 << 20).await.unwrap().expect("a watch");
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), events.recv()).await.is_err(), "nothing yet");
    bed.run(&sandbox, shell("dd if=/dev/zero of=/dev/shm/a bs=1M count=12; sleep 100")).await;
    if crate::bed::unified() {
        // Pressure is waiting for memory, which a machine of a test need not come to: that it is watched must do.
        return;
    }
    let told = tokio::time::timeout(std::time::Duration::from_secs(10), events.recv()).await;
    assert_eq!(told, Ok(Some(())));
}
