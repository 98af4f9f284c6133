//! The steps of a cluster's life in order: up, stop, delete, and what it is doing.

use crate::kubeconfig::{self, Files};
use crate::notify::{Listener, Message};
use crate::process::Process;
use crate::slot::{self, SlotLock};
use crate::{Doing, Error, Layout, Result, Spec, cgroup, host, node, pins};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(120);

/// What a cluster is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum State {
    /// Its server runs and has been ready.
    Running,
    /// Its supervisor runs; the server is starting.
    Starting,
    /// Nothing of it runs.
    Stopped,
    /// Its containers may run but nothing looks after them; `sagong start` takes over.
    Orphaned,
}

/// Held by the one command that works on a cluster.
pub struct Held {
    _file: File,
}

/// Takes the cluster's lock without waiting.
pub fn hold(layout: &Layout) -> Result<Held> {
    let path = layout.lock();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).doing(|| format!("make {}", dir.display()))?;
    }
    let file = File::create(&path).doing(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Held { _file: file }),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Busy(layout.name().into())),
        Err(fs::TryLockError::Error(error)) => Err(error).doing(|| format!("lock {}", path.display())),
    }
}

/// What the cluster is doing now.
pub fn state(layout: &Layout) -> State {
    let supervised = Process::from_file(&layout.supervisor_pid()).is_some();
    match (supervised, layout.ready().exists(), pins::exist(layout)) {
        (true, true, _) => State::Running,
        (true, false, _) => State::Starting,
        (false, _, true) => State::Orphaned,
        (false, _, false) => State::Stopped,
    }
}

/// Makes the cluster where it does not exist (`created` is now, RFC 3339), starts it where it does not run, and
/// returns when its node is ready and its DNS answers. A cluster that cannot be started is left as it was before.
pub fn up(layout: &Layout, exe: &Path, created: &str, progress: &mut dyn FnMut(&str)) -> Result<Spec> {
    require_root("it makes namespaces, mounts and network links")?;
    let _held = hold(layout)?;
    let new = !layout.exists();
    let slots = slot::lock()?;
    let spec = if new { create(layout, created, &slots)? } else { Spec::load(layout)? };
    let done = start(layout, &spec, exe, slots, progress);
    if done.is_err() {
        // The first error is the one to tell; what is left over is undone as far as it goes.
        let _ = if new { destroy(layout, &spec) } else { halt(layout, &spec) };
    }
    done.map(|()| spec)
}

fn require_root(why: &'static str) -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot(why)) }
}

fn create(layout: &Layout, created: &str, slots: &SlotLock) -> Result<Spec> {
    let spec = Spec { name: layout.name().into(), slot: slot::choose(layout, slots)?, created: created.into() };
    fs::create_dir_all(layout.dir()).doing(|| format!("make {}", layout.dir().display()))?;
    spec.save(layout)?;
    Ok(spec)
}

fn start(layout: &Layout, spec: &Spec, exe: &Path, slots: SlotLock, progress: &mut dyn FnMut(&str)) -> Result<()> {
    if let Some(range) = slot::conflict(spec)? {
        return Err(Error::NoSlot(format!("{range}, which the cluster was made with, is now routed elsewhere (`ip route`)")));
    }
    pins::mount_run(layout)?;
    // Bound before anything is looked at, so that no message is missed.
    let listener = Listener::bind(&layout.notify_socket()).doing(|| "listen to the node".into())?;
    let supervised = Process::from_file(&layout.supervisor_pid()).is_some();
    if supervised && layout.ready().exists() {
        return Ok(());
    }
    if !supervised {
        progress("starting the node");
        spawn(layout, spec, exe)?;
    }
    drop(slots);
    wait_ready(layout, &listener, progress)
}

/// Starts the supervisor, pins its namespaces and wires its network.
fn spawn(layout: &Layout, spec: &Spec, exe: &Path) -> Result<()> {
    rotate(&layout.log());
    let log = fs::OpenOptions::new().append(true).create(true).open(layout.log()).doing(|| format!("open {}", layout.log().display()))?;
    let mut command = Command::new(exe);
    command.arg("node").arg(layout.data_dir()).arg(layout.name()).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().doing(|| format!("start {}", exe.display()))?;
    let wired = wire(layout, spec, &mut child);
    if wired.is_err() {
        // It waits for a word that does not come.
        let _ = child.kill();
        let _ = child.wait();
    }
    wired
}

