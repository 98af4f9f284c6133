//! OpenAPI of custom resources: v3 documents of their group versions, and their part of the v2 document.

use super::Definition;
use crate::registry::{Registry, Resource};
use schema::CustomKind;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Kinds = Vec<(Arc<Resource>, Arc<Definition>)>;

/// The custom resources of every group version, by the path of its document.
fn documents(registry: &Registry) -> BTreeMap<String, Kinds> {
    let mut out = BTreeMap::<String, Kinds>::new();
    for resource in registry.all() {
        let Some(custom) = resource.custom.clone() else { continue };
        let path = format!("apis/{}/{}", resource.group, resource.version);
        out.entry(path).or_default().push((resource, custom));
    }
    out.values_mut().for_each(|kinds| kinds.sort_by(|(a, _), (b, _)| a.resource.cmp(&b.resource)));
    out
}

fn kinds(all: &[(Arc<Resource>, Arc<Definition>)]) -> Vec<CustomKind<'_>> {
    all.iter()
        .map(|(resource, custom)| CustomKind {
            group: &resource.group,
            version: &resource.version,
            plural: &resource.resource,
            kind: &resource.kind,
            list_kind: &custom.list_kind,
            namespaced: resource.namespaced,
            status: custom.status,
            scale: custom.scale.is_some(),
            schema: &custom.source,
            selectable: &custom.selectable,
        })
        .collect()
}

/// A hash of all that a document is made of.
fn hash(all: &[CustomKind<'_>]) -> String {
    pki::sha256_hex(format!("{all:?}").as_bytes()).to_uppercase()
}

/// Adds the documents of custom resources to the index.
pub fn add_to_index(registry: &Registry, index: &mut Value) {
    for (path, all) in documents(registry) {
        let hash = hash(&kinds(&all));
        index["paths"][&path] = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
    }
}

/// The v3 document of a path and its hash; `None`: no custom resource is served there.
pub fn document(registry: &Registry, path: &str) -> Option<(String, Vec<u8>)> {
    let all = documents(registry).remove(path)?;
    let kinds = kinds(&all);
    Some((hash(&kinds), schema::openapi_v3_custom(&kinds)))
}

/// The v2 document with its hash, made when it is asked for.
pub struct Version2(Kinds);

impl Version2 {
    /// With the custom resources of now.
    pub fn new(registry: &Registry) -> Self {
        Self(documents(registry).into_values().flatten().collect())
    }

    /// The hash of the document.
    pub fn hash(&self) -> String {
        match self.0.is_empty() {
            true => schema::openapi_v2_hash(),
            false => hash(&kinds(&self.0)) + &schema::openapi_v2_hash(),
        }
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        schema::openapi_v2(&kinds(&self.0))
    }

    /// As protobuf.
    pub fn protobuf(&self) -> Vec<u8> {
        schema::openapi_v2_protobuf(&kinds(&self.0))
    }
}
