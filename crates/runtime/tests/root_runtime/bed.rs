//! A runtime over a busybox image, in directories and cgroups of its own, all of which go at the end.

use cri::*;
use images::{ImageConfig, ImageInfo};
use runtime::{Config, ImageSource, PodNetwork, Runtime};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const CGROUP_PARENT: &str = "/pods";

/// Hands out one image: busybox, with `image` variations of its configuration.
struct Busybox {
    layer: PathBuf,
}

impl ImageSource for Busybox {
    fn hold(&self, _: &str, image: &str) -> std::result::Result<ImageInfo, String> {
        if image != "busybox" {
            return Err(format!("image {image} not found"));
        }
        let config = ImageConfig { cmd: vec!["sh".into()], env: vec!["FROM=image".into()], ..ImageConfig::default() };
        Ok(ImageInfo { id: "sha256:busybox".into(), config, layers: vec![self.layer.clone()], size: 1, names: Vec::new(), digests: Vec::new() })
    }

    fn release(&self, _: &str) -> std::result::Result<(), String> {
        Ok(())
    }
}

struct NoNetwork;

#[async_trait::async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, _: &str, netns: &Path, _: &[PortMapping]) -> std::result::Result<Vec<IpAddr>, String> {
        std::fs::File::open(netns).map_err(|e| e.to_string())?;
        Ok(vec![IpAddr::from([10, 9, 8, 7])])
    }

    async fn detach(&self, _: &str, _: &Path) -> std::result::Result<(), String> {
        Ok(())
    }
}

pub struct Bed {
    pub dir: PathBuf,
    pub cgroup_root: String,
    pub runtime: Option<Arc<Runtime>>,
    /// What shims run from.
    pub shim_exe: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Bed {
    pub async fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sagong-runtime-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        make_layer(&dir.join("layer"));
        let mut bed = Self { dir, cgroup_root: format!("/{name}"), runtime: None, shim_exe: std::env::current_exe().unwrap() };
        bed.open().await;
        bed
    }

    pub async fn open(&mut self) {
        let config = Config {
            state_dir: self.dir.join("state"),
            root_dir: self.dir.join("root"),
            cgroup_root: self.cgroup_root.clone(),
            shim_exe: self.shim_exe.clone(),
            images: Arc::new(Busybox { layer: self.dir.join("layer") }),
            network: Arc::new(NoNetwork),
        };
        self.runtime = Some(Runtime::open(config).await.unwrap());
    }

    /// Lets the agent die and another take over.
    pub async fn restart(&mut self) {
        self.runtime = None;
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.open().await;
    }

    pub fn service(&self) -> Arc<dyn RuntimeService> {
        self.runtime.as_ref().unwrap().service()
    }

