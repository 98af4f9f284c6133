//! Links: veth pairs, bridges, state, MTU.

use crate::error::{Error, Result, Tolerate};
use crate::netlink::{self, CREATE, DUMP, EXCL, Family, Messages, Socket};
use crate::netns;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Index in its namespace.
    pub index: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// Administratively up.
    pub up: bool,
    /// Bridge it belongs to.
    pub master: Option<u32>,
}

/// One end of a veth pair to be made.
#[derive(Clone, Debug, Default)]
pub struct End<'a> {
    /// Name, at most 15 bytes.
    pub name: &'a str,
    /// Ethernet address; `None`: the kernel's choice.
    pub mac: Option<Mac>,
    /// Namespace; `None`: that of the socket.
    pub netns: Option<BorrowedFd<'a>>,
}

const UP: u32 = 1;
const NAME_MAX: usize = 15;

/// Links, addresses and routes of one namespace over one blocking socket.
#[derive(Debug)]
pub struct Links {
    pub(crate) socket: Socket,
}

impl Links {
    /// Opens a socket in this thread's namespace.
    pub fn open() -> Result<Links> {
        Ok(Links { socket: Socket::open(Family::Route)? })
    }

    /// The link of a name.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = Messages::default();
        message.begin(libc::RTM_GETLINK, 0, &info(0, 0, 0)).text(libc::IFLA_IFNAME, checked(name)?).end();
        match self.read(message, &format!("look up link {name}")) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The link of a name, which must exist.
    pub fn get(&mut self, name: &str) -> Result<Link> {
        self.find(name)?.ok_or_else(|| Error::kernel(format!("find link {name}"))(Errno::NODEV))
    }

    /// All links.
    pub fn list(&mut self) -> Result<Vec<Link>> {
        let mut message = Messages::default();
        message.begin(libc::RTM_GETLINK, DUMP, &info(0, 0, 0)).end();
        self.read(message, "list links")
    }

    /// Makes a veth pair.
    pub fn add_veth(&mut self, one: &End<'_>, other: &End<'_>, mtu: u32) -> Result<()> {
        const PEER: u16 = 1;
        let (name, peer) = (checked(one.name)?, checked(other.name)?);
        let mut message = Messages::default();
        message.begin(libc::RTM_NEWLINK, CREATE | EXCL, &info(0, 0, 0));
        end_attributes(&mut message, one, mtu);
        message.nest(libc::IFLA_LINKINFO, |m| {
            m.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |m| {
                m.nest(PEER, |m| {
                    m.raw(&info(0, 0, 0));
                    end_attributes(m, other, mtu);
                });
            });
        });
        message.end();
        self.socket.request(message, || format!("add veth pair {name} and {peer}"))
    }

    /// Makes a bridge; nothing if it is there.
    pub fn add_bridge(&mut self, name: &str, mtu: u32) -> Result<()> {
        let mut message = Messages::default();
        message.begin(libc::RTM_NEWLINK, CREATE | EXCL, &info(0, 0, 0));
        message.text(libc::IFLA_IFNAME, checked(name)?).native(libc::IFLA_MTU, mtu);
        message
            .nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, "bridge");
            })
            .end();
        self.socket.request(message, || format!("add bridge {name}")).tolerate(&[Errno::EXIST])
    }

    /// Puts a link into a bridge.
    pub fn set_master(&mut self, name: &str, bridge: &str) -> Result<()> {
        let (link, master) = (self.get(name)?.index, self.get(bridge)?.index);
        let mut message = Messages::default();
        message.begin(libc::RTM_NEWLINK, 0, &info(link, 0, 0)).native(libc::IFLA_MASTER, master).end();
        self.socket.request(message, || format!("put link {name} into bridge {bridge}"))
    }

    /// Sets a link up.
    pub fn set_up(&mut self, name: &str) -> Result<()> {
        let index = self.get(name)?.index;
        let mut message = Messages::default();
        message.begin(libc::RTM_NEWLINK, 0, &info(index, UP, UP)).end();
        self.socket.request(message, || format!("set link {name} up"))
    }

    /// Removes a link; nothing if it is gone.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        let mut message = Messages::default();
        message.begin(libc::RTM_DELLINK, 0, &info(0, 0, 0)).text(libc::IFLA_IFNAME, checked(name)?).end();
        self.socket.request(message, || format!("delete link {name}")).tolerate(&[Errno::NODEV])
    }

    fn read(&mut self, message: Messages, doing: &str) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.socket.dump(message, doing, |kind, payload| {
            if kind == libc::RTM_NEWLINK {
                links.extend(parse(payload));
            }
        })?;
        Ok(links)
    }
}

