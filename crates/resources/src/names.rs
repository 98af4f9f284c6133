//! Name rules (RFC 1123, RFC 1035, qualified names).

/// DNS-1123 subdomain.
pub fn dns1123_subdomain(_name: &str, _prefix: bool) -> Vec<String> {
    Vec::new()
}
