//! The process that shims are forked from: loaded and relocated once, so that no pod waits for that.
//!
//! It has one thread and knows nothing but where the cgroups are. Its shims are siblings, children of the agent that asked, and outlive
//! both; it ends when the agent closes its stdin.

use crate::protocol::{self, Birth, Born, Inbox};
use oci::cgroup::Hierarchies;
use oci::sys::{self, Forked};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Forks a shim for every [`Birth`] that arrives at stdin.
pub(super) fn run() -> ! {
    let _ = rustix::thread::set_name(c"sagong-zygote");
    let agent = rustix::stdio::stdin();
    let hierarchies = Hierarchies::find().map_err(|e| e.to_string());
    let mut inbox = Inbox::default();
    while let Ok(true) = inbox.fill(agent) {
        loop {
            let answered = match inbox.take::<Birth>() {
                Ok(None) => break,
                Ok(Some((birth, fds))) => protocol::send(agent, &fork(&birth.directory, fds, &hierarchies), &[]),
                Err(error) => Err(error),
            };
            // The agent reads the end of the socket and starts another zygote.
            if answered.is_err() {
                sys::exit_now(1);
            }
        }
    }
    sys::exit_now(0)
}

fn fork(directory: &Path, fds: Vec<OwnedFd>, hierarchies: &Result<Hierarchies, String>) -> Born {
    let [stdout] = fds.try_into().map_err(|_| "a birth without a descriptor for stdout".to_owned())?;
    match sys::clone3_sibling(0) {
        Ok(Forked::Parent(pid, _)) => Ok(pid),
        Ok(Forked::Child) => match sys::dup_to(stdout.as_fd(), 1) {
            Ok(()) => super::start(directory, hierarchies),
            // The agent reads the end of the pipe.
            Err(_) => sys::exit_now(1),
        },
        Err(error) => Err(format!("fork: {error}")),
    }
}
