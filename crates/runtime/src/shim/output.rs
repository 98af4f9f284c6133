//! Output of containers: to the log always, to attached clients as they take it.

use super::events::{Events, Poller, Source, Token};
use super::log::{Lines, Log};
use crate::protocol::Reply;
use rustix::event::epoll::EventFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Read at a time.
const CHUNK: usize = 16 << 10;

/// Reads of what an ended container left behind: the largest pipe an unprivileged process can make, and a terminal's
/// buffer.
const LAST_CHUNKS: usize = (1 << 20) / CHUNK;

/// One output stream of a container.
pub(super) struct Stream {
    /// `None` once it ended.
    fd: Option<OwnedFd>,
    /// `None` while an attached client is behind or the log waits for a new file: then nothing is read.
    token: Option<Token>,
    /// The log waits for a new file.
    held: bool,
    lines: Lines,
    outputs: Vec<Output>,
    /// Container and index, for registrations.
    container: String,
    index: usize,
}

/// An attached client of a stream.
struct Output {
    fd: OwnedFd,
    /// What it did not take yet, at most one chunk.
    pending: Vec<u8>,
    token: Option<Token>,
}

/// What a read brought.
enum Read {
    Some,
    Nothing,
    End,
}

impl Stream {
    /// Starts reading a descriptor.
    pub(super) fn watch(
        poller: &mut Poller,
        container: &str,
        index: usize,
        fd: OwnedFd,
        lines: Lines,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let token = poller.add(fd.as_fd(), EventFlags::IN, Source::Stream(container.into(), index))?;
        Ok(Self {
            fd: Some(fd),
            token: Some(token),
            held: false,
            lines,
            outputs: Vec::new(),
            container: container.into(),
            index,
        })
    }

    /// Adds a client; `false` when the stream has ended.
    pub(super) fn attach(&mut self, fd: OwnedFd) -> bool {
        if self.fd.is_some() {
            self.outputs.push(Output { fd, pending: Vec::new(), token: None });
        }
        self.fd.is_some()
    }

    /// Moves one chunk.
    fn step(&mut self, poller: &mut Poller, log: &mut Log) -> Read {
        let Some(fd) = &self.fd else { return Read::End };
        let mut chunk = [0; CHUNK];
        match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut chunk)) {
            Err(rustix::io::Errno::AGAIN) => return Read::Nothing,
            // A terminal answers EIO when its last user has gone.
            Ok(0) | Err(_) => {
                self.end(poller, log);
                return Read::End;
            }
            Ok(length) => {
                self.lines.push(&chunk[..length], log);
                self.outputs.retain_mut(|output| output.send(&chunk[..length]));
            }
        }
        self.pause_if_behind(poller);
        Read::Some
    }

    fn pause_if_behind(&mut self, poller: &mut Poller) {
        if !self.behind() {
            return;
        }
        self.stop_reading(poller);
        for output in self.outputs.iter_mut().filter(|o| !o.pending.is_empty() && o.token.is_none()) {
            let source = Source::Output(self.container.clone(), self.index);
            output.token = poller.add(output.fd.as_fd(), EventFlags::OUT, source).ok();
        }
    }

    fn stop_reading(&mut self, poller: &mut Poller) {
        if let (Some(fd), Some(token)) = (&self.fd, self.token.take()) {
            poller.remove(fd.as_fd(), token);
        }
    }

    fn read_on(&mut self, poller: &mut Poller) {
        if let (false, false, Some(fd), None) = (self.held, self.behind(), &self.fd, self.token) {
            self.token =
                poller.add(fd.as_fd(), EventFlags::IN, Source::Stream(self.container.clone(), self.index)).ok();
        }
    }

    /// Lets its writers wait.
    pub(super) fn hold(&mut self, poller: &mut Poller) {
        self.held = true;
        self.stop_reading(poller);
    }

    /// Lets its writers go on.
    pub(super) fn let_go(&mut self, poller: &mut Poller) {
        if std::mem::replace(&mut self.held, false) {
            self.read_on(poller);
        }
    }

    fn behind(&self) -> bool {
        self.outputs.iter().any(|output| !output.pending.is_empty())
    }

    /// Sends what is pending; reads on when no client is behind any more.
    fn resume(&mut self, poller: &mut Poller) {
        self.outputs.retain_mut(|output| {
            if output.pending.is_empty() {
                return true;
            }
            let pending = std::mem::take(&mut output.pending);
            let alive = output.send(&pending);
            if !alive || output.pending.is_empty() {
                output.unwatch(poller);
            }
            alive
        });
        self.read_on(poller);
        if self.fd.is_none() {
            self.outputs.retain(|output| !output.pending.is_empty());
        }
    }

    /// The stream ended: its last line is logged and clients that have everything are let go.
    fn end(&mut self, poller: &mut Poller, log: &mut Log) {
        self.lines.finish(log);
        if let (Some(fd), token) = (self.fd.take(), self.token.take()) {
            if let Some(token) = token {
                poller.remove(fd.as_fd(), token);
            }
        }
        self.outputs.retain(|output| !output.pending.is_empty());
    }

    /// Lets go of everything.
    pub(super) fn close(self, poller: &mut Poller) {
        if let (Some(fd), Some(token)) = (&self.fd, self.token) {
            poller.remove(fd.as_fd(), token);
        }
        for mut output in self.outputs {
            output.unwatch(poller);
        }
    }
}

impl Output {
    /// Sends what fits and keeps the rest; `false` when the client is gone.
    fn send(&mut self, mut bytes: &[u8]) -> bool {
        while self.pending.is_empty() && !bytes.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, bytes)) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => return false,
            }
        }
        self.pending.extend_from_slice(bytes);
        true
    }

    fn unwatch(&mut self, poller: &mut Poller) {
        if let Some(token) = self.token.take() {
            poller.remove(self.fd.as_fd(), token);
        }
    }
}

impl Events {
    /// Moves one chunk of a stream.
    pub(super) fn pump(&mut self, id: &str, stream: usize) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(stream) = container.streams.get_mut(stream) {
            stream.step(&mut self.poller, &mut container.log);
        }
        let (full, overflows) = (container.log.became_full(), container.log.overflows());
        // Without an agent, or after the container's end, nobody would make a new file: then its processes go on as they like.
        if overflows && container.lives() && !self.subscribers.is_empty() {
            container.streams.iter_mut().for_each(|stream| stream.hold(&mut self.poller));
        }
        if full {
            self.publish(&Reply::LogFull(id.into()));
        }
    }

    /// Lets the writers of a container go on.
    pub(super) fn let_go(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.streams.iter_mut().for_each(|stream| stream.let_go(&mut self.poller));
    }

    /// An attached client can take more.
    pub(super) fn resume(&mut self, id: &str, stream: usize) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(stream) = container.streams.get_mut(stream) {
            stream.resume(&mut self.poller);
        }
    }

    /// Logs all that an ended container has written, then lets its clients go. A process that outlived
    /// it may hold the pipe open: what it writes later is logged as it comes.
    pub(super) fn drain(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        for stream in &mut container.streams {
            let mut chunks = 0..LAST_CHUNKS;
            while !stream.behind()
                && chunks.next().is_some()
                && matches!(stream.step(&mut self.poller, &mut container.log), Read::Some)
            {}
            stream.lines.finish(&mut container.log);
            stream.outputs.retain(|output| !output.pending.is_empty());
            // No new file comes any more.
            stream.let_go(&mut self.poller);
        }
    }
}
