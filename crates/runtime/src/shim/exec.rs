//! Further processes in containers.

use super::events::{Events, Source, Token};
use crate::protocol::{Phase, Reply};
use oci::ProcessSpec;
use oci::process::{self, Report, Stdio};
use rustix::event::epoll::EventFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A process run by exec.
pub(super) struct Exec {
    pidfd: OwnedFd,
    /// Until its program runs.
    channel: Option<(OwnedFd, Token)>,
    /// Connection that asked.
    connection: Token,
    master: Option<OwnedFd>,
    kill_on_close: bool,
}

impl Events {
    /// Clones a process into a container; the reply follows when its program runs.
    pub(super) fn exec(
        &mut self,
        token: Token,
        id: &str,
        process: &ProcessSpec,
        kill_on_close: bool,
        fds: Vec<OwnedFd>,
    ) {
        if !self.containers.contains_key(id) {
            return self.not_found(token, id);
        }
        if let Err(why) = self.try_exec(token, id, process, kill_on_close, fds) {
            self.finish(token, &Reply::Failed(why));
        }
    }

    fn try_exec(
        &mut self,
        token: Token,
        id: &str,
        process: &ProcessSpec,
        kill_on_close: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let container = self.containers.get(id).filter(|c| c.record.phase == Phase::Running);
        let (container, target) =
            container.and_then(|c| Some((c, c.pidfd.as_ref()?))).ok_or("container not running")?;
        let stdio = match process.tty {
            true => None,
            false => Some(Stdio(fds.try_into().map_err(|_| "exec without a terminal needs three descriptors")?)),
        };
        let prepared = process::exec(process, target.as_fd(), container.idmap.as_ref(), stdio, &container.cgroup)
            .map_err(|e| e.to_string())?;
        let watched = rustix::io::ioctl_fionbio(&prepared.channel, true).map_err(io::Error::from).and_then(|()| {
            self.poller.add(prepared.channel.as_fd(), EventFlags::IN, Source::ExecChannel(prepared.pid))
        });
        let channel = watched.map_err(|e| {
            process::discard(&prepared);
            format!("watch the channel: {e}")
        })?;
        let exec = Exec {
            pidfd: prepared.pidfd,
            channel: Some((prepared.channel, channel)),
            connection: token,
            master: None,
            kill_on_close,
        };
        self.execs.insert(prepared.pid, exec);
        Ok(())
    }

    /// Takes all news of an exec's child.
    pub(super) fn exec_news(&mut self, pid: i32) {
        while let Some(exec) = self.execs.get_mut(&pid) {
            let Some((channel, _)) = &exec.channel else { return };
            match Report::receive(channel.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(Some((Report::Ready(_), master))) => {
                    exec.master = master;
                    // It died if this fails; the channel says so next.
                    let _ = process::start(channel.as_fd());
                }
                Ok(Some((Report::Failed(why), _))) => {
                    let token = exec.connection;
                    self.exec_channel_closed(pid);
                    return self.finish(token, &Reply::Failed(why));
                }
                Ok(None) | Err(_) => {
                    self.exec_channel_closed(pid);
                    return self.exec_running(pid);
                }
            }
        }
    }

    fn exec_channel_closed(&mut self, pid: i32) {
        if let Some((channel, token)) = self.execs.get_mut(&pid).and_then(|exec| exec.channel.take()) {
            self.poller.remove(channel.as_fd(), token);
        }
    }

    fn exec_running(&mut self, pid: i32) {
        let Some(exec) = self.execs.get_mut(&pid) else { return };
        let (token, master) = (exec.connection, exec.master.take());
        let fds: Vec<_> = master.iter().map(AsFd::as_fd).collect();
        self.reply(token, &Reply::Execed, &fds);
    }

    /// A child that is no container ended: an exec, or an orphan nobody asks for.
    pub(super) fn exec_ended(&mut self, pid: i32, code: i32) {
        self.exec_news(pid);
        if let Some(exec) = self.execs.remove(&pid) {
            self.finish(exec.connection, &Reply::Exited(code));
        }
    }

    /// The connection that asked for an exec closed.
    pub(super) fn exec_abandoned(&mut self, token: Token) {
        for exec in self.execs.values().filter(|exec| exec.connection == token && exec.kill_on_close) {
            let _ = oci::sys::pidfd_signal(exec.pidfd.as_fd(), libc::SIGKILL);
        }
    }
}
