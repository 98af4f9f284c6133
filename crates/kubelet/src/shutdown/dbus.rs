//! As much D-Bus as logind's inhibitor takes: authentication, two calls, one signal (D-Bus specification, `login1(5)`).

use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

const SOCKET: &str = "/run/dbus/system_bus_socket";
const SERVICE: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
/// Largest message that is taken: the specification allows far more, logind never sends it.
const MAX_MESSAGE: usize = 1 << 20;
const LOGIND_CONF: &str = "/etc/systemd/logind.conf.d";

/// A delay lock, and the signals that come with it.
pub struct Inhibitor {
    bus: Bus,
    lock: Option<OwnedFd>,
}

impl Inhibitor {
    /// Takes the lock; logind is told to wait as long as is wanted where it would not.
    pub async fn take(wanted: Duration) -> io::Result<Self> {
        let mut bus = Bus::connect(Path::new(SOCKET)).await?;
        let rule = format!("type='signal',interface='{MANAGER}',member='PrepareForShutdown',path='{OBJECT}'");
        bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", &[&rule]).await?;
        let properties = "org.freedesktop.DBus.Properties";
        let delay = bus.call(SERVICE, OBJECT, properties, "Get", &[MANAGER, "InhibitDelayMaxUSec"]).await?;
        // A variant: signature `t`, then the number at the next multiple of eight.
        let micros = delay.body.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        if u128::from(micros) < wanted.as_micros() {
            raise_delay(&mut bus, wanted).await?;
        }
        let why = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        bus.call(SERVICE, OBJECT, MANAGER, "Inhibit", &why).await?;
        let lock = bus.descriptors.pop_front();
        let lock = lock.ok_or_else(|| io::Error::other("logind gave no lock"))?;
        Ok(Self { bus, lock: Some(lock) })
    }

    /// Waits for the next word on a shutdown: it begins, or is called off.
    pub async fn changed(&mut self) -> io::Result<bool> {
        loop {
            let message = match self.bus.signals.pop_front() {
                Some(message) => message,
                None => self.bus.receive().await?,
            };
            if message.kind == SIGNAL && message.member == "PrepareForShutdown" {
                return Ok(message.body.first() == Some(&1));
            }
        }
    }

    /// Lets the shutdown go on.
    pub fn release(&mut self) {
        self.lock = None;
    }
}

async fn raise_delay(bus: &mut Bus, wanted: Duration) -> io::Result<()> {
    std::fs::create_dir_all(LOGIND_CONF)?;
    let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", wanted.as_secs());
    std::fs::write(Path::new(LOGIND_CONF).join("99-kubelet.conf"), text)?;
    // SIGHUP makes logind read its configuration anew.
    let body = Body::default().text("systemd-logind.service").text("all").number(1);
    let (path, interface) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
    bus.call_with("org.freedesktop.systemd1", path, interface, "KillUnit", "ssi", body).await.map(drop)
}

const CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A message as far as it matters.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    reply_to: u32,
    member: String,
    body: Vec<u8>,
}

/// Arguments of a call, little-endian.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn text(mut self, text: &str) -> Self {
        self.align(4);
        self.0.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    fn number(mut self, number: i32) -> Self {
        self.align(4);
        self.0.extend(number.to_le_bytes());
        self
    }
}

struct Bus {
    stream: UnixStream,
    serial: u32,
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    signals: VecDeque<Message>,
}

impl Bus {
    async fn connect(path: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path).await?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).await?;
        expect(&mut stream, "OK").await?;
        stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
        expect(&mut stream, "AGREE_UNIX_FD").await?;
        stream.write_all(b"BEGIN\r\n").await?;
        let mut bus =
            Self { stream, serial: 0, received: Vec::new(), descriptors: VecDeque::new(), signals: VecDeque::new() };
        bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", &[]).await?;
        Ok(bus)
    }

    async fn call(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        member: &str,
        args: &[&str],
    ) -> io::Result<Message> {
        let body = args.iter().fold(Body::default(), |body, arg| body.text(arg));
        self.call_with(to, path, interface, member, &"s".repeat(args.len()), body).await
    }

    async fn call_with(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: Body,
    ) -> io::Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&encode(serial, to, path, interface, member, signature, &body.0)).await?;
        loop {
            let message = self.receive().await?;
            match message.kind {
                SIGNAL => self.signals.push_back(message),
                ERROR if message.reply_to == serial => {
                    let text = String::from_utf8_lossy(message.body.get(4..).unwrap_or_default()).into_owned();
                    return Err(io::Error::other(format!("{interface}.{member}: {}", text.trim_end_matches('\0'))));
                }
                _ if message.reply_to == serial => return Ok(message),
                _ => {}
            }
        }
    }

    async fn receive(&mut self) -> io::Result<Message> {
        loop {
            if let Some(length) = length(&self.received)? {
                if self.received.len() >= length {
                    let rest = self.received.split_off(length);
                    let bytes = std::mem::replace(&mut self.received, rest);
                    return decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into());
                }
            }
            self.read().await?;
        }
    }

    /// Reads bytes, and the descriptors that came with them.
    async fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let (stream, descriptors) = (&self.stream, &mut self.descriptors);
        let read = stream.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let got = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(sent) = message {
                    descriptors.extend(sent);
                }
            }
            Ok(got.bytes)
        });
        match read.await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.received.extend(&buffer[..n]);
                Ok(())
            }
        }
    }
}

