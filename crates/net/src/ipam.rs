//! Addresses of pods: which are taken is a file per address in the state directory.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An address with the length of its network's prefix, `10.244.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// Address (host bits may be set).
    pub ip: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
}

impl Cidr {
    /// One address alone.
    pub fn host(ip: IpAddr) -> Cidr {
        Cidr { ip, prefix: if ip.is_ipv4() { 32 } else { 128 } }
    }

    /// `0.0.0.0/0`
    pub fn any() -> Cidr {
        Cidr { ip: Ipv4Addr::UNSPECIFIED.into(), prefix: 0 }
    }

    /// The address without its host bits.
    pub fn network(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) & v4_mask(self.prefix)).into(),
            IpAddr::V6(ip) => {
                (u128::from(ip) & u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)).to_ipv6()
            }
        }
    }

    /// Whether an address is inside.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && Cidr { ip, prefix: self.prefix }.network() == self.network()
    }

    /// The n-th IPv4 address of the network.
    pub fn nth(&self, n: u32) -> Option<Ipv4Addr> {
        let IpAddr::V4(network) = self.network() else { return None };
        let address = u32::from(network).checked_add(n)?;
        self.contains(Ipv4Addr::from(address).into()).then(|| Ipv4Addr::from(address))
    }
}

trait ToIpv6 {
    fn to_ipv6(self) -> IpAddr;
}

impl ToIpv6 for u128 {
    fn to_ipv6(self) -> IpAddr {
        std::net::Ipv6Addr::from(self).into()
    }
}

/// The mask of a prefix.
pub(crate) fn v4_mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Cidr> {
        let fail = || Error::Invalid(format!("{text:?} is no address range such as 10.244.0.0/16"));
        let (ip, prefix) = text.split_once('/').ok_or_else(fail)?;
        let (ip, prefix): (IpAddr, u8) = (ip.parse().map_err(|_| fail())?, prefix.parse().map_err(|_| fail())?);
        let max = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > max { Err(fail()) } else { Ok(Cidr { ip, prefix }) }
    }
}

/// Allocates the addresses of one node's range. The first address is the node's, network and broadcast stay free.
#[derive(Debug)]
pub struct Ipam {
    range: Cidr,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    owners: BTreeMap<Ipv4Addr, String>,
    /// Freed addresses, longest free first.
    freed: VecDeque<Ipv4Addr>,
    /// Addresses from here on were not used since the range began.
    fresh: u32,
}

const FIRST: u32 = 2;
const CURSOR: &str = "cursor";

