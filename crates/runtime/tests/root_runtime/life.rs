//! Lives of containers.

use crate::bed::{Bed, children, read_log, shell};
use cri::*;
use std::time::{Duration, Instant};

pub async fn runs_and_logs(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let status = bed.service().pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!((status.state, status.ips.len()), (PodSandboxState::Ready, 1));
    let (code, lines) = bed.script(&sandbox, shell("echo out; echo err >&2; printf rest; exit 3")).await;
    assert_eq!(code, 3);
    for line in ["stdout F out", "stderr F err"] {
        assert!(lines.contains(&line.to_string()), "{lines:?}");
    }
    // Without a newline: read before the process ended, it is a part (P) of a line that nothing follows.
    assert!(["stdout F rest", "stdout P rest"].iter().any(|rest| lines.iter().any(|l| l == rest)), "{lines:?}");
    let (_, lines) = bed
        .script(&sandbox, shell("hostname; cat /etc/hostname /etc/resolv.conf; pwd; echo $HOME $FROM $HOSTNAME"))
        .await;
    let expect =
        ["pod-host", "pod-host", "search svc", "nameserver 10.0.0.10", "options ndots:5", "/", "/root image pod-host"];
    assert_eq!(lines, expect.map(|l| format!("stdout F {l}")));
}

