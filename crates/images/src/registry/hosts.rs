//! Which hosts serve a registry's images: containerd's `certs.d/<host>/hosts.toml`, read-only subset.
//!
//! Without a file there is one host, the registry itself. Absent: client certificates.

use super::error::{Error, Result};
use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const FILE_MAX: u64 = 1 << 20;

/// A host to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// `https://registry-1.docker.io/v2`
    pub base: String,
    /// May be asked for content by digest.
    pub pull: bool,
    /// May be asked what a tag means.
    pub resolve: bool,
    /// Certificate authorities besides the machine's.
    pub ca: Vec<PathBuf>,
    /// Takes any certificate.
    pub skip_verify: bool,
    /// Headers of every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Value of `?ns=`: the registry this host stands in for.
    pub namespace: Option<String>,
}

#[derive(Deserialize)]
struct Section {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    client: Option<toml::Value>,
    #[serde(default)]
    header: BTreeMap<String, OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// The hosts to ask for images of `domain`, in order.
pub(crate) fn load(certs: &Path, domain: &str) -> Result<Vec<Host>> {
    for name in directories(domain) {
        let dir = certs.join(name);
        if !dir.is_dir() {
            continue;
        }
        let path = dir.join("hosts.toml");
        return match read(&path)? {
            Some(text) => parse(&text, &path, domain),
            None => {
                let ca = authorities(&dir)?;
                let mut host = default_host(domain, !ca.is_empty());
                host.ca = ca;
                Ok(vec![host])
            }
        };
    }
    Ok(vec![default_host(domain, false)])
}

/// Names a directory may have; `:` is not allowed on every file system.
fn directories(domain: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = domain.rsplit_once(':').filter(|(host, _)| !host.ends_with(':')) {
        names.push(format!("{host}_{port}_"));
    }
    names.extend([domain.to_owned(), "_default".to_owned()]);
    names
}

fn read(path: &Path) -> Result<Option<String>> {
    let broken = |reason: String| Error::Hosts { path: path.to_owned(), reason };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(broken(e.to_string())),
        Ok(found) if found.len() > FILE_MAX => return Err(broken(format!("is larger than {FILE_MAX} bytes"))),
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(|e| broken(e.to_string()))
}

/// The `*.crt` files of a directory without `hosts.toml`, as docker has them.
fn authorities(dir: &Path) -> Result<Vec<PathBuf>> {
    let broken = |e: std::io::Error| Error::Hosts { path: dir.to_owned(), reason: e.to_string() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn parse(text: &str, path: &Path, domain: &str) -> Result<Vec<Host>> {
    let broken = |reason: String| Error::Hosts { path: path.to_owned(), reason };
    let file: toml::Table = text.parse().map_err(|e: toml::de::Error| broken(e.to_string()))?;
    let mut hosts = Vec::new();
    if let Some(sections) = file.get("host") {
        let sections = sections.as_table().ok_or_else(|| broken("host is not a table".to_owned()))?;
        for (url, section) in sections {
            let section = section.as_table().ok_or_else(|| broken(format!("host {url:?} is not a table")))?;
            hosts.push(host(url, section, path, domain)?);
        }
    }
    let server = match file.get("server") {
        Some(server) => server.as_str().ok_or_else(|| broken("server is not a string".to_owned()))?.to_owned(),
        None => default_host(domain, false).base.trim_end_matches("/v2").to_owned(),
    };
    hosts.push(host(&server, &file, path, domain)?);
    Ok(hosts)
}

fn host(url: &str, section: &toml::Table, path: &Path, domain: &str) -> Result<Host> {
    let broken = |reason: String| Error::Hosts { path: path.to_owned(), reason };
    let section: Section =
        section.clone().try_into().map_err(|e: toml::de::Error| broken(format!("host {url:?}: {}", e.message())))?;
    if section.client.is_some() {
        return Err(broken(format!("host {url:?}: client certificates are not supported")));
    }
    let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let uri: Uri = full.parse().map_err(|e| broken(format!("host {url:?}: {e}")))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(broken(format!("host {url:?} is no http or https URL")));
    };
    let prefix = uri.path().trim_end_matches('/');
    let version = if section.override_path { "" } else { "/v2" };
    let able = |what: &str| section.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == what));
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut headers = Vec::new();
    for (name, values) in section.header {
        let key = HeaderName::try_from(&name).map_err(|e| broken(format!("header {name:?}: {e}")))?;
        for value in values.into_vec() {
            let value = HeaderValue::try_from(value).map_err(|e| broken(format!("header {name:?}: {e}")))?;
            headers.push((key.clone(), value));
        }
    }
    Ok(Host {
        base: format!("{scheme}://{authority}{prefix}{version}"),
        pull: able("pull"),
        resolve: able("resolve"),
        ca: section.ca.map(OneOrMany::into_vec).unwrap_or_default().iter().map(|ca| dir.join(ca)).collect(),
        skip_verify: section.skip_verify,
        headers,
        namespace: (authority.as_str() != authority_of(domain)).then(|| domain.to_owned()),
    })
}

