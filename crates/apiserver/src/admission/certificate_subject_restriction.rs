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
    let groups = subject.iter_organization().map(|o| o.as_str().map(str::to_owned).map_err(|e| e.to_string()));
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CN=a, with the organizations system:masters and b.
    const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIc01JR1RBZ0VBTURFeEZ6QVZCZ05WQkFvTURuTjVjM1JsYlRwdFlYTjBaWEp6TVFvd0NBWURWUVFLREFGaQpNUW93Q0FZRFZRUUREQUZoTUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowREFRY0RRZ0FFWXBGRFMxSXlWLzhaCi9zZEt6QkdTZDAwT0RMQlFwMGJVR2ltK2hWTUxOT0hZT2p2cUJaU0RHYWVPcTR6am5nVWt4ejRhZlp4ZnBGb0kKMUFqMXJ6RG5JNkFBTUFvR0NDcUdTTTQ5QkFNQ0EwZ0FNRVVDSUJVaHRtWUVjYWFlUUFqU1hwOTFydGJEV1hGMgpZZE52N0dDU2V6eVlkc0d5QWlFQTdad0UvUzZKazhWdUxQMEZ0NE5VYzRQZExTc1hONDh3UEczbVFGWEdJZGs9Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";

    #[test]
    fn organizations_are_read() {
        assert_eq!(organizations(REQUEST), Ok(vec![MASTERS.to_owned(), "b".to_owned()]));
        for junk in ["", "!", "eA=="] {
            assert!(organizations(junk).is_err(), "{junk}");
        }
    }
}
