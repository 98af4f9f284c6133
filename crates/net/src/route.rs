//! Addresses, routes and neighbours.

use crate::error::{Result, Tolerate};
use crate::ipam::Cidr;
use crate::link::{Links, Mac};
use crate::netlink::{self, CREATE, DUMP, EXCL, Messages, REPLACE};
use crate::netns;
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; `0.0.0.0/0` is the default route.
    pub destination: Cidr,
    /// Next hop; `None`: on the link itself.
    pub gateway: Option<IpAddr>,
    /// Link; `None`: the one that leads to the gateway.
    pub link: Option<String>,
    /// Source address of packets made here.
    pub source: Option<IpAddr>,
}

impl Route {
    /// A route to what is on a link itself.
    pub fn on_link(destination: Cidr, link: &str) -> Route {
        Route { destination, gateway: None, link: Some(link.to_owned()), source: None }
    }

    /// A route through a neighbour.
    pub fn via(destination: Cidr, gateway: IpAddr) -> Route {
        Route { destination, gateway: Some(gateway), link: None, source: None }
    }
}

/// The default route with the least metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Index of its link.
    pub index: u32,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Metric.
    pub metric: u32,
}

impl Links {
    /// Adds an address to a link; nothing if it is there.
    pub fn add_address(&mut self, link: &str, address: Cidr) -> Result<()> {
        let index = self.get(link)?.index;
        let mut message = Messages::default();
        message.begin(libc::RTM_NEWADDR, CREATE | EXCL, &address_header(address, index));
        message.attr(libc::IFA_LOCAL, &octets(address.ip)).attr(libc::IFA_ADDRESS, &octets(address.ip)).end();
        self.socket.request(message, || format!("add address {address} to link {link}")).tolerate(&[Errno::EXIST])
    }

    /// Removes an address from a link; nothing if it is gone.
    pub fn delete_address(&mut self, link: &str, address: Cidr) -> Result<()> {
        let Some(found) = self.find(link)? else { return Ok(()) };
        let mut message = Messages::default();
        message.begin(libc::RTM_DELADDR, 0, &address_header(address, found.index));
        message.attr(libc::IFA_LOCAL, &octets(address.ip)).end();
        self.socket
            .request(message, || format!("delete address {address} of link {link}"))
            .tolerate(&[Errno::ADDRNOTAVAIL])
    }

    /// IPv4 addresses of a link.
    pub fn addresses(&mut self, link: &str) -> Result<Vec<Cidr>> {
        let index = self.get(link)?.index;
        let mut message = Messages::default();
        message.begin(libc::RTM_GETADDR, DUMP, &[libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0]).end();
        let mut found = Vec::new();
        self.socket.dump(message, "list addresses", |_, payload| {
            if netlink::u32_at(payload, 4) == Some(index)
                && let Some(body) = payload.get(8..)
                && let Some(ip) = netlink::attribute(body, libc::IFA_LOCAL).and_then(ip)
            {
                found.push(Cidr { ip, prefix: payload[1] });
            }
        })?;
        Ok(found)
    }

