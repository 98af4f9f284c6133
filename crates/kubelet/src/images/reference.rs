//! Names of images (`distribution/reference`), as far as the kubelet must understand them.

/// Whether a name can be parsed; the error is upstream's text.
pub fn validate(image: &str) -> Result<(), String> {
    const INVALID: &str = "invalid reference format";
    if image.len() == 64 && image.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(format!("invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"));
    }
    let (host, rest) = match split_host(image) {
        (None, rest) if !rest.contains('/') => (None, format!("library/{rest}")),
        (host, rest) => (host, rest.to_owned()),
    };
    let repository = rest.split(':').next().unwrap_or_default();
    if repository.chars().any(char::is_uppercase) {
        return Err(format!("invalid reference format: repository name ({repository}) must be lowercase"));
    }
    let (name, digest) = match rest.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (rest.as_str(), None),
    };
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (name, None),
    };
    let valid = host.is_none_or(valid_host)
        && path.split('/').all(valid_component)
        && tag.is_none_or(valid_tag)
        && digest.is_none_or(valid_digest);
    match host.unwrap_or("docker.io").len() + 1 + path.len() {
        _ if !valid => Err(INVALID.into()),
        256.. => Err("repository name must not be more than 255 characters".into()),
        _ => Ok(()),
    }
}

/// The registry an image comes from; Docker Hub where none is named.
pub fn registry(image: &str) -> &str {
    split_host(image).0.unwrap_or("docker.io")
}

/// A name in full: with registry, and with its digest, its tag, or `latest`.
pub fn qualified(image: &str) -> String {
    let repository = super::keyring::full_name(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    match (image.split_once('@'), last.split_once(':')) {
        (Some((_, digest)), _) => format!("{repository}@{digest}"),
        (None, Some((_, tag))) => format!("{repository}:{tag}"),
        (None, None) => format!("{repository}:latest"),
    }
}

/// The pull policy of an image without one: Always for `latest`, else IfNotPresent.
pub fn default_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    let latest = !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if latest { "Always" } else { "IfNotPresent" }
}

fn split_host(path: &str) -> (Option<&str>, &str) {
    match path.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(char::is_uppercase) =>
        {
            (Some(host), rest)
        }
        _ => (None, path),
    }
}

fn valid_host(host: &str) -> bool {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    host.starts_with('[')
        || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'))
}

fn valid_component(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn valid_tag(tag: &str) -> bool {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn valid_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for good in [
            "busybox",
            "busybox:1.37",
            "registry.k8s.io/e2e-test-images/agnhost:2.59",
            "localhost:5000/a/b",
            digest.as_str(),
            "UPPER/x:1",
        ] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in ["", "Foo", "a:", "a b", "a@sha256:1", "a//b", "-a", ":x"] {
            assert!(validate(bad).is_err(), "{bad}");
        }
        for (bad, why) in [
            ("Bad_Image:::", "invalid reference format: repository name (library/Bad_Image) must be lowercase"),
            ("h:5000/A/b", "invalid reference format: repository name (A/b) must be lowercase"),
            ("a:b:c", "invalid reference format"),
        ] {
            assert_eq!(validate(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn policies_and_registries() {
        for (image, want) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("a:1", "IfNotPresent"),
            ("h:5000/a", "Always"),
            ("a@sha256:0", "IfNotPresent"),
        ] {
            assert_eq!(default_policy(image), want, "{image}");
        }
        for (image, want) in [
            ("a", "docker.io/library/a:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("h:5000/a", "h:5000/a:latest"),
            ("h:5000/a:1@sha256:0", "h:5000/a@sha256:0"),
            ("docker.io/library/a:latest", "docker.io/library/a:latest"),
        ] {
            assert_eq!(qualified(image), want, "{image}");
        }
        assert_eq!(registry("quay.io/a/b:1"), "quay.io");
        assert_eq!(registry("a/b"), "docker.io");
    }
}
