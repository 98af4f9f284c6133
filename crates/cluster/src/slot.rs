//! Slots: the numbers that keep the clusters of a machine apart.

use crate::{Doing, Error, Layout, Result, Spec};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

const SLOTS: u8 = 32;
const LOCK: &str = "/run/lock/sagong-slots";

/// Held while a slot is chosen and until its bridge stands, machine-wide.
pub struct SlotLock {
    _file: File,
}

/// Takes the machine-wide lock on slots; waits for its holder.
pub fn lock() -> Result<SlotLock> {
    let dir = Path::new(LOCK).parent().unwrap_or(Path::new("/run"));
    std::fs::create_dir_all(dir).doing(|| format!("make {}", dir.display()))?;
    let file = File::create(LOCK).doing(|| format!("open {LOCK}"))?;
    file.lock().doing(|| format!("lock {LOCK}"))?;
    Ok(SlotLock { _file: file })
}

/// The lowest slot that no cluster of the data directory has and whose ranges no route of the host touches.
pub fn choose(layout: &Layout, _held: &SlotLock) -> Result<u8> {
    let others = Layout::all(layout.data_dir())?;
    let taken: Vec<u8> = others.iter().filter_map(|l| Spec::load(l).ok()).map(|s| s.slot).collect();
    let routes = routes()?;
    let spec = |slot| Spec { name: String::new(), slot, created: String::new() };
    let free = |slot: &u8| !taken.contains(slot) && !spec(*slot).ranges().iter().any(|range| routes.iter().any(|r| overlap(*range, *r)));
    let ranges = "each of 10.211.0.0/24 to 10.211.31.0/24 (with its pod and service ranges) is in use; delete a cluster";
    (0..SLOTS).find(free).ok_or_else(|| Error::NoSlot(ranges.into()))
}

/// Whether another than `bridge` routes the cluster's ranges already; gives the first such range.
pub fn conflict(spec: &Spec) -> Result<Option<String>> {
    let (own, routes) = (spec.bridge(), routes_with_device()?);
    let foreign: Vec<_> = routes.into_iter().filter(|(_, device)| *device != own).map(|(route, _)| route).collect();
    let hit = spec.ranges().into_iter().find(|range| foreign.iter().any(|route| overlap(*range, *route)));
    Ok(hit.map(crate::spec::cidr_text))
}

fn routes() -> Result<Vec<(Ipv4Addr, u8)>> {
    Ok(routes_with_device()?.into_iter().map(|(route, _)| route).collect())
}

/// The host's IPv4 routes but for default ones.
fn routes_with_device() -> Result<Vec<((Ipv4Addr, u8), String)>> {
    let path = "/proc/net/route";
    let text = std::fs::read_to_string(path).doing(|| format!("read {path}"))?;
    Ok(text.lines().skip(1).filter_map(parse_route).filter(|((_, prefix), _)| *prefix > 0).collect())
}

fn parse_route(line: &str) -> Option<((Ipv4Addr, u8), String)> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(columns.get(at)?, 16).ok();
    let address = Ipv4Addr::from(number(1)?.to_ne_bytes());
    Some(((address, number(7)?.count_ones() as u8), (*columns.first()?).to_owned()))
}

fn overlap(a: (Ipv4Addr, u8), b: (Ipv4Addr, u8)) -> bool {
    let prefix = a.1.min(b.1);
    let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
    u32::from(a.0) & mask == u32::from(b.0) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_parse_and_overlap() {
        let line = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        assert_eq!(parse_route(line), Some(((Ipv4Addr::new(192, 168, 0, 0), 24), "eth0".into())));
        let net = |t: [u8; 4], p| (Ipv4Addr::from(t), p);
        assert!(overlap(net([10, 96, 0, 0], 16), net([10, 0, 0, 0], 8)));
        assert!(!overlap(net([10, 96, 0, 0], 16), net([10, 97, 0, 0], 16)));
    }
}
