//! The Node authorizer: a kubelet reaches what the pods bound to its node refer to, and nothing else.
//!
//! The graph is a map from what pods refer to (secrets, claims, ...) to how many pods of each node do; it is
//! kept by the pods' watch, and by those of volumes, claims and attachments for what lies behind a claim.

use super::rules::Rule;
use super::{Attributes, Decision};
use crate::live::Live;
use crate::store::Stored;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// What a pod refers to.
#[derive(Default)]
pub struct PodRefs {
    /// Node it is bound to.
    pub node: String,
    /// Whether it is a mirror pod, whose references count for nothing.
    pub mirror: bool,
    /// UID.
    pub uid: String,
    /// Service account.
    pub service_account: String,
    /// Secrets.
    pub secrets: HashSet<String>,
    /// ConfigMaps.
    pub config_maps: HashSet<String>,
    /// PersistentVolumeClaims.
    pub claims: HashSet<String>,
    /// ResourceClaims.
    pub resource_claims: HashSet<String>,
}

/// What a persistent volume refers to.
pub struct VolumeRefs {
    claim: Option<(String, String)>,
    secrets: HashSet<(String, String)>,
}

/// The Node authorizer.
pub struct Node {
    /// Pods.
    pub pods: Arc<Live<PodRefs>>,
    /// Persistent volumes.
    pub volumes: Arc<Live<VolumeRefs>>,
    /// Node names of volume attachments.
    pub attachments: Arc<Live<String>>,
    /// Node names of resource slices.
    pub slices: Arc<Live<String>>,
    /// What every node may do.
    pub rules: Vec<Rule>,
}

/// Parses a pod.
pub fn parse_pod(stored: &Stored) -> Option<PodRefs> {
    pod_refs(&stored.object().ok()?)
}

fn pod_refs(pod: &Value) -> Option<PodRefs> {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut refs = PodRefs {
        node: text("/spec/nodeName"),
        mirror: api::meta::annotation(pod, "kubernetes.io/config.mirror").is_some(),
        uid: api::meta::uid(pod).to_owned(),
        service_account: text("/spec/serviceAccountName"),
        ..PodRefs::default()
    };
    if !refs.node.is_empty() && !refs.mirror {
        collect(pod.get("spec")?, &mut refs);
        for claim in pod.pointer("/status/resourceClaimStatuses").and_then(Value::as_array).into_iter().flatten() {
            refs.resource_claims.extend(claim.get("resourceClaimName").and_then(Value::as_str).map(str::to_owned));
        }
        let extended = pod.pointer("/status/extendedResourceClaimStatus/resourceClaimName");
        refs.resource_claims.extend(extended.and_then(Value::as_str).map(str::to_owned));
        let name = api::meta::name(pod);
        for volume in pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten() {
            if let (Some(volume_name), true) = (volume["name"].as_str(), volume.get("ephemeral").is_some()) {
                refs.claims.insert(format!("{name}-{volume_name}"));
            }
        }
    }
    Some(refs)
}

/// Whether a pod refers to any secret.
pub fn has_secrets(pod: &Value) -> bool {
    let mut refs = PodRefs::default();
    collect(&pod["spec"], &mut refs);
    !refs.secrets.is_empty()
}

/// Finds references by the names of their fields, wherever in the spec they are.
fn collect(value: &Value, refs: &mut PodRefs) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| collect(item, refs)),
        Value::Object(map) => {
            for (key, item) in map {
                let name = |field: &str| item.get(field).and_then(Value::as_str).map(str::to_owned);
                match key.as_str() {
                    "secretRef" | "secretKeyRef" => refs.secrets.extend(name("name")),
                    "secret" => refs.secrets.extend(name("secretName").or_else(|| name("name"))),
                    "configMapRef" | "configMapKeyRef" | "configMap" => refs.config_maps.extend(name("name")),
                    "persistentVolumeClaim" => refs.claims.extend(name("claimName")),
                    "imagePullSecrets" => {
                        let names = item.as_array().into_iter().flatten().filter_map(|s| s["name"].as_str());
                        refs.secrets.extend(names.map(str::to_owned));
                    }
                    "nodePublishSecretRef" => refs.secrets.extend(name("name")),
                    "secretName" => refs.secrets.extend(item.as_str().map(str::to_owned)),
                    "resourceClaimName" => refs.resource_claims.extend(item.as_str().map(str::to_owned)),
                    _ => {}
                }
                collect(item, refs);
            }
        }
        _ => {}
    }
}

/// Parses a persistent volume.
pub fn parse_volume(stored: &Stored) -> Option<VolumeRefs> {
    let volume = stored.object().ok()?;
    let claim = volume.pointer("/spec/claimRef").map(|c| {
        let text = |key: &str| c.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        (text("namespace"), text("name"))
    });
    let mut secrets = HashSet::new();
    collect_secrets(volume.get("spec")?, claim.as_ref().map_or("", |(ns, _)| ns), &mut secrets);
    Some(VolumeRefs { claim, secrets })
}

