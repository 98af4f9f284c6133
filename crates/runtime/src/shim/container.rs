//! Containers of a shim: made, started, ended.

use super::events::{Events, Source, Token};
use super::log::{Lines, Log};
use super::output::Stream;
use crate::protocol::{Create, Phase, Record, Reply};
use crate::records;
use oci::cgroup::Cgroup;
use oci::process::{self, Joined, Prepared, Report, Stdio};
use oci::{Context, Identity, PidNamespace};
use rustix::event::epoll::EventFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// A container.
pub(super) struct Container {
    pub(super) record: Record,
    pub(super) cgroup: Cgroup,
    /// Until it is reaped.
    pub(super) pidfd: Option<OwnedFd>,
    /// Until its program runs.
    channel: Option<(OwnedFd, Token)>,
    /// Connection that waits for it to be made or started.
    waiting: Option<Token>,
    /// Its program was told to start.
    started: bool,
    /// What its child reported before it gave up.
    failure: Option<String>,
    directory: PathBuf,
    pub(super) log: Log,
    /// stdout and stderr, or the terminal alone.
    pub(super) streams: Vec<Stream>,
    /// The writing end of its stdin, or another handle of the terminal.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdin_once: bool,
    pub(super) tty: bool,
    pub(super) idmap: Option<oci::IdMap>,
    /// Others may be in its PID namespace, so its first process does not take all along.
    shares_pids: bool,
}

impl Container {
    /// Whether it has a process that was not reaped.
    pub(super) fn lives(&self) -> bool {
        self.pidfd.is_some()
    }

    fn save(&self) {
        // A full /run loses the record for a later agent; this one gets it by event.
        let _ = records::write(&self.directory.join("state.json"), &self.record);
    }

    /// Kills all of its processes.
    pub(super) fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = oci::sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        }
        if self.shares_pids || self.pidfd.is_none() {
            self.cgroup.kill();
        }
    }
}

/// Our ends of a container's stdio.
struct Pipes {
    stdin: Option<OwnedFd>,
    outputs: Vec<OwnedFd>,
}

impl Events {
    /// Makes a container; the reply follows when its child is ready.
    pub(super) fn create(&mut self, token: Token, request: Create) {
        if self.containers.contains_key(&request.id) {
            return self.finish(token, &Reply::Failed(format!("container {} exists", request.id)));
        }
        if let Err(error) = self.try_create(token, request) {
            self.finish(token, &Reply::Failed(error.to_string()));
        }
    }

    fn try_create(&mut self, token: Token, request: Create) -> oci::Result<()> {
        let spec = &request.spec;
        let cgroup = self.cgroups.make(&spec.cgroup, &spec.resources)?;
        let made = cgroup.restrict_devices(&spec.device_rules).and_then(|()| {
            let log = Log::open(&request.log_directory, &request.log, request.log_limit)
                .context(|| format!("open log {}", request.log.display()))?;
            let (stdio, pipes) = stdio(&request)?;
            Ok((log, pipes, self.clone_child(&request, stdio, &cgroup)?))
        });
        match made {
            Ok((log, pipes, prepared)) => self.adopt(token, request, cgroup, log, pipes, prepared),
            Err(error) => {
                // The first error is the one that counts.
                let _ = cgroup.remove();
                Err(error)
            }
        }
    }

    fn clone_child(&self, request: &Create, stdio: Option<Stdio>, cgroup: &Cgroup) -> oci::Result<Prepared> {
        let target = request.pid_of.as_ref().and_then(|id| self.containers.get(id)?.pidfd.as_ref());
        if request.pid_of.is_some() && target.is_none() {
            return Err(oci::Error::Invalid("the target container does not run".into()));
        }
        let shared = target.or(self.namespaces.pid.as_ref()).filter(|_| request.spec.pid == PidNamespace::Shared);
        let user = self.namespaces.user.as_ref().filter(|_| request.spec.idmap.is_some());
        process::create(
            &request.spec,
            stdio,
            cgroup,
            Joined { pid: shared.map(AsFd::as_fd), user: user.map(AsFd::as_fd) },
        )
    }

    fn adopt(
        &mut self,
        token: Token,
        request: Create,
        cgroup: Cgroup,
        log: Log,
        pipes: Pipes,
        prepared: Prepared,
    ) -> oci::Result<()> {
        let id = request.id;
        rustix::io::ioctl_fionbio(&prepared.channel, true).context(|| "prepare the channel")?;
        let channel_source = Source::ContainerChannel(id.clone());
        let channel = self
            .poller
            .add(prepared.channel.as_fd(), EventFlags::IN, channel_source)
            .context(|| "watch the channel")?;
        let mut container = Container {
            record: Record { id: id.clone(), pid: Some(prepared.pid), ..Record::default() },
            cgroup,
            pidfd: Some(prepared.pidfd),
            channel: Some((prepared.channel, channel)),
            waiting: Some(token),
            started: false,
            failure: None,
            directory: request.directory,
            log,
            streams: Vec::new(),
            stdin: pipes.stdin,
            stdin_once: request.stdin_once,
            tty: request.spec.process.tty,
            idmap: request.spec.idmap,
            shares_pids: request.spec.pid != PidNamespace::Own,
        };
        for (index, (fd, name)) in pipes.outputs.into_iter().zip(["stdout", "stderr"]).enumerate() {
            container
                .streams
                .push(Stream::watch(&mut self.poller, &id, index, fd, Lines::new(name)).context(|| "watch output")?);
        }
        self.containers.insert(id, container);
        Ok(())
    }

