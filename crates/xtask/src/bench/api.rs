//! `cargo xtask bench api`: the API server alone: writes, reads, lists, watches, CPU, memory.
//!
//! With `--peer` the same is asked of another API server (a real kube-apiserver with its etcd), and its figures stand
//! beside ours.

use super::percentile;
use super::connection::{Connection, JSON, PROTOBUF, TABLE};
use super::server::Target;
use anyhow::{Context, Result, anyhow};
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The API server alone: writes, reads, lists, watches, CPU, memory.
#[derive(clap::Args)]
pub struct Api {
    /// Pods that are created and listed first
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Pods that there are when they are listed by node
    #[arg(long, default_value_t = 100_000)]
    many: usize,
    /// Connections that write and read at once
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// Lists of each kind
    #[arg(long, default_value_t = 5)]
    lists: usize,
    /// Watchers of one object
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Changes that the watchers see in a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Seconds that they last
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Kubeconfig of another API server, to be measured beside this one
    #[arg(long, value_name = "FILE")]
    peer: Option<PathBuf>,
    /// Processes of the other one (API server and store), for its CPU and memory
    #[arg(long, value_delimiter = ',', value_name = "PIDS")]
    peer_pids: Vec<u32>,
}

const NAMESPACE: &str = "/api/v1/namespaces/bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// Pods are spread over so many nodes.
const NODES: usize = 1000;

/// A figure: what, unit, value.
type Figures = Vec<(String, &'static str, f64)>;

impl Api {
    /// Prints a table.
    pub fn run(self) -> Result<()> {
        let ours = self.measure("sagong", Target::start()?)?;
        let peer = match &self.peer {
            Some(kubeconfig) => self.measure("peer", Target::connect_to(kubeconfig, self.peer_pids.clone())?)?,
            None => Vec::new(),
        };
        println!("\n{:<56} {:>12} {:>12}", "", "sagong", if peer.is_empty() { "" } else { "peer" });
        for (at, (what, unit, value)) in ours.iter().enumerate() {
            let other = peer.get(at).map_or(String::new(), |(_, _, value)| format!("{value:.2}"));
            println!("{:<56} {value:>12.2} {other:>12}", format!("{what}, {unit}"));
        }
        Ok(())
    }

    fn measure(&self, name: &str, target: Target) -> Result<Figures> {
        let mut out = Run { name, target, figures: Vec::new() };
        out.memory("resident, empty")?;
        let namespace = json!({"metadata": {"name": "bench"}}).to_string();
        let mut first = out.target.connect()?;
        first.call("POST", "/api/v1/namespaces", JSON, namespace.as_bytes())?;
        let account = json!({"metadata": {"name": "default"}}).to_string();
        // Another server's controllers may have made it already.
        let _ = first.call("POST", &format!("{NAMESPACE}/serviceaccounts"), JSON, account.as_bytes());
        let first_name = format!("{PODS}/{}", name_of(0));
        self.requests(&mut out, "POST a pod of 2 KB", 0..self.pods, |connection, at| {
            connection.call("POST", PODS, JSON, pod(at).as_bytes()).map(drop)
        })?;
        out.memory(&format!("resident, {} pods", self.pods))?;
        for (kind, accept) in [("JSON", JSON), ("protobuf", PROTOBUF)] {
            self.requests(&mut out, &format!("GET a pod, {kind}"), 0..self.pods, |connection, at| {
                connection.call("GET", &format!("{PODS}/{}", name_of(at)), accept, b"").map(drop)
            })?;
        }
        for (kind, accept) in [("JSON", JSON), ("protobuf", PROTOBUF), ("Table", TABLE)] {
            self.list(&mut out, &format!("LIST {} pods, {kind}", self.pods), PODS, accept)?;
        }
        let lags = self.fan_out(&out.target)?;
        let what = format!("{} watchers, {}/s: lag", self.watchers, self.rate);
        out.add(format!("{what} p50"), "ms", percentile(&lags, 50));
        out.add(format!("{what} p99"), "ms", percentile(&lags, 99));
        if self.many > self.pods {
            self.requests(&mut out, "POST more pods", self.pods..self.many, |connection, at| {
                connection.call("POST", PODS, JSON, pod(at).as_bytes()).map(drop)
            })?;
            out.memory(&format!("resident, {} pods", self.many))?;
            let by_node = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", node_of(7));
            self.list(&mut out, &format!("LIST by spec.nodeName of {} pods", self.many), &by_node, JSON)?;
        }
        out.target.connect()?.call("GET", &first_name, JSON, b"")?;
        Ok(out.figures)
    }

    /// Calls `request` once for each number, from as many connections as there are streams.
    fn requests(
        &self,
        run: &mut Run<'_>,
        what: &str,
        numbers: std::ops::Range<usize>,
        request: impl Fn(&mut Connection, usize) -> Result<()> + Sync,
    ) -> Result<()> {
        let count = numbers.len();
        let (next, cpu) = (AtomicUsize::new(numbers.start), run.target.cpu()?);
        let begun = Instant::now();
        let one = || -> Result<Vec<f64>> {
            let (mut connection, mut samples) = (run.target.connect()?, Vec::new());
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= numbers.end {
                    return Ok(samples);
                }
                let sent = Instant::now();
                request(&mut connection, at)?;
                samples.push(milliseconds(sent));
            }
        };
        let samples = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.streams).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a stream panicked"))?).collect::<Result<Vec<_>>>()
        })?;
        let (samples, seconds) = (samples.concat(), begun.elapsed().as_secs_f64());
        let what = format!("{what}, {} streams", self.streams);
        run.add(format!("{what}: rate"), "1/s", count as f64 / seconds);
        run.add(format!("{what}: p50"), "ms", percentile(&samples, 50));
        run.add(format!("{what}: p99"), "ms", percentile(&samples, 99));
        let used = run.target.cpu()? - cpu;
        run.add(format!("{what}: CPU each"), "µs", used * 1e6 / count.max(1) as f64);
        Ok(())
    }

    fn list(&self, run: &mut Run<'_>, what: &str, path: &str, accept: &str) -> Result<()> {
        let (mut connection, mut samples, mut size) = (run.target.connect()?, Vec::new(), 0);
        let cpu = run.target.cpu()?;
        for _ in 0..self.lists {
            let sent = Instant::now();
            size = connection.call("GET", path, accept, b"")?.len();
            samples.push(milliseconds(sent));
        }
        let used = run.target.cpu()? - cpu;
        run.add(format!("{what}, {:.1} MB: p50", size as f64 / 1e6), "ms", percentile(&samples, 50));
        run.add(format!("{what}: CPU each"), "ms", used * 1e3 / self.lists.max(1) as f64);
        Ok(())
    }

    /// Milliseconds from each change to each watcher's seeing it.
    fn fan_out(&self, target: &Target) -> Result<Vec<f64>> {
        let path = format!("{NAMESPACE}/configmaps");
        let changes = (self.rate * self.seconds) as usize;
        target.connect()?.call("POST", &path, JSON, json!({"metadata": {"name": "seen"}}).to_string().as_bytes())?;
        let begun = Instant::now();
        let mut watchers = Vec::new();
        for _ in 0..self.watchers {
            let mut connection = target.connect()?;
            connection.watch(&format!("{path}?watch=1&fieldSelector=metadata.name%3Dseen"))?;
            watchers.push(connection);
        }
        // So many connections may have taken longer than a server keeps an idle one.
        let mut writer = target.connect()?;
        let samples = std::thread::scope(|scope| -> Result<Vec<_>> {
            let watch = |connection| move || lags(connection, changes, begun);
            let small = || std::thread::Builder::new().stack_size(256 << 10);
            let seen = watchers.into_iter().map(|c| small().spawn_scoped(scope, watch(c)));
            let seen: Vec<_> = seen.collect::<std::io::Result<_>>()?;
            let start = Instant::now();
            for at in 0..changes {
                let due = start + Duration::from_secs_f64(at as f64 / f64::from(self.rate));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let patch = json!({"data": {"sent": begun.elapsed().as_nanos().to_string()}}).to_string();
                writer.call("PATCH", &format!("{path}/seen"), JSON, patch.as_bytes())?;
            }
            seen.into_iter().map(|t| t.join().map_err(|_| anyhow!("a watcher panicked"))?).collect()
        })?;
        Ok(samples.concat())
    }
}

