//! Netlink messages and sockets: the encoding that rtnetlink, nf_tables and conntrack share.

use crate::error::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, sockopt,
};
use std::time::Duration;

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// `NLM_F_REQUEST`
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`
pub const ACK: u16 = 4;
/// `NLM_F_REPLACE`
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`
pub const EXCL: u16 = 0x200;
/// `NLM_F_DUMP`
pub const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`
pub const APPEND: u16 = 0x800;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
/// The kernel answers at once or never; this only keeps a lost answer from hanging a thread.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// One or more messages being written.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    start: usize,
}

impl Messages {
    /// Begins a message; the one before it must have been [`Messages::end`]ed.
    pub fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) -> &mut Self {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.pad()
    }

    /// Ends the message begun last.
    pub fn end(&mut self) -> &mut Self {
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds an attribute.
    pub fn attr(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&((data.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(data);
        self.pad()
    }

    /// Adds a text with its terminating zero.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.bytes.extend_from_slice(&((text.len() + 5) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.pad()
    }

    /// Adds a number in the machine's byte order (rtnetlink).
    pub fn native(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order (netfilter).
    pub fn network(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds an attribute made of attributes; at most 64 KiB.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        inner(self);
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds raw bytes (a structure inside an attribute).
    pub fn raw(&mut self, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(data);
        self.pad()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds flags to the message that starts at an offset.
    pub fn set_flags(&mut self, at: usize, flags: u16) {
        let flags = u16_at(&self.bytes, at + 6).unwrap_or_default() | flags;
        if let Some(place) = self.bytes.get_mut(at + 6..at + 8) {
            place.copy_from_slice(&flags.to_ne_bytes());
        }
    }

    fn pad(&mut self) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Numbers the messages from `first` and returns how many there are.
    fn number(&mut self, first: u32) -> u32 {
        let (mut at, mut count) = (0, 0);
        while let Some(length) =
            self.bytes.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) as usize)
        {
            self.bytes[at + 8..at + 12].copy_from_slice(&first.wrapping_add(count).to_ne_bytes());
            at += length.next_multiple_of(4).max(HEADER);
            count += 1;
        }
        count
    }
}

/// One message of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_seq`
    pub seq: u32,
    flags: u16,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Splits a datagram into messages.
pub fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let answer = Answer { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, seq: u32_at(bytes, 8)?, payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}

/// Splits a payload into `(kind, data)` of attributes.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let data = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, data))
    })
}

/// The first attribute of a kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, data)| data)
}

/// A text attribute without its zero.
pub fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// Reads a number in the machine's byte order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads a number in the machine's byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A refusal of the kernel.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Number of the message in its batch, from 0.
    pub index: u32,
    /// Code.
    pub errno: Errno,
    /// The kernel's own words.
    pub text: Option<String>,
}

impl Refusal {
    /// The refusal as an error.
    pub fn error(self, doing: impl Into<String>) -> Error {
        Error::Kernel { doing: doing.into(), errno: self.errno, text: self.text }
    }
}

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

