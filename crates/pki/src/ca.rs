//! The certificate authority and what it issues.

use crate::{CertificateRequest, Error, files};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 3600;
const CA_LIFETIME: Duration = Duration::from_secs(3650 * DAY);
/// One year less than the CA, so that no leaf outlives it by a restart.
const LEAF_LIFETIME: Duration = Duration::from_secs(3285 * DAY);
/// Tolerates clocks of other machines that are behind.
const BACKDATE: Duration = Duration::from_secs(300);

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Serving TLS.
    Server,
    /// Proving who a client is.
    Client,
    /// Signing; a certificate for which neither this nor [`Usage::KeyEncipherment`] is asked is for both.
    DigitalSignature,
    /// Encrypting keys.
    KeyEncipherment,
}

impl Usage {
    fn purpose(self) -> Option<ExtendedKeyUsagePurpose> {
        match self {
            Self::Server => Some(ExtendedKeyUsagePurpose::ServerAuth),
            Self::Client => Some(ExtendedKeyUsagePurpose::ClientAuth),
            Self::DigitalSignature | Self::KeyEncipherment => None,
        }
    }

    fn key_usage(self) -> Option<KeyUsagePurpose> {
        match self {
            Self::Server | Self::Client => None,
            Self::DigitalSignature => Some(KeyUsagePurpose::DigitalSignature),
            Self::KeyEncipherment => Some(KeyUsagePurpose::KeyEncipherment),
        }
    }
}

/// A certificate with its private key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate chain.
    pub cert_pem: String,
    /// Private key (PKCS#8).
    pub key_pem: String,
}

impl Identity {
    /// Reads `<name>.crt` and `<name>.key` of a directory; `None` when either is missing.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let cert = files::read(&dir.join(format!("{name}.crt")))?;
        let key = files::read(&dir.join(format!("{name}.key")))?;
        Ok(cert.zip(key).map(|(cert_pem, key_pem)| Self { cert_pem, key_pem }))
    }

    /// Writes `<name>.crt` and `<name>.key`, the key first: a certificate on disk always has its key.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), Error> {
        files::write_private(&dir.join(format!("{name}.key")), self.key_pem.as_bytes())?;
        files::write_private(&dir.join(format!("{name}.crt")), self.cert_pem.as_bytes())
    }

    /// The certificates in DER.
    pub fn certs(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        parse_certs(&self.cert_pem)
    }

    /// The key in DER.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| Error::Key(e.to_string()))
    }
}

pub(crate) fn parse_certs(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| Error::Tls(e.to_string()))
}

/// A certificate authority.
pub struct Ca {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    /// Shows nothing: there is a private key inside.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca")
    }
}

impl Ca {
    /// The cluster's authority: `ca.crt` and `ca.key` of a directory, made when missing.
    pub fn load_or_create(dir: &Path) -> Result<Self, Error> {
        Self::load_or_create_named(dir, "ca", "kubernetes")
    }

    /// The authority whose clients may assert other users by header (aggregated API servers).
    pub fn load_or_create_front_proxy(dir: &Path) -> Result<Self, Error> {
        Self::load_or_create_named(dir, "front-proxy-ca", "front-proxy-ca")
    }

    /// As [`Ca::load_or_create`], for files of another name and an authority of another common name.
    pub fn load_or_create_named(dir: &Path, file: &str, common_name: &str) -> Result<Self, Error> {
        let identity = match Identity::load(dir, file)? {
            Some(identity) => identity,
            None => {
                let made = create(common_name)?;
                made.save(dir, file)?;
                made
            }
        };
        Self::from_identity(&identity)
    }

