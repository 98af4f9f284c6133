//! CertificateApproval: who approves or denies a signing request must be allowed to do so for its signer.

use super::{Attributes, Operation, Plugin};
use crate::authz;
use crate::server::ApiServer;
use api::{Object, Status};
use async_trait::async_trait;
use serde_json::Value;

pub(super) const GROUP: &str = "certificates.k8s.io";

/// The plugin.
pub struct CertificateApproval;

#[async_trait]
impl Plugin for CertificateApproval {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, _o: Option<&Object>) -> Result<(), Status> {
        let Some(old) = a.old.filter(|_| is_update_of(a, "approval")) else { return Ok(()) };
        let signer = signer_name(old);
        if is_authorized(server, a, "approve", signer) {
            return Ok(());
        }
        Err(a.forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// Whether a subresource of a signing request is updated.
pub(super) fn is_update_of(a: &Attributes<'_>, subresource: &str) -> bool {
    let request = a.resource.group == GROUP && a.resource.resource == "certificatesigningrequests";
    request && a.subresource == subresource && a.operation == Operation::Update
}

/// The signer that a request is for.
pub(super) fn signer_name(request: &Object) -> &str {
    request.pointer("/spec/signerName").and_then(Value::as_str).unwrap_or("")
}

/// Whether the user may do this for the signer itself, or for all signers of its domain (`domain/*`).
pub(super) fn is_authorized(server: &ApiServer, a: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or(signer);
    [signer, &format!("{domain}/*")].into_iter().any(|name| {
        let attributes = authz::Attributes {
            user: &a.request.user,
            verb,
            is_resource: true,
            group: GROUP,
            version: "*",
            namespace: "",
            resource: "signers",
            subresource: "",
            name,
            path: "",
            field_selector: "",
            label_selector: "",
        };
        authz::decide(server, &attributes, None).allowed
    })
}
