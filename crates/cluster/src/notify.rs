//! Readiness messages, in the form systemd's `sd_notify(3)` has: datagrams of `NAME=value` lines.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the environment variable with the socket's path.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// What a starting server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `STATUS=…`: what it is doing.
    Status(String),
    /// `READY=1`
    Ready,
    /// `X_SAGONG_FAILED=…`: the server has ended before it was ready.
    Failed(String),
}

/// Sends one message; a receiver that is gone is no error.
pub fn send(socket: &Path, message: &Message) {
    let text = match message {
        Message::Status(text) => format!("STATUS={text}\n"),
        Message::Ready => "READY=1\n".to_owned(),
        Message::Failed(text) => format!("X_SAGONG_FAILED={text}\n"),
    };
    if let (Ok(sender), Ok((_dir, path))) = (UnixDatagram::unbound(), short(socket)) {
        // Nobody waits any more: `up` was interrupted.
        let _ = sender.send_to(text.as_bytes(), path);
    }
}

/// The receiving end.
pub struct Listener {
    socket: UnixDatagram,
}

impl Listener {
    /// Listens at `path`; an old socket there is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_dir, short) = short(path)?;
        Ok(Self { socket: UnixDatagram::bind(short)? })
    }

    /// Waits for the next messages; `None` at the deadline.
    pub fn next(&self, deadline: Instant) -> io::Result<Option<Vec<Message>>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut buffer = [0; 2048];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(Some(parse(&String::from_utf8_lossy(&buffer[..length])))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The same file by a path that fits into a socket address (108 bytes): through its directory, held open.
fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let dir = File::open(dir)?;
    let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok((dir, path))
}

fn parse(text: &str) -> Vec<Message> {
    text.lines()
        .filter_map(|line| match line.split_once('=')? {
            ("READY", "1") => Some(Message::Ready),
            ("X_SAGONG_FAILED", text) => Some(Message::Failed(text.to_owned())),
            ("STATUS", status) => Some(Message::Status(status.to_owned())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive() {
        let path = std::env::temp_dir().join(format!("sagong-notify-{}", std::process::id()));
        let listener = Listener::bind(&path).expect("bind");
        send(&path, &Message::Status("store".into()));
        send(&path, &Message::Ready);
        let deadline = Instant::now() + Duration::from_secs(5);
        assert_eq!(listener.next(deadline).expect("read"), Some(vec![Message::Status("store".into())]));
        assert_eq!(listener.next(deadline).expect("read"), Some(vec![Message::Ready]));
        assert_eq!(listener.next(Instant::now() + Duration::from_millis(5)).expect("read"), None);
        std::fs::remove_file(path).expect("remove");
    }
}
