//! StorageObjectInUseProtection: volumes and claims are held until no one uses them.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;

/// The plugin.
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    async fn admit(&self, _server: &ApiServer, a: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        let finalizer = match a.resource.resource.as_str() {
            "persistentvolumes" => "kubernetes.io/pv-protection",
            "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
            _ => return Ok(()),
        };
        if a.operation != Operation::Create || !a.subresource.is_empty() {
            return Ok(());
        }
        let mut list: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
        if !list.iter().any(|f| f == finalizer) {
            list.push(finalizer.into());
            meta::set(object, "finalizers", list);
        }
        Ok(())
    }
}
