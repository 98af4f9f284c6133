//! DefaultStorageClass: a claim that names no class gets the default one.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The plugin.
pub struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, claim: &mut Object) -> Result<(), Status> {
        let named = claim.pointer("/spec/storageClassName").is_some_and(|c| !c.is_null())
            || meta::annotation(claim, BETA_CLASS).is_some();
        if a.operation != Operation::Create || !a.is("", "persistentvolumeclaims") || named {
            return Ok(());
        }
        let classes = server.lives().storage_classes.in_namespace("");
        let is_default = |class: &Object| DEFAULT.iter().any(|key| meta::annotation(class, key) == Some("true"));
        // Of several the newest, and then the first by name.
        let newest = classes.into_iter().filter(|(_, class)| is_default(class)).max_by(|(a_name, a), (b_name, b)| {
            let created = |class: &Object| meta::string(class, "creationTimestamp").to_owned();
            created(a).cmp(&created(b)).then_with(|| b_name.cmp(a_name))
        });
        if let Some((name, _)) = newest {
            meta::field_mut(claim, "spec").insert("storageClassName".into(), name.into());
        }
        Ok(())
    }
}
