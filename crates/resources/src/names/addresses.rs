//! IP addresses and CIDRs as fields take them: the older ones in any form that is not ambiguous, the newer ones in one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address as Kubernetes' older fields take it: as Go parses it, leading zeros in octets allowed.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let octet =
        |p: &str| (p.len() <= 16 && p.bytes().all(|c| c.is_ascii_digit())).then(|| p.parse::<u8>().ok()).flatten();
    let octets: Option<Vec<u8>> = parts.iter().map(|p| octet(p)).collect();
    let octets: [u8; 4] = octets?.try_into().ok()?;
    Some(octets.into())
}

/// What is wrong with an IP address of an older field, which need not be in its canonical form.
pub fn ip(text: &str) -> Option<&'static str> {
    match (parse_ip(text), text.parse::<IpAddr>()) {
        (None, _) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        (_, Err(_)) => Some("must not have leading 0s"),
        (_, Ok(IpAddr::V6(v6))) if v6.to_ipv4_mapped().is_some() => Some("must not be an IPv4-mapped IPv6 address"),
        _ => None,
    }
}

/// A CIDR: address and prefix length.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let (ip, bits): (_, u8) = (parse_ip(ip)?, bits.parse().ok()?);
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

/// The canonical form of an address with the length of its network's prefix.
pub fn parse_interface_address(text: &str) -> Option<String> {
    parse_cidr(text).map(|(ip, bits)| format!("{ip}/{bits}"))
}

/// What is wrong with a CIDR of an older field, which need not be in its canonical form.
pub fn cidr(text: &str) -> Option<&'static str> {
    let Some((ip, bits)) = parse_cidr(text) else {
        return Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    };
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let leading = (length.len() > 1 && length.starts_with('0')) || address.parse::<IpAddr>().is_err();
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    match () {
        () if leading => Some("must not have leading 0s in IP or prefix length"),
        () if mapped => Some("must not have an IPv4-mapped IPv6 address"),
        () if ip != network(ip, bits) => Some("must not have bits set beyond the prefix length"),
        () => None,
    }
}

/// What is odd about a CIDR that is accepted all the same.
pub fn cidr_warnings(text: &str) -> Vec<String> {
    let Some((ip, bits)) = parse_cidr(text) else { return Vec::new() };
    let (network, ip) = (network(ip, bits).to_canonical(), ip.to_canonical());
    let whole = format!("{network}/{bits}");
    let mut out = Vec::new();
    if ip != network {
        let single = if ip.is_ipv4() { 32 } else { 128 };
        out.push(format!(
            "CIDR value \"{text}\" is ambiguous in this context (should be \"{whole}\" or \"{ip}/{single}\"?)"
        ));
    }
    match cidr(text) {
        Some(why) if why.contains("leading 0s") || why.contains("IPv4-mapped") => {
            out.push(format!("non-standard CIDR value \"{text}\" is invalid: use \"{whole}\""));
        }
        _ if out.is_empty() && ip.is_ipv6() && text != whole => {
            out.push(format!("IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{whole}\")"));
        }
        _ => {}
    }
    out
}

/// The first address of the network that an address with this length of prefix is of.
fn network(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

/// What is wrong with an IP address of a newer field, which is written in one form only.
pub fn strict_ip(text: &str) -> Vec<String> {
    match (ip(text), parse_ip(text)) {
        (None, Some(ip)) => canonical(text, &ip.to_string()),
        (wrong, _) => wrong.map(str::to_owned).into_iter().collect(),
    }
}

/// What is wrong with a CIDR of a newer field, which is written in one form only.
pub fn strict_cidr(text: &str) -> Vec<String> {
    match (cidr(text), parse_cidr(text)) {
        (None, Some((ip, bits))) => canonical(text, &format!("{ip}/{bits}")),
        (wrong, _) => wrong.map(str::to_owned).into_iter().collect(),
    }
}

fn canonical(text: &str, form: &str) -> Vec<String> {
    if text == form { Vec::new() } else { vec![format!("must be in canonical form (\"{form}\")")] }
}

/// What is odd about an address that is accepted all the same.
pub fn ip_warning(text: &str) -> Option<String> {
    let ip = parse_ip(text)?;
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            let canonical = v6.to_string();
            (canonical != text)
                .then(|| format!("IPv6 address {text:?} should be in RFC 5952 canonical format ({canonical:?})"))
        }
        Ok(IpAddr::V4(_)) => None,
        _ => {
            let ip = ip.to_canonical().to_string();
            Some(format!("non-standard IP address {text:?} is invalid: use {ip:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_fields_have_one_form() {
        let check = |got: Vec<String>, want: &str| assert_eq!(got.join(";"), want);
        check(strict_ip("10.0.0.1"), "");
        check(strict_ip("010.0.0.1"), "must not have leading 0s");
        check(strict_ip("::ffff:1.2.3.4"), "must not be an IPv4-mapped IPv6 address");
        check(strict_ip("2001:DB8::1"), "must be in canonical form (\"2001:db8::1\")");
        check(strict_cidr("10.0.0.0/8"), "");
        check(strict_cidr("10.0.0.1/8"), "must not have bits set beyond the prefix length");
        check(strict_cidr("10.0.0.0/08"), "must not have leading 0s in IP or prefix length");
        check(strict_cidr("2001:DB8::/32"), "must be in canonical form (\"2001:db8::/32\")");
        check(cidr_warnings("10.0.0.0/8"), "");
        let ambiguous =
            "CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)";
        check(cidr_warnings("10.0.0.1/8"), ambiguous);
    }

    #[test]
    fn addresses() {
        for (text, ok) in [("1.2.3.4", true), ("010.1.1.1", true), ("::1", true), ("1.2.3", false), ("x", false)] {
            assert_eq!(parse_ip(text).is_some(), ok, "{text}");
        }
        for (text, ok) in [("10.0.0.0/8", true), ("10.0.0.0/33", false), ("fd00::/64", true), ("10.0.0.0", false)] {
            assert_eq!(parse_cidr(text).is_some(), ok, "{text}");
        }
    }
}
