//! exec, attach and port-forward: the ends of pipes, terminals and sockets the shim hands out.

use crate::client::{self, Answer, Connection};
use crate::protocol::{self, Phase, Reply, Request};
use crate::state::{Container, Sandbox};
use crate::{Runtime, internal};
use cri::{Duplex, Error, ExecRequest, ExecSyncOutput, Reader, Result, Streams, TerminalSize};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// Output of exec_sync beyond this is dropped, as upstream does.
const MAX_OUTPUT: usize = 16 << 20;

/// How long exec_sync waits for output of what a finished command left running.
const LINGER: Duration = Duration::from_secs(2);

impl Runtime {
    fn running(&self, id: &str) -> Result<(Arc<Container>, Arc<Sandbox>)> {
        let container = self.state.container(id)?;
        if container.phase() != Phase::Running {
            let state = if container.phase() == Phase::Created { "CONTAINER_CREATED" } else { "CONTAINER_EXITED" };
            return Err(Error::FailedPrecondition(format!("container is in {state} state")));
        }
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        Ok((container, sandbox))
    }

    async fn start_exec(
        &self,
        id: &str,
        cmd: Vec<String>,
        tty: bool,
        kill_on_close: bool,
        stdio: &[OwnedFd],
    ) -> Result<Answer> {
        let (container, sandbox) = self.running(id)?;
        if cmd.is_empty() {
            return Err(Error::InvalidArgument("cmd cannot be empty".into()));
        }
        let mut process = container.record.lock().process.clone();
        (process.args, process.tty) = (cmd, tty);
        if tty && !process.env.iter().any(|e| e.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        let request = Request::Exec { id: id.into(), process: Box::new(process), kill_on_close };
        client::call(&sandbox.dir, &request, &protocol::borrow(stdio)).await.map_err(|error| match error {
            Error::Internal(why) => Error::Internal(format!(
                "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start container process: {why}"
            )),
            other => other,
        })
    }

    pub(crate) async fn run_exec(&self, id: &str, cmd: Vec<String>, timeout: Duration) -> Result<ExecSyncOutput> {
        let shown = cmd.join(" ");
        let ((stdout, out), (stderr, err)) = (output_pipe()?, output_pipe()?);
        let stdio = [null()?, out, err];
        let run = async {
            let answer = self.start_exec(id, cmd, false, true, &stdio).await?;
            drop(stdio);
            let outputs = tokio::spawn(async move { tokio::join!(collect(stdout), collect(stderr)) });
            let abort = outputs.abort_handle();
            let exit_code = exit_of(answer.connection).await?;
            let collected = tokio::time::timeout(LINGER, outputs).await;
            abort.abort();
            // Something it left behind holds the pipes: its output is not the command's any more.
            let (stdout, stderr) =
                collected.map_or_else(|_| Ok(Default::default()), |joined| joined.map_err(internal))?;
            Ok(ExecSyncOutput { stdout, stderr, exit_code })
        };
        if timeout.is_zero() {
            return run.await;
        }
        // Dropping the connection makes the shim kill the command.
        tokio::time::timeout(timeout, run).await.unwrap_or(Err(Error::DeadlineExceeded(shown)))
    }

    pub(crate) async fn stream_exec(&self, request: ExecRequest) -> Result<Streams> {
        if request.tty {
            return self.terminal_exec(request).await;
        }
        let (stdin, input) = if request.stdin { input_pipe().map(|(a, b)| (a, Some(b)))? } else { (null()?, None) };
        let output = |wanted: bool| if wanted { output_pipe().map(|(a, b)| (Some(a), b)) } else { Ok((None, null()?)) };
        let ((stdout, out), (stderr, err)) = (output(request.stdout)?, output(request.stderr)?);
        let answer = self.start_exec(&request.container_id, request.cmd, false, false, &[stdin, out, err]).await?;
        Ok(Streams {
            stdin: input.map(|pipe| Box::new(pipe) as _),
            stdout: stdout.map(|pipe| Box::new(pipe) as _),
            stderr: stderr.map(|pipe| Box::new(pipe) as _),
            resize: None,
            exit: exit_later(answer.connection),
        })
    }

    async fn terminal_exec(&self, request: ExecRequest) -> Result<Streams> {
        let answer = self.start_exec(&request.container_id, request.cmd, true, false, &[]).await?;
        let master = answer.fds.into_iter().next().ok_or_else(|| internal("the shim sent no terminal"))?;
        let terminal = Terminal::new(master)?;
        Ok(Streams {
            stdin: request.stdin.then(|| terminal.clone()).map(|t| Box::new(t) as _),
            stdout: Some(Box::new(terminal.clone())),
            stderr: None,
            resize: Some(terminal.resizer()),
            exit: exit_later(answer.connection),
        })
    }

    pub(crate) async fn stream_attach(&self, request: ExecRequest) -> Result<Streams> {
        let (container, sandbox) = self.running(&request.container_id)?;
        let wanted = Request::Attach {
            id: request.container_id,
            stdin: request.stdin || request.tty,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let answer = client::call(&sandbox.dir, &wanted, &[]).await?;
        let Reply::Attached { stdin, stdout, stderr, tty } = answer.reply else {
            return Err(internal("unexpected answer of the shim"));
        };
        let mut fds = answer.fds.into_iter();
        let mut take = |given: bool| if given { fds.next() } else { None };
        let (stdin, stdout, stderr) = (take(stdin), take(stdout), take(stderr));
        let mut streams = Streams {
            stdin: None,
            stdout: stdout.map(reader).transpose()?,
            stderr: stderr.map(reader).transpose()?,
            resize: None,
            exit: ended_later(container),
        };
        match stdin {
            Some(master) if tty => {
                let terminal = Terminal::new(master)?;
                streams.resize = Some(terminal.resizer());
                streams.stdin = request.stdin.then(|| Box::new(terminal) as _);
            }
            Some(pipe) => streams.stdin = Some(Box::new(pipe::Sender::from_owned_fd(pipe).map_err(internal)?)),
            None => {}
        }
        Ok(streams)
    }

    pub(crate) async fn connect_port(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let sandbox = self.state.sandbox(sandbox_id)?;
        if !*sandbox.alive.borrow() {
            return Err(Error::FailedPrecondition(format!("sandbox container \"{sandbox_id}\" is not running")));
        }
        let mut failures = Vec::new();
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let answer = client::call(&sandbox.dir, &Request::Socket { v6: address.is_ipv6() }, &[]).await?;
            let socket = answer.fds.into_iter().next().ok_or_else(|| internal("the shim sent no socket"))?;
            // Made in the pod's namespace, a socket stays there wherever it is used.
            let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
            match socket.connect(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => failures.push(oci::os_text(&error)),
            }
        }
        Err(Error::Internal(format!(
            "failed to connect to localhost:{port} inside namespace \"{sandbox_id}\", IPv4: {} IPv6: {}",
            failures[0], failures[1]
        )))
    }
}

fn null() -> Result<OwnedFd> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from).map_err(internal)
}

