//! One arm per request.

use super::events::{Events, Token};
use crate::protocol::{Record, Reply, Request};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, OwnedFd};

impl Events {
    /// Serves a request. Each either finishes its connection or leaves it to wait.
    pub(super) fn serve(&mut self, token: Token, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Subscribe => self.subscribe(token),
            Request::Create(create) => self.create(token, *create),
            Request::Start { id } => self.start(token, &id),
            Request::Kill { id, signal } => self.kill(token, &id, signal),
            Request::Remove { id } => self.remove(token, &id),
            Request::Reopen { id } => self.reopen(token, &id),
            Request::Exec { id, process, kill_on_close } => self.exec(token, &id, &process, kill_on_close, fds),
            Request::Attach { id, stdin, stdout, stderr } => self.attach(token, &id, stdin, [stdout, stderr]),
            Request::Socket { v6 } => self.socket(token, v6),
            Request::Shutdown => self.shutdown(token),
        }
    }

    fn subscribe(&mut self, token: Token) {
        let records: Vec<Record> = self.containers.values().map(|c| c.record.clone()).collect();
        self.subscribers.push(token);
        self.reply(token, &Reply::Snapshot(records), &[]);
        for full in self.containers.values().filter(|c| c.log.is_full()).map(|c| c.record.id.clone()).collect::<Vec<_>>() {
            self.reply(token, &Reply::LogFull(full), &[]);
        }
    }

    fn kill(&mut self, token: Token, id: &str, signal: i32) {
        let Some(container) = self.containers.get(id) else { return self.not_found(token, id) };
        match (signal, &container.pidfd) {
            (libc::SIGKILL, _) => container.kill(),
            // One that has ended meanwhile is as good as signalled.
            (signal, Some(pidfd)) => drop(oci::sys::pidfd_signal(pidfd.as_fd(), signal)),
            (_, None) => {}
        }
        self.finish(token, &Reply::Done);
    }

    fn reopen(&mut self, token: Token, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return self.not_found(token, id) };
        let reply = match container.log.reopen() {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(format!("reopen the log: {error}")),
        };
        self.let_go(id);
        self.finish(token, &reply);
    }

    fn attach(&mut self, token: Token, id: &str, stdin: bool, outputs: [bool; 2]) {
        let Some(container) = self.containers.get_mut(id) else { return self.not_found(token, id) };
        if !container.lives() {
            return self.finish(token, &Reply::Failed(format!("container is in CONTAINER_EXITED state: {id}")));
        }
        let mut fds = Vec::new();
        let input = match stdin {
            // With stdin_once the client holds the only end: when it goes, the container reads the end.
            true if container.stdin_once && !container.tty => container.stdin.take(),
            true => container.stdin.as_ref().and_then(|fd| fd.try_clone().ok()),
            false => None,
        };
        let mut given = [false; 2];
        let has_stdin = input.is_some();
        fds.extend(input);
        for (index, stream) in container.streams.iter_mut().enumerate().filter(|(index, _)| outputs[*index]) {
            let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else { continue };
            if stream.attach(write) {
                given[index] = true;
                fds.push(read);
            }
        }
        let reply = Reply::Attached { stdin: has_stdin, stdout: given[0], stderr: given[1], tty: container.tty };
        self.finish_with(token, &reply, &fds);
    }

    fn socket(&mut self, token: Token, v6: bool) {
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::socket_with(family, SocketType::STREAM, flags, None) {
            Ok(socket) => self.finish_with(token, &Reply::Done, &[socket]),
            Err(error) => self.finish(token, &Reply::Failed(format!("socket: {error}"))),
        }
    }

    fn shutdown(&mut self, token: Token) {
        for container in self.containers.values() {
            container.kill();
        }
        if let Some(first) = &self.namespaces.first {
            let _ = oci::sys::pidfd_signal(first.as_fd(), libc::SIGKILL);
        }
        // The loop ends when the last container was reaped.
        self.stopping = Some(token);
    }
}
