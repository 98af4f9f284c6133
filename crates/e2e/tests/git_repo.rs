//! gitRepo volumes: cloned before the pod's containers start, by a process that is given nothing but the volume.

#[path = "../../git/tests/server/mod.rs"]
mod server;

use anyhow::{Context, Result, ensure};

use e2e::{Cluster, image, wait};
use server::{Answer, Server, git_in};
use std::path::{Path, PathBuf};

/// The user that clones.
const USER: &str = "65530";

/// The address by which pods know this machine: the first of the node's network.
fn host(cluster: &Cluster) -> Result<String> {
    let nodes = cluster.get(&["nodes"])?;
    let address = nodes["items"][0]["status"]["addresses"][0]["address"].as_str().context("address")?.to_owned();
    let (network, _) = address.rsplit_once('.').context("an IPv4 address")?;
    Ok(format!("{network}.1"))
}

fn pod(name: &str, volumes: &[String], command: &str, more: &str) -> String {
    let mounts: Vec<String> = (0..volumes.len()).map(|i| format!("{{name: v{i}, mountPath: /v{i}}}")).collect();
    let volumes: Vec<String> = volumes.iter().enumerate().map(|(i, v)| format!("{{name: v{i}, gitRepo: {v}}}")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  volumes: [{}]\n  containers:\n  - {{name: c, image: {}, command: [sh, -c, {command:?}], volumeMounts: [{}{more}]}}\n",
        volumes.join(", "),
        image::BUSYBOX,
        mounts.join(", "),
    )
}

fn repository(dir: &Path) -> Result<String> {
    git_in(dir, "init -q -b main");
    std::fs::write(dir.join("file"), "one\n")?;
    std::os::unix::fs::symlink("/etc/shadow", dir.join("link"))?;
    git_in(dir, "add .");
    git_in(dir, "commit -q -m one");
    let first = git_in(dir, "rev-parse HEAD").trim().to_owned();
    std::fs::write(dir.join("file"), "two\n")?;
    git_in(dir, "commit -q -a -m two");
    Ok(first)
}

fn event(cluster: &Cluster, pod: &str, text: &str) -> Result<()> {
    wait(&format!("an event of {pod}: {text}"), 60, || {
        let selector = format!("involvedObject.name={pod},reason=FailedMount");
        let events = cluster.kubectl(&["get", "events", "--field-selector", &selector, "-o", "yaml"])?;
        // Long lines are folded.
        let flat = events.split_whitespace().collect::<Vec<_>>().join(" ");
        if flat.contains(text) { Ok(Some(())) } else { anyhow::bail!("{flat}") }
    })
}

#[test]
fn repositories_are_cloned_before_containers_start() -> Result<()> {
    let cluster = Cluster::up("e2e-git")?;
    let (dir, server) = Server::start();
    std::fs::create_dir(dir.path().join("sample"))?;
    let first = repository(&dir.path().join("sample"))?;
    let url = server.url_from(&host(&cluster)?, "/sample/.git");
    let volumes = [
        format!("{{repository: {url:?}}}"),
        format!("{{repository: {url:?}, revision: {first:?}, directory: .}}"),
        format!("{{repository: {url:?}, directory: a/b}}"),
    ];
    let command = "cat /v0/sample/file /v1/file /v2/a/b/file; stat -c '%u %g %a' /v1/file; echo new > /v0/x && cat /v0/x; readlink /v1/link";
    cluster.apply(&pod("p", &volumes, command, ""))?;
    cluster.kubectl(&["wait", "pod/p", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s"])?;
    assert_eq!(cluster.kubectl(&["logs", "p"])?, "two\none\ntwo\n0 0 644\nnew\n/etc/shadow\n");
    // A link of the repository leads out of a volume no more than any other.
    let more = ", {name: v0, mountPath: /stolen, subPath: sample/link}";
    cluster.apply(&pod("thief", &volumes[..1], "cat /stolen", more))?;
    wait("the link to be refused", 60, || {
        let waiting = cluster.get(&["pod", "thief"])?["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        Ok((waiting["reason"] == "CreateContainerConfigError").then_some(()))
    })?;
    // What is not http, and what cannot be had.
    let refuse = |name: &str, repository: &str, text: &str| -> Result<()> {
        cluster.apply(&pod(name, &[format!("{{repository: {repository:?}}}")], "true", ""))?;
        event(&cluster, name, text)
    };
    refuse("file", "file:///etc", "only http:// and https:// are allowed")?;
    refuse("ssh", "ssh://host/x", "only http:// and https:// are allowed")?;
    refuse("missing", &server.url_from(&host(&cluster)?, "/none"), "the server answers 404")?;
    let away = Server::answering(|_| Answer::Redirect("file:///etc/passwd".into()));
    refuse("away", &away.url_from(&host(&cluster)?, "/x"), "only http and https are allowed")?;
    Ok(())
}

/// The process that clones from a URL.
fn process(url: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<String> = arguments.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        if arguments.iter().any(|a| a == "git-clone") && arguments.iter().any(|a| a == url) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[test]
fn a_clone_has_nothing_but_its_volume() -> Result<()> {
    let cluster = Cluster::up("e2e-git-box")?;
    let silent = Server::answering(|_| Answer::Silence);
    let url = silent.url_from(&host(&cluster)?, "/x");
    cluster.apply(&pod("box", &[format!("{{repository: {url:?}}}")], "true", ""))?;
    let process = wait("the clone to run", 60, || process(&url))?;
    let status = std::fs::read_to_string(process.join("status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), [USER; 4]);
    assert_eq!(field("Gid:"), [USER; 4]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".into()], vec!["2".into()]));
    // The pod's network: that of the shim, which is its parent, and not this machine's.
    let namespace = |of: &Path| std::fs::read_link(of.join("ns/net"));
    let parent = Path::new("/proc").join(&field("PPid:")[0]);
    assert_eq!(namespace(&process)?, namespace(&parent)?);
    assert_ne!(namespace(&process)?, namespace(Path::new("/proc/self"))?);
    let mut seen: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(process.join("root"))? {
        seen.push(entry?.file_name().to_string_lossy().into_owned());
    }
    seen.sort();
    assert_eq!(seen, ["certificates.pem", "dev", "etc", "lib", "message", "proc", "sagong", "sys", "volume"]);
    let mounts = std::fs::read_to_string(process.join("mountinfo"))?;
    let writable: Vec<&str> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[5].split(',').any(|o| o == "rw"))
        .map(|fields| fields[4])
        .filter(|point| !point.starts_with("/dev") && !point.starts_with("/proc"))
        .collect();
    assert_eq!(writable.iter().filter(|p| !["/volume", "/message", "/etc/hosts"].contains(*p)).count(), 0, "{writable:?}");
    let limits = std::fs::read_to_string(process.join("limits"))?;
    assert!(limits.lines().any(|l| l.starts_with("Max open files") && l.contains("256")), "{limits}");
    ensure!(cluster.get(&["pod", "box"])?["status"]["containerStatuses"][0]["state"]["waiting"].is_object());
    // A pod that goes takes its clone along at once.
    let begun = std::time::Instant::now();
    cluster.kubectl(&["delete", "pod", "box", "--timeout=20s"])?;
    ensure!(begun.elapsed().as_secs() < 15, "the clone held the pod up");
    ensure!(!process.exists(), "the clone outlived its pod");
    Ok(())
}
