//! What agent and shim say to each other: frames of a length and JSON, with descriptors beside them.
//!
//! One connection to a shim carries one request (that to the zygote any number of [`Birth`]s). Most end with one reply;
//! `Exec` is followed by [`Reply::Exited`] and `Subscribe` by a [`Reply::Changed`] for every change of a container, until one side closes.

use oci::{ContainerSpec, Identity, ProcessSpec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Longest frame. A container's environment may be large; nothing else is.
const MAX_FRAME: usize = 16 << 20;

/// Descriptors in one frame.
const MAX_FDS: usize = 3;

/// What a shim is made with; `shim.json` of its directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShimConfig {
    /// Host name; empty: the node's UTS namespace.
    pub hostname: String,
    /// Own network namespace.
    pub own_network: bool,
    /// Own IPC namespace.
    pub own_ipc: bool,
    /// One PID namespace for all containers.
    pub share_pid: bool,
    /// Sysctls of the pod's namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Mappings of the pod's own user namespace.
    pub idmap: Option<oci::IdMap>,
    /// The node's cgroup root.
    pub cgroup_root: String,
    /// `namespace/name` of the pod, for those who look at the node's processes.
    #[serde(default)]
    pub pod: String,
}

/// A shim to fork; the write end of its stdout comes along.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Birth {
    /// Its sandbox's directory.
    pub directory: PathBuf,
}

/// The pid of a forked shim, or why there is none.
pub type Born = Result<i32, String>;

/// A container to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    /// Its id.
    pub id: String,
    /// What it is made of.
    pub spec: ContainerSpec,
    /// Container whose PID namespace it joins.
    pub pid_of: Option<String>,
    /// Log file; empty: none.
    pub log: PathBuf,
    /// The pod's log directory, which it lies in.
    #[serde(default)]
    pub log_directory: PathBuf,
    /// Bytes after which a new log is asked for; 0: never.
    #[serde(default)]
    pub log_limit: u64,
    /// Directory of its records.
    pub directory: PathBuf,
    /// Keeps a stdin for attach.
    pub stdin: bool,
    /// Closes it when the first attach ends.
    pub stdin_once: bool,
}

/// What an agent asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// All records now, and every change from now on.
    Subscribe,
    /// Makes a container, up to the point before its program starts.
    Create(Box<Create>),
    /// Starts its program.
    Start { id: String },
    /// Signals its first process; `SIGKILL` reaches all of them.
    Kill { id: String, signal: i32 },
    /// Forgets a container that does not run, and removes its cgroup.
    Remove { id: String },
    /// Opens its log anew.
    Reopen { id: String },
    /// Runs a further process. Without a terminal three descriptors come along: stdin, stdout, stderr.
    Exec { id: String, process: Box<ProcessSpec>, kill_on_close: bool },
    /// Asks for the first process's streams.
    Attach { id: String, stdin: bool, stdout: bool, stderr: bool },
    /// Asks for a TCP socket made in the pod's network namespace.
    Socket { v6: bool },
    /// Kills everything and ends.
    Shutdown,
}

/// What a shim answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// It failed, for this reason.
    Failed(String),
    /// There is no such container.
    NotFound(String),
    /// A container was made; its process is this user.
    Created(Identity),
    /// A process was started; with a terminal its master comes along.
    Execed,
    /// That process ended.
    Exited(i32),
    /// Streams come along in the order stdin, stdout, stderr, as far as they were asked for and exist.
    Attached { stdin: bool, stdout: bool, stderr: bool, tty: bool },
    /// All records.
    Snapshot(Vec<Record>),
    /// A record changed.
    Changed(Record),
    /// The log of a container is full: it is to be renamed and opened anew.
    LogFull(String),
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Made.
    #[default]
    Created,
    /// Its program runs.
    Running,
    /// It ended.
    Exited,
}

/// What a shim knows of a container; `state.json` of its directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Container.
    pub id: String,
    /// Phase.
    pub phase: Phase,
    /// First process on the node, while there is one.
    pub pid: Option<i32>,
    /// User of the first process.
    pub identity: Identity,
    /// Unix nanoseconds, 0: never.
    pub started_at: i64,
    /// Unix nanoseconds, 0: not yet.
    pub finished_at: i64,
    /// Exit code; 128 + n for signal n.
    pub exit_code: i32,
    /// CRI reason.
    pub reason: String,
    /// Text for people.
    pub message: String,
}

/// Sends one frame, whole. `Err(WouldBlock)` on a non-blocking socket means that the peer does not read.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let frame = encode(message)?;
    let mut sent = send_some(socket, &frame, fds)?;
    while sent < frame.len() {
        sent += send_some(socket, &frame[sent..], &[])?;
    }
    Ok(())
}

/// The bytes of a frame.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request is larger than 16 MiB"));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Sends what fits, with descriptors.
pub fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?)
}

/// Collects frames from a stream socket.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// Reads once; `false` at the end of the stream.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        // On the stack: an idle connection owns no memory.
        let mut chunk = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut chunk)];
        let got =
            rustix::io::retry_on_intr(|| recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > MAX_FDS || self.bytes.len() + got > MAX_FRAME + 4 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
        }
        self.bytes.extend_from_slice(&chunk[..got]);
        Ok(got > 0)
    }

    /// Takes the next frame if it is complete, with the descriptors that came so far.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(header) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
        }
        let Some(body) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(Some((message, std::mem::take(&mut self.fds))))
    }
}

/// Borrows a list of descriptors.
pub fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_carry_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send(a.as_fd(), &Request::Start { id: "x".repeat(40_000) }, &[null.as_fd()]).unwrap();
        send(a.as_fd(), &Request::Shutdown, &[]).unwrap();
        let mut inbox = Inbox::default();
        let mut got = Vec::new();
        while got.len() < 2 {
            assert!(inbox.fill(b.as_fd()).unwrap());
            while let Some((request, fds)) = inbox.take::<Request>().unwrap() {
                got.push((request, fds.len()));
            }
        }
        assert!(matches!(&got[0], (Request::Start { id }, 1) if id.len() == 40_000));
        assert!(matches!(&got[1], (Request::Shutdown, 0)));
    }

    #[test]
    fn large_frames_are_refused() {
        let (a, b) = UnixStream::pair().unwrap();
        send_some(a.as_fd(), &u32::MAX.to_le_bytes(), &[]).unwrap();
        let mut inbox = Inbox::default();
        inbox.fill(b.as_fd()).unwrap();
        assert!(inbox.take::<Request>().is_err());
    }
}
