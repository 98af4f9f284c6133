//! The agent's end of the zygote.

use crate::client::Connection;
use crate::protocol::{Birth, Born};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::sync::Mutex;

/// Forks shims, from a process that is started with the first of them.
pub(crate) struct Zygote {
    exe: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Zygote {
    /// One that will run `exe shim zygote`.
    pub(crate) fn new(exe: PathBuf) -> Self {
        Self { exe, process: Mutex::new(None) }
    }

    /// Forks the shim of a sandbox's directory, which reports to `stdout`. Its pid, of a child of this process.
    pub(crate) async fn fork(&self, directory: &Path, stdout: OwnedFd) -> io::Result<i32> {
        let mut place = self.process.lock().await;
        // Taken out: where this ends early, the answer that is still to come dies with the process.
        let mut process = match place.take() {
            Some(mut process) => if process.lives() { process } else { Process::start(&self.exe)? },
            None => Process::start(&self.exe)?,
        };
        let born = process.ask(directory, stdout).await?;
        *place = Some(process);
        born.map_err(io::Error::other)
    }
}

struct Process {
    connection: Connection,
    child: Child,
}

impl Process {
    fn start(exe: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(exe);
        // Room for the names of the pods whose shims it forks.
        let room = " ".repeat(crate::shim::NAME_ROOM);
        command.args(["shim", "zygote", &room]).env_clear().current_dir("/").stdin(OwnedFd::from(theirs));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, connection: Connection::over(ours)? })
    }

    fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    async fn ask(&mut self, directory: &Path, stdout: OwnedFd) -> io::Result<Born> {
        self.connection.send(&Birth { directory: directory.into() }, &[stdout.as_fd()]).await?;
        let answer = self.connection.receive().await?;
        answer.map(|(born, _)| born).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It holds nothing that could be lost; one that has ended already is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
