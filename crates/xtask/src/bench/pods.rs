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

impl Pods {
    /// Prints a table.
    pub fn run(self) -> Result<()> {
        if let Some(peer) = &self.peer {
            println!("peer {}:", peer.display());
            let client = Client::of(peer)?;
            self.measure(&client)?;
            if let Some(pid) = self.peer_pid {
                self.idle(|| of_node(pid), &client)?;
            }
            println!("ours:");
        }
        let cluster = Cluster::up("bench")?;
        let client = Client::of(&cluster.kubeconfig())?;
        self.measure(&client)?;
        self.idle(|| cluster.processes(), &client)
    }

    fn measure(&self, client: &Client) -> Result<()> {
        one_after_another(client, 2)?;
        row("pod create to Ready, one after another", "ms", &one_after_another(client, self.pods)?);
        let took = burst(client, self.burst)?;
        println!("{:<52} {took:>9.2} s ({:.1} pods/s)", format!("burst of {} pods, create to all Ready", self.burst), self.burst as f64 / took);
        clear(client)?;
        start(client, "exec", 1)?;
        let execs = (0..self.execs).map(|_| exec(client, "exec-0")).collect::<Result<Vec<_>>>()?;
        row("exec round trip (/bin/true over WebSocket)", "ms", &execs);
        clear(client)
    }

    fn idle(&self, processes: impl Fn() -> Result<Vec<i32>>, client: &Client) -> Result<()> {
        std::thread::sleep(Duration::from_secs(5));
        let empty = Usage::of(&processes()?)?;
        start(client, "idle", self.idle_pods)?;
        std::thread::sleep(Duration::from_secs(5));
        let full = Usage::of(&processes()?)?;
        let [private, pss] = [full.private - empty.private, full.pss - empty.pss].map(|sum| sum / self.idle_pods as f64);
        println!("{:<52} {private:>9.2} MB private, {pss:.2} MB proportional ({} pods)", "memory per idle pod outside its containers", self.idle_pods);
        std::thread::sleep(Duration::from_secs(self.idle));
        let cpu = (Usage::of(&processes()?)?.cpu - full.cpu) / self.idle as f64 * 100.0;
        println!("{:<52} {cpu:>9.2} % of a core over {} s", format!("idle CPU with {} pods", self.idle_pods), self.idle);
        clear(client)
    }
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