    pub fn sandbox_config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: "pod".into(),
                uid: "uid".into(),
                namespace: "default".into(),
                attempt: 0,
            },
            hostname: "pod-host".into(),
            log_directory: self.dir.join("logs").display().to_string(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.0.0.10".into()],
                searches: vec!["svc".into()],
                options: vec!["ndots:5".into()],
            }),
            cgroup_parent: CGROUP_PARENT.into(),
            namespaces: NamespaceOption { pid: NamespaceMode::Container, ..NamespaceOption::default() },
            ..PodSandboxConfig::default()
        }
    }

    pub async fn sandbox(&self) -> String {
        self.service().run_pod_sandbox(self.sandbox_config()).await.unwrap()
    }

    pub async fn create(&self, sandbox: &str, config: ContainerConfig) -> String {
        self.service().create_container(sandbox, config).await.unwrap()
    }

    pub async fn run(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await;
        self.service().start_container(&id).await.unwrap();
        id
    }

    /// Runs a shell script to its end; exit code and log lines without time.
    pub async fn script(&self, sandbox: &str, config: ContainerConfig) -> (i32, Vec<String>) {
        let log = self.dir.join("logs").join(&config.log_path);
        let id = self.run(sandbox, config).await;
        let status = self.exited(&id).await;
        self.service().remove_container(&id).await.unwrap();
        let lines = read_log(&log);
        std::fs::remove_file(log).unwrap();
        (status.exit_code, lines)
    }

    pub async fn exited(&self, id: &str) -> ContainerStatus {
        let mut events = self.service().subscribe();
        for _ in 0..100 {
            let status = self.service().container_status(id).await.unwrap();
            if status.state == ContainerState::Exited {
                return status;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), events.recv()).await;
        }
        panic!("container {id} did not end");
    }

    pub async fn exec(&self, id: &str, script: &str) -> ExecSyncOutput {
        let cmd = vec!["sh".to_string(), "-c".into(), script.into()];
        self.service().exec_sync(id, cmd, Duration::from_secs(10)).await.unwrap()
    }

    /// Removes all that is left, then proves that nothing is.
    pub async fn close(mut self) -> std::result::Result<(), String> {
        if self.runtime.is_none() {
            self.open().await;
        }
        let service = self.service();
        for sandbox in service.list_pod_sandboxes().await.unwrap() {
            service.remove_pod_sandbox(&sandbox.id).await.map_err(|e| e.to_string())?;
        }
        service.remove_pod_cgroup(CGROUP_PARENT).await.map_err(|e| e.to_string())?;
        let left = self.leftovers();
        self.runtime.take().unwrap().close().map_err(|e| e.to_string())?;
        oci::cgroup::Cgroups::detect("/")
            .and_then(|c| c.get(&self.cgroup_root))
            .and_then(|c| c.remove())
            .map_err(|e| e.to_string())?;
        std::fs::remove_dir_all(&self.dir).map_err(|e| e.to_string())?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|l| l.contains(self.dir.to_str().unwrap())).map(String::from);
        let left: Vec<_> = left.into_iter().chain(mounts).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}")) }
    }

    /// Mounts, layers, cgroups and child processes that should not be there once all pods are gone.
    pub fn leftovers(&self) -> Vec<String> {
        let dir = self.dir.to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut left: Vec<String> =
            mounts.lines().filter(|l| l.contains(dir) && !l.contains("/state/shim-")).map(String::from).collect();
        for place in ["state/sandboxes", "root"] {
            left.extend(entries(&self.dir.join(place)));
        }
        for hierarchy in entries(Path::new("/sys/fs/cgroup")).into_iter().chain(["/sys/fs/cgroup".into()]) {
            left.extend(
                entries(&Path::new(&hierarchy).join(&self.cgroup_root[1..]))
                    .into_iter()
                    .filter(|e| Path::new(e).is_dir()),
            );
        }
        left.extend(children());
        left
    }
}

/// Whether the node has cgroup v2 only.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Our child processes, zombies too; without the zygote, which lives as long as the runtime.
pub fn children() -> Vec<String> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in entries(Path::new("/proc")) {
        let stat = std::fs::read_to_string(Path::new(&entry).join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if fields.get(1) == Some(&me.as_str()) && !stat.contains("(sagong-zygote)") {
            found.push(stat);
        }
    }
    found
}

pub fn entries(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path().display().to_string()).collect()
}

/// `stdout F text` per line.
pub fn read_log(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split_once(' ').expect("a log line has a time").1.to_string()).collect()
}

fn make_layer(dir: &Path) {
    for made in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        std::fs::create_dir_all(dir.join(made)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", dir.join("bin/busybox")).expect("Debian's busybox-static must be installed");
    let tools = "sh cat echo sleep ls id env hostname true false kill ps stat touch dd nc mount tty stty seq head tail wc grep readlink test pwd trap printf mkdir mknod chroot ln sort tr od mkfifo";
    for tool in tools.split(' ') {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(tool)).unwrap();
    }
    std::fs::write(dir.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
    std::fs::write(dir.join("etc/group"), "root:x:0:\nextra:x:60:web\n").unwrap();
    std::fs::write(dir.join("etc/noexec"), "").unwrap();
    std::fs::write(dir.join("bin/loop"), "#!/proc/self/exe\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.join("bin/loop"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(dir.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
}

/// A container that runs a shell script.
pub fn shell(script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: "c".into(), attempt: 0 },
        image: "busybox".into(),
        user_specified_image: "busybox".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        log_path: "c/0.log".into(),
        security_context: LinuxContainerSecurityContext {
            namespaces: NamespaceOption { pid: NamespaceMode::Container, ..NamespaceOption::default() },
            ..LinuxContainerSecurityContext::default()
        },
        ..ContainerConfig::default()
    }
}
