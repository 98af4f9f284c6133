//! The life of a sandbox.

use crate::client;
use crate::monitor;
use crate::protocol::{Record, Request, ShimConfig};
use crate::shim::{NETNS, SHM};
use crate::state::{Container, ContainerRecord, Sandbox, SandboxRecord, new_id};
use crate::{Runtime, internal, records};
use cri::{ContainerEventKind, DnsConfig, Error, NamespaceMode, PodSandboxConfig, Result};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// A shim is ready within milliseconds; one that is not by then hangs.
const SHIM_START: Duration = Duration::from_secs(30);

impl Runtime {
    pub(crate) async fn make_sandbox(self: &Arc<Self>, config: PodSandboxConfig) -> Result<String> {
        if !config.runtime_handler.is_empty() {
            return Err(Error::InvalidArgument(format!("no runtime for \"{}\" is configured", config.runtime_handler)));
        }
        let id = new_id();
        let dir = self.sandbox_dir(&id);
        records::make_dir(&dir.join("containers")).map_err(internal)?;
        let uid = config.metadata.uid.clone();
        match self.furnish_sandbox(&id, &dir, config).await {
            Ok(sandbox) => {
                self.state.insert_sandbox(sandbox.clone());
                self.monitor(&sandbox).await;
                self.emit(ContainerEventKind::Created, &id, &uid);
                self.emit(ContainerEventKind::Started, &id, &uid);
                Ok(id)
            }
            Err(error) => {
                self.dismantle(&id, &dir).await;
                Err(error)
            }
        }
    }

    async fn furnish_sandbox(&self, id: &str, dir: &Path, config: PodSandboxConfig) -> Result<Arc<Sandbox>> {
        records::write(&dir.join("shim.json"), &self.shim_config(&config)).map_err(internal)?;
        write_resolver(dir, config.dns_config.as_ref()).map_err(internal)?;
        std::fs::write(dir.join("hostname"), format!("{}\n", config.hostname)).map_err(internal)?;
        self.spawn_shim(dir).await?;
        let ips = self.connect(id, dir, &config).await?;
        let record = SandboxRecord { config, created_at: records::now(), ips };
        records::write(&dir.join("sandbox.json"), &record).map_err(internal)?;
        Ok(Sandbox::new(id, dir, record))
    }

    fn shim_config(&self, config: &PodSandboxConfig) -> ShimConfig {
        let own = |mode| mode != NamespaceMode::Node;
        ShimConfig {
            hostname: if own(config.namespaces.network) { config.hostname.clone() } else { String::new() },
            own_network: own(config.namespaces.network),
            own_ipc: own(config.namespaces.ipc),
            share_pid: config.namespaces.pid == NamespaceMode::Pod,
            sysctls: config.sysctls.clone().into_iter().collect(),
            idmap: crate::spec::idmap(&config.namespaces),
            cgroup_root: self.config.cgroup_root.clone(),
            pod: format!("{}/{}", config.metadata.namespace, config.metadata.name),
        }
    }

    async fn connect(&self, id: &str, dir: &Path, config: &PodSandboxConfig) -> Result<Vec<IpAddr>> {
        if config.namespaces.network == NamespaceMode::Node {
            return Ok(Vec::new());
        }
        let attached = self.config.network.attach(id, &dir.join(NETNS), &config.port_mappings).await;
        attached.map_err(|why| Error::Internal(format!("failed to setup network for sandbox \"{id}\": {why}")))
    }

