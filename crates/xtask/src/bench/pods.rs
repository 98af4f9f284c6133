//! `cargo xtask bench pods`: what a pod costs in time and memory.
//!
//! With `--peer KUBECONFIG` the same is measured on another cluster (kubelet, containerd and runc, say) in the same run;
//! `--peer-pid` names a process of its node, which must be the only one in a mount namespace of its own.

use super::first_cluster::{Usage, burst, one_after_another, pod, wait_ready};
use super::client::Client;
use super::row;
use anyhow::{Context, Result, bail};
use e2e::Cluster;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between what is measured and what comes next.
const SETTLE: Duration = Duration::from_secs(5);

/// What a pod costs in time and memory.
#[derive(clap::Args)]
pub struct Pods {
    /// Pods one after another
    #[arg(long, default_value_t = 50)]
    pods: usize,
    /// Pods at once
    #[arg(long, default_value_t = 100)]
    burst: usize,
    /// Execs one after another
    #[arg(long, default_value_t = 50)]
    execs: usize,
    /// Pods that idle
    #[arg(long, default_value_t = 50)]
    idle_pods: usize,
    /// Seconds over which idle CPU is measured
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Kubeconfig of a cluster to measure beside ours; it must have the image
    #[arg(long, value_name = "FILE")]
    peer: Option<PathBuf>,
    /// A process of the peer's node: what shares its mount namespace is counted as ours is
    #[arg(long, value_name = "PID", requires = "peer")]
    peer_pid: Option<i32>,
}

/// A cluster that is measured.
struct Side<'a> {
    kubeconfig: PathBuf,
    /// Its processes, without those of containers; a peer's are not always known.
    processes: Option<Box<dyn Fn() -> Result<Vec<i32>> + 'a>>,
}

/// Measures one thing on one side.
type Phase = fn(&Pods, &Side<'_>, &Client) -> Result<()>;

impl Pods {
    /// Prints a table. With a peer the sides take turns, so that a slow minute of the machine meets both.
    pub fn run(self) -> Result<()> {
        let cluster = Cluster::up("bench")?;
        let ours = Side { kubeconfig: cluster.kubeconfig(), processes: Some(Box::new(|| cluster.processes())) };
        let mut sides = vec![("ours", ours)];
        if let Some(peer) = &self.peer {
            let processes = self.peer_pid.map(|pid| Box::new(move || of_node(pid)) as Box<dyn Fn() -> _>);
            sides.push(("peer", Side { kubeconfig: peer.clone(), processes }));
        }
        // Memory first, while nothing that a burst took is about to be given back.
        let phases: [Phase; 4] = [Self::idle, Self::one_after_another, Self::burst, Self::execs];
        for phase in phases {
            for (name, side) in &sides {
                if sides.len() > 1 {
                    println!("{name}:");
                }
                // Servers end connections that idle.
                phase(&self, side, &Client::of(&side.kubeconfig)?)?;
                clear(&Client::of(&side.kubeconfig)?)?;
                // The API forgets pods before their node is done with them.
                rest()?;
            }
        }
        Ok(())
    }

    fn one_after_another(&self, _: &Side<'_>, client: &Client) -> Result<()> {
        one_after_another(client, 2)?;
        row("pod create to Ready, one after another", "ms", &one_after_another(client, self.pods)?);
        Ok(())
    }

    fn burst(&self, _: &Side<'_>, client: &Client) -> Result<()> {
        let took = burst(client, self.burst)?;
        println!("{:<52} {took:>9.2} s ({:.1} pods/s)", format!("burst of {} pods, create to all Ready", self.burst), self.burst as f64 / took);
        Ok(())
    }

    fn execs(&self, _: &Side<'_>, client: &Client) -> Result<()> {
        start(client, "exec", 1)?;
        let execs = (0..self.execs).map(|_| exec(client, "exec-0")).collect::<Result<Vec<_>>>()?;
        row("exec round trip (/bin/true over WebSocket)", "ms", &execs);
        Ok(())
    }

    fn idle(&self, side: &Side<'_>, client: &Client) -> Result<()> {
        let Some(processes) = &side.processes else { return Ok(()) };
        // What starts with the first pod is not a pod's.
        start(client, "first", 1)?;
        std::thread::sleep(SETTLE);
        let one = Usage::of(&processes()?)?;
        start(client, "idle", self.idle_pods)?;
        std::thread::sleep(SETTLE);
        let full = Usage::of(&processes()?)?;
        let [private, pss] = [full.private - one.private, full.pss - one.pss].map(|sum| sum / self.idle_pods as f64);
        println!("{:<52} {private:>9.2} MB private, {pss:.2} MB proportional ({} pods)", "memory per idle pod outside its containers", self.idle_pods);
        std::thread::sleep(Duration::from_secs(self.idle));
        let cpu = (Usage::of(&processes()?)?.cpu - full.cpu) / self.idle as f64 * 100.0;
        println!("{:<52} {cpu:>9.2} % of a core over {} s", format!("idle CPU with {} pods", self.idle_pods), self.idle);
        Ok(())
    }
}

/// Waits until the machine does next to nothing, at most two minutes.
fn rest() -> Result<()> {
    for _ in 0..60 {
        let before = ticks()?;
        std::thread::sleep(Duration::from_secs(2));
        let after = ticks()?;
        let [idle, all] = [0, 1].map(|at| after[at] - before[at]);
        if idle > 0.9 * all {
            break;
        }
    }
    Ok(())
}

/// Time that all processors were idle, and all time, in ticks since the start: proc_stat(5).
fn ticks() -> Result<[f64; 2]> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let all: Vec<f64> = stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Ok([*all.get(3).context("/proc/stat has no idle time")?, all.iter().sum()])
}

/// The processes that share a mount namespace: those of a node, but not of its containers.
fn of_node(pid: i32) -> Result<Vec<i32>> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let node = namespace(pid).with_context(|| format!("process {pid}"))?;
    let pids = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    Ok(pids.filter(|pid| namespace(*pid).as_ref() == Some(&node)).collect())
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn start(client: &Client, name: &str, count: usize) -> Result<()> {
    let mut events = client.watch(&format!("{PODS}?watch=1"))?;
    for at in 0..count {
        client.call("POST", PODS, &pod(&format!("{name}-{at}")))?;
    }
    wait_ready(&mut events, count)
}

/// Deletes all pods and waits until they are gone.
fn clear(client: &Client) -> Result<()> {
    client.call("DELETE", PODS, "")?;
    let begun = Instant::now();
    loop {
        let left = client.call("GET", PODS, "")?["items"].as_array().map_or(0, Vec::len);
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("{left} pods are still there after two minutes");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Milliseconds from the request to the answer that the command has ended.
fn exec(client: &Client, name: &str) -> Result<f64> {
    let begun = Instant::now();
    let path = format!("{PODS}/{name}/exec?command=/bin/true&stdout=true&stderr=true");
    let answer = client.upgrade(&path, "v5.channel.k8s.io", "\"Success\"").context("exec")?;
    if answer { Ok(begun.elapsed().as_secs_f64() * 1000.0) } else { bail!("exec did not succeed") }
}
