//! The shim: one process per pod, parent of its containers.
//!
//! It is the same binary as the agent, forked from a [`zygote`] that has no async runtime. It makes the pod's
//! namespaces, then serves requests and watches its children in one thread; when nothing happens it
//! sleeps. It needs no agent to live.

mod container;
mod events;
mod exec;
mod log;
mod name;
mod namespaces;
mod output;
mod requests;
mod zygote;

use crate::protocol::ShimConfig;
use crate::records;
use oci::cgroup::Hierarchies;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// Runs the zygote of the shims, as the word `zygote` after `shim` asks for.
///
/// Must be called while the process has one thread.
pub fn main(args: Vec<OsString>) -> ! {
    if args.first().is_none_or(|word| word != "zygote") {
        report("usage: shim zygote");
        oci::sys::exit_now(1);
    }
    zygote::run()
}

/// Runs the shim of a sandbox's directory until its pod is shut down.
fn start(dir: &Path, hierarchies: &Result<Hierarchies, String>) -> ! {
    match prepare(dir, hierarchies) {
        Ok(mut events) => {
            if !report("ok") {
                // The agent died meanwhile: the next one takes the directory for the rest of a failure.
                oci::sys::exit_now(1);
            }
            let code = match events.run() {
                Ok(()) => 0,
                Err(_) => 1,
            };
            oci::sys::exit_now(code)
        }
        Err(error) => {
            report(&error);
            oci::sys::exit_now(1)
        }
    }
}

/// Tells the agent how the start went, over stdout, then lets go of stdout and stderr. False without an agent.
fn report(text: &str) -> bool {
    let mut stdout = std::io::stdout();
    let told = stdout.write_all(format!("{}\n", text.replace('\n', " ")).as_bytes()).and_then(|()| stdout.flush());
    let_go_of_stdio();
    told.is_ok()
}

/// Puts /dev/null in the place of stdin, stdout and stderr.
fn let_go_of_stdio() {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        use std::os::fd::AsFd;
        let _ = (0..3).try_for_each(|fd| oci::sys::dup_to(null.as_fd(), fd));
    }
}

fn prepare(dir: &Path, hierarchies: &Result<Hierarchies, String>) -> Result<events::Events, String> {
    let config: ShimConfig = records::read(&dir.join("shim.json")).map_err(|e| format!("read shim.json: {e}"))?;
    // Whatever the agent had open is not ours.
    oci::sys::close_except(&mut Vec::new()).map_err(|e| format!("close descriptors: {e}"))?;
    std::env::set_current_dir(dir).map_err(|e| format!("enter {}: {e}", dir.display()))?;
    rustix::process::setsid().map_err(|e| format!("setsid: {e}"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| format!("become subreaper: {e}"))?;
    // Needs CAP_SYS_RESOURCE; without it the shim is as mortal as the agent.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    name::set(&config.pod, dir);
    let cgroups = hierarchies.as_ref()?.below(&config.cgroup_root).map_err(|e| e.to_string())?;
    let namespaces = namespaces::make(&config)?;
    events::Events::new(cgroups, namespaces).map_err(|e| format!("listen: {e}"))
}

pub(crate) use log::NOTHING as NO_LOG;
pub(crate) use name::ROOM as NAME_ROOM;

/// Name of the socket in the sandbox's directory.
pub(crate) const SOCKET: &str = "shim.sock";
/// Bind mount of the network namespace there.
pub(crate) const NETNS: &str = "netns";
/// Mount of the pod's shared memory there.
pub(crate) const SHM: &str = "shm";
