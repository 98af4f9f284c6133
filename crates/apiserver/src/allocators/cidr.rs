//! An address range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 ranges are used up to this many addresses.
const MAX_BITS: u32 = 16;

/// A range in the form `10.96.0.0/16`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix: u32,
}

impl Cidr {
    /// Parses a range.
    pub fn parse(text: &str) -> Result<Self, String> {
        let failed = || format!("invalid CIDR address: {text}");
        let (base, prefix) = text.split_once('/').ok_or_else(failed)?;
        let base: IpAddr = base.parse().map_err(|_| failed())?;
        let prefix: u32 = prefix.parse().map_err(|_| failed())?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        if prefix > width { Err(failed()) } else { Ok(Self { base, prefix }) }
    }

    /// How many addresses are used.
    pub fn size(&self) -> u64 {
        let width = if self.base.is_ipv4() { 32 } else { 128 };
        let bits = width - self.prefix;
        1u64 << if self.base.is_ipv4() { bits } else { bits.min(MAX_BITS) }
    }

    /// The address at an offset.
    pub fn address(&self, offset: u64) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits((base.to_bits() & mask).wrapping_add(offset as u32)))
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits((base.to_bits() & mask).wrapping_add(u128::from(offset))))
            }
        }
    }

    /// The offset of an address, when it is of the range.
    pub fn offset(&self, address: IpAddr) -> Option<u64> {
        let distance = match (self.address(0), address) {
            (IpAddr::V4(base), IpAddr::V4(a)) => u128::from(a.to_bits().checked_sub(base.to_bits())?),
            (IpAddr::V6(base), IpAddr::V6(a)) => a.to_bits().checked_sub(base.to_bits())?,
            _ => return None,
        };
        u64::try_from(distance).ok().filter(|d| *d < self.size())
    }

    /// `IPv4` or `IPv6`.
    pub fn family(&self) -> &'static str {
        if self.base.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address(0), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_offsets() {
        let cidr = Cidr::parse("10.96.0.0/16").expect("cidr");
        assert_eq!((cidr.size(), cidr.address(258).to_string().as_str()), (65536, "10.96.1.2"));
        for (address, want) in [("10.96.1.2", Some(258)), ("10.97.0.0", None), ("10.95.0.1", None), ("::1", None)] {
            assert_eq!(cidr.offset(address.parse().expect("address")), want, "{address}");
        }
        assert!(Cidr::parse("10.96.0.0").is_err() && Cidr::parse("10.96.0.0/33").is_err());
    }
}