fn collect_secrets(spec: &Value, default_namespace: &str, out: &mut HashSet<(String, String)>) {
    let Value::Object(map) = spec else { return };
    // What drivers are told may have any names, those of fields too.
    for (key, item) in map.iter().filter(|(key, _)| !matches!(key.as_str(), "volumeAttributes" | "options")) {
        let text = |field: &str| item.get(field).and_then(Value::as_str);
        if key.ends_with("SecretRef") || key == "secretRef" {
            let namespace = text("namespace").unwrap_or(default_namespace);
            out.extend(text("name").map(|name| (namespace.to_owned(), name.to_owned())));
        } else if let Some(name) = text("secretName") {
            let namespace = text("secretNamespace").unwrap_or(default_namespace);
            out.insert((namespace.to_owned(), name.to_owned()));
        }
        collect_secrets(item, default_namespace, out);
    }
}

/// The `spec.nodeName` of a volume attachment or resource slice.
pub fn parse_node_name(stored: &Stored) -> Option<String> {
    stored.object().ok()?.pointer("/spec/nodeName")?.as_str().map(str::to_owned)
}

const ALLOW: Result<(), String> = Ok(());

fn no(reason: impl Into<String>) -> Result<(), String> {
    Err(reason.into())
}

impl Node {
    /// Waits until every cache has seen what existed at the start.
    pub async fn synced(&self) {
        self.pods.synced().await;
        self.volumes.synced().await;
        self.attachments.synced().await;
        self.slices.synced().await;
    }

    /// Whether a node may do it; users that are no nodes are not its business.
    pub fn authorize(&self, attributes: &Attributes<'_>, selects_node: Option<&str>) -> Decision {
        if !attributes.user.is_in("system:nodes") {
            return Decision::default();
        }
        let answer = match attributes.user.node_name() {
            None => return Decision::default(),
            Some("") => no(format!("unknown node for user {:?}", attributes.user.name)),
            Some(node) => self.check(node, attributes, selects_node),
        };
        match answer {
            Ok(()) => Decision::allow(""),
            Err(reason) => Decision::no_opinion(reason),
        }
    }

    fn check(&self, node: &str, a: &Attributes<'_>, selects_node: Option<&str>) -> Result<(), String> {
        match (a.is_resource, a.group, a.resource) {
            (true, "", "secrets" | "configmaps") => self.read_namespaced(node, a),
            (true, "", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "update" | "patch" => self.related(node, a),
                _ => no("can only get/update/patch this type"),
            },
            (true, "", "persistentvolumeclaims" | "persistentvolumes")
            | (true, "resource.k8s.io", "resourceclaims")
            | (true, "storage.k8s.io", "volumeattachments") => self.get_only(node, a),
            (true, "", "serviceaccounts") => self.service_account(node, a),
            (true, "coordination.k8s.io", "leases") => lease(node, a),
            (true, "storage.k8s.io", "csinodes") => csi_node(node, a),
            (true, "resource.k8s.io", "resourceslices") => self.slice(node, a, selects_node),
            // The API is off.
            (true, "certificates.k8s.io", "podcertificaterequests") => no(""),
            (true, "", "nodes") => own_node(node, a),
            (true, "", "pods") => self.pod(node, a, selects_node),
            _ if self.rules.iter().any(|rule| rule.allows(a)) => ALLOW,
            _ => no(""),
        }
    }

    fn read_namespaced(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        match a {
            a if !matches!(a.verb, "get" | "list" | "watch") => no("can only read resources of this type"),
            a if !a.subresource.is_empty() => no("cannot read subresource"),
            a if a.namespace.is_empty() => no("can only read namespaced object of this type"),
            a => self.related(node, a),
        }
    }