fn authority_of(domain: &str) -> &str {
    if domain == "docker.io" { "registry-1.docker.io" } else { domain }
}

/// The registry itself: plain HTTP only on this very machine, and not where an authority is given for it.
fn default_host(domain: &str, tls: bool) -> Host {
    let authority = authority_of(domain);
    let scheme = if is_local(authority) && !tls && !authority.ends_with(":443") { "http" } else { "https" };
    Host {
        base: format!("{scheme}://{authority}/v2"),
        pull: true,
        resolve: true,
        ca: Vec::new(),
        skip_verify: false,
        headers: Vec::new(),
        namespace: None,
    }
}

fn is_local(authority: &str) -> bool {
    let port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, tail)) if port(tail) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(host: &Host) -> String {
        let mut text = host.base.clone();
        for (flag, name) in [(host.pull, " pull"), (host.resolve, " resolve"), (host.skip_verify, " skip_verify")] {
            text.push_str(if flag { name } else { "" });
        }
        for ca in &host.ca {
            text.push_str(&format!(" ca={}", ca.display()));
        }
        for (name, value) in &host.headers {
            text.push_str(&format!(" {name}={}", value.to_str().unwrap()));
        }
        text + &host.namespace.as_ref().map(|ns| format!(" ns={ns}")).unwrap_or_default()
    }

    fn check(domain: &str, text: &str, expect: &[&str]) {
        let found = match parse(text, Path::new("/c/hosts.toml"), domain) {
            Ok(hosts) => hosts.iter().map(show).collect(),
            Err(error) => vec![error.to_string()],
        };
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn reads_hosts_in_order() {
        check("docker.io", "", &["https://registry-1.docker.io/v2 pull resolve"]);
        check("q.io", "server = \"q.io\"", &["https://q.io/v2 pull resolve"]);
        check(
            "docker.io",
            r#"
            server = "https://registry-1.docker.io"
            [host."http://z.local:5000"]
              capabilities = ["pull"]
              skip_verify = true
            [host."https://a.local/proxy/v2/hub"]
              override_path = true
              ca = ["one.pem", "/two.pem"]
            [host."a.local/x/"]
              ca = "one.pem"
              [host."a.local/x/".header]
                x-custom = ["1", "2"]
            "#,
            &[
                "http://z.local:5000/v2 pull skip_verify ns=docker.io",
                "https://a.local/proxy/v2/hub pull resolve ca=/c/one.pem ca=/two.pem ns=docker.io",
                "https://a.local/x/v2 pull resolve ca=/c/one.pem x-custom=1 x-custom=2 ns=docker.io",
                "https://registry-1.docker.io/v2 pull resolve",
            ],
        );
    }

    #[test]
    fn refuses() {
        check("q.io", "server = 1", &["\"/c/hosts.toml\": server is not a string"]);
        check("q.io", "host = 1", &["\"/c/hosts.toml\": host is not a table"]);
        check("q.io", "server = \"ftp://x\"", &["\"/c/hosts.toml\": host \"ftp://x\" is no http or https URL"]);
        check(
            "q.io",
            "[host.\"https://x\"]\nclient = \"x.pem\"",
            &["\"/c/hosts.toml\": host \"https://x\": client certificates are not supported"],
        );
    }

    #[test]
    fn falls_back_to_the_registry() {
        let dir = tempfile::tempdir().unwrap();
        for (domain, expect) in [
            ("docker.io", "https://registry-1.docker.io/v2 pull resolve"),
            ("localhost:5000", "http://localhost:5000/v2 pull resolve"),
            ("127.0.0.1", "http://127.0.0.1/v2 pull resolve"),
            ("[::1]:5000", "http://[::1]:5000/v2 pull resolve"),
            ("localhost:443", "https://localhost:443/v2 pull resolve"),
            ("localhost.example.com", "https://localhost.example.com/v2 pull resolve"),
        ] {
            let hosts: Vec<_> = load(dir.path(), domain).unwrap().iter().map(show).collect();
            assert_eq!(hosts, [expect], "{domain}");
        }
    }

    #[test]
    fn finds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, file: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(file), text).unwrap();
        };
        put("_default", "hosts.toml", "[host.\"https://mirror\"]\n");
        put("a.io_5000_", "hosts.toml", "server = \"http://b.io\"\n");
        put("localhost:7", "ca.crt", "");
        for (domain, expect) in [
            ("a.io:5000", vec!["http://b.io/v2 pull resolve ns=a.io:5000".to_owned()]),
            (
                "q.io",
                vec!["https://mirror/v2 pull resolve ns=q.io".to_owned(), "https://q.io/v2 pull resolve".to_owned()],
            ),
            (
                "localhost:7",
                vec![format!("https://localhost:7/v2 pull resolve ca={}/localhost:7/ca.crt", dir.path().display())],
            ),
        ] {
            let hosts: Vec<_> = load(dir.path(), domain).unwrap().iter().map(show).collect();
            assert_eq!(hosts, expect, "{domain}");
        }
    }
}
