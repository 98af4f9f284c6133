//! Process ids in files, safe against reuse: the id with the process's start time.

use crate::{Doing, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::Path;
use std::time::Duration;

/// A process that was found alive.
pub struct Process {
    /// Its id.
    pub pid: i32,
    handle: OwnedFd,
}

impl Process {
    /// The process recorded in a file, if it lives.
    pub fn from_file(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid: i32 = pid.parse().ok()?;
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Checked after the handle is open: from here on the id cannot be given to another.
        (start_time(pid)? == started).then_some(Self { pid, handle })
    }

    /// Records process `pid` in a file.
    pub fn record(path: &Path, pid: i32) -> Result<()> {
        let started = start_time(pid).unwrap_or_default();
        crate::spec::write_atomic(path, format!("{pid} {started}\n").as_bytes(), 0o600)
    }

    /// The pidfd.
    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Gives up the process for its pidfd.
    pub fn into_handle(self) -> OwnedFd {
        self.handle
    }

    /// Sends a signal; one that has ended meanwhile is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other.doing(|| format!("signal process {}", self.pid)),
        }
    }

    /// Waits for its end; false when it still lives after `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)); `None` for a process that is gone or a zombie.
fn start_time(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?;
    (state != "Z" && state != "X").then(|| rest.nth(18).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_until_it_ends() {
        let path = std::env::temp_dir().join(format!("sagong-pid-{}", std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        Process::record(&path, child.id() as i32).expect("record");
        let found = Process::from_file(&path).expect("alive");
        found.signal(Signal::KILL).expect("signal");
        assert!(found.wait(Duration::from_secs(5)));
        child.wait().expect("reap");
        assert!(Process::from_file(&path).is_none());
        std::fs::remove_file(path).expect("remove");
    }
}