    fn get_only(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        match a {
            a if a.verb != "get" => no("can only get individual resources of this type"),
            a if !a.subresource.is_empty() => no("cannot get subresource"),
            a => self.related(node, a),
        }
    }

    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        match (a.verb, a.subresource) {
            ("get", "") => self.read_namespaced(node, a),
            ("create", "token") if !a.name.is_empty() => self.related(node, a),
            ("create", _) if !a.name.is_empty() => no("can only create token subresource of serviceaccount"),
            _ => no("can only create tokens for individual service accounts"),
        }
    }

    fn slice(&self, node: &str, a: &Attributes<'_>, selects_node: Option<&str>) -> Result<(), String> {
        match a.verb {
            _ if !a.subresource.is_empty() => no("cannot authorize ResourceSlice subresources"),
            "create" => ALLOW,
            "get" | "update" | "patch" | "delete" => self.related(node, a),
            "watch" | "list" | "deletecollection" if selects_node == Some(node) => ALLOW,
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                     patch, delete, deletecollection"),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>, selects_node: Option<&str>) -> Result<(), String> {
        match (a.subresource, a.verb) {
            ("", "get") => self.related(node, a),
            ("", "list" | "watch") if selects_node == Some(node) => ALLOW,
            ("", "list" | "watch") if !a.name.is_empty() => self.related(node, a),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => ALLOW,
            _ => no(""),
        }
    }

    fn related(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        if self.is_related(node, a.resource, a.namespace, a.name) {
            ALLOW
        } else {
            no(format!("no relationship found between node '{node}' and this object"))
        }
    }

    fn is_related(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        match resource {
            "volumeattachments" => self.attachments.get("", name).is_some_and(|n| *n == node),
            "resourceslices" => self.slices.get("", name).is_some_and(|n| *n == node),
            "pods" => self.pods.get(namespace, name).is_some_and(|pod| pod.node == node),
            "persistentvolumes" => {
                let claim = self.volumes.get("", name).and_then(|v| v.claim.clone());
                claim.is_some_and(|(ns, name)| self.has_pod(node, &ns, |pod| pod.claims.contains(&name)))
            }
            "secrets" => {
                let secret = (namespace.to_owned(), name.to_owned());
                let claimed = |(ns, claim): &(String, String)| self.has_pod(node, ns, |pod| pod.claims.contains(claim));
                self.has_pod(node, namespace, |pod| pod.secrets.contains(name))
                    || self.volumes.any(|v| v.secrets.contains(&secret) && v.claim.as_ref().is_some_and(claimed))
            }
            "configmaps" => self.has_pod(node, namespace, |pod| pod.config_maps.contains(name)),
            "persistentvolumeclaims" => self.has_pod(node, namespace, |pod| pod.claims.contains(name)),
            "resourceclaims" => self.has_pod(node, namespace, |pod| pod.resource_claims.contains(name)),
            "serviceaccounts" => self.has_pod(node, namespace, |pod| pod.service_account == name),
            _ => false,
        }
    }

    fn has_pod(&self, node: &str, namespace: &str, refers: impl Fn(&PodRefs) -> bool) -> bool {
        self.pods.any_in_namespace(namespace, |pod| pod.node == node && !pod.mirror && refers(pod))
    }
}

fn lease(node: &str, a: &Attributes<'_>) -> Result<(), String> {
    match a {
        a if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") => {
            no("can only get, create, update, patch, or delete a node lease")
        }
        a if a.namespace != "kube-node-lease" => {
            no("can only access leases in the \"kube-node-lease\" system namespace")
        }
        a if a.verb != "create" && a.name != node => {
            no("can only access node lease with the same name as the requesting node")
        }
        _ => ALLOW,
    }
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Result<(), String> {
    match a {
        a if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") => {
            no("can only get, create, update, patch, or delete a CSINode")
        }
        a if !a.subresource.is_empty() => no("cannot authorize CSINode subresources"),
        a if a.verb != "create" && a.name != node => {
            no("can only access CSINode with the same name as the requesting node")
        }
        _ => ALLOW,
    }
}

fn own_node(node: &str, a: &Attributes<'_>) -> Result<(), String> {
    match (a.subresource, a.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => ALLOW,
        ("", "get" | "list" | "watch") if a.name == node => ALLOW,
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            no(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        _ => no(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_of_a_pod_are_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "env"}}]}],
            "volumes": [{"name": "s", "secret": {"secretName": "vol"}}, {"name": "e", "ephemeral": {}},
                {"projected": {"sources": [{"configMap": {"name": "root"}}, {"secret": {"name": "proj"}}]}},
                {"persistentVolumeClaim": {"claimName": "data"}}]}});
        let refs = pod_refs(&pod).expect("pod");
        let sorted = |set: &HashSet<String>| {
            let mut list: Vec<_> = set.iter().cloned().collect();
            list.sort();
            list
        };
        assert_eq!(sorted(&refs.secrets), ["key", "proj", "pull", "vol"]);
        assert_eq!(sorted(&refs.config_maps), ["env", "root"]);
        assert_eq!(sorted(&refs.claims), ["data", "p-e"]);
    }

    #[test]
    fn what_drivers_are_told_refers_to_nothing() {
        let mut found = HashSet::new();
        let spec = serde_json::json!({"csi": {"nodeStageSecretRef": {"namespace": "a", "name": "staged"},
            "volumeAttributes": {"secretName": "stolen", "secretNamespace": "kube-system"}},
            "flexVolume": {"options": {"secretName": "stolen"}}});
        collect_secrets(&spec, "b", &mut found);
        assert_eq!(found, HashSet::from([("a".to_owned(), "staged".to_owned())]));
    }
}
