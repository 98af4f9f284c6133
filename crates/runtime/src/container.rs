//! The life of a container.

use crate::apparmor::AppArmor;
use crate::client;
use crate::protocol::{Create, Phase, Record, Reply, Request};
use crate::spec::{self, Inputs};
use crate::state::{Container, ContainerRecord, Sandbox, new_id};
use crate::{Runtime, internal, records, signal};
use cri::{ContainerConfig, ContainerEventKind, Error, LinuxContainerResources, Result};
use oci::cgroup::Cgroup;
use images::ImageInfo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a shim may take to hear that a container is to be killed.
const SHIM_HEARS: Duration = Duration::from_secs(1);

impl Runtime {
    pub(crate) async fn make_container(&self, sandbox_id: &str, mut config: ContainerConfig) -> Result<String> {
        crate::cdi::apply(&mut config)?;
        let sandbox = self.state.sandbox(sandbox_id)?;
        if !*sandbox.alive.borrow() {
            return Err(Error::FailedPrecondition(format!("sandbox container \"{sandbox_id}\" is not running")));
        }
        let id = new_id();
        let uid = sandbox.record.config.metadata.uid.clone();
        match self.furnish_container(&sandbox, &id, config).await {
            Ok(container) => {
                container.visible.store(true, Ordering::Release);
                self.emit(ContainerEventKind::Created, &id, &uid);
                Ok(id)
            }
            Err(error) => {
                self.discard_container(&sandbox, &id).await;
                Err(error)
            }
        }
    }

    async fn furnish_container(&self, sandbox: &Sandbox, id: &str, config: ContainerConfig) -> Result<Arc<Container>> {
        let (dir, layer) = (sandbox.container_dir(id), self.config.root_dir.join(id));
        let image = self.image(id, &config.image, &layer)?;
        for made in [&dir, &layer, &layer.join("upper"), &layer.join("work")] {
            records::make_dir(made).map_err(internal)?;
        }
        // The root directory of the container is the upper directory's: any user must be able to enter it.
        open_to_all(&layer.join("upper")).map_err(internal)?;
        if let Some(map) = spec::idmap(&sandbox.record.config.namespaces) {
            let (uid, gid) = map.root();
            std::os::unix::fs::chown(layer.join("upper"), Some(uid), Some(gid)).map_err(internal)?;
        }
        let mountpoint = self.config.state_dir.join("rootfs");
        let security = config.security_context.clone();
        let apparmor = tokio::task::spawn_blocking(move || AppArmor::of_node().profile(&security));
        let apparmor = apparmor.await.map_err(internal)??;
        let inputs = Inputs {
            id,
            sandbox: &sandbox.record,
            sandbox_dir: &sandbox.dir,
            config: &config,
            image: &image,
            layer: &layer,
            mountpoint: &mountpoint,
            apparmor: apparmor.as_deref(),
        };
        let spec = inputs.build()?;
        let stop_signal = [&config.stop_signal, &image.config.stop_signal].into_iter().find(|s| !s.is_empty());
        let log_path = log_path(sandbox, &config);
        let record = ContainerRecord {
            sandbox_id: sandbox.id.clone(),
            created_at: records::now(),
            image_ref: image.shown_id(&config.user_specified_image),
            image_name: image.shown_name(&config.user_specified_image),
            image_id: image.id.clone(),
            stop_signal: signal::parse(stop_signal.map_or("", |s| s.as_str()))?,
            log_path: log_path.clone(),
            process: spec.process.clone(),
            config,
        };
        let (stdin, stdin_once, log_limit) = (record.config.stdin, record.config.stdin_once, record.config.log_limit);
        let target = record.config.security_context.target_id.clone();
        let container = Container::new(id, &dir, record, Record { id: id.into(), ..Record::default() }, false);
        // Known before it exists: the monitor must have where to put what the shim says of it.
        self.state.insert_container(container.clone());
        let pid_of = Some(target).filter(|t| !t.is_empty());
        let log_directory = sandbox.record.config.log_directory.clone().into();
        // By its old name, which shims of before an update know.
        let log = if log_path.as_os_str().is_empty() { crate::shim::NO_LOG.into() } else { log_path };
        let directory = dir.clone();
        let create = Create { id: id.into(), spec, pid_of, log, log_directory, log_limit, directory, stdin, stdin_once };
        let answer = client::call(&sandbox.dir, &Request::Create(Box::new(create)), &[]).await?;
        let Reply::Created(identity) = answer.reply else { return Err(internal("unexpected answer of the shim")) };
        container.record.lock().process.user = numeric(&identity);
        container.state.send_modify(|state| state.identity = identity);
        let record = container.record.lock().clone();
        records::write(&dir.join("container.json"), &record).map_err(internal)?;
        Ok(container)
    }

