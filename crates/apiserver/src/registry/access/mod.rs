//! What a write may contain only where the cluster or its writer is allowed it: what a kind's strategy cannot judge, as
//! it takes the server. A check is a file and a line in [`CHECKS`].

mod admin;
mod claim_status;

use crate::admission::Attributes;
use crate::server::ApiServer;
use api::{Cause, Object};
use async_trait::async_trait;

/// A write that is about to be validated.
struct Write<'a> {
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    new: &'a Object,
    /// `Null` for a new object.
    old: &'a Object,
}

/// One check.
#[async_trait]
trait Check: Sync {
    /// Its errors.
    async fn causes(&self, write: &Write<'_>) -> Vec<Cause>;
}

/// Operation, group, resource and subresource; those of one write run in this order.
const CHECKS: &[(&str, &str, &str, &str, &dyn Check)] = &[
    ("CREATE", "resource.k8s.io", "resourceclaims", "", &admin::Requested("/spec/devices/requests")),
    ("CREATE", "resource.k8s.io", "resourceclaimtemplates", "", &admin::Requested("/spec/spec/devices/requests")),
    ("UPDATE", "resource.k8s.io", "resourceclaims", "status", &admin::Given),
    ("UPDATE", "resource.k8s.io", "resourceclaims", "status", &claim_status::Binding),
    ("UPDATE", "resource.k8s.io", "resourceclaims", "status", &claim_status::Devices),
];

/// The errors of a write; they come before those of the strategy.
pub async fn causes(server: &ApiServer, attributes: &Attributes<'_>, new: &Object) -> Vec<Cause> {
    const NONE: &Object = &Object::Null;
    let (word, resource) = (attributes.operation.word(), attributes.resource);
    let key = (word, resource.group.as_str(), resource.resource.as_str(), attributes.subresource);
    let write = Write { server, attributes, new, old: attributes.old.unwrap_or(NONE) };
    let mut causes = Vec::new();
    for (operation, group, resource, subresource, check) in CHECKS {
        if (*operation, *group, *resource, *subresource) == key {
            causes.extend(check.causes(&write).await);
        }
    }
    causes
}
