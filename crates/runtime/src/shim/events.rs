//! The loop: one epoll, whose tokens lead to what became ready.

use super::SOCKET;
use super::container::Container;
use super::exec::Exec;
use super::namespaces::Namespaces;
use crate::protocol::{self, Inbox, Reply, Request};
use oci::cgroup::Cgroups;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{WaitOptions, WaitStatus, wait};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Names a registration; never used twice.
pub(super) type Token = u64;

/// What a token leads to.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A new connection.
    Listener,
    /// A child ended.
    Signals,
    /// A request, or the end of a connection.
    Connection,
    /// News of a container's child before its program runs.
    ContainerChannel(String),
    /// The same of an exec.
    ExecChannel(i32),
    /// Output of a container: which stream.
    Stream(String, usize),
    /// An attached client can take more of a stream.
    Output(String, usize),
}

/// Registrations.
pub(super) struct Poller {
    epoll: OwnedFd,
    next: Token,
    sources: HashMap<Token, Source>,
}

impl Poller {
    fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, next: 1, sources: HashMap::new() })
    }

    /// Watches a descriptor.
    pub(super) fn add(&mut self, fd: BorrowedFd<'_>, flags: EventFlags, source: Source) -> io::Result<Token> {
        let token = self.next;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?;
        self.next += 1;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Stops watching. The descriptor may be closed afterwards, not before.
    pub(super) fn remove(&mut self, fd: BorrowedFd<'_>, token: Token) {
        let _ = epoll::delete(&self.epoll, fd);
        self.sources.remove(&token);
    }

    fn wait(&self) -> io::Result<Vec<Token>> {
        let mut ready: Vec<Event> = Vec::with_capacity(16);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(ready.iter().map(|event| event.data.u64()).collect()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A connection of an agent.
struct Connection {
    socket: OwnedFd,
    inbox: Inbox,
}

/// The shim's whole state.
pub(super) struct Events {
    pub(super) poller: Poller,
    pub(super) cgroups: Cgroups,
    pub(super) namespaces: Namespaces,
    pub(super) containers: HashMap<String, Container>,
    /// By pid.
    pub(super) execs: HashMap<i32, Exec>,
    /// Connection that asked for the end.
    pub(super) stopping: Option<Token>,
    signals: OwnedFd,
    listener: OwnedFd,
    connections: HashMap<Token, Connection>,
    pub(super) subscribers: Vec<Token>,
}

impl Events {
    pub(super) fn new(cgroups: Cgroups, namespaces: Namespaces) -> io::Result<Self> {
        let mut poller = Poller::new()?;
        let signals = oci::sys::signal_fd(&[libc::SIGCHLD, libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM])?;
        poller.add(signals.as_fd(), EventFlags::IN, Source::Signals)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(SOCKET)?)?;
        rustix::net::listen(&listener, 64)?;
        poller.add(listener.as_fd(), EventFlags::IN, Source::Listener)?;
        Ok(Self {
            poller,
            cgroups,
            namespaces,
            containers: HashMap::new(),
            execs: HashMap::new(),
            stopping: None,
            signals,
            listener,
            connections: HashMap::new(),
            subscribers: Vec::new(),
        })
    }

    /// Serves until shut down.
    pub(super) fn run(&mut self) -> io::Result<()> {
        loop {
            for token in self.poller.wait()? {
                // Gone if something before it in this round removed it.
                if let Some(source) = self.poller.sources.get(&token).cloned() {
                    self.dispatch(token, source);
                }
            }
            if let Some(token) = self.stopping.filter(|_| !self.containers.values().any(Container::lives)) {
                self.reply(token, &Reply::Done, &[]);
                return Ok(());
            }
        }
    }

    fn dispatch(&mut self, token: Token, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.reap(),
            Source::Connection => self.receive(token),
            Source::ContainerChannel(id) => self.container_news(&id),
            Source::ExecChannel(pid) => self.exec_news(pid),
            Source::Stream(id, stream) => self.pump(&id, stream),
            Source::Output(id, stream) => self.resume(&id, stream),
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            if let Ok(token) = self.poller.add(socket.as_fd(), EventFlags::IN, Source::Connection) {
                self.connections.insert(token, Connection { socket, inbox: Inbox::default() });
            }
        }
    }

    fn receive(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match connection.inbox.fill(connection.socket.as_fd()) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(false) | Err(_) => return self.closed(token),
        }
        match connection.inbox.take::<Request>() {
            Ok(Some((request, fds))) => self.serve(token, request, fds),
            Ok(None) => {}
            Err(error) => self.finish(token, &Reply::Failed(format!("bad request: {error}"))),
        }
    }

    fn closed(&mut self, token: Token) {
        self.close(token);
        self.exec_abandoned(token);
    }

    fn close(&mut self, token: Token) {
        let subscribers = self.subscribers.len();
        self.subscribers.retain(|s| *s != token);
        if self.subscribers.is_empty() && subscribers > 0 {
            let all: Vec<String> = self.containers.keys().cloned().collect();
            all.iter().for_each(|id| self.let_go(id));
        }
        if let Some(connection) = self.connections.remove(&token) {
            self.poller.remove(connection.socket.as_fd(), token);
        }
    }

    /// Replies; the connection stays.
    pub(super) fn reply(&mut self, token: Token, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        let Some(connection) = self.connections.get(&token) else { return };
        // One that does not read its few replies is dropped: it connects anew and asks for all records.
        if protocol::send(connection.socket.as_fd(), reply, fds).is_err() {
            self.close(token);
        }
    }

    /// Replies and ends the connection.
    pub(super) fn finish(&mut self, token: Token, reply: &Reply) {
        self.reply(token, reply, &[]);
        self.close(token);
    }

    /// Replies with descriptors and ends the connection.
    pub(super) fn finish_with(&mut self, token: Token, reply: &Reply, fds: &[OwnedFd]) {
        self.reply(token, reply, &protocol::borrow(fds));
        self.close(token);
    }

    /// Tells every subscriber.
    pub(super) fn publish(&mut self, reply: &Reply) {
        for token in self.subscribers.clone() {
            self.reply(token, reply, &[]);
        }
    }

    fn reap(&mut self) {
        let _ = rustix::io::read(&self.signals, &mut [0u8; 512]);
        // All that ended: children, and orphans left to us.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let (pid, code) = (pid.as_raw_nonzero().get(), exit_code(status));
            let container = self.containers.values().find(|c| c.record.pid == Some(pid)).map(|c| c.record.id.clone());
            match container {
                Some(id) => self.container_ended(&id, code),
                None => self.exec_ended(pid, code),
            }
        }
    }
}

/// The shell's convention.
fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
}
