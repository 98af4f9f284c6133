//! IP addresses: `ip('10.0.0.1')`. Zones and IPv4-mapped addresses are refused.

use super::{Overload, opaque, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};
use std::any::Any;
use std::net::IpAddr;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("ip", "ip(string) -> net.IP", Cost::Traversal(1), ip),
    Overload::new("family", "net.IP::family() -> int", Cost::One, family),
    Overload::new("ip.isCanonical", "ip.isCanonical(string) -> bool", Cost::Traversal(2), is_canonical),
    Overload::new("isUnspecified", "net.IP::isUnspecified() -> bool", Cost::One, |args| {
        is(args, |ip| ip.is_unspecified())
    }),
    Overload::new("isLoopback", "net.IP::isLoopback() -> bool", Cost::One, |args| is(args, |ip| ip.is_loopback())),
    Overload::new("isLinkLocalMulticast", "net.IP::isLinkLocalMulticast() -> bool", Cost::One, |args| {
        is(args, is_link_local_multicast)
    }),
    Overload::new("isLinkLocalUnicast", "net.IP::isLinkLocalUnicast() -> bool", Cost::One, |args| {
        is(args, is_link_local_unicast)
    }),
    Overload::new("isGlobalUnicast", "net.IP::isGlobalUnicast() -> bool", Cost::One, |args| {
        is(args, is_global_unicast)
    }),
    Overload::new("isIP", "isIP(string) -> bool", Cost::Traversal(1), is_ip),
    Overload::new("string", "string(net.IP) -> string", Cost::One, to_text),
];

/// An address as a value.
#[derive(Debug)]
pub(super) struct Ip(pub IpAddr);

impl Opaque for Ip {
    fn type_name(&self) -> &'static str {
        "net.IP"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.0 == self.0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        if self.0.is_ipv4() { 4 } else { 16 }
    }

    fn text(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// Reads an address.
pub(super) fn parse(text: &str) -> Result<IpAddr, EvalError> {
    if text.contains('%') && text.contains(':') {
        return Err(EvalError::new(format!("IP address {text:?} with zone value is not allowed")));
    }
    match text.parse() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        Ok(ip) => Ok(ip),
        Err(_) => {
            let why = why(text);
            Err(EvalError::new(format!(
                "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): {why}"
            )))
        }
    }
}

/// Why a text is no address, in the words of Go's `netip`.
pub(super) fn why(text: &str) -> String {
    match text.find(['.', ':', '%']).map(|at| text.as_bytes()[at]) {
        Some(b'.') => why_v4(text),
        Some(b':') => why_v6(text),
        Some(_) => "missing IPv6 address".into(),
        None => "unable to parse IP".into(),
    }
}

fn why_v4(text: &str) -> String {
    let (mut value, mut digits, mut dots) = (0u32, 0, 0);
    for (at, c) in text.char_indices() {
        let rest = &text[at..];
        match c {
            '0'..='9' if digits == 1 && value == 0 => return "IPv4 field has octet with leading zero".into(),
            '0'..='9' => {
                value = value * 10 + c as u32 - '0' as u32;
                digits += 1;
                if value > 255 {
                    return "IPv4 field has value >255".into();
                }
            }
            '.' if digits == 0 || rest.len() == 1 => {
                return format!("IPv4 field must have at least one digit (at {rest:?})");
            }
            '.' if dots == 3 => return "IPv4 address too long".into(),
            '.' => {
                dots += 1;
                (value, digits) = (0, 0);
            }
            _ => return format!("unexpected character (at {rest:?})"),
        }
    }
    "IPv4 address too short".into()
}

fn why_v6(text: &str) -> String {
    if let Some(at) = text.find(":::") {
        return format!("each colon-separated field must have at least one digit (at {:?})", &text[at + 2..]);
    }
    if text.matches("::").count() > 1 {
        return "multiple :: in address".into();
    }
    let bad = text.find(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.');
    if let Some(at) = bad {
        let started = at > 0 && !text[..at].ends_with(':');
        let what = if started {
            "unexpected character, want colon"
        } else {
            "each colon-separated field must have at least one digit"
        };
        return format!("{what} (at {:?})", &text[at..]);
    }
    if text.ends_with(':') && !text.ends_with("::") {
        return "colon must be followed by more characters (at \":\")".into();
    }
    if let Some(group) = text.split(':').find(|group| group.len() > 4 && !group.contains('.')) {
        return format!("each group must have 4 or less digits (at {group:?})");
    }
    "address string too short".into()
}

fn ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    parse(text(args, 0)?).map(|ip| Value::opaque(Ip(ip)))
}

fn get(args: &[Value<'_>], index: usize) -> Result<IpAddr, EvalError> {
    opaque::<Ip>(args, index).map(|ip| ip.0)
}

fn is<'a>(args: &[Value<'a>], holds: fn(&IpAddr) -> bool) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(holds(&get(args, 0)?)))
}

fn family<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(if get(args, 0)?.is_ipv4() { 4 } else { 6 }))
}

fn is_canonical<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let text = text(args, 0)?;
    Ok(Value::Bool(parse(text)?.to_string() == text))
}

fn is_ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(parse(text(args, 0)?).is_ok()))
}

fn to_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(get(args, 0)?.to_string()))
}

fn is_link_local_multicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_global_unicast(ip: &IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local_unicast(ip))
}
