//! CRI both ways: our kubelet on our runtime's socket, and on containerd's.
//!
//! Runtime and server run in network and mount namespaces of their own, as processes of one host would.

use anyhow::{Context, Result, ensure};
use e2e::{image, sagong, wait};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const ADDRESS: &str = "10.99.0.1";

/// A host of its own; everything in it ends with it.
struct Host {
    dir: TempDir,
    namespaces: Child,
    processes: Vec<Child>,
    /// The cgroup of pods, which is the machine's, was there before.
    other_kubelet: bool,
}

/// What a kubelet calls the cgroup of all pods.
const PODS: &str = "kubepods";

impl Host {
    fn new() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a host of its own needs root");
        let other_kubelet = cluster::cgroup::hierarchies()?.iter().any(|h| h.path.join(PODS).exists());
        let dir = tempfile::tempdir()?;
        // In memory: what is free on the machine's disk must not decide whether the node is under pressure.
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2G", "none"]).arg(dir.path()).status()?;
        ensure!(mounted.success(), "cannot mount a tmpfs");
        let namespaces = Command::new("unshare").args(["-m", "-n", "sleep", "600"]).stdin(Stdio::null()).spawn()?;
        let host = Self { dir, namespaces, processes: Vec::new(), other_kubelet };
        let links = format!(
            "mount --make-rshared / && ip link set lo up && ip link add br0 type bridge && ip addr add {ADDRESS}/24 dev br0 && ip link set br0 up && ip route add default via 10.99.0.254 && sysctl -qw net.ipv4.ip_forward=1"
        );
        // Before that, the child is still in our own namespaces.
        wait("namespaces of its own", 5, || Ok(host.own_namespace().map(drop)))?;
        host.run("sh", &["-c", &links])?;
        Ok(host)
    }

    /// The mount namespace of the host, once it is not ours.
    fn own_namespace(&self) -> Option<PathBuf> {
        let of = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let pid = self.namespaces.id().to_string();
        let other = |kind: &str| of(&pid, kind).is_some() && of(&pid, kind) != of("self", kind);
        of(&pid, "mnt").filter(|_| other("mnt") && other("net"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.namespaces.id().to_string(), "-m", "-n", "--wd=/"]).arg(program).args(args);
        command.env("SAGONG_DATA_DIR", self.path("data")).env("KUBECONFIG", self.path("data/admin.kubeconfig"));
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.command(Path::new(program), args).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    fn start(&mut self, program: &Path, args: &[&str]) -> Result<()> {
        let child = self.command(program, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.processes.push(child);
        Ok(())
    }

    /// A server whose node runs containers at a socket.
    fn start_server(&mut self, socket: &Path) -> Result<()> {
        let endpoint = format!("unix://{}", socket.display());
        let (run, data) = (self.path("server").display().to_string(), self.path("data").display().to_string());
        let log = self.path("server.log").display().to_string();
        self.start(
            &sagong(),
            &[
                "server",
                "--data-dir",
                &data,
                "--run-dir",
                &run,
                "--bind-address",
                ADDRESS,
                "--advertise-address",
                ADDRESS,
                "--node-name",
                "host",
                "--container-runtime-endpoint",
                &endpoint,
                "--log-file",
                &log,
            ],
        )
    }

    fn get(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.run("kubectl", &[&["get", "-o", "json"], args].concat())?)?)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.path("server.log"))
        {
            eprintln!("--- the server's log\n{log}---");
        }
        // The shims of pods live on otherwise; all of them are in this mount namespace.
        let ours = self.own_namespace();
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            if pid != self.namespaces.id()
                && ours.is_some()
                && std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() == ours
            {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
        let _ = self.namespaces.kill();
        let _ = self.namespaces.wait();
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        if !self.other_kubelet {
            // What holds pods of a kubelet that came meanwhile stays; what it has made besides, it makes anew with its next pod.
            let _ = cluster::cgroup::remove(PODS);
        }
    }
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 2
  volumes: [{name: e, emptyDir: {}}]
  initContainers:
  - {name: i, image: "busybox:1.35", command: [sh, -c, "echo init > /e/f"], volumeMounts: [{name: e, mountPath: /e}]}
  containers:
  - name: c
    image: busybox:1.35
    command: [sh, -c, 'trap "exit 0" TERM; cat /e/f; while true; do sleep 1; done']
    volumeMounts: [{name: e, mountPath: /e}]
    readinessProbe: {exec: {command: [cat, /e/f]}, periodSeconds: 1}
"#;

