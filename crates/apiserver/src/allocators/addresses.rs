//! The addresses of the service ranges, each taken at most once.

use super::cidr::Cidr;
use super::pool::{self, Refused};
use std::collections::HashSet;
use std::net::IpAddr;

/// Which addresses are taken, and the ranges that more come from.
pub struct Addresses {
    /// The configured range comes first.
    ranges: Vec<Cidr>,
    taken: HashSet<IpAddr>,
}

impl Addresses {
    /// None is taken.
    pub fn new(configured: Cidr) -> Self {
        Self { ranges: vec![configured], taken: HashSet::new() }
    }

    /// Sets the ranges besides the configured one.
    pub fn also(&mut self, others: impl Iterator<Item = Cidr>) {
        self.ranges.truncate(1);
        for other in others {
            if !self.ranges.contains(&other) {
                self.ranges.push(other);
            }
        }
    }

    /// Takes what a stored service has, whatever the ranges are now.
    pub fn occupy(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// Whether an address is of a range.
    pub fn has(&self, address: IpAddr) -> bool {
        let usable = |range: &Cidr| range.offset(address).is_some_and(|offset| (1..=last(range)).contains(&offset));
        self.ranges.iter().any(usable)
    }

    /// Takes one address.
    pub fn take(&mut self, address: IpAddr) -> Result<(), Refused> {
        match () {
            () if !self.has(address) => Err(Refused::OutOfRange),
            () if !self.taken.insert(address) => Err(Refused::Taken),
            () => Ok(()),
        }
    }

    /// Takes any address that is `free` besides, of the first range that has one.
    pub fn take_any(&mut self, free: impl Fn(IpAddr) -> bool) -> Result<IpAddr, Refused> {
        let taken = &self.taken;
        let usable = |address: &IpAddr| !taken.contains(address) && free(*address);
        let pick = |range: &Cidr| {
            let offset = pool::pick(1, last(range), |offset| usable(&range.address(offset)))?;
            Some(range.address(offset))
        };
        let address = self.ranges.iter().find_map(pick).ok_or(Refused::Full)?;
        self.taken.insert(address);
        Ok(address)
    }

    /// Gives an address back.
    pub fn release(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}

/// The network's address is not used, nor is the last of IPv4, the broadcast address; 0 where that leaves none.
fn last(range: &Cidr) -> u64 {
    range.size().saturating_sub(if range.family() == "IPv4" { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn ranges_follow_one_another() {
        let mut addresses = Addresses::new(Cidr::parse("10.0.0.0/30").expect("cidr"));
        assert_eq!(addresses.take(ip("10.0.0.0")), Err(Refused::OutOfRange));
        assert_eq!((addresses.take(ip("10.0.0.1")), addresses.take(ip("10.0.0.1"))), (Ok(()), Err(Refused::Taken)));
        assert_eq!(addresses.take_any(|a| a != ip("10.0.0.2")), Err(Refused::Full), "another has it");
        assert_eq!(
            (addresses.take_any(|_| true), addresses.take_any(|_| true)),
            (Ok(ip("10.0.0.2")), Err(Refused::Full))
        );
        addresses.also([Cidr::parse("10.1.0.0/30").expect("cidr")].into_iter());
        assert_eq!(addresses.take_any(|_| true).map(|a| a.to_string()[..5].to_owned()), Ok("10.1.".into()));
        addresses.also(std::iter::empty());
        assert_eq!(addresses.take(ip("10.1.0.2")), Err(Refused::OutOfRange));
        addresses.release(ip("10.0.0.2"));
        assert_eq!(addresses.take_any(|_| true), Ok(ip("10.0.0.2")));
    }

    #[test]
    fn small_ranges_have_few_addresses_or_none() {
        let check = |range: &str, want: &[&str]| {
            let mut addresses = Addresses::new(Cidr::parse(range).expect("cidr"));
            let mut got: Vec<_> = std::iter::from_fn(|| addresses.take_any(|_| true).ok()).collect();
            got.sort();
            assert_eq!(got, want.iter().map(|text| ip(text)).collect::<Vec<_>>(), "{range}");
        };
        check("10.5.0.7/32", &[]);
        check("10.5.0.6/31", &[]);
        check("10.5.0.4/30", &["10.5.0.5", "10.5.0.6"]);
        check("fd00::7/128", &[]);
        check("fd00::6/127", &["fd00::7"]);
        check("fd00::4/126", &["fd00::5", "fd00::6", "fd00::7"]);
    }
}