impl Ipam {
    /// Opens the allocator of `range` with its state in `dir`.
    pub fn open(dir: impl Into<PathBuf>, range: Cidr) -> Result<Ipam> {
        let dir = dir.into();
        if !range.ip.is_ipv4() || range.prefix > 29 {
            return Err(Error::Invalid(format!("the pods of a node need an IPv4 range of /29 or more, not {range}")));
        }
        fs::create_dir_all(&dir).map_err(Error::io(format!("make {dir:?}")))?;
        let mut state = State { fresh: FIRST, ..State::default() };
        for entry in fs::read_dir(&dir).map_err(Error::io(format!("read {dir:?}")))? {
            let path = entry.map_err(Error::io(format!("read {dir:?}")))?.path();
            let Some(ip) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<Ipv4Addr>().ok()) else {
                continue;
            };
            let owner = fs::read_to_string(&path).map_err(Error::io(format!("read {path:?}")))?;
            // An empty file: the power failed before its owner was written.
            if owner.is_empty() || !range.contains(ip.into()) {
                remove(&path)?;
            } else {
                state.owners.insert(ip, owner);
            }
        }
        let ipam = Ipam { range, dir, state: Mutex::default() };
        ipam.resume(&mut state);
        *ipam.state.lock() = state;
        Ok(ipam)
    }

    /// Goes on after the address handed out last, so that a restart does not reuse fresh ones at once.
    fn resume(&self, state: &mut State) {
        let cursor = fs::read_to_string(self.dir.join(CURSOR)).ok().and_then(|text| text.trim().parse::<u32>().ok());
        state.fresh = cursor.unwrap_or(FIRST).clamp(FIRST, self.end());
        let before = (FIRST..state.fresh).filter_map(|n| self.range.nth(n));
        state.freed = before.filter(|ip| !state.owners.contains_key(ip)).collect();
    }

    /// The node's own address in the range, `.1`.
    pub fn gateway(&self) -> IpAddr {
        self.range.nth(1).unwrap_or(Ipv4Addr::UNSPECIFIED).into()
    }

    /// The address of an owner: the one it has, or a new one.
    pub fn allocate(&self, owner: &str) -> Result<IpAddr> {
        let mut state = self.state.lock();
        if let Some(ip) = state.find(owner) {
            return Ok(ip.into());
        }
        let exhausted = Error::Exhausted { cidr: self.range.to_string(), used: state.owners.len() };
        let ip = self.next(&mut state).ok_or(exhausted)?;
        let path = self.dir.join(ip.to_string());
        if let Err(e) = fs::write(&path, owner) {
            state.freed.push_back(ip);
            return Err(Error::io(format!("write {path:?}"))(e));
        }
        state.owners.insert(ip, owner.to_owned());
        Ok(ip.into())
    }

    /// Gives the address of an owner back; idempotent.
    pub fn free(&self, owner: &str) -> Result<Option<IpAddr>> {
        let mut state = self.state.lock();
        let Some(ip) = state.find(owner) else { return Ok(None) };
        remove(&self.dir.join(ip.to_string()))?;
        state.owners.remove(&ip);
        state.freed.push_back(ip);
        Ok(Some(ip.into()))
    }

    /// The address an owner has.
    pub fn lookup(&self, owner: &str) -> Option<IpAddr> {
        self.state.lock().find(owner).map(IpAddr::from)
    }

    /// All owners.
    pub fn owners(&self) -> Vec<String> {
        self.state.lock().owners.values().cloned().collect()
    }

    /// One past the last usable address.
    fn end(&self) -> u32 {
        u32::MAX.checked_shr(u32::from(self.range.prefix)).unwrap_or(0)
    }

    fn next(&self, state: &mut State) -> Option<Ipv4Addr> {
        while state.fresh < self.end() {
            let ip = self.range.nth(state.fresh)?;
            state.fresh += 1;
            // Best effort: without it only the order after a restart is worse.
            let _ = fs::write(self.dir.join(CURSOR), state.fresh.to_string());
            if !state.owners.contains_key(&ip) {
                return Some(ip);
            }
        }
        state.freed.pop_front()
    }
}

impl State {
    fn find(&self, owner: &str) -> Option<Ipv4Addr> {
        self.owners.iter().find(|(_, known)| *known == owner).map(|(ip, _)| *ip)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {path:?}"))(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: Cidr = "10.244.1.7/24".parse().unwrap();
        assert_eq!(range.network().to_string(), "10.244.1.0");
        assert!(range.contains("10.244.1.255".parse().unwrap()) && !range.contains("10.244.2.0".parse().unwrap()));
        assert!(Cidr::any().contains("8.8.8.8".parse().unwrap()));
        assert_eq!(range.nth(256), None);
        assert_eq!("fd00::1/64".parse::<Cidr>().unwrap().network().to_string(), "fd00::");
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn freed_addresses_come_last_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let range = "10.0.0.0/29".parse().unwrap();
        let open = || Ipam::open(dir.path(), range).unwrap();
        let text = |ip: Result<IpAddr>| ip.unwrap().to_string();
        let ipam = open();
        assert_eq!(ipam.gateway().to_string(), "10.0.0.1");
        assert_eq!(text(ipam.allocate("a")), "10.0.0.2");
        assert_eq!(text(ipam.allocate("a")), "10.0.0.2");
        ipam.free("a").unwrap();
        assert_eq!(ipam.free("a").unwrap(), None);
        assert_eq!(text(ipam.allocate("b")), "10.0.0.3");
        drop(ipam);
        let ipam = open();
        assert_eq!(text(ipam.allocate("b")), "10.0.0.3");
        assert_eq!(text(ipam.allocate("c")), "10.0.0.4");
        assert_eq!(text(ipam.allocate("d")), "10.0.0.5");
        assert_eq!(text(ipam.allocate("e")), "10.0.0.6");
        assert_eq!(text(ipam.allocate("f")), "10.0.0.2");
        let full = ipam.allocate("g").unwrap_err().to_string();
        assert!(full.starts_with("no free address left in 10.0.0.0/29: 5 pods use it"), "{full}");
    }
}