/// Makes a veth pair between two namespaces and sets both ends up; nothing if the first end is there.
pub async fn veth(netns: Option<&Path>, name: &str, peer_netns: Option<&Path>, peer: &str, mtu: u32) -> Result<()> {
    let (name, peer, peer_path) = (name.to_owned(), peer.to_owned(), peer_netns.map(Path::to_owned));
    let peer_name = peer.clone();
    netns::run(netns, move || {
        let mut links = Links::open()?;
        if links.find(&name)?.is_none() {
            let open = |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let namespace =
                peer_path.as_deref().map(open).transpose().map_err(Error::kernel("open a network namespace"))?;
            let other = End { name: &peer, mac: None, netns: namespace.as_ref().map(rustix::fd::AsFd::as_fd) };
            links.add_veth(&End { name: &name, ..End::default() }, &other, mtu)?;
        }
        links.set_up(&name)
    })
    .await?;
    netns::run(peer_netns, move || Links::open()?.set_up(&peer_name)).await
}

/// Makes a bridge and sets it up; nothing if it is there.
pub async fn bridge(netns: Option<&Path>, name: &str, mtu: u32) -> Result<()> {
    let name = name.to_owned();
    netns::run(netns, move || {
        let mut links = Links::open()?;
        links.add_bridge(&name, mtu)?;
        links.set_up(&name)
    })
    .await
}

/// Puts a link into a bridge of the same namespace.
pub async fn join(netns: Option<&Path>, name: &str, bridge: &str) -> Result<()> {
    let (name, bridge) = (name.to_owned(), bridge.to_owned());
    netns::run(netns, move || Links::open()?.set_master(&name, &bridge)).await
}

/// Removes a link (both ends of a veth pair); nothing if it is gone.
pub async fn delete(netns: Option<&Path>, name: &str) -> Result<()> {
    let name = name.to_owned();
    netns::run(netns, move || Links::open()?.delete(&name)).await
}

/// The link of a name.
pub async fn find(netns: Option<&Path>, name: &str) -> Result<Option<Link>> {
    let name = name.to_owned();
    netns::run(netns, move || Links::open()?.find(&name)).await
}

/// `struct ifinfomsg`
fn info(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn end_attributes(message: &mut Messages, end: &End<'_>, mtu: u32) {
    message.text(libc::IFLA_IFNAME, end.name).native(libc::IFLA_MTU, mtu);
    if let Some(mac) = end.mac {
        message.attr(libc::IFLA_ADDRESS, &mac);
    }
    if let Some(netns) = end.netns {
        message.native(libc::IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
    }
}

fn checked(name: &str) -> Result<&str> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains(['/', ' ', '\0']) {
        return Err(Error::Invalid(format!(
            "{name:?} is no name of a link: 1 to {NAME_MAX} bytes without '/' and spaces"
        )));
    }
    Ok(name)
}

fn parse(payload: &[u8]) -> Option<Link> {
    let body = payload.get(16..)?;
    let number = |kind| netlink::attribute(body, kind).and_then(|data| netlink::u32_at(data, 0));
    Some(Link {
        name: netlink::text(netlink::attribute(body, libc::IFLA_IFNAME)?),
        index: netlink::u32_at(payload, 4)?,
        mtu: number(libc::IFLA_MTU).unwrap_or_default(),
        mac: netlink::attribute(body, libc::IFLA_ADDRESS).and_then(|data| data.try_into().ok()),
        up: netlink::u32_at(payload, 8)? & UP != 0,
        master: number(libc::IFLA_MASTER),
    })
}
