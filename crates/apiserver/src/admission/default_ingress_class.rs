//! DefaultIngressClass: an ingress that names no class gets the default one.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";

/// The plugin.
pub struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, ingress: &mut Object) -> Result<(), Status> {
        let named = ingress.pointer("/spec/ingressClassName").is_some_and(|c| !c.is_null())
            || meta::annotation(ingress, LEGACY_CLASS).is_some();
        if a.operation != Operation::Create || !a.is("networking.k8s.io", "ingresses") || named {
            return Ok(());
        }
        let classes = server.lives().ingress_classes.in_namespace("");
        let newest = classes
            .into_iter()
            .filter(|(_, class)| meta::annotation(class, DEFAULT) == Some("true"))
            .max_by(|(a_name, a), (b_name, b)| {
                let created = |class: &Object| meta::string(class, "creationTimestamp").to_owned();
                created(a).cmp(&created(b)).then_with(|| b_name.cmp(a_name))
            });
        if let Some((name, _)) = newest {
            meta::field_mut(ingress, "spec").insert("ingressClassName".into(), name.into());
        }
        Ok(())
    }
}