/// A netlink socket of the network namespace of the thread that opened it. It blocks.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket.
    pub fn open(family: Family) -> Result<Socket> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(net::netlink::NETFILTER),
        };
        let open = || {
            let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
            net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
            sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
            // Room for the errors of a large batch; without the privilege the default has to do.
            let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20);
            explain(&fd);
            Ok(fd)
        };
        let fd = open().map_err(Error::kernel("open a netlink socket"))?;
        Ok(Socket { fd, seq: 1, buffer: vec![0; 64 << 10] })
    }

    /// Sends one message and waits for its acknowledgement. `doing` names it in the error.
    pub fn request(&mut self, mut message: Messages, doing: impl FnOnce() -> String) -> Result<()> {
        message.set_flags(0, ACK);
        match self.transact(message)?.into_iter().next() {
            Some(refusal) => Err(refusal.error(doing())),
            None => Ok(()),
        }
    }

    /// Sends messages of which the last asks for an acknowledgement (or follows one that does), waits for
    /// it, and returns what was refused.
    pub fn transact(&mut self, mut messages: Messages) -> Result<Vec<Refusal>> {
        let (first, count) = (self.seq, messages.number(self.seq));
        self.seq = self.seq.wrapping_add(count);
        let last = last_acknowledged(&messages.bytes).map_or(first, |index| first.wrapping_add(index));
        self.send(&messages.bytes)?;
        let mut refusals = Vec::new();
        loop {
            let received = self.receive()?;
            for answer in answers(&self.buffer[..received]).filter(|answer| answer.kind == ERROR) {
                let index = answer.seq.wrapping_sub(first);
                // Left over from an earlier exchange that was given up.
                if index >= count {
                    continue;
                }
                if let Some(refusal) = refusal(&answer, index) {
                    refusals.push(refusal);
                }
                // A batch that fails as a whole is refused at its first message, and nothing follows.
                if answer.seq == last || (index == 0 && !refusals.is_empty()) {
                    return Ok(refusals);
                }
            }
        }
    }

    /// Sends one message and hands every message of the answer to `each`.
    pub fn dump(&mut self, mut message: Messages, doing: &str, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let seq = self.seq;
        message.number(seq);
        self.seq = seq.wrapping_add(1);
        let single = u16_at(&message.bytes, 6).unwrap_or_default() & DUMP != DUMP;
        self.send(&message.bytes)?;
        loop {
            let received = self.receive()?;
            for answer in answers(&self.buffer[..received]).filter(|answer| answer.seq == seq) {
                match answer.kind {
                    DONE => return Ok(()),
                    ERROR => {
                        return match refusal(&answer, 0) {
                            Some(refusal) => Err(refusal.error(doing)),
                            None => Ok(()),
                        };
                    }
                    kind => each(kind, answer.payload),
                }
                if single {
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        // A batch must be one datagram: the kernel applies it as one transaction.
        if bytes.len() > 100 << 10 {
            let size = bytes.len() * 2;
            let forced = sockopt::set_socket_send_buffer_size_force(&self.fd, size);
            forced
                .or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, size))
                .map_err(Error::kernel("enlarge a netlink buffer"))?;
        }
        let kernel = SocketAddrNetlink::new(0, 0);
        net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel).map_err(Error::kernel("send to netlink"))?;
        Ok(())
    }

    fn receive(&mut self) -> Result<usize> {
        loop {
            match net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((received, _)) => return Ok(received),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::kernel("receive from netlink")(e)),
            }
        }
    }
}

fn last_acknowledged(bytes: &[u8]) -> Option<u32> {
    let all = answers(bytes).enumerate();
    all.filter(|(_, message)| message.flags & ACK != 0).last().map(|(index, _)| index as u32)
}

/// The refusal in an error message; `None` when it is an acknowledgement.
fn refusal(answer: &Answer<'_>, index: u32) -> Option<Refusal> {
    const CAPPED: u16 = 0x100;
    const TLVS: u16 = 0x200;
    const TEXT: u16 = 1;
    let code = i32::from_ne_bytes(answer.payload.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    let original = if answer.flags & CAPPED != 0 { HEADER } else { u32_at(answer.payload, 4)? as usize };
    let tlvs = answer.payload.get(4 + original.next_multiple_of(4)..).filter(|_| answer.flags & TLVS != 0);
    let text = tlvs.and_then(|tlvs| attribute(tlvs, TEXT)).map(text);
    Some(Refusal { index, errno: Errno::from_raw_os_error(-code), text })
}

/// Asks for error texts and short error messages; old kernels do without.
#[allow(unsafe_code)] // rustix has no netlink socket options
fn explain(fd: &OwnedFd) {
    use rustix::fd::AsRawFd;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: the pointer is to a live c_int whose size is passed; the descriptor is open.
        unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back() {
        let mut messages = Messages::default();
        messages
            .begin(7, ACK, &[1, 2, 3, 4])
            .text(1, "eth0")
            .nest(2, |m| {
                m.network(3, 5).attr(4, b"x");
            })
            .end();
        messages.begin(8, 0, &[]).end();
        assert_eq!(messages.number(10), 2);
        let all: Vec<_> = answers(messages.as_bytes()).collect();
        assert_eq!((all[0].kind, all[0].seq, all[1].kind, all[1].seq), (7, 10, 8, 11));
        let body = &all[0].payload[4..];
        assert_eq!(attribute(body, 1).map(text).as_deref(), Some("eth0"));
        let nested = attribute(body, 2).unwrap();
        assert_eq!((attribute(nested, 3), attribute(nested, 4)), (Some(&5u32.to_be_bytes()[..]), Some(&b"x"[..])));
    }

    #[test]
    fn broken_bytes_end_the_iteration() {
        for bytes in [&[][..], &[1, 2, 3], &[0; 16], &[200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(answers(bytes).take(5).count() <= 1);
            assert!(attributes(bytes).take(5).count() <= 4);
        }
    }
}
