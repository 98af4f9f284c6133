//! Image references: `busybox` means `docker.io/library/busybox:latest`.
//!
//! The grammar is that of the distribution project's reference documentation.

use crate::error::{Error, Result};
use std::fmt;

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// `docker.io`
    pub domain: String,
    /// `library/busybox`
    pub path: String,
    /// `latest`; `None` only where a digest is given.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

const NAME_MAX: usize = 255;

impl Reference {
    /// Parses and completes a reference; the tag is `latest` where neither tag nor digest is given.
    pub fn parse(text: &str) -> Result<Reference> {
        let fail = |reason: &str| Error::InvalidName { name: text.to_owned(), reason: reason.to_owned() };
        let invalid = || fail("invalid reference format");
        if is_hex(text, 64) {
            return Err(fail("invalid repository name, cannot specify 64-byte hexadecimal strings"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid());
        }
        let (name, tag) = split_tag(rest);
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid());
        }
        let (domain, path) = split_domain(name);
        if path.to_lowercase() != path {
            return Err(fail(&format!("invalid reference format: repository name ({path}) must be lowercase")));
        }
        if !is_domain(&domain) || path.is_empty() || !path.split('/').all(is_component) {
            return Err(invalid());
        }
        if path.len() > NAME_MAX {
            return Err(fail("repository name must not be more than 255 characters"));
        }
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None }).map(str::to_owned);
        Ok(Reference { domain, path, tag, digest: digest.map(str::to_owned) })
    }

    /// `docker.io/library/busybox`
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// `docker.io/library/busybox:latest`, without a digest.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.repository()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let official = domain == "docker.io" && !path.contains('/') && !path.is_empty();
    (domain.to_owned(), if official { format!("library/{path}") } else { path.to_owned() })
}

fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(']') && host.contains(':') => (domain, Some(port)),
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let named = !host.is_empty()
        && host.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    let address =
        host.starts_with('[') && host.ends_with(']') && host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_ok();
    (named || address) && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// A path component: runs of `[a-z0-9]` joined by `.`, `_`, `__` or dashes.
fn is_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    word(first)
        && word(last)
        && part
            .split(|c: char| word(c as u8) && c.is_ascii())
            .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether a text is `sha256:` and 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| is_hex(hex, 64))
}

/// Whether a text is exactly `len` lower-case hexadecimal digits.
pub fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        assert_eq!(Reference::parse(input).map(|r| r.to_string()).unwrap_or_else(|e| e.to_string()), expect, "{input}");
    }

    #[test]
    fn normalises() {
        let hex = "a".repeat(64);
        check("busybox", "docker.io/library/busybox:latest");
        check("foo/bar:1.0", "docker.io/foo/bar:1.0");
        check("index.docker.io/busybox", "docker.io/library/busybox:latest");
        check("localhost/x", "localhost/x:latest");
        check("localhost:5000/x:y", "localhost:5000/x:y");
        check("registry.k8s.io/e2e-test-images/busybox:1.37.0-1", "registry.k8s.io/e2e-test-images/busybox:1.37.0-1");
        check("[::1]:5000/a/b", "[::1]:5000/a/b:latest");
        check(&format!("a@sha256:{hex}"), &format!("docker.io/library/a@sha256:{hex}"));
        check(&format!("a:t@sha256:{hex}"), &format!("docker.io/library/a:t@sha256:{hex}"));
        check("a__b--c.d", "docker.io/library/a__b--c.d:latest");
    }

    #[test]
    fn refuses() {
        for input in ["", ":", "a:", "a b", "a//b", "-a", "a..b", "a@sha256:1", "invalid:name:tag", "a/", "http://x/y"]
        {
            check(input, &format!("couldn't parse image name {input:?}: invalid reference format"));
        }
        check(
            "Busy",
            "couldn't parse image name \"Busy\": invalid reference format: repository name (library/Busy) must be lowercase",
        );
    }
}