    /// Sets a route, replacing one to the same destination.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        let message = self.route_message(libc::RTM_NEWROUTE, CREATE | REPLACE, route)?;
        self.socket.request(message, || format!("set route {}", show(route)))
    }

    /// Removes a route; nothing if it is gone.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        if let Some(link) = &route.link
            && self.find(link)?.is_none()
        {
            return Ok(());
        }
        let message = self.route_message(libc::RTM_DELROUTE, 0, route)?;
        self.socket.request(message, || format!("delete route {}", show(route))).tolerate(&[Errno::SRCH])
    }

    /// The IPv4 default route.
    pub fn uplink(&mut self) -> Result<Option<Uplink>> {
        let mut message = Messages::default();
        message.begin(libc::RTM_GETROUTE, DUMP, &[libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).end();
        let mut best: Option<Uplink> = None;
        self.socket.dump(message, "list routes", |_, payload| {
            let Some(body) = payload.get(12..) else { return };
            let number = |kind| netlink::attribute(body, kind).and_then(|data| netlink::u32_at(data, 0));
            let (prefix, table, kind) = (payload[1], payload[4], payload[7]);
            let Some(index) = number(libc::RTA_OIF) else { return };
            if prefix == 0 && table == libc::RT_TABLE_MAIN && kind == libc::RTN_UNICAST {
                let gateway = netlink::attribute(body, libc::RTA_GATEWAY).and_then(ip);
                let found = Uplink { index, gateway, metric: number(libc::RTA_PRIORITY).unwrap_or_default() };
                if best.as_ref().is_none_or(|known| found.metric < known.metric) {
                    best = Some(found);
                }
            }
        })?;
        Ok(best)
    }

    /// Sets a permanent neighbour entry, so that nobody has to ask for the address.
    pub fn replace_neighbour(&mut self, link: &str, address: IpAddr, mac: Mac) -> Result<()> {
        const PERMANENT: u16 = 0x80;
        const DESTINATION: u16 = 1;
        const LINK_ADDRESS: u16 = 2;
        let index = self.get(link)?.index;
        let mut header = [0; 12];
        header[0] = family(address);
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
        let mut message = Messages::default();
        message.begin(libc::RTM_NEWNEIGH, CREATE | REPLACE, &header);
        message.attr(DESTINATION, &octets(address)).attr(LINK_ADDRESS, &mac).end();
        self.socket.request(message, || format!("set neighbour {address} on link {link}"))
    }

    fn route_message(&mut self, kind: u16, flags: u16, route: &Route) -> Result<Messages> {
        let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        let destination = route.destination;
        let header = [
            family(destination.ip),
            destination.prefix,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            scope,
            libc::RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let mut message = Messages::default();
        message.begin(kind, flags, &header);
        if destination.prefix > 0 {
            message.attr(libc::RTA_DST, &octets(destination.network()));
        }
        if let Some(gateway) = route.gateway {
            message.attr(libc::RTA_GATEWAY, &octets(gateway));
        }
        if let Some(link) = &route.link {
            message.native(libc::RTA_OIF, self.get(link)?.index);
        }
        if let Some(source) = route.source {
            message.attr(libc::RTA_PREFSRC, &octets(source));
        }
        message.end();
        Ok(message)
    }
}

/// Adds an address to a link; nothing if it is there.
pub async fn add_address(netns: Option<&Path>, link: &str, address: Cidr) -> Result<()> {
    let link = link.to_owned();
    netns::run(netns, move || Links::open()?.add_address(&link, address)).await
}

/// Removes an address from a link; nothing if it is gone.
pub async fn delete_address(netns: Option<&Path>, link: &str, address: Cidr) -> Result<()> {
    let link = link.to_owned();
    netns::run(netns, move || Links::open()?.delete_address(&link, address)).await
}

/// Sets a route, replacing one to the same destination.
pub async fn replace(netns: Option<&Path>, route: Route) -> Result<()> {
    netns::run(netns, move || Links::open()?.replace_route(&route)).await
}

/// Removes a route; nothing if it is gone.
pub async fn delete(netns: Option<&Path>, route: Route) -> Result<()> {
    netns::run(netns, move || Links::open()?.delete_route(&route)).await
}

/// The address this machine uses to reach others: the first of the uplink.
pub async fn default_address(netns: Option<&Path>) -> Result<Option<IpAddr>> {
    netns::run(netns, || {
        let mut links = Links::open()?;
        let Some(uplink) = links.uplink()? else { return Ok(None) };
        let Some(link) = links.list()?.into_iter().find(|link| link.index == uplink.index) else { return Ok(None) };
        Ok(links.addresses(&link.name)?.first().map(|address| address.ip))
    })
    .await
}

fn show(route: &Route) -> String {
    let gateway = route.gateway.map(|g| format!(" via {g}")).unwrap_or_default();
    let link = route.link.as_ref().map(|l| format!(" dev {l}")).unwrap_or_default();
    format!("{}{gateway}{link}", route.destination)
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// The bytes of an address.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn ip(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
        _ => None,
    }
}

fn address_header(address: Cidr, index: u32) -> [u8; 8] {
    let mut header = [family(address.ip), address.prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}
