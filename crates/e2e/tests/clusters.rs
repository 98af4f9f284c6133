//! The life of clusters: beside each other, stopped, resumed, deleted without a trace.

use anyhow::Result;
use e2e::{Cluster, sagong, wait};
use std::process::Command;

#[test]
fn stop_start_and_delete() -> Result<()> {
    let cluster = Cluster::up("e2e-clusters")?;
    let beside = Cluster::up("e2e-beside")?;
    assert!(beside.kubectl(&["get", "nodes"])?.contains("e2e-beside"));
    drop(beside);
    let again = cluster.sagong(&["up"])?;
    assert!(again.contains("is ready"), "{again}");
    cluster.kubectl(&["create", "deployment", "keep", "--image=busybox:1.35", "--", "sleep", "3600"])?;
    cluster.kubectl(&["rollout", "status", "deployment/keep", "--timeout=30s"])?;
    cluster.sagong(&["stop"])?;
    assert!(cluster.sagong(&["status"])?.contains("Stopped"));
    assert_eq!(traces(), Vec::<String>::new());
    cluster.sagong(&["start"])?;
    wait("the deployment to come back", 30, || Ok((cluster.get(&["deployment", "keep"])?["status"]["readyReplicas"] == 1).then_some(())))?;
    let logs = cluster.sagong(&["logs"])?;
    assert!(!logs.is_empty());
    drop(cluster);
    assert_eq!(traces(), Vec::<String>::new());
    Ok(())
}

/// What a cluster of these tests may have left on the machine.
fn traces() -> Vec<String> {
    let run = |program: &str, args: &[&str]| Command::new(program).args(args).output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let processes = run("ps", &["-eo", "args"]);
    let lines = mounts.lines().chain(processes.lines());
    lines.filter(|l| l.contains("e2e-clusters") || l.contains("e2e-beside")).filter(|l| !l.contains("kubectl")).map(str::to_owned).collect()
}

#[test]
fn mistakes_name_cause_and_fix() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let check = |args: &[&str], want: &str| -> Result<()> {
        let output = Command::new(sagong()).args(args).env("SAGONG_DATA_DIR", dir.path()).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(want), "{args:?}: {text}");
        Ok(())
    };
    check(&["up", "No_Name"], "cannot name a cluster")?;
    check(&["status", "absent"], "`sagong up absent` makes it")?;
    check(&["delete", "absent"], "there is no cluster")?;
    let broken = dir.path().join("broken.tar");
    std::fs::write(&broken, b"this is not an archive")?;
    check(&["image", "load", &broken.to_string_lossy()], "cannot load")?;
    check(&["image", "load", "/no/such/file"], "No such file")?;
    Ok(())
}
