//! CertificateSubjectRestriction: no client certificate makes its owner a member of `system:masters`.

use super::certificate_approval::{GROUP, signer_name};
use super::{Attributes, Operation, Plugin};
use crate::authn::MASTERS;
use crate::server::ApiServer;
use api::{Object, Status};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// The plugin.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    async fn validate(&self, _server: &ApiServer, a: &Attributes<'_>, new: Option<&Object>) -> Result<(), Status> {
        let created = a.operation == Operation::Create && a.is(GROUP, "certificatesigningrequests");
        let Some(new) = new.filter(|new| created && signer_name(new) == SIGNER) else { return Ok(()) };
        let text = new.pointer("/spec/request").and_then(Value::as_str).unwrap_or("");
        let groups = organizations(text).map_err(|why| a.forbidden(&format!("failed to parse CSR: {why}")))?;
        if groups.iter().any(|g| g == MASTERS) {
            return Err(a.forbidden(&format!("use of {SIGNER} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}

/// The organizations of the subject of a PEM request in base64.
fn organizations(base64: &str) -> Result<Vec<String>, String> {
    let pem = STANDARD.decode(base64).map_err(|e| e.to_string())?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| e.to_string())?;
    let subject = &request.certification_request_info.subject;
    Ok(subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organizations_are_read() {
        // CN=a, O=system:masters, without a key or signature that would matter here.
        for junk in ["", "!", "eA=="] {
            assert!(organizations(junk).is_err(), "{junk}");
        }
    }
}
