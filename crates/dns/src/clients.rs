//! Who is answered: the pods of the cluster and this machine. On a public address all others would find an open resolver.

use net::Cidr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

#[derive(Debug)]
pub(crate) struct Clients {
    pods: Vec<Cidr>,
}

impl Clients {
    pub fn new(pods: Vec<Cidr>) -> Self {
        Self { pods }
    }

    pub fn admits(&self, source: IpAddr) -> bool {
        self.pods.iter().any(|pods| pods.contains(source)) || source.is_loopback() || is_own(source)
    }
}

/// Whether an address is this machine's, which the kernel alone knows at any time: then it would be spoken to from itself.
/// Connecting a datagram socket sends nothing.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let chosen = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    chosen.is_ok_and(|chosen| chosen.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_and_this_machine_are_admitted() {
        let clients = Clients::new(vec!["10.244.0.0/16".parse().unwrap()]);
        for (source, expect) in [
            ("10.244.9.7", true),
            ("127.0.0.1", true),
            ("127.0.0.53", true),
            ("::1", true),
            ("10.245.0.1", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(clients.admits(source.parse().unwrap()), expect, "{source}");
        }
    }
}
