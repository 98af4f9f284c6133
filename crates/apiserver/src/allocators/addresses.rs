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

    /// Takes one address.
    pub fn take(&mut self, address: IpAddr) -> Result<(), Refused> {
        let usable = |range: &Cidr| range.offset(address).is_some_and(|offset| (1..=last(range)).contains(&offset));
        match () {
            () if !self.ranges.iter().any(usable) => Err(Refused::OutOfRange),
            () if !self.taken.insert(address) => Err(Refused::Taken),
            () => Ok(()),
        }
    }

    /// Takes any address, of the first range that has one.
    pub fn take_any(&mut self) -> Result<IpAddr, Refused> {
        let taken = &self.taken;
        let pick = |range: &Cidr| {
            let offset = pool::pick(1, last(range), |offset| !taken.contains(&range.address(offset)))?;
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

/// Neither the network's nor the broadcast address is used.
fn last(range: &Cidr) -> u64 {
    range.size().saturating_sub(2).max(1)
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
        assert_eq!((addresses.take_any(), addresses.take_any()), (Ok(ip("10.0.0.2")), Err(Refused::Full)));
        addresses.also([Cidr::parse("10.1.0.0/30").expect("cidr")].into_iter());
        assert_eq!(addresses.take_any().map(|a| a.to_string()[..5].to_owned()), Ok("10.1.".into()));
        addresses.also(std::iter::empty());
        assert_eq!(addresses.take(ip("10.1.0.2")), Err(Refused::OutOfRange));
        addresses.release(ip("10.0.0.2"));
        assert_eq!(addresses.take_any(), Ok(ip("10.0.0.2")));
    }
}