    /// Tells a container's child to go on; the reply follows when its program runs.
    pub(super) fn start(&mut self, token: Token, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return self.not_found(token, id) };
        let Some((channel, _)) =
            container.channel.as_ref().filter(|_| container.record.phase == Phase::Created && !container.started)
        else {
            return self.finish(token, &Reply::Failed(format!("container {id} was started before")));
        };
        match process::start(channel.as_fd()) {
            Ok(()) => (container.started, container.waiting) = (true, Some(token)),
            Err(error) => self.finish(token, &Reply::Failed(error.to_string())),
        }
    }

    /// Takes all news of a container's child.
    pub(super) fn container_news(&mut self, id: &str) {
        while let Some(container) = self.containers.get_mut(id) {
            let Some((channel, _)) = &container.channel else { return };
            match Report::receive(channel.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(Some((Report::Ready(identity), master))) => self.container_ready(id, identity, master),
                Ok(Some((Report::Failed(why), _))) => container.failure = Some(why),
                Ok(None) | Err(_) => return self.channel_closed(id),
            }
        }
    }

    fn container_ready(&mut self, id: &str, identity: Identity, master: Option<OwnedFd>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.record.identity = identity.clone();
        if let Some(master) = master {
            container.stdin = master.try_clone().ok();
            match Stream::watch(&mut self.poller, id, 0, master, Lines::new("stdout")) {
                Ok(stream) => container.streams.push(stream),
                Err(error) => {
                    container.failure = Some(format!("watch the terminal: {error}"));
                    return container.kill();
                }
            }
        }
        container.save();
        let (record, waiting) = (container.record.clone(), container.waiting.take());
        if let Some(token) = waiting {
            self.finish(token, &Reply::Created(identity));
        }
        self.publish(&Reply::Changed(record));
    }

    /// The child's channel closed: its program runs, unless it had reported a failure.
    fn channel_closed(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some((channel, token)) = container.channel.take() {
            self.poller.remove(channel.as_fd(), token);
        }
        if container.failure.is_some() || !container.started {
            return; // It is about to end; the rest happens when it is reaped.
        }
        container.record.phase = Phase::Running;
        container.record.started_at = records::now();
        container.save();
        let (record, waiting) = (container.record.clone(), container.waiting.take());
        if let Some(token) = waiting {
            self.finish(token, &Reply::Done);
        }
        self.publish(&Reply::Changed(record));
    }

    /// The first process was reaped.
    pub(super) fn container_ended(&mut self, id: &str, code: i32) {
        self.container_news(id);
        // Before what they wrote is read: they could write for ever.
        if let Some(container) = self.containers.get(id).filter(|c| c.shares_pids) {
            container.cgroup.kill();
        }
        self.drain(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        container.pidfd = None;
        container.record.pid = None;
        if !container.started {
            if let (Some(token), why) = (container.waiting.take(), container.failure.take()) {
                let _ = container.cgroup.remove();
                self.forget(id);
                return self.finish(
                    token,
                    &Reply::Failed(why.unwrap_or_else(|| format!("the container's init ended with {code}"))),
                );
            }
        }
        self.record_end(id, code);
    }

    fn record_end(&mut self, id: &str, code: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let record = &mut container.record;
        record.phase = Phase::Exited;
        record.finished_at = records::now();
        record.exit_code = code;
        let start_failure = container.failure.take();
        record.reason = match () {
            () if start_failure.is_some() => "StartError",
            () if container.cgroup.oom_kills() > 0 => "OOMKilled",
            () if code == 0 => "Completed",
            () => "Error",
        }
        .into();
        record.message = start_failure.clone().unwrap_or_default();
        container.save();
        let (record, waiting) = (container.record.clone(), container.waiting.take());
        if let Some(token) = waiting {
            self.finish(
                token,
                &Reply::Failed(start_failure.unwrap_or_else(|| format!("the container's init ended with {code}"))),
            );
        }
        self.publish(&Reply::Changed(record));
    }

    /// Forgets a container that does not live.
    pub(super) fn remove(&mut self, token: Token, id: &str) {
        match self.containers.get(id) {
            Some(container) if container.lives() && container.started => {
                self.finish(token, &Reply::Failed(format!("container {id} is running")));
            }
            Some(container) => {
                // Made but never started: its child waits for a byte that will not come.
                container.kill();
                self.forget(id);
                self.finish(token, &Reply::Done);
            }
            None => self.finish(token, &Reply::Done),
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(mut container) = self.containers.remove(id) else { return };
        if let Some((channel, token)) = container.channel.take() {
            self.poller.remove(channel.as_fd(), token);
        }
        for stream in container.streams {
            stream.close(&mut self.poller);
        }
    }

    pub(super) fn not_found(&mut self, token: Token, id: &str) {
        self.finish(token, &Reply::NotFound(format!("container \"{id}\"")));
    }
}

/// The child's stdio and our ends of it; nothing for a terminal, which the child makes itself.
fn stdio(request: &Create) -> oci::Result<(Option<Stdio>, Pipes)> {
    if request.spec.process.tty {
        return Ok((None, Pipes { stdin: None, outputs: Vec::new() }));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context(|| "pipe");
    let (theirs, stdin) = match request.stdin {
        true => pipe().map(|(read, write)| (read, Some(write)))?,
        false => (std::fs::File::open("/dev/null").context(|| "open /dev/null")?.into(), None),
    };
    let ((out, out_write), (err, err_write)) = (pipe()?, pipe()?);
    for end in [&out, &err] {
        rustix::io::ioctl_fionbio(end, true).context(|| "make a pipe non-blocking")?;
    }
    Ok((Some(Stdio([theirs, out_write, err_write])), Pipes { stdin, outputs: vec![out, err] }))
}
