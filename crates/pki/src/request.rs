//! What a certificate request asks for.

use crate::Error;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// The subject and the alternative names of a PKCS#10 request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Common name: the user.
    pub common_name: String,
    /// Organizations: the groups.
    pub organizations: Vec<String>,
    /// How many DNS names.
    pub dns_names: usize,
    /// How many IP addresses.
    pub ip_addresses: usize,
    /// How many e-mail addresses.
    pub emails: usize,
    /// How many URIs.
    pub uris: usize,
}

impl CertificateRequest {
    /// Reads a PEM request; its signature must be that of its key.
    pub fn parse(pem: &[u8]) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Request(why.to_owned());
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|_| invalid("PEM block type must be CERTIFICATE REQUEST"))?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| invalid(&e.to_string()))?;
        request.verify_signature().map_err(|e| invalid(&e.to_string()))?;
        let subject = &request.certification_request_info.subject;
        // What is not understood here might be by those who are shown the certificate.
        let text = |a: &AttributeTypeAndValue<'_>| {
            let text = a.as_str().map(str::to_owned);
            text.map_err(|_| invalid("the subject has a text in an encoding that is not supported"))
        };
        let names = subject.iter_common_name().map(text).collect::<Result<Vec<_>, _>>()?;
        let mut out = Self {
            common_name: names.into_iter().next_back().unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect::<Result<_, _>>()?,
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| out.count(name));
            }
        }
        Ok(out)
    }

    fn count(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(_) => self.dns_names += 1,
            GeneralName::IPAddress(_) => self.ip_addresses += 1,
            GeneralName::RFC822Name(_) => self.emails += 1,
            GeneralName::URI(_) => self.uris += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    #[test]
    fn subjects_and_names_are_read() {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec!["n.test".into()]).expect("params");
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
        params.distinguished_name.push(DnType::CommonName, "system:node:n");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        let pem = params.serialize_request(&key).expect("request").pem().expect("pem");
        let request = CertificateRequest::parse(pem.as_bytes()).expect("parse");
        assert_eq!(
            (request.common_name.as_str(), request.organizations),
            ("system:node:n", vec!["system:nodes".to_owned()])
        );
        assert_eq!((request.dns_names, request.ip_addresses, request.emails, request.uris), (1, 1, 0, 0));
        assert!(CertificateRequest::parse(b"junk").is_err());
        // Go reads this encoding, and would see the group.
        let hidden = DnValue::BmpString("system:masters".try_into().expect("text"));
        params.distinguished_name.push(DnType::OrganizationName, hidden);
        let pem = params.serialize_request(&key).expect("request").pem().expect("pem");
        assert!(CertificateRequest::parse(pem.as_bytes()).is_err());
    }
}