pub async fn exit_codes_and_reasons(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    for (script, code, reason) in [("exit 0", 0, "Completed"), ("exit 7", 7, "Error"), ("kill -9 $$; sleep 9", 0, "")] {
        let id = bed.run(&sandbox, shell(script)).await;
        if reason.is_empty() {
            // Process 1 is immune to its own signals; the node's reach it.
            bed.service().stop_container(&id, Duration::ZERO).await.unwrap();
            let status = bed.exited(&id).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
            continue;
        }
        let status = bed.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{script}");
        assert!(status.started_at >= status.created_at && status.finished_at >= status.started_at);
        assert_eq!(status.pid, None);
    }
    let mut config = shell("x=0123456789; while :; do x=$x$x; done");
    config.resources.memory_limit_in_bytes = 16 << 20;
    let id = bed.run(&sandbox, config).await;
    let status = bed.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

pub async fn start_errors(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    for (command, expect) in [
        ("foo", "exec: \"foo\": executable file not found in $PATH"),
        ("/foo", "exec: \"/foo\": stat /foo: no such file or directory"),
        ("/etc/noexec", "exec: \"/etc/noexec\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
    ] {
        let config = ContainerConfig { command: vec![command.into()], ..shell("") };
        let id = bed.create(&sandbox, config).await;
        let error = bed.service().start_container(&id).await.unwrap_err().to_string();
        assert!(error.ends_with(expect), "{error}");
        let status = bed.service().container_status(&id).await.unwrap();
        assert_eq!(
            (status.state, status.exit_code, status.reason.as_str()),
            (ContainerState::Exited, 128, "StartError")
        );
        assert!(status.message.contains(expect));
        bed.service().remove_container(&id).await.unwrap();
    }
}

pub async fn failed_creation_leaves_nothing(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let mut unknown_user = shell("true");
    unknown_user.security_context.run_as_username = "nobody-there".into();
    let mut into_proc = shell("true");
    into_proc.mounts.push(Mount { container_path: "/proc/self".into(), host_path: "/tmp".into(), ..Mount::default() });
    let mut limits = shell("true");
    limits.resources.cpuset_cpus = "4000".into();
    let no_image = ContainerConfig { image: "none".into(), ..shell("true") };
    for (config, expect) in [
        (unknown_user, "unable to find user nobody-there"),
        (into_proc, "cannot be mounted because it is inside /proc"),
        (limits, "cpuset.cpus"),
        (no_image, "image none not found"),
    ] {
        let error = bed.service().create_container(&sandbox, config).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
    assert!(bed.service().list_containers().await.unwrap().is_empty());
    bed.service().remove_pod_sandbox(&sandbox).await.unwrap();
    let mut config = bed.sandbox_config();
    config.sysctls.insert("kernel.panic".into(), "1".into());
    let error = bed.service().run_pod_sandbox(config).await.unwrap_err().to_string();
    assert!(error.contains("not in a separate kernel namespace"), "{error}");
    bed.service().remove_pod_cgroup(crate::bed::CGROUP_PARENT).await.unwrap();
    assert_eq!(bed.leftovers(), Vec::<String>::new());
}

pub async fn stop_escalates(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let polite = bed.run(&sandbox, shell("trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done")).await;
    wait_for_log(bed, "stdout F up").await;
    bed.service().stop_container(&polite, Duration::from_secs(10)).await.unwrap();
    assert_eq!(bed.exited(&polite).await.exit_code, 5);
    let stubborn = bed.run(&sandbox, shell("trap '' TERM; sleep 100 & sleep 100")).await;
    let began = Instant::now();
    bed.service().stop_container(&stubborn, Duration::from_millis(200)).await.unwrap();
    assert!((200..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(bed.exited(&stubborn).await.exit_code, 137);
    // Idempotent, also for what does not exist.
    bed.service().stop_container(&stubborn, Duration::ZERO).await.unwrap();
    bed.service().stop_container("missing", Duration::ZERO).await.unwrap();
    bed.service().remove_container("missing").await.unwrap();
    let mut signal = shell("trap 'exit 6' USR1; echo ready; while :; do sleep 0.01; done");
    (signal.stop_signal, signal.log_path) = ("SIGUSR1".into(), "c/1.log".into());
    let other = bed.run(&sandbox, signal).await;
    while !read_log(&bed.dir.join("logs/c/1.log")).contains(&"stdout F ready".to_string()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bed.service().stop_container(&other, Duration::from_secs(10)).await.unwrap();
    assert_eq!(bed.exited(&other).await.exit_code, 6);
}

pub async fn wait_for_log(bed: &Bed, line: &str) {
    for _ in 0..500 {
        if read_log(&bed.dir.join("logs/c/0.log")).iter().any(|l| l == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no {line:?} in the log");
}

pub async fn events_come_in_order(bed: &mut Bed) {
    let mut events = bed.service().subscribe();
    let sandbox = bed.sandbox().await;
    let id = bed.run(&sandbox, shell("true")).await;
    bed.exited(&id).await;
    bed.service().remove_container(&id).await.unwrap();
    bed.service().remove_pod_sandbox(&sandbox).await.unwrap();
    use ContainerEventKind::*;
    let expect = [
        (&sandbox, Created),
        (&sandbox, Started),
        (&id, Created),
        (&id, Started),
        (&id, Stopped),
        (&id, Deleted),
        (&sandbox, Stopped),
        (&sandbox, Deleted),
    ];
    for (of, kind) in expect {
        let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
        assert_eq!((&event.id, &event.kind, event.pod_uid.as_str()), (of, &kind, "uid"));
    }
}

pub async fn an_agent_restart_takes_over(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let stays = bed.run(&sandbox, shell("while :; do sleep 0.05; done")).await;
    let mut short = shell("sleep 0.1; echo late; exit 9");
    short.log_path = "c/short.log".into();
    let ends = bed.run(&sandbox, short).await;
    let before = bed.service().container_status(&stays).await.unwrap();
    bed.runtime = None;
    tokio::time::sleep(Duration::from_millis(400)).await;
    bed.open().await;
    let after = bed.service().container_status(&stays).await.unwrap();
    assert_eq!(before, after);
    let ended = bed.service().container_status(&ends).await.unwrap();
    assert_eq!((ended.state, ended.exit_code, ended.reason.as_str()), (ContainerState::Exited, 9, "Error"));
    assert_eq!(read_log(&bed.dir.join("logs/c/short.log")), ["stdout F late"]);
    assert_eq!(bed.exec(&stays, "echo hi").await.stdout, b"hi\n");
    bed.service().stop_container(&stays, Duration::ZERO).await.unwrap();
    assert_eq!(bed.exited(&stays).await.exit_code, 137);
    bed.service().stop_pod_sandbox(&sandbox).await.unwrap();
    bed.restart().await;
    assert_eq!(bed.service().pod_sandbox_status(&sandbox).await.unwrap().state, PodSandboxState::NotReady);
    assert_eq!(bed.service().container_status(&stays).await.unwrap().exit_code, 137);
}

pub async fn a_killed_shim_is_noticed(bed: &mut Bed) {
    let mut events = bed.service().subscribe();
    let sandbox = bed.sandbox().await;
    let id = bed.run(&sandbox, shell("sleep 100")).await;
    let pid = bed.service().container_status(&id).await.unwrap().pid.unwrap();
    let shim: i32 = children()[0].split(' ').next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(shim).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    while events.recv().await.unwrap().kind != ContainerEventKind::Stopped {}
    let status = bed.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    // A zombie is dead: who reaps it now is the node's affair.
    let lives = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    for _ in (0..100).take_while(|_| lives()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!lives(), "the container outlived its shim");
}

pub async fn logs_rotate_and_cut(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let log = bed.dir.join("logs/c/0.log");
    let id = bed.run(&sandbox, shell("echo one; until [ -e /tmp/go ]; do sleep 0.01; done; echo two; head -c 20000 /dev/zero | tr '\\0' x; echo")).await;
    wait_for_log(bed, "stdout F one").await;
    std::fs::rename(&log, bed.dir.join("old.log")).unwrap();
    bed.service().reopen_container_log(&id).await.unwrap();
    bed.exec(&id, "touch /tmp/go").await;
    bed.exited(&id).await;
    let lines = read_log(&log);
    assert_eq!(lines[0], "stdout F two");
    let (first, rest) = (lines[1].strip_prefix("stdout P ").unwrap(), lines[2].strip_prefix("stdout F ").unwrap());
    assert_eq!((first.len(), rest.len()), (16384, 20000 - 16384));
    assert_eq!(read_log(&bed.dir.join("old.log")), ["stdout F one"]);
}

/// A container that floods its log has to wait for a new file, as long as there is an agent to make it.
pub async fn a_flooded_log_asks_for_a_new_file(bed: &mut Bed) {
    const LIMIT: u64 = 256 << 10;
    let sandbox = bed.sandbox().await;
    let log = bed.dir.join("logs/c/0.log");
    let size = || std::fs::metadata(&log).map_or(0, |m| m.len());
    let mut events = bed.service().subscribe();
    let mut flood = shell("yes 0123456789012345678901234567890123456789012345678901234567890123456789");
    flood.log_limit = LIMIT;
    let id = bed.run(&sandbox, flood).await;
    for round in 0..3 {
        let told = async { while events.recv().await.unwrap().kind != ContainerEventKind::LogFull {} };
        tokio::time::timeout(Duration::from_secs(10), told).await.expect("the log is said to be full");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let held = size();
        assert!((LIMIT..2 * LIMIT + (64 << 10)).contains(&held), "{held} bytes in round {round}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(size(), held, "the writer waits");
        std::fs::rename(&log, bed.dir.join("old.log")).unwrap();
        bed.service().reopen_container_log(&id).await.unwrap();
    }
    bed.runtime = None;
    for _ in (0..500).take_while(|_| size() < 4 * LIMIT) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(size() >= 4 * LIMIT, "without an agent nothing waits");
    bed.open().await;
    let status = bed.service().container_status(&id).await.unwrap();
    assert_eq!(status.state, ContainerState::Running);
    bed.service().stop_container(&id, Duration::ZERO).await.unwrap();
}

/// The log of a container that has ended is not made anew: who has its output open does not wait for that.
pub async fn nobody_waits_for_the_log_of_an_ended_container(bed: &mut Bed) {
    const LIMIT: u64 = 256 << 10;
    let mut config = bed.sandbox_config();
    config.namespaces.pid = NamespaceMode::Pod;
    let sandbox = bed.service().run_pod_sandbox(config).await.unwrap();
    let log = bed.dir.join("logs/c/0.log");
    let size = || std::fs::metadata(&log).map_or(0, |m| m.len());
    let _agent = bed.service().subscribe();
    let mut flood = shell("yes 0123456789012345678901234567890123456789012345678901234567890123456789");
    flood.log_limit = LIMIT;
    flood.security_context.namespaces.pid = NamespaceMode::Pod;
    let flood = bed.run(&sandbox, flood).await;
    let mut other = shell("until p=$(pidof yes); do sleep 0.05; done; exec 3>/proc/${p%% *}/fd/1; touch /tmp/open; exec yes other >&3");
    other.metadata.name = "other".into();
    other.log_path = "other/0.log".into();
    other.security_context.namespaces.pid = NamespaceMode::Pod;
    let other = bed.run(&sandbox, other).await;
    bed.exec(&other, "until [ -e /tmp/open ]; do sleep 0.05; done").await;
    for _ in (0..500).take_while(|_| size() < 2 * LIMIT) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bed.service().stop_container(&flood, Duration::ZERO).await.unwrap();
    for _ in (0..500).take_while(|_| size() < 8 * LIMIT) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(size() >= 8 * LIMIT, "{} bytes", size());
    bed.service().stop_container(&other, Duration::ZERO).await.unwrap();
}

/// What outlives a container's first process and writes without end does not keep the shim from its work.
pub async fn an_endless_writer_does_not_hold_the_end_up(bed: &mut Bed) {
    let mut config = bed.sandbox_config();
    config.namespaces.pid = NamespaceMode::Pod;
    let sandbox = bed.service().run_pod_sandbox(config).await.unwrap();
    // Several, so that the pipe is never found empty.
    let mut writer = shell("for n in 1 2 3 4; do yes & done; sleep 0.3; exit 3");
    writer.security_context.namespaces.pid = NamespaceMode::Pod;
    let id = bed.run(&sandbox, writer).await;
    let ended = async {
        while bed.service().container_status(&id).await.unwrap().state != ContainerState::Exited {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the end is noticed");
    assert_eq!(bed.service().container_status(&id).await.unwrap().exit_code, 3);
    let service = bed.service();
    let removed = tokio::time::timeout(Duration::from_secs(5), service.remove_container(&id)).await;
    removed.expect("the shim answers").unwrap();
}

pub async fn shims_are_named_after_their_pods(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    bed.run(&sandbox, shell("sleep 100")).await;
    let shim = children()[0].split(' ').next().unwrap().to_string();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{shim}/{file}")).unwrap();
    let line = read("cmdline");
    let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
    assert_eq!(words, ["sagong", "shim", "default/pod", sandbox.as_str()]);
    assert_eq!(read("comm"), "sagong-shim\n");
}

pub async fn fifty_lives(bed: &mut Bed) {
    let mut times = Vec::new();
    let mut sandboxes = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let sandbox = bed.sandbox().await;
        let made = Instant::now();
        let id = bed.create(&sandbox, shell("true")).await;
        let created = Instant::now();
        bed.service().start_container(&id).await.unwrap();
        times.push((made - began, created - made, created.elapsed(), began.elapsed()));
        bed.exited(&id).await;
        let removing = Instant::now();
        bed.service().remove_pod_sandbox(&sandbox).await.unwrap();
        sandboxes.push(removing.elapsed());
    }
    let median = |mut v: Vec<Duration>| {
        v.sort();
        v[v.len() / 2]
    };
    println!(
        "     median: sandbox {:.1?}, create {:.1?}, start {:.1?}, all three {:.1?}, remove {:.1?}",
        median(times.iter().map(|t| t.0).collect()),
        median(times.iter().map(|t| t.1).collect()),
        median(times.iter().map(|t| t.2).collect()),
        median(times.iter().map(|t| t.3).collect()),
        median(sandboxes),
    );
    bed.service().remove_pod_cgroup(crate::bed::CGROUP_PARENT).await.unwrap();
    assert_eq!(bed.leftovers(), Vec::<String>::new());
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(fds < 60, "{fds} descriptors are open");
    shim_memory(bed).await;
}

async fn shim_memory(bed: &Bed) {
    let sandbox = bed.sandbox().await;
    bed.run(&sandbox, shell("sleep 100")).await;
    let shim = children()[0].split(' ').next().unwrap().to_string();
    let smaps = std::fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let shown: Vec<_> =
        smaps.lines().filter(|l| l.starts_with("Pss:") || l.starts_with("Private") || l.starts_with("Rss")).collect();
    println!("     shim: {shown:?}");
}

/// Forty pods at once, as a deployment makes them.
pub async fn burst(bed: &mut Bed) {
    let began = Instant::now();
    let one = async |bed: &Bed, number: usize| {
        let sandbox = bed.sandbox().await;
        let config = ContainerConfig { log_path: format!("c/{number}.log"), ..shell("echo up; sleep 100") };
        bed.run(&sandbox, config).await;
        (sandbox, began.elapsed())
    };
    let all = futures::future::join_all((0..40).map(|number| one(bed, number))).await;
    let mut times: Vec<_> = all.iter().map(|(_, time)| *time).collect();
    times.sort();
    println!(
        "     burst of 40: p50 {:.0?}, last {:.0?}, {:.0} pods/s",
        times[20],
        times[39],
        40.0 / times[39].as_secs_f64()
    );
    let began = Instant::now();
    let service = bed.service();
    let removed = futures::future::join_all(all.iter().map(|(sandbox, _)| service.remove_pod_sandbox(sandbox))).await;
    removed.into_iter().for_each(|r| r.unwrap());
    println!("     removed in {:.0?}", began.elapsed());
    bed.service().remove_pod_cgroup(crate::bed::CGROUP_PARENT).await.unwrap();
    assert_eq!(bed.leftovers(), Vec::<String>::new());
}