    /// The image of a container; one without an image has an empty layer.
    fn image(&self, id: &str, image: &str, layer: &Path) -> Result<ImageInfo> {
        if !image.is_empty() {
            return self.config.images.hold(id, image).map_err(Error::Internal);
        }
        let empty = layer.join("empty");
        for made in [layer, &empty] {
            records::make_dir(made).map_err(internal)?;
        }
        Ok(ImageInfo { layers: vec![empty], ..ImageInfo::default() })
    }

    pub(crate) async fn run_container(&self, id: &str) -> Result<()> {
        let container = self.state.container(id)?;
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        if container.phase() != Phase::Created {
            return Err(Error::FailedPrecondition(format!("container \"{id}\" is not in created state")));
        }
        let started = client::call(&sandbox.dir, &Request::Start { id: id.into() }, &[]).await;
        if let Ok(_) | Err(Error::Internal(_)) = &started {
            // The change follows the answer on another connection; a status asked now must know it.
            let _ = container.state.subscribe().wait_for(|state| state.phase != Phase::Created).await;
        }
        match started {
            Err(Error::Internal(why)) => Err(Error::Internal(format!(
                "failed to start container \"{id}\": OCI runtime create failed: unable to start container process: {why}"
            ))),
            done => done.map(drop),
        }
    }

    pub(crate) async fn end_container(&self, id: &str, timeout: Duration) -> Result<()> {
        let Ok(container) = self.state.container(id) else { return Ok(()) };
        if container.phase() == Phase::Exited {
            return Ok(());
        }
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        let signal = container.record.lock().stop_signal;
        if !timeout.is_zero() && container.phase() == Phase::Running {
            let ended = async {
                self.signal(&sandbox, id, signal).await?;
                container.ended().await;
                Ok::<(), Error>(())
            };
            if let Ok(done) = tokio::time::timeout(timeout, ended).await {
                return done;
            }
        }
        self.kill(&sandbox, id).await?;
        container.ended().await;
        Ok(())
    }

    /// Kills a container. A shim that does not hear waits for a process that joins the container: whoever may exec
    /// there could keep it waiting for as long as they like, so what lies in the cgroup is killed past it.
    async fn kill(&self, sandbox: &Sandbox, id: &str) -> Result<()> {
        if let Ok(done) = tokio::time::timeout(SHIM_HEARS, self.signal(sandbox, id, libc::SIGKILL)).await {
            return done;
        }
        let cgroup = self.container_cgroup(sandbox, id)?;
        tokio::task::spawn_blocking(move || cgroup.kill()).await.map_err(internal)
    }