    async fn spawn_shim(&self, dir: &Path) -> Result<()> {
        let failed = |why: String| Error::Internal(format!("failed to start sandbox: {why}"));
        let (reader, writer) = std::io::pipe().map_err(|e| failed(e.to_string()))?;
        // One that is stuck is killed as its place is left empty, and the next call starts another.
        let forked = tokio::time::timeout(SHIM_START, self.zygote.fork(dir, writer.into())).await;
        let pid = match forked {
            Ok(forked) => forked.map_err(|e| failed(e.to_string()))?,
            Err(_) => return Err(failed("the zygote did not answer in time".into())),
        };
        let line = async {
            let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).map_err(|e| e.to_string())?;
            let mut text = String::new();
            // An error of a kernel call with its paths; never long.
            pipe.take(16 << 10).read_to_string(&mut text).await.map_err(|e| e.to_string())?;
            Ok::<_, String>(text)
        };
        let outcome = match tokio::time::timeout(SHIM_START, line).await {
            Ok(Ok(text)) if text == "ok\n" => return Ok(()),
            Ok(Ok(text)) if text.is_empty() => "the shim ended without a word".into(),
            Ok(Ok(text)) => text.trim().to_string(),
            Ok(Err(error)) => error,
            Err(_) => "the shim did not answer in time".into(),
        };
        // Ours and not yet reaped, so the pid is still its own.
        let _ = oci::sys::kill(pid, libc::SIGKILL);
        monitor::reap(Some(pid)).await;
        Err(failed(outcome))
    }

    pub(crate) async fn end_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.state.sandbox(id) else { return Ok(()) };
        let _teardown = sandbox.teardown.lock().await;
        self.shut_down(&sandbox).await?;
        if sandbox.record.config.namespaces.network != NamespaceMode::Node {
            let detached = self.config.network.detach(id, &sandbox.dir.join(NETNS)).await;
            detached
                .map_err(|why| Error::Internal(format!("failed to tear down network for sandbox \"{id}\": {why}")))?;
        }
        detach_mounts(&sandbox.dir)
    }

    async fn shut_down(&self, sandbox: &Sandbox) -> Result<()> {
        let mut alive = sandbox.alive.subscribe();
        if !*alive.borrow_and_update() {
            return Ok(());
        }
        if let Err(error) = client::call(&sandbox.dir, &Request::Shutdown, &[]).await {
            tracing::debug!(sandbox = sandbox.id, %error, "the shim ended by itself");
        }
        // The monitor has taken over every exit when it says so.
        let _ = alive.wait_for(|alive| !alive).await;
        Ok(())
    }

    pub(crate) async fn delete_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.state.sandbox(id) else { return Ok(()) };
        self.end_sandbox(id).await?;
        for container in self.state.containers_of(id) {
            self.delete_container(&container.id).await?;
        }
        let _teardown = sandbox.teardown.lock().await;
        records::remove_dir(&sandbox.dir).map_err(internal)?;
        self.state.remove_sandbox(id);
        self.emit(ContainerEventKind::Deleted, id, &sandbox.record.config.metadata.uid);
        Ok(())
    }

    /// Takes back whatever a failed creation made. Every step is tried.
    async fn dismantle(&self, id: &str, dir: &Path) {
        let shim = client::Connection::open(dir).await.ok().and_then(|connection| connection.peer());
        let _ = client::call(dir, &Request::Shutdown, &[]).await;
        monitor::reap(shim).await;
        let detached = self.config.network.detach(id, &dir.join(NETNS)).await;
        let unmounted = detach_mounts(dir);
        if let Err(error) = &unmounted {
            // What is still mounted must not be emptied.
            return tracing::error!(sandbox = id, %error, "a failed sandbox is left behind");
        }
        let removed = records::remove_dir(dir).map_err(|e| e.to_string());
        for error in [detached, removed].into_iter().filter_map(std::result::Result::err) {
            tracing::error!(sandbox = id, error, "a failed sandbox is left behind in part");
        }
    }

    /// Finds the sandboxes of earlier agents.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let dir = self.config.state_dir.join("sandboxes");
        for entry in std::fs::read_dir(&dir).map_err(internal)?.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            match records::read::<SandboxRecord>(&entry.path().join("sandbox.json")) {
                Ok(record) => self.recover_sandbox(&id, &entry.path(), record).await,
                Err(_) => self.dismantle(&id, &entry.path()).await,
            }
        }
        self.remove_orphaned_layers()
    }

    async fn recover_sandbox(self: &Arc<Self>, id: &str, dir: &Path, record: SandboxRecord) {
        let sandbox = Sandbox::new(id, dir, record);
        self.state.insert_sandbox(sandbox.clone());
        for entry in std::fs::read_dir(dir.join("containers")).into_iter().flatten().flatten() {
            let container_id = entry.file_name().to_string_lossy().into_owned();
            match records::read::<ContainerRecord>(&entry.path().join("container.json")) {
                Ok(record) => {
                    let fresh = Record { id: container_id.clone(), ..Record::default() };
                    let state = records::read(&entry.path().join("state.json")).unwrap_or(fresh);
                    self.state.insert_container(Container::new(&container_id, &entry.path(), record, state, true));
                }
                Err(_) => self.discard_container(&sandbox, &container_id).await,
            }
        }
        self.monitor(&sandbox).await;
    }

    fn remove_orphaned_layers(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.config.root_dir).map_err(internal)?.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let ours = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
            if ours && self.state.any_container(&id).is_none() {
                records::remove_dir(&entry.path()).map_err(internal)?;
            }
        }
        Ok(())
    }

    pub(crate) fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join("sandboxes").join(id)
    }
}

fn detach_mounts(dir: &Path) -> Result<()> {
    [NETNS, SHM].iter().try_for_each(|name| oci::mount::detach(&dir.join(name))).map_err(internal)
}

/// Writes the pod's resolver configuration; without one, the node's.
fn write_resolver(dir: &Path, dns: Option<&DnsConfig>) -> io::Result<()> {
    let text = match dns {
        Some(dns) => resolver(dns),
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    std::fs::write(dir.join("resolv.conf"), text)
}

fn resolver(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_files() {
        let of = |servers: &[&str], searches: &[&str], options: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
            resolver(&DnsConfig { servers: own(servers), searches: own(searches), options: own(options) })
        };
        assert_eq!(of(&[], &[], &[]), "");
        assert_eq!(
            of(&["10.0.0.1", "::1"], &["a", "b"], &["ndots:5"]),
            "search a b\nnameserver 10.0.0.1\nnameserver ::1\noptions ndots:5\n"
        );
    }
}