/// A pod's life on whatever runtime the node has.
fn live(host: &mut Host, socket: &Path, runtime: &str) -> Result<()> {
    host.start_server(socket)?;
    let node = wait("the node", 30, || {
        let node = host.get(&["node", "host"])?;
        let ready = node["status"]["conditions"]
            .as_array()
            .is_some_and(|l| l.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        Ok(ready.then_some(node))
    })?;
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default().to_owned();
    ensure!(version.starts_with(runtime), "{version}");
    let manifest = host.path("pod.yaml");
    std::fs::write(&manifest, POD)?;
    wait("the pod's service account", 10, || {
        Ok(host.run("kubectl", &["apply", "-f", &manifest.display().to_string()]).ok())
    })?;
    host.run("kubectl", &["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
    assert_eq!(host.run("kubectl", &["logs", "p", "-c", "c"])?, "init\n");
    assert_eq!(host.run("kubectl", &["exec", "p", "-c", "c", "--", "sh", "-c", "cat /e/f; exit 0"])?, "init\n");
    let before = host.get(&["pod", "p"])?["status"]["containerStatuses"][0]["containerID"].clone();
    // The kubelet dies and takes the pod over again.
    let mut server = host.processes.pop().context("the server")?;
    server.kill()?;
    server.wait()?;
    host.start_server(socket)?;
    wait("the pod to be known again", 30, || Ok(host.run("kubectl", &["exec", "p", "-c", "c", "--", "true"]).ok()))?;
    assert_eq!(host.get(&["pod", "p"])?["status"]["containerStatuses"][0]["containerID"], before);
    host.run("kubectl", &["delete", "pod", "p", "--timeout=30s"]).map(drop)
}

#[test]
fn our_kubelet_on_our_socket() -> Result<()> {
    let mut host = Host::new()?;
    let (socket, data, run) = (host.path("cri.sock"), host.path("runtime"), host.path("run"));
    let (data, run) = (data.display().to_string(), run.display().to_string());
    for file in image::make(host.dir.path())? {
        host.run(&sagong().display().to_string(), &["image", "load", "--data-dir", &data, &file.to_string_lossy()])?;
    }
    let at = socket.display().to_string();
    let args = ["cri", "--socket", &at, "--data-dir", &data, "--run-dir", &run, "--advertise-address", ADDRESS];
    host.start(&sagong(), &args)?;
    wait("the runtime's socket", 10, || Ok(socket.exists().then_some(())))?;
    live(&mut host, &socket, "sagong://")
}

#[test]
fn our_kubelet_on_containerd() -> Result<()> {
    let installed = Command::new("containerd").arg("--version").output().is_ok();
    ensure!(installed, "install Debian's packages containerd and containernetworking-plugins");
    let mut host = Host::new()?;
    let (socket, config) = (host.path("containerd.sock"), host.path("containerd.toml"));
    let text = |name: &str| host.path(name).display().to_string();
    let settings = format!(
        r#"version = 2
root = "{}"
state = "{}"
[grpc]
  address = "{}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"#,
        text("ctd-root"),
        text("ctd-state"),
        text("containerd.sock"),
        text("cni"),
    );
    std::fs::write(&config, settings)?;
    std::fs::create_dir(host.path("cni"))?;
    let network = format!(
        r#"{{"cniVersion":"0.4.0","name":"x","plugins":[{{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.244.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}}]}}"#,
        text("ipam")
    );
    std::fs::write(host.path("cni/10-x.conflist"), network)?;
    let config = config.display().to_string();
    host.start(Path::new("containerd"), &["--config", &config])?;
    wait("containerd's socket", 20, || Ok(socket.exists().then_some(())))?;
    let at = socket.display().to_string();
    for file in image::make(host.dir.path())?.into_iter().chain([image::pause(host.dir.path())?]) {
        host.run("ctr", &["-a", &at, "-n", "k8s.io", "images", "import", &file.to_string_lossy()])?;
    }
    live(&mut host, &socket, "containerd://")?;
    forget_the_cluster(&mut host, &socket)
}

/// A cluster ends with its pods still running, and its data goes. The next one on the same containerd clears them away.
fn forget_the_cluster(host: &mut Host, socket: &Path) -> Result<()> {
    let manifest = host.path("pod.yaml").display().to_string();
    host.run("kubectl", &["apply", "-f", &manifest])?;
    host.run("kubectl", &["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
    let at = socket.display().to_string();
    let containers = |host: &Host| -> Result<Vec<String>> {
        let listed = host.run("ctr", &["-a", &at, "-n", "k8s.io", "containers", "ls", "-q"])?;
        Ok(listed.lines().map(str::to_owned).collect())
    };
    let before = containers(host)?;
    ensure!(before.len() >= 2, "a sandbox and a container at least: {before:?}");
    let mut server = host.processes.pop().context("the server")?;
    server.kill()?;
    server.wait()?;
    for gone in ["data", "server"] {
        std::fs::remove_dir_all(host.path(gone)).with_context(|| format!("remove {gone}"))?;
    }
    host.start_server(socket)?;
    wait("containers of the old cluster to go", 60, || {
        let left = containers(host)?;
        Ok((!left.iter().any(|id| before.contains(id))).then_some(()))
    })
}
