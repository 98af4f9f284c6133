//! Connections: who is at the other end, as far as that is known before a request is read.

use super::{UserInfo, certificate};
use crate::server::ApiServer;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a request comes over.
#[derive(Clone)]
pub enum Connection {
    /// Memory: the server's own parts, whose identity is given.
    Memory(Arc<UserInfo>),
    /// TLS.
    Tls(Arc<Peer>),
}

/// The client of a TLS connection.
#[derive(Debug, Default)]
pub struct Peer {
    /// Whether it showed a certificate.
    pub shown: bool,
    /// Its user, when the client CA vouches for it.
    user: Option<Arc<UserInfo>>,
    /// Whether it may assert users by header: the front proxy CA vouches for it, and its name is an allowed one.
    front_proxy: bool,
    /// When its certificate ends, seconds since 1970.
    ends: i64,
}

impl Connection {
    /// A TLS connection; `chain` is what the client showed, whose key the handshake has proven.
    pub fn tls(server: &ApiServer, chain: &[CertificateDer<'_>]) -> Self {
        Self::Tls(Arc::new(Peer::judge(server, chain).unwrap_or_default()))
    }
}

impl Peer {
    fn judge(server: &ApiServer, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let own = chain.first()?;
        let shown = Self { shown: true, ..Self::default() };
        let Ok((_, parsed)) = X509Certificate::from_der(own) else { return Some(shown) };
        let name = parsed.subject().iter_common_name().last().and_then(|n| n.as_str().ok()).unwrap_or("");
        let authn = server.authn();
        let user = authn.clients.verify(chain).then(|| certificate::user(own)).flatten();
        Some(Self {
            front_proxy: authn.front_proxy.admits(name) && authn.proxies.verify(chain),
            user: user.map(Arc::new),
            ends: parsed.validity().not_after.timestamp(),
            ..shown
        })
    }

    fn is_current(&self) -> bool {
        Timestamp::now().as_second() <= self.ends
    }

    /// The user of the client's certificate.
    pub fn user(&self) -> Option<Arc<UserInfo>> {
        self.user.clone().filter(|_| self.is_current())
    }

    /// Whether it may assert users by header.
    pub fn is_front_proxy(&self) -> bool {
        self.front_proxy && self.is_current()
    }
}
