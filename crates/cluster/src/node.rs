//! The supervisor of a node: holds its namespaces and keeps its server running.
//!
//! It says one line on stdout when it stands in the node's namespaces ([`UNSHARED`] or [`ENTERED`]), waits on
//! stdin for the host side to wire the network ([`GO`]), and then runs `sagong server` until SIGTERM.
//! Shims whose server died become its children (it is a subreaper) and are reaped here.

use crate::notify::{self, Message};
use crate::process::Process;
use crate::{Doing, Layout, Result, Spec, cgroup, pins};
use rustix::process::{Pid, Signal, WaitOptions};
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// Said when the node's namespaces are new and must be pinned and wired.
pub const UNSHARED: &str = "unshared";
/// Said when the node's pinned namespaces were entered.
pub const ENTERED: &str = "entered";
/// Awaited before anything runs in the node.
pub const GO: &str = "go";

/// A server that lived this long is started anew at once.
const STABLE: Duration = Duration::from_secs(10);

/// Runs a node until SIGTERM. `exe` is this program. Must be called before any thread exists.
pub fn run(layout: &Layout, exe: &Path) -> Result<()> {
    // Fails only for a group leader, which is as detached as is needed.
    let _ = rustix::process::setsid();
    let spec = Spec::load(layout)?;
    cgroup::join(&spec.bridge())?;
    let fresh = !pins::exist(layout);
    if fresh { pins::unshare()? } else { pins::enter(layout)? }
    shake_hands(if fresh { UNSHARED } else { ENTERED })?;
    if fresh {
        pins::remount_sys()?;
        leave_cgroup_root()?;
        rustix::system::sethostname(spec.name.as_bytes()).doing(|| "set the host name".into())?;
    }
    pins::show_kubelet_dir(&layout.server_dir().join("node/kubelet"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).doing(|| "become a subreaper".into())?;
    Process::record(&layout.supervisor_pid(), std::process::id() as i32)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().doing(|| "start the event loop".into())?;
    runtime.block_on(Supervisor { layout, spec, exe: exe.to_owned() }.supervise())
}

fn shake_hands(word: &str) -> Result<()> {
    let doing = || "talk to the command that starts the node".into();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{word}").and_then(|()| stdout.flush()).doing(doing)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).doing(doing)?;
    if line.trim() == GO { Ok(()) } else { Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).doing(doing) }
}

/// Moves this process out of the root of its cgroup namespace: on the unified hierarchy a cgroup with
/// processes cannot have controllers enabled for its children (cgroup-v2.rst, "No Internal Process Constraint").
fn leave_cgroup_root() -> Result<()> {
    for unified in cgroup::hierarchies()?.into_iter().filter(|h| h.v1.is_none()) {
        let leaf = unified.path.join("node");
        std::fs::create_dir_all(&leaf).and_then(|()| std::fs::write(leaf.join("cgroup.procs"), "0")).doing(|| format!("join cgroup {}", leaf.display()))?;
    }
    Ok(())
}

struct Supervisor<'a> {
    layout: &'a Layout,
    spec: Spec,
    exe: PathBuf,
}

enum Ended {
    Server,
    Told,
}

impl Supervisor<'_> {
    async fn supervise(&self) -> Result<()> {
        let mut signals = (listen(SignalKind::terminate())?, listen(SignalKind::child())?);
        let mut delay = Duration::ZERO;
        loop {
            let started = Instant::now();
            let server = self.server()?;
            // Deprecated for types that may close their descriptor early; an OwnedFd does not.
            #[allow(deprecated)]
            let handle = AsyncFd::new(server).doing(|| "watch the server".into())?;
            if matches!(self.until_end(&handle, &mut signals).await, Ended::Told) {
                return stop_server(handle).await;
            }
            let text = "the server has ended; it is started anew";
            eprintln!("sagong node {}: {text}", self.spec.name);
            notify::send(&self.notify_socket(), &Message::Failed(text.into()));
            delay = if started.elapsed() > STABLE { Duration::ZERO } else { (delay * 2).clamp(Duration::from_millis(100), Duration::from_secs(5)) };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = signals.0.recv() => return Ok(()),
            }
        }
    }

    /// Waits for the end of the server or for SIGTERM, reaping children.
    async fn until_end(&self, server: &AsyncFd<OwnedFd>, (term, child): &mut (SignalStream, SignalStream)) -> Ended {
        loop {
            tokio::select! {
                _ = term.recv() => return Ended::Told,
                _ = child.recv() => reap(),
                _ = server.readable() => {
                    reap();
                    return Ended::Server;
                }
            }
        }
    }

    /// The server of an earlier supervisor, if it lives, or a new one.
    fn server(&self) -> Result<OwnedFd> {
        if let Some(process) = Process::from_file(&self.layout.server_pid()) {
            return Ok(process.into_handle());
        }
        let child = self.command()?.spawn().doing(|| format!("start {}", self.exe.display()))?;
        Process::record(&self.layout.server_pid(), child.id() as i32)?;
        let pid = Pid::from_child(&child);
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).doing(|| "watch the server".into())
    }

    fn command(&self) -> Result<Command> {
        let log = self.layout.log();
        let open = || std::fs::OpenOptions::new().append(true).create(true).open(&log);
        let mut command = Command::new(&self.exe);
        command.arg("server").args(self.arguments());
        command.env(notify::VARIABLE, self.notify_socket()).stdin(Stdio::null());
        command.stdout(open().doing(|| format!("open {}", log.display()))?).stderr(open().doing(|| format!("open {}", log.display()))?);
        Ok(command)
    }

    fn arguments(&self) -> Vec<String> {
        let (spec, layout) = (&self.spec, self.layout);
        let pairs = [
            ("--data-dir", layout.server_dir().display().to_string()),
            ("--run-dir", layout.run().join("server").display().to_string()),
            ("--image-dir", layout.images().display().to_string()),
            ("--root-dir", pins::KUBELET_DIR.to_owned()),
            ("--log-file", layout.log().display().to_string()),
            ("--ready-file", layout.ready().display().to_string()),
            ("--cluster-name", spec.name.clone()),
            ("--node-name", spec.name.clone()),
            ("--advertise-address", spec.node_ip().to_string()),
            ("--service-cidr", crate::spec::cidr_text(spec.service_cidr())),
            ("--cluster-cidr", crate::spec::cidr_text(spec.cluster_cidr())),
        ];
        pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    fn notify_socket(&self) -> PathBuf {
        self.layout.notify_socket()
    }
}

fn listen(kind: SignalKind) -> Result<SignalStream> {
    signal(kind).doing(|| "listen for signals".into())
}

/// Reaps every child that has ended.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// Asks the server to end and kills it when it does not.
async fn stop_server(handle: AsyncFd<OwnedFd>) -> Result<()> {
    let send = |signal| rustix::process::pidfd_send_signal(handle.get_ref(), signal);
    // Fails only where the server has ended already.
    let _ = send(Signal::TERM);
    if tokio::time::timeout(Duration::from_secs(10), handle.readable()).await.is_err() {
        let _ = send(Signal::KILL);
    }
    Ok(())
}