    /// The authority of a certificate and key that exist.
    pub fn from_identity(identity: &Identity) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&identity.key_pem)?;
        Ok(Self { cert_pem: identity.cert_pem.clone(), issuer: Issuer::from_ca_cert_pem(&identity.cert_pem, key)? })
    }

    /// The authority's certificate in PEM, for kubeconfigs and `kube-root-ca.crt`.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's certificate in DER.
    pub fn cert_der(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        parse_certs(&self.cert_pem)
    }

    /// Issues a serving certificate; `sans` are DNS names and IP addresses.
    pub fn issue_server(&self, common_name: &str, sans: &[String]) -> Result<Identity, Error> {
        self.issue(common_name, &[], sans, &[Usage::Server])
    }

    /// Issues a client certificate: the common name is the user, the organizations its groups.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Identity, Error> {
        self.issue(user, groups, &[], &[Usage::Client])
    }

    /// Issues a certificate. At most two groups fit.
    pub fn issue(
        &self,
        common_name: &str,
        groups: &[&str],
        sans: &[String],
        usages: &[Usage],
    ) -> Result<Identity, Error> {
        let key = KeyPair::generate()?;
        let mut params = leaf(LEAF_LIFETIME, usages);
        params.distinguished_name = subject(common_name, groups)?;
        params.subject_alt_names = sans.iter().map(|s| san(s)).collect::<Result<_, _>>()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs a PEM certificate request as it stands (subject and alternative names are the caller's to check)
    /// and returns the certificate in PEM.
    pub fn sign_request(&self, request_pem: &str, usages: &[Usage], lifetime: Duration) -> Result<String, Error> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)?;
        let mut params = leaf(lifetime.min(LEAF_LIFETIME), usages);
        params.distinguished_name = std::mem::take(&mut request.params.distinguished_name);
        // rcgen kept the last organization alone: give the certificate all of them, or none is issued.
        let organizations = CertificateRequest::parse(request_pem.as_bytes())?.organizations;
        for (kind, organization) in organization_types(organizations.len())?.into_iter().zip(organizations) {
            params.distinguished_name.push(kind, organization);
        }
        params.subject_alt_names = std::mem::take(&mut request.params.subject_alt_names);
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

fn create(common_name: &str) -> Result<Identity, Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    validity(&mut params, CA_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = subject(common_name, &[])?;
    let cert = params.self_signed(&key)?;
    Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

fn leaf(lifetime: Duration, usages: &[Usage]) -> CertificateParams {
    let mut params = CertificateParams::default();
    validity(&mut params, lifetime);
    params.key_usages = usages.iter().filter_map(|u| u.key_usage()).collect();
    if params.key_usages.is_empty() {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    }
    params.extended_key_usages = usages.iter().filter_map(|u| u.purpose()).collect();
    params.use_authority_key_identifier_extension = true;
    params
}

fn validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + lifetime;
}

/// The attribute types of organizations. rcgen keeps one value per type: the second is written by its object
/// identifier.
fn organization_types(count: usize) -> Result<[DnType; 2], Error> {
    let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if count > kinds.len() {
        return Err(Error::Tls(format!("{count} groups in one certificate: at most two fit")));
    }
    Ok(kinds)
}

fn subject(common_name: &str, groups: &[&str]) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    for (kind, group) in organization_types(groups.len())?.into_iter().zip(groups) {
        name.push(kind, *group);
    }
    name.push(DnType::CommonName, common_name);
    Ok(name)
}

fn san(text: &str) -> Result<SanType, Error> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SanType::IpAddress(ip)),
        Err(_) => Ok(SanType::DnsName(text.try_into()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn issues_and_survives_a_restart() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = Ca::load_or_create(dir.path()).expect("create");
        let again = Ca::load_or_create(dir.path()).expect("load");
        assert_eq!(first.cert_pem(), again.cert_pem());
        let identity = again.issue_client("admin", &["system:masters", "b"]).expect("issue");
        let der = identity.certs().expect("certs").remove(0);
        let (_, cert) = X509Certificate::from_der(&der).expect("parse");
        let groups: Vec<_> = cert.subject().iter_organization().filter_map(|a| a.as_str().ok()).collect();
        assert_eq!(groups, ["system:masters", "b"]);
        let ca = first.cert_der().expect("ca").remove(0);
        let (_, ca) = X509Certificate::from_der(&ca).expect("parse ca");
        assert!(cert.verify_signature(Some(ca.public_key())).is_ok());
        assert!(first.issue_client("a", &["1", "2", "3"]).is_err());
    }

    #[test]
    fn signs_requests() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ca = Ca::load_or_create(dir.path()).expect("create");
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("system:node:n", &["system:nodes"]).expect("subject");
        let request = params.serialize_request(&key).expect("request").pem().expect("pem");
        let pem = ca.sign_request(&request, &[Usage::Client], Duration::from_secs(3600)).expect("sign");
        let der = parse_certs(&pem).expect("certs").remove(0);
        let (_, cert) = X509Certificate::from_der(&der).expect("parse");
        assert_eq!(cert.subject().to_string(), "O=system:nodes, CN=system:node:n");
        params.distinguished_name = subject("u", &["a", "b"]).expect("subject");
        let request = params.serialize_request(&key).expect("request").pem().expect("pem");
        let pem = ca.sign_request(&request, &[Usage::Client], Duration::from_secs(3600)).expect("sign");
        let der = parse_certs(&pem).expect("certs").remove(0);
        let (_, cert) = X509Certificate::from_der(&der).expect("parse");
        let groups: Vec<_> = cert.subject().iter_organization().filter_map(|a| a.as_str().ok()).collect();
        assert_eq!(groups, ["a", "b"]);
        assert!(ca.sign_request("junk", &[], Duration::ZERO).is_err());
    }
}
