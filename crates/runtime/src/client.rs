//! The agent's end of a shim's socket.

use crate::protocol::{self, Inbox, Reply, Request};
use crate::shim::SOCKET;
use cri::Error;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// One connection, one request.
pub(crate) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
}

/// A reply with its descriptors, and the connection for what follows.
pub(crate) struct Answer {
    pub reply: Reply,
    pub fds: Vec<OwnedFd>,
    pub connection: Connection,
}

impl Connection {
    /// Connects to the shim of a sandbox's directory. Through a handle: socket paths end at 108 bytes.
    pub(crate) async fn open(dir: &Path) -> io::Result<Self> {
        let handle = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
        Ok(Self { stream: UnixStream::connect(path).await?, inbox: Inbox::default() })
    }

    /// Talks over one half of a pair.
    pub(crate) fn over(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, inbox: Inbox::default() })
    }

    /// Pid of the shim.
    pub(crate) fn peer(&self) -> Option<i32> {
        self.stream.peer_cred().ok().and_then(|cred| cred.pid())
    }

    /// Sends a request, with descriptors beside it.
    pub(crate) async fn send<T: Serialize>(&self, request: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = protocol::encode(request)?;
        let mut sent = 0;
        while sent < frame.len() {
            let beside = if sent == 0 { fds } else { &[] };
            let write = || protocol::send_some(self.stream.as_fd(), &frame[sent..], beside);
            sent += self.stream.async_io(Interest::WRITABLE, write).await?;
        }
        Ok(())
    }

    /// Receives the next reply; `None` when the shim closed.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(reply) = self.inbox.take()? {
                return Ok(Some(reply));
            }
            let inbox = &mut self.inbox;
            let mut fill = || inbox.fill(self.stream.as_fd());
            if !self.stream.async_io(Interest::READABLE, &mut fill).await? {
                return Ok(None);
            }
        }
    }
}

/// Asks a shim; failures it reports become errors.
pub(crate) async fn call(dir: &Path, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Answer, Error> {
    let lost = |error: io::Error| Error::FailedPrecondition(format!("the sandbox does not run: {error}"));
    let mut connection = Connection::open(dir).await.map_err(lost)?;
    connection.send(request, fds).await.map_err(lost)?;
    let (reply, fds) =
        connection.receive().await.map_err(lost)?.ok_or_else(|| lost(io::ErrorKind::UnexpectedEof.into()))?;
    match reply {
        Reply::Failed(why) => Err(Error::Internal(why)),
        Reply::NotFound(what) => Err(Error::NotFound(what)),
        reply => Ok(Answer { reply, fds, connection }),
    }
}
