//! Forgetting connections whose translation is no longer right.
//!
//! UDP "connections" live on as long as packets come, so a client would be sent to an endpoint that is gone.

use crate::error::{Result, Tolerate};
use crate::netlink::{self, DUMP, Messages, Socket};
use rustix::io::Errno;
use std::net::Ipv4Addr;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;

/// A tracked IPv4 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Transport protocol, 17 for UDP.
    pub protocol: u8,
    /// Who began.
    pub source: Ipv4Addr,
    /// Where it was sent.
    pub destination: Ipv4Addr,
    /// Port it was sent to.
    pub port: u16,
    /// Who answers: the translated destination.
    pub answers: Ipv4Addr,
    /// Port that answers.
    pub answer_port: u16,
}

/// Deletes the connections `wanted` chooses; returns how many.
pub fn delete(socket: &mut Socket, mut wanted: impl FnMut(&Flow) -> bool) -> Result<usize> {
    let mut request = Messages::default();
    request.begin(SUBSYSTEM << 8 | GET, DUMP, &[libc::AF_INET as u8, 0, 0, 0]).end();
    let mut found = Vec::new();
    socket.dump(request, "list connections", |_, payload| {
        let body = payload.get(4..).unwrap_or_default();
        if flow(body).is_some_and(|flow| wanted(&flow)) {
            let part = |kind| netlink::attribute(body, kind).map(<[u8]>::to_vec);
            found.extend(part(ORIGINAL).zip(part(ID)));
        }
    })?;
    for (original, id) in &found {
        let mut request = Messages::default();
        request.begin(SUBSYSTEM << 8 | DELETE, 0, &[libc::AF_INET as u8, 0, 0, 0]);
        request
            .nest(ORIGINAL, |m| {
                m.raw(original);
            })
            .attr(ID, id)
            .end();
        socket.request(request, || "delete a connection".into()).tolerate(&[Errno::NOENT])?;
    }
    Ok(found.len())
}

fn flow(body: &[u8]) -> Option<Flow> {
    let (source, destination, protocol, port, _) = tuple(netlink::attribute(body, ORIGINAL)?)?;
    let (answers, _, _, _, answer_port) = tuple(netlink::attribute(body, REPLY)?)?;
    Some(Flow { protocol, source, destination, port, answers, answer_port })
}

/// Source, destination, protocol, destination port, source port of one direction.
fn tuple(tuple: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, u8, u16, u16)> {
    let (ip, protocol) = (netlink::attribute(tuple, 1)?, netlink::attribute(tuple, 2)?);
    let address = |kind| <[u8; 4]>::try_from(netlink::attribute(ip, kind)?).ok().map(Ipv4Addr::from);
    let port = |kind| netlink::attribute(protocol, kind).and_then(|p| p.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some((address(1)?, address(2)?, *netlink::attribute(protocol, 1)?.first()?, port(3), port(2)))
}
