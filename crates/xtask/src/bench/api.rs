//! `cargo xtask bench api`: the API server alone: writes, reads, lists, watches, memory.

use super::row;
use super::server::{Connection, JSON, PROTOBUF, Server};
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The API server alone: writes, reads, lists, watches, memory.
#[derive(clap::Args)]
pub struct Api {
    /// Pods that are created and listed
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Connections that write and read at once
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// Lists of each kind
    #[arg(long, default_value_t = 5)]
    lists: usize,
    /// Watchers of one object
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// Changes that the watchers see
    #[arg(long, default_value_t = 200)]
    changes: usize,
}

const NAMESPACE: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";

impl Api {
    /// Prints a table.
    pub fn run(self) -> Result<()> {
        let server = Server::start()?;
        println!("{:<52} {:>9.1} MB resident", "API server, empty", server.resident()?);
        let account = json!({"metadata": {"name": "default"}}).to_string();
        server.connect()?.call("POST", &format!("{NAMESPACE}/serviceaccounts"), JSON, account.as_bytes())?;

        let posts =
            self.at_once(&server, |connection, at| connection.call("POST", PODS, JSON, pod(at).as_bytes()).map(drop))?;
        posts.print(&format!("POST a pod of 2 KB, {} streams", self.streams));
        println!("{:<52} {:>9.1} MB resident", format!("with {} pods", self.pods), server.resident()?);
        for (name, accept) in [("JSON", JSON), ("protobuf", PROTOBUF)] {
            let gets = self.at_once(&server, |connection, at| {
                connection.call("GET", &format!("{PODS}/{}", name_of(at)), accept, b"").map(drop)
            })?;
            gets.print(&format!("GET a pod in {name}, {} streams", self.streams));
        }
        for (name, accept) in [("JSON", JSON), ("protobuf", PROTOBUF)] {
            self.list(&server, name, accept)?;
        }
        println!("{:<52} {:>9.1} MB resident", "after the lists", server.resident()?);
        row(&format!("change sent to event seen, {} watchers", self.watchers), "ms", &self.fan_out(&server)?);
        println!("{:<52} {:>9.1} MB resident", "after the watches", server.resident()?);
        Ok(())
    }

    /// Calls `request` once for each pod, from as many connections as there are streams.
    fn at_once(&self, server: &Server, request: impl Fn(&mut Connection, usize) -> Result<()> + Sync) -> Result<Rate> {
        let (next, begun) = (AtomicUsize::new(0), Instant::now());
        let one = || -> Result<Vec<f64>> {
            let (mut connection, mut samples) = (server.connect()?, Vec::new());
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= self.pods {
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
        Ok(Rate { seconds: begun.elapsed().as_secs_f64(), samples: samples.concat() })
    }

    fn list(&self, server: &Server, name: &str, accept: &str) -> Result<()> {
        let (mut connection, mut samples, mut size) = (server.connect()?, Vec::new(), 0);
        for _ in 0..self.lists {
            let sent = Instant::now();
            size = connection.call("GET", PODS, accept, b"")?.len();
            samples.push(milliseconds(sent));
        }
        row(&format!("LIST {} pods in {name}, {:.1} MB", self.pods, size as f64 / 1e6), "ms", &samples);
        Ok(())
    }

    /// Milliseconds from each change to each watcher's seeing it.
    fn fan_out(&self, server: &Server) -> Result<Vec<f64>> {
        let path = format!("{NAMESPACE}/configmaps");
        let mut writer = server.connect()?;
        writer.call("POST", &path, JSON, json!({"metadata": {"name": "seen"}}).to_string().as_bytes())?;
        let begun = Instant::now();
        let mut watchers = Vec::new();
        for _ in 0..self.watchers {
            let mut connection = server.connect()?;
            connection.watch(&format!("{path}?watch=1&fieldSelector=metadata.name%3Dseen"))?;
            watchers.push(connection);
        }
        let samples = std::thread::scope(|scope| -> Result<Vec<_>> {
            let seen = watchers.into_iter().map(|c| scope.spawn(move || lags(c, self.changes, begun)));
            let seen: Vec<_> = seen.collect();
            for _ in 0..self.changes {
                let patch = json!({"data": {"sent": begun.elapsed().as_nanos().to_string()}}).to_string();
                writer.call("PATCH", &format!("{path}/seen"), JSON, patch.as_bytes())?;
                std::thread::sleep(Duration::from_millis(10));
            }
            seen.into_iter().map(|t| t.join().map_err(|_| anyhow!("a watcher panicked"))?).collect()
        })?;
        Ok(samples.concat())
    }
}

/// What one watcher sees: how old each change is.
fn lags(mut connection: Connection, changes: usize, begun: Instant) -> Result<Vec<f64>> {
    let (mut samples, mut buffer) = (Vec::new(), Vec::new());
    while samples.len() < changes {
        buffer.extend(connection.chunk()?.context("the watch ended")?);
        let seen = begun.elapsed();
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let event: Value = serde_json::from_slice(&buffer[..end])?;
            buffer.drain(..=end);
            if let Some(sent) = event["object"]["data"]["sent"].as_str() {
                let sent = Duration::from_nanos(sent.parse()?);
                samples.push(seen.saturating_sub(sent).as_secs_f64() * 1000.0);
            }
        }
    }
    Ok(samples)
}

/// How fast requests were answered.
struct Rate {
    seconds: f64,
    samples: Vec<f64>,
}

impl Rate {
    fn print(&self, what: &str) {
        row(what, "ms", &self.samples);
        println!("{:<52} {:>9.0} requests/s", "", self.samples.len() as f64 / self.seconds);
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn name_of(at: usize) -> String {
    format!("pod-{at:05}")
}

/// A pod of 2 KB.
fn pod(at: usize) -> String {
    let container = json!({"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
    let pod = |padding: &str| {
        let metadata = json!({"name": name_of(at), "labels": {"app": "bench"}, "annotations": {"padding": padding}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [&container]}})
            .to_string()
    };
    let missing = 2048usize.saturating_sub(pod("").len());
    pod(&"x".repeat(missing))
}