    /// Signals a container; one whose shim has ended is about to be found ended.
    async fn signal(&self, sandbox: &Sandbox, id: &str, signal: i32) -> Result<()> {
        match client::call(&sandbox.dir, &Request::Kill { id: id.into(), signal }, &[]).await {
            Ok(_) | Err(Error::FailedPrecondition(_) | Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn delete_container(&self, id: &str) -> Result<()> {
        let Some(container) = self.state.any_container(id) else { return Ok(()) };
        let _teardown = container.teardown.lock().await;
        let Some(container) = self.state.any_container(id) else { return Ok(()) };
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        if container.phase() == Phase::Running {
            self.end_container(id, Duration::ZERO).await?;
        }
        self.clear_container(&sandbox, id).await?;
        self.emit(ContainerEventKind::Deleted, id, &sandbox.record.config.metadata.uid);
        Ok(())
    }

    /// Takes back whatever a failed creation made.
    pub(crate) async fn discard_container(&self, sandbox: &Sandbox, id: &str) {
        if let Err(error) = self.clear_container(sandbox, id).await {
            tracing::error!(container = id, %error, "a failed container is left behind in part");
        }
    }

    async fn clear_container(&self, sandbox: &Sandbox, id: &str) -> Result<()> {
        match client::call(&sandbox.dir, &Request::Remove { id: id.into() }, &[]).await {
            Ok(_) | Err(Error::FailedPrecondition(_) | Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let (cgroup, layer, dir) =
            (self.container_cgroup(sandbox, id)?, self.config.root_dir.join(id), sandbox.container_dir(id));
        let clear = move || {
            cgroup.remove().map_err(internal)?;
            records::remove_dir(&layer).and_then(|()| records::remove_dir(&dir)).map_err(internal)
        };
        tokio::task::spawn_blocking(clear).await.map_err(internal)??;
        self.config.images.release(id).map_err(Error::Internal)?;
        self.state.remove_container(id);
        Ok(())
    }

    pub(crate) fn container_cgroup(&self, sandbox: &Sandbox, id: &str) -> Result<Cgroup> {
        self.cgroups.get(&spec::cgroup_path(&sandbox.record, id)).map_err(internal)
    }

    pub(crate) async fn update_container(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        let container = self.state.container(id)?;
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        if container.phase() == Phase::Exited {
            return Err(Error::FailedPrecondition(format!("container \"{id}\" is not running")));
        }
        self.container_cgroup(&sandbox, id)?.update(&spec::resources(&resources)).map_err(internal)?;
        let record = {
            let mut record = container.record.lock();
            merge(&mut record.config.resources, resources);
            record.clone()
        };
        records::write(&container.dir.join("container.json"), &record).map_err(internal)
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.state.container(id)?;
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        client::call(&sandbox.dir, &Request::Reopen { id: id.into() }, &[]).await.map(drop)
    }
}

/// Values that are unset leave those in force.
fn merge(current: &mut LinuxContainerResources, new: LinuxContainerResources) {
    let number = |current: &mut i64, new: i64| {
        if new != 0 {
            *current = new;
        }
    };
    number(&mut current.cpu_period, new.cpu_period);
    number(&mut current.cpu_quota, new.cpu_quota);
    number(&mut current.cpu_shares, new.cpu_shares);
    number(&mut current.memory_limit_in_bytes, new.memory_limit_in_bytes);
    number(&mut current.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes);
    number(&mut current.pids_limit, new.pids_limit);
    for (current, new) in [(&mut current.cpuset_cpus, new.cpuset_cpus), (&mut current.cpuset_mems, new.cpuset_mems)] {
        if !new.is_empty() {
            *current = new;
        }
    }
    current.unified.extend(new.unified);
}

/// The user an exec runs as: who the first process turned out to be.
fn numeric(identity: &oci::Identity) -> oci::UserSpec {
    oci::UserSpec {
        user: identity.uid.to_string(),
        gid: Some(identity.gid),
        groups: identity.groups.clone(),
        strict: true,
    }
}

fn log_path(sandbox: &Sandbox, config: &ContainerConfig) -> PathBuf {
    let directory = &sandbox.record.config.log_directory;
    if directory.is_empty() || config.log_path.is_empty() {
        PathBuf::new()
    } else {
        PathBuf::from(directory).join(&config.log_path)
    }
}

fn open_to_all(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
}
