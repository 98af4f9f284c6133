//! The first day with a bare pod: everything the user types at it.

use anyhow::Result;
use e2e::{Cluster, pty, wait};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const COUNTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/counter.yaml");

#[test]
fn a_bare_pod() -> Result<()> {
    let cluster = Cluster::up("e2e-first-day")?;
    let nodes = cluster.kubectl(&["get", "nodes"])?;
    assert!(nodes.contains("Ready") && nodes.contains("v1.36"), "{nodes}");

    cluster.kubectl(&["apply", "-f", COUNTER])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/counter", "--timeout=20s"])?;
    let table = cluster.kubectl(&["get", "pod", "counter"])?;
    let row: Vec<&str> = table.lines().nth(1).unwrap_or("").split_whitespace().collect();
    assert_eq!(row.get(..4), Some(&["counter", "1/1", "Running", "0"][..]), "{table}");
    assert!(cluster.kubectl(&["get", "pod", "-o", "wide"])?.contains(cluster.name()));
    let pod = cluster.get(&["pod", "counter"])?;
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let described = cluster.kubectl(&["describe", "pod", "counter"])?;
    for word in ["Scheduled", "Successfully assigned default/counter", "Pulled", "Created", "Started", "kube-api-access-"] {
        assert!(described.contains(word), "{word} is missing:\n{described}");
    }

    follow_logs(&cluster, &["logs", "-f", "counter"])?;
    follow_logs(&cluster, &["logs", "-f", "-c", "count", "counter"])?;
    assert_eq!(cluster.kubectl(&["exec", "counter", "--", "hostname"])?.trim(), "counter");
    let failed = cluster.try_kubectl(&["exec", "counter", "--", "sh", "-c", "exit 7"])?;
    assert_eq!(failed.status.code(), Some(7));
    let shell = pty::run("kubectl exec -it counter -- sh", &cluster.kubeconfig(), "tty; echo sum $((40+2))\nexit\n")?;
    assert!(shell.contains("/dev/pts/0") && shell.contains("sum 42"), "{shell}");

    cluster.kubectl(&["get", "pod", "-n", "kube-system"])?;
    assert!(cluster.kubectl(&["get", "pod", "-A"])?.contains("counter"));
    watch_a_deletion(&cluster)?;
    cluster.kubectl(&["apply", "-f", COUNTER])?;
    cluster.kubectl(&["delete", "-f", COUNTER])?;
    assert!(!cluster.try_kubectl(&["get", "pod", "counter"])?.status.success());
    Ok(())
}

fn follow_logs(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let mut child = cluster.command(args).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().expect("piped");
    let lines: Vec<String> = BufReader::new(stdout).lines().take(3).collect::<std::io::Result<_>>()?;
    child.kill()?;
    child.wait()?;
    assert!(lines.len() == 3 && lines[0].starts_with("0: ") && lines[2].starts_with("2: "), "{lines:?}");
    Ok(())
}

fn watch_a_deletion(cluster: &Cluster) -> Result<()> {
    let mut child = cluster.command(&["get", "pod", "-w", "--output-watch-events"]).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().expect("piped");
    let mut lines = BufReader::new(stdout).lines();
    assert!(lines.next().is_some_and(|l| l.is_ok_and(|l| l.starts_with("EVENT"))));
    assert!(lines.next().is_some_and(|l| l.is_ok_and(|l| l.starts_with("ADDED"))));
    cluster.kubectl(&["delete", "pod", "counter", "--grace-period=1"])?;
    let ended = lines.map_while(|l| l.ok()).find(|l| l.starts_with("DELETED"));
    child.kill()?;
    child.wait()?;
    assert!(ended.is_some_and(|l| l.contains("counter")));
    wait("the pod to be gone", 10, || Ok((!cluster.try_kubectl(&["get", "pod", "counter"])?.status.success()).then_some(())))
}
