//! `cargo xtask bench first-cluster`: start, idle cost, pods one after another, a burst.

use super::client::Client;
use super::row;
use anyhow::{Context, Result};
use e2e::Cluster;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

/// From an empty directory to running pods on one node.
#[derive(clap::Args)]
pub struct FirstCluster {
    /// How often the cluster is made
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Pods one after another
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// Pods at once
    #[arg(long, default_value_t = 40)]
    burst: usize,
    /// Seconds over which idle CPU is measured
    #[arg(long, default_value_t = 30)]
    idle: u64,
}

impl FirstCluster {
    /// Prints a table of medians.
    pub fn run(self) -> Result<()> {
        let starts = (0..self.runs).map(|run| start(run)).collect::<Result<Vec<_>>>()?;
        row("empty directory to node Ready and DNS answering", "s", &starts);
        let cluster = Cluster::up("bench")?;
        std::thread::sleep(Duration::from_secs(10));
        let idle = Usage::of(&cluster.processes()?)?;
        println!("{:<52} {:>9.1} MB resident, {:.1} MB proportional, {} processes", "idle memory of all Sagong processes", idle.rss, idle.pss, idle.count);
        std::thread::sleep(Duration::from_secs(self.idle));
        let cpu = (Usage::of(&cluster.processes()?)?.cpu - idle.cpu) / self.idle as f64 * 100.0;
        println!("{:<52} {cpu:>9.2} % of a core over {} s", "idle CPU", self.idle);
        let client = Client::of(&cluster.kubeconfig())?;
        one_after_another(&client, 2)?;
        row("pod create to Ready, one after another", "ms", &one_after_another(&client, self.pods)?);
        let took = burst(&client, self.burst)?;
        println!("{:<52} {took:>9.2} s ({:.1} pods/s)", format!("burst of {} pods, create to all Ready", self.burst), self.burst as f64 / took);
        let size = fs::metadata(e2e::sagong()).context("the release binary")?.len();
        println!("{:<52} {:>9.1} MB", "size of the stripped binary", size as f64 / 1e6);
        Ok(())
    }
}

fn start(run: usize) -> Result<f64> {
    let begun = Instant::now();
    let cluster = Cluster::bare(&format!("bench{run}"))?;
    let took = begun.elapsed().as_secs_f64();
    drop(cluster);
    Ok(took)
}

/// What the processes of a node use.
pub(super) struct Usage {
    pub rss: f64,
    pub pss: f64,
    pub private: f64,
    pub cpu: f64,
    count: usize,
}

impl Usage {
    pub fn of(processes: &[i32]) -> Result<Self> {
        let mut usage = Self { rss: 0.0, pss: 0.0, private: 0.0, cpu: 0.0, count: 0 };
        for pid in processes {
            let dir = format!("/proc/{pid}");
            let Ok(rollup) = fs::read_to_string(format!("{dir}/smaps_rollup")) else { continue };
            let field = |name: &str| -> f64 {
                let line = rollup.lines().find(|l| l.starts_with(name));
                line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
            };
            let stat = fs::read_to_string(format!("{dir}/stat"))?;
            let ticks = stat.rsplit(") ").next().unwrap_or("").split(' ').skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>();
            // USER_HZ is 100 on every architecture of Linux that Rust supports.
            usage = Self { rss: usage.rss + field("Rss:"), pss: usage.pss + field("Pss:"), private: usage.private + field("Private_Clean:") + field("Private_Dirty:"), cpu: usage.cpu + ticks / 100.0, count: usage.count + 1 };
        }
        Ok(usage)
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";

pub(super) fn pod(name: &str) -> String {
    let container = json!({"name": "c", "image": e2e::image::BUSYBOX, "command": ["sleep", "3600"]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}).to_string()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Waits on a watch until `count` pods have been ready.
pub(super) fn wait_ready(events: &mut impl Iterator<Item = Result<String>>, count: usize) -> Result<()> {
    let mut ready = HashSet::new();
    while ready.len() < count {
        let event: Value = serde_json::from_str(&events.next().context("the watch ended")??)?;
        if is_ready(&event["object"]) {
            ready.insert(event["object"]["metadata"]["name"].to_string());
        }
    }
    Ok(())
}

pub(super) fn one_after_another(client: &Client, count: usize) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    for at in 0..count {
        let name = format!("one-{at}");
        let mut events = client.watch(&format!("{PODS}?watch=1&fieldSelector=metadata.name={name}"))?;
        let begun = Instant::now();
        client.call("POST", PODS, &pod(&name))?;
        wait_ready(&mut events, 1)?;
        samples.push(begun.elapsed().as_secs_f64() * 1000.0);
        client.call("DELETE", &format!("{PODS}/{name}"), "")?;
        while !events.next().context("the watch ended")??.contains("\"DELETED\"") {}
    }
    Ok(samples)
}

pub(super) fn burst(client: &Client, count: usize) -> Result<f64> {
    let mut events = client.watch(&format!("{PODS}?watch=1"))?;
    let begun = Instant::now();
    for at in 0..count {
        client.call("POST", PODS, &pod(&format!("burst-{at}")))?;
    }
    wait_ready(&mut events, count)?;
    Ok(begun.elapsed().as_secs_f64())
}