/// Our reading end and the process's writing end.
fn output_pipe() -> Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(internal)?;
    Ok((pipe::Receiver::from_owned_fd(read).map_err(internal)?, write))
}

/// The process's reading end and our writing end.
fn input_pipe() -> Result<(OwnedFd, pipe::Sender)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(internal)?;
    Ok((read, pipe::Sender::from_owned_fd(write).map_err(internal)?))
}

fn reader(fd: OwnedFd) -> Result<Reader> {
    Ok(Box::new(pipe::Receiver::from_owned_fd(fd).map_err(internal)?))
}

/// Reads to the end, keeping no more than the limit.
async fn collect(mut pipe: pipe::Receiver) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..length.min(room)]);
    }
    kept
}

async fn exit_of(mut connection: Connection) -> Result<i32> {
    match connection.receive().await {
        Ok(Some((Reply::Exited(code), _))) => Ok(code),
        Ok(_) => Err(internal("the sandbox ended before the command")),
        Err(error) => Err(internal(error)),
    }
}

fn exit_later(connection: Connection) -> oneshot::Receiver<Result<i32>> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let _ = sender.send(exit_of(connection).await);
    });
    receiver
}

fn ended_later(container: Arc<Container>) -> oneshot::Receiver<Result<i32>> {
    let (mut sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            () = container.ended() => {
                let code = container.state.borrow().exit_code;
                let _ = sender.send(Ok(code));
            }
            // The client has gone.
            () = sender.closed() => {}
        }
    });
    receiver
}

/// The master of a terminal.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    fn new(master: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&master, true).map_err(internal)?;
        // Deprecated for types whose descriptor may change; an owned one does not.
        #[allow(deprecated)]
        let master = AsyncFd::new(master).map_err(internal)?;
        Ok(Self(Arc::new(master)))
    }

    /// Takes sizes until the sender is dropped.
    fn resizer(&self) -> mpsc::Sender<TerminalSize> {
        let (sender, mut sizes) = mpsc::channel::<TerminalSize>(4);
        let terminal = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let Some(terminal) = terminal.upgrade() else { return };
                let size =
                    rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
                // A terminal whose process has gone has no size.
                let _ = rustix::termios::tcsetwinsize(terminal.get_ref(), size);
            }
        });
        sender
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // How a terminal says that its last user has gone.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
