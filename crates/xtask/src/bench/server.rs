//! A server without a node.

use super::connection::{Administrator, Connection, JSON};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A server that is measured: one of ours, stopped when this is dropped, or another that runs already.
pub struct Target {
    administrator: Administrator,
    /// Processes whose CPU and memory count.
    pids: Vec<u32>,
    ours: Option<(Child, TempDir)>,
}

impl Target {
    /// Starts the API server alone, in an empty directory.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new(e2e::sagong());
        command.args(["server", "--agent=false", "--disable", "scheduler,controllers", "--bind-address"]);
        command.args(["127.0.0.1", "--advertise-address", "127.0.0.1", "--port", &port.to_string(), "--data-dir"]);
        let mut child = command.arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let ready = e2e::wait("the server", 30, || {
            let target = Self::connect_to(&dir.path().join("admin.kubeconfig"), vec![child.id()])?;
            target.connect()?.call("GET", "/readyz", JSON, b"")?;
            Ok(Some(target))
        });
        match ready {
            Ok(mut target) => {
                target.ours = Some((child, dir));
                Ok(target)
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Another server, by its administrator's kubeconfig and the processes it consists of.
    pub fn connect_to(kubeconfig: &Path, pids: Vec<u32>) -> Result<Self> {
        Ok(Self { administrator: Administrator::of(kubeconfig)?, pids, ours: None })
    }

    /// A new connection, as the administrator.
    pub fn connect(&self) -> Result<Connection> {
        self.administrator.connect()
    }

    /// Resident memory in MB.
    pub fn resident(&self) -> Result<f64> {
        let one = |pid: &u32| -> Result<f64> {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = rollup.lines().find(|l| l.starts_with("Rss:")).context("no Rss")?;
            let kb: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
            Ok(kb / 1000.0)
        };
        self.pids.iter().map(one).sum()
    }

    /// Seconds of CPU used so far.
    pub fn cpu(&self) -> Result<f64> {
        let one = |pid: &u32| -> Result<f64> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let (_, fields) = stat.rsplit_once(')').context("no name")?;
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).context("no field")?.parse::<f64>().context("no number");
            // utime and stime, in hundredths of a second.
            Ok((ticks(11)? + ticks(12)?) / 100.0)
        };
        self.pids.iter().map(one).sum()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.ours {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
