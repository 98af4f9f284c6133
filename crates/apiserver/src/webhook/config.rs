//! Where a webhook is and whom to trust there.

use super::Error;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use pki::Identity;
use serde_json::Value;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `https://host[:port]/path`
    Url(String),
    /// A service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Port of the service.
        port: u16,
        /// Path, with the slash in front, or empty.
        path: String,
    },
}

/// Where a webhook is, whom to trust there, and who the server is to it.
#[derive(Clone)]
pub struct ClientConfig {
    /// Where.
    pub address: Address,
    /// PEM certificates trusted; empty: those of the system.
    pub ca_bundle: String,
    /// The server's name in its certificate, where it is not that of the address.
    pub server_name: Option<String>,
    /// Trusts any certificate.
    pub insecure: bool,
    /// The server's own certificate, where the webhook wants one.
    pub identity: Option<Arc<Identity>>,
    /// Sent with each request (a bearer token).
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ClientConfig {
    /// A configuration with nothing but an address and those it trusts.
    pub fn new(address: Address, ca_bundle: String) -> Self {
        Self { address, ca_bundle, server_name: None, insecure: false, identity: None, headers: Vec::new() }
    }

    /// The `clientConfig` of webhook configurations and custom resource definitions: `url` or `service`, `caBundle`.
    pub fn parse(client_config: &Value) -> Result<Self, Error> {
        let text = |pointer: &str| client_config.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let bundle = STANDARD.decode(text("/caBundle")).map_err(|e| Error::Config(e.to_string()))?;
        let bundle = String::from_utf8(bundle).map_err(|_| {
            Error::Config("unable to load root certificates: unable to parse bytes as PEM block".into())
        })?;
        let address = match (client_config.get("service").filter(|s| s.is_object()), text("/url")) {
            (Some(service), _) => {
                let path = text("/service/path");
                let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
                let port = service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
                Address::Service {
                    namespace: text("/service/namespace").to_owned(),
                    name: text("/service/name").to_owned(),
                    port: port.unwrap_or(443),
                    path: format!("{slash}{path}"),
                }
            }
            (None, "") => return Err(Error::Config("webhook configuration must have either service or URL".into())),
            (None, url) => Address::Url(url.to_owned()),
        };
        Ok(Self::new(address, bundle))
    }

    /// What is requested.
    pub fn uri(&self) -> String {
        match &self.address {
            Address::Url(url) => url.clone(),
            Address::Service { namespace, name, port, path } => {
                let path = if path.is_empty() { "/" } else { path };
                format!("https://{name}.{namespace}.svc:{port}{path}")
            }
        }
    }
}

impl ClientConfig {
    fn key(&self) -> (&Address, &str, &Option<String>, bool, Option<&str>, &[(HeaderName, HeaderValue)]) {
        let certificate = self.identity.as_ref().map(|i| i.cert_pem.as_str());
        (&self.address, &self.ca_bundle, &self.server_name, self.insecure, certificate, &self.headers)
    }
}

impl PartialEq for ClientConfig {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ClientConfig {}

impl Hash for ClientConfig {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_become_uris() {
        let table = [
            (json!({"url": "https://a:1/x"}), Some("https://a:1/x")),
            (json!({"service": {"name": "s", "namespace": "n"}}), Some("https://s.n.svc:443/")),
            (
                json!({"service": {"name": "s", "namespace": "n", "port": 8443, "path": "v"}}),
                Some("https://s.n.svc:8443/v"),
            ),
            (json!({"service": {"name": "s", "namespace": "n", "path": "/v"}}), Some("https://s.n.svc:443/v")),
            (json!({}), None),
        ];
        for (config, want) in table {
            assert_eq!(ClientConfig::parse(&config).ok().map(|c| c.uri()).as_deref(), want, "{config}");
        }
    }
}
