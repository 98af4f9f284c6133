//! Who is answered: the pods of the cluster and this machine. On a public address all others would find an open resolver.

use net::Cidr;
use parking_lot::RwLock;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

/// The ranges of pods, of which more may become known.
#[derive(Debug)]
pub struct Clients {
    pods: RwLock<Vec<Cidr>>,
    warned: AtomicBool,
}

impl Clients {
    /// Those of these ranges.
    pub fn new(pods: Vec<Cidr>) -> Self {
        Self { pods: RwLock::new(pods), warned: AtomicBool::new(false) }
    }

    /// Those of these ranges, too.
    pub fn also(&self, pods: impl IntoIterator<Item = Cidr>) {
        let mut known = self.pods.write();
        for range in pods {
            if !known.contains(&range) {
                known.push(range);
            }
        }
    }

    /// Whether a source is answered. The first that is not is told of: it may be a pod of a range that nobody named.
    pub(crate) fn admits(&self, source: IpAddr) -> bool {
        let admitted =
            self.pods.read().iter().any(|pods| pods.contains(source)) || source.is_loopback() || is_own(source);
        if !admitted && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%source, "a DNS query of neither a pod nor this machine is not answered, nor will others be");
        }
        admitted
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
        clients.also(["10.245.0.0/24".parse().unwrap()]);
        assert!(clients.admits("10.245.0.1".parse().unwrap()), "a range that became known");
    }
}
