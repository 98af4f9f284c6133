//! Networks: `cidr('10.0.0.0/8')`.

use super::ip::{Ip, parse as parse_ip, why};
use super::{Overload, opaque, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};
use std::any::Any;
use std::net::IpAddr;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("cidr", "cidr(string) -> net.CIDR", Cost::Traversal(1), cidr),
    Overload::new("containsIP", "net.CIDR::containsIP(string) -> bool", Cost::ContainsIp(true), contains_ip),
    Overload::new("containsIP", "net.CIDR::containsIP(net.IP) -> bool", Cost::ContainsIp(false), contains_ip),
    Overload::new("containsCIDR", "net.CIDR::containsCIDR(string) -> bool", Cost::ContainsCidr(true), contains_cidr),
    Overload::new("containsCIDR", "net.CIDR::containsCIDR(net.CIDR) -> bool", Cost::ContainsCidr(false), contains_cidr),
    Overload::new("ip", "net.CIDR::ip() -> net.IP", Cost::One, ip),
    Overload::new("prefixLength", "net.CIDR::prefixLength() -> int", Cost::One, prefix_length),
    Overload::new("masked", "net.CIDR::masked() -> net.CIDR", Cost::One, masked),
    Overload::new("isCIDR", "isCIDR(string) -> bool", Cost::Traversal(1), is_cidr),
    Overload::new("string", "string(net.CIDR) -> string", Cost::One, to_text),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Opaque for Cidr {
    fn type_name(&self) -> &'static str {
        "net.CIDR"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        u64::from(self.bits.div_ceil(8))
    }

    fn text(&self) -> Option<String> {
        Some(format!("{}/{}", self.address, self.bits))
    }
}

impl Cidr {
    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(ip) => {
                IpAddr::V4((ip.to_bits() & u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)).into())
            }
            IpAddr::V6(ip) => {
                IpAddr::V6((ip.to_bits() & u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0)).into())
            }
        };
        Self { address, bits: self.bits }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self { address, bits: self.bits }.masked() == self.masked()
    }
}

fn parse(text: &str) -> Result<Cidr, EvalError> {
    let failed = |why: &str| {
        EvalError::new(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}"
        ))
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| failed("no '/'"))?;
    let address: IpAddr = match address.parse() {
        Ok(address) => address,
        Err(_) if address.contains('%') => return Err(failed("IPv6 zones cannot be present in a prefix")),
        Err(_) => return Err(failed(&format!("ParseAddr({address:?}): {}", why(address)))),
    };
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let length: u8 =
        bits.parse().ok().filter(|_| plain).ok_or_else(|| failed(&format!("bad bits after slash: {bits:?}")))?;
    if length > if address.is_ipv4() { 32 } else { 128 } {
        return Err(failed("prefix length out of range"));
    }
    if matches!(address, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        return Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(Cidr { address, bits: length })
}

fn converted(text: &str) -> Result<Cidr, EvalError> {
    parse(text)
        .map_err(|error| EvalError::new(format!("network address parse error during conversion from string: {error}")))
}

fn get(args: &[Value<'_>], index: usize) -> Result<Cidr, EvalError> {
    opaque::<Cidr>(args, index).copied()
}

fn cidr<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    converted(text(args, 0)?).map(Value::opaque)
}

fn is_cidr<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(parse(text(args, 0)?).is_ok()))
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let address = match opaque::<Ip>(args, 1) {
        Ok(ip) => ip.0,
        Err(_) => parse_ip(text(args, 1)?)?,
    };
    Ok(Value::Bool(get(args, 0)?.contains(address)))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let inner = match get(args, 1) {
        Ok(cidr) => cidr,
        Err(_) => converted(text(args, 1)?)?,
    };
    let outer = get(args, 0)?;
    Ok(Value::Bool(outer.bits <= inner.bits && outer.contains(inner.address)))
}

fn ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::opaque(Ip(get(args, 0)?.address)))
}

fn prefix_length<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(get(args, 0)?.bits.into()))
}

fn masked<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::opaque(get(args, 0)?.masked()))
}

fn to_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let cidr = get(args, 0)?;
    Ok(Value::text(format!("{}/{}", cidr.address, cidr.bits)))
}