/// A server that is being measured.
struct Run<'a> {
    name: &'a str,
    target: Target,
    figures: Figures,
}

impl Run<'_> {
    fn add(&mut self, what: String, unit: &'static str, value: f64) {
        println!("{:<8} {what:<60} {value:>12.2} {unit}", self.name);
        self.figures.push((what, unit, value));
    }

    fn memory(&mut self, what: &str) -> Result<()> {
        let resident = self.target.resident()?;
        self.add(what.to_owned(), "MB", resident);
        Ok(())
    }
}

/// What one watcher sees: how old each change is. Reading JSON would cost more than the watch itself.
fn lags(mut connection: Connection, changes: usize, begun: Instant) -> Result<Vec<f64>> {
    const MARK: &[u8] = b"\"sent\":\"";
    let (mut samples, mut buffer) = (Vec::with_capacity(changes), Vec::new());
    while samples.len() < changes {
        buffer.extend(connection.chunk()?.context("the watch ended")?);
        let seen = begun.elapsed();
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line = &buffer[..end];
            if let Some(at) = line.windows(MARK.len()).position(|w| w == MARK) {
                let digits = line[at + MARK.len()..].iter().take_while(|b| b.is_ascii_digit());
                let sent = digits.fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
                samples.push(seen.saturating_sub(Duration::from_nanos(sent)).as_secs_f64() * 1000.0);
            }
            buffer.drain(..=end);
        }
    }
    Ok(samples)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn name_of(at: usize) -> String {
    format!("pod-{at:06}")
}

fn node_of(at: usize) -> String {
    format!("node-{:04}", at % NODES)
}

/// A pod of 2 KB, bound to a node.
fn pod(at: usize) -> String {
    let container = json!({"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
    let pod = |padding: &str| {
        let metadata = json!({"name": name_of(at), "labels": {"app": "bench"}, "annotations": {"padding": padding}});
        let spec = json!({"nodeName": node_of(at), "containers": [&container]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
    };
    let missing = 2048usize.saturating_sub(pod("").len());
    pod(&"x".repeat(missing))
}