fn wire(layout: &Layout, spec: &Spec, child: &mut Child) -> Result<()> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else { return Err(failed(layout, "it has no pipes")) };
    let mut word = String::new();
    BufReader::new(stdout).read_line(&mut word).doing(|| "hear from the node".into())?;
    match word.trim() {
        node::UNSHARED => pins::pin(layout, child.id())?,
        node::ENTERED => {}
        _ => return Err(failed(layout, "it ended before it stood in its namespaces")),
    }
    host::connect(spec, &pins::network(layout))?;
    writeln!(stdin, "{}", node::GO).doing(|| "answer the node".into())
}

fn wait_ready(layout: &Layout, listener: &Listener, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while let Some(messages) = listener.next(deadline).doing(|| "hear from the node".into())? {
        for message in messages {
            match message {
                Message::Status(text) => progress(&text),
                Message::Ready => return Ok(()),
                Message::Failed(text) => return Err(failed(layout, &text)),
            }
        }
    }
    Err(failed(layout, "it was not ready after 120 s"))
}

fn failed(layout: &Layout, reason: &str) -> Error {
    let text = fs::read_to_string(layout.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].iter().map(|line| format!("  | {line}\n")).collect();
    // The log of a cluster that is undone goes with it; it is kept for whoever reads the message.
    let kept = std::env::temp_dir().join(format!("sagong-{}.log", layout.name()));
    let path = if fs::copy(layout.log(), &kept).is_ok() { kept } else { layout.log() };
    Error::NodeFailed { reason: reason.into(), log: tail, path: path.display().to_string() }
}

/// Keeps one older log when the log has grown large.
fn rotate(log: &Path) {
    if fs::metadata(log).is_ok_and(|m| m.len() > 10 << 20) {
        // A log that cannot be renamed is appended to.
        let _ = fs::rename(log, log.with_extension("log.1"));
    }
}

/// Ends everything of the cluster that runs; its data stays.
pub fn stop(layout: &Layout) -> Result<()> {
    require_root("its processes are root's")?;
    let _held = hold(layout)?;
    halt(layout, &Spec::load(layout)?)
}

fn halt(layout: &Layout, spec: &Spec) -> Result<()> {
    if let Some(supervisor) = Process::from_file(&layout.supervisor_pid()) {
        supervisor.signal(rustix::process::Signal::TERM)?;
        supervisor.wait(Duration::from_secs(15));
    }
    cgroup::kill_all(&spec.bridge(), &[])?;
    pins::unmount_run(layout)?;
    host::disconnect(spec)?;
    cgroup::remove(&spec.bridge())
}

/// Ends the cluster and removes everything of it, its context included.
pub fn delete(layout: &Layout, files: &Files) -> Result<()> {
    require_root("its processes and files are root's")?;
    let _held = hold(layout)?;
    let spec = Spec::load(layout)?;
    destroy(layout, &spec)?;
    kubeconfig::remove(files, layout.name())
}

fn destroy(layout: &Layout, spec: &Spec) -> Result<()> {
    halt(layout, spec)?;
    fs::remove_dir_all(layout.dir()).doing(|| format!("remove {}", layout.dir().display()))?;
    // Whoever waits for the lock finds no cluster.
    let _ = fs::remove_file(layout.lock());
    if Layout::all(layout.data_dir())?.is_empty() && layout.images().exists() {
        fs::remove_dir_all(layout.images()).doing(|| format!("remove {}", layout.images().display()))?;
    }
    for dir in [layout.data_dir().join("clusters"), layout.data_dir().to_owned()] {
        // Kept while it holds anything.
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// The administrator's kubeconfig of a cluster.
pub fn admin_kubeconfig(layout: &Layout) -> Result<serde_json::Value> {
    Spec::load(layout)?;
    let path = layout.admin_kubeconfig();
    kubeconfig::read(&path)?.ok_or_else(|| Error::Damaged {
        path: path.display().to_string(),
        reason: "it does not exist".into(),
        fix: "start the cluster with `sagong start`, which writes it",
    })
}