async fn expect(stream: &mut UnixStream, word: &str) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > 1024 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&line);
    if line.starts_with(word) { Ok(()) } else { Err(io::Error::other(format!("D-Bus said {:?}", line.trim()))) }
}

fn encode(serial: u32, to: &str, path: &str, interface: &str, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields = Body::default();
    for (code, kind, text) in [(1, 'o', path), (2, 's', interface), (3, 's', member), (6, 's', to)] {
        fields.align(8);
        fields.0.extend([code, 1, kind as u8, 0]);
        fields = fields.text(text);
    }
    if !signature.is_empty() {
        fields.align(8);
        fields.0.extend([8, 1, b'g', 0, u8::try_from(signature.len()).unwrap_or(0)]);
        fields.0.extend(signature.as_bytes());
        fields.0.push(0);
    }
    let mut out = vec![b'l', CALL, 0, 1];
    out.extend(u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
    out.extend(serial.to_le_bytes());
    out.extend(u32::try_from(fields.0.len()).unwrap_or(0).to_le_bytes());
    out.extend(fields.0);
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend(body);
    out
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

/// The length of the message that begins here; `None`: not known yet.
fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let (Some(body), Some(fields)) = (number(bytes, 4), number(bytes, 12)) else { return Ok(None) };
    let sum = fields.checked_next_multiple_of(8).and_then(|f| f.checked_add(body)).map(|n| n.saturating_add(16));
    match sum.filter(|n| *n <= MAX_MESSAGE && bytes[0] == b'l') {
        Some(length) => Ok(Some(length)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn decode(bytes: &[u8]) -> Option<Message> {
    let (body, fields) = (number(bytes, 4)?, number(bytes, 12)?);
    let mut message = Message { kind: *bytes.get(1)?, ..Message::default() };
    let (mut at, end) = (16, 16_usize.checked_add(fields)?);
    while at < end {
        at = at.next_multiple_of(8);
        let (code, kind) = (*bytes.get(at)?, *bytes.get(at + 2)?);
        at += 4;
        match kind {
            b's' | b'o' => {
                let length = number(bytes, at)?;
                let text = bytes.get(at + 4..(at + 4).checked_add(length)?)?;
                if code == 3 {
                    message.member = String::from_utf8_lossy(text).into_owned();
                }
                at += 4 + length + 1;
            }
            b'g' => at += usize::from(*bytes.get(at)?) + 2,
            b'u' => {
                if code == 5 {
                    message.reply_to = u32::try_from(number(bytes, at)?).ok()?;
                }
                at += 4;
            }
            _ => return None,
        }
    }
    let start = end.next_multiple_of(8);
    message.body = bytes.get(start..start.checked_add(body)?)?.to_vec();
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        let body = Body::default().text("a").number(7);
        let bytes = encode(3, SERVICE, OBJECT, MANAGER, "Inhibit", "si", &body.0);
        assert_eq!(length(&bytes).expect("length"), Some(bytes.len()));
        let message = decode(&bytes).expect("decodes");
        assert_eq!((message.kind, message.member.as_str()), (CALL, "Inhibit"));
        assert_eq!(message.body, [1, 0, 0, 0, b'a', 0, 0, 0, 7, 0, 0, 0]);
        for cut in 0..bytes.len() {
            // Nothing that is cut off makes it panic.
            let _ = (length(&bytes[..cut]), decode(&bytes[..cut]));
        }
        assert!(length(&[0xff; 16]).is_err());
    }
}
