//! API services: which server answers for a version of a group, and how groups and versions are ordered.

use crate::store::Stored;
use crate::webhook::{Address, ClientConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::Identity;
use serde_json::Value;
use std::cmp::Ordering;
use std::sync::Arc;

/// Label of the objects that the server makes itself; its values:
pub const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// brought up to date when the server starts,
pub const ON_START: &str = "onstart";
/// or at any time.
pub const ALWAYS: &str = "true";

/// An APIService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiService {
    /// Name, `<version>.<group>`.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Groups are ordered by the highest of their versions'.
    pub group_priority: i64,
    /// Orders the versions of a group.
    pub version_priority: i64,
    /// The server behind it; `None`: this one.
    pub remote: Option<Reference>,
    /// Status, reason and message of the condition `Available`.
    pub condition: Option<(String, String, String)>,
    /// Value of the label [`MANAGED`].
    pub managed: String,
}

/// Where a server is, and whom to trust there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// PEM certificates trusted.
    pub ca_bundle: String,
    /// Whether any certificate is.
    pub insecure: bool,
}

impl Reference {
    /// The server's URL.
    pub fn url(&self) -> String {
        format!("https://{}.{}.svc:{}", self.name, self.namespace, self.port)
    }

    /// How it is reached: as the front proxy that this server is to it.
    pub fn client(&self, identity: Option<Arc<Identity>>) -> ClientConfig {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        let address = Address::Service { namespace, name, port: self.port, path: String::new() };
        let mut client = ClientConfig::new(address, self.ca_bundle.clone());
        client.insecure = self.insecure;
        client.identity = identity;
        client
    }
}

impl ApiService {
    /// Whether requests can be sent to it.
    pub fn is_available(&self) -> bool {
        self.condition.as_ref().is_some_and(|(status, ..)| status == "True")
    }
}

/// Parses an APIService.
pub fn parse(stored: &Stored) -> Option<ApiService> {
    let object = stored.object().ok()?;
    let spec = object.get("spec")?;
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let number = |key: &str| spec.get(key).and_then(Value::as_i64).unwrap_or(0);
    let remote = spec.get("service").filter(|s| s.is_object()).map(|service| Reference {
        namespace: text(service, "namespace"),
        name: text(service, "name"),
        port: service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
        ca_bundle: STANDARD
            .decode(text(spec, "caBundle"))
            .ok()
            .and_then(|b| String::from_utf8(b).ok())
            .unwrap_or_default(),
        insecure: spec.get("insecureSkipTLSVerify").and_then(Value::as_bool).unwrap_or(false),
    });
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let available = conditions.into_iter().flatten().find(|c| c["type"] == "Available");
    Some(ApiService {
        name: stored.meta.name.clone(),
        uid: stored.meta.uid.clone(),
        group: text(spec, "group"),
        version: text(spec, "version"),
        group_priority: number("groupPriorityMinimum"),
        version_priority: number("versionPriority"),
        remote,
        condition: available.map(|c| (text(c, "status"), text(c, "reason"), text(c, "message"))),
        managed: stored.meta.label(MANAGED).unwrap_or("").to_owned(),
    })
}

/// Priority of groups of custom resources, and of each of their versions.
pub const CUSTOM: (i64, i64) = (1000, 100);

/// Group and version, and the priorities of both, of what this server answers for itself.
const BUILT_IN: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("certificates.k8s.io", "v1beta1", 17_300, 9),
    ("certificates.k8s.io", "v1alpha1", 17_300, 1),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("networking.k8s.io", "v1beta1", 17_200, 9),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("storage.k8s.io", "v1beta1", 16_800, 9),
    ("storage.k8s.io", "v1alpha1", 16_800, 1),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1beta1", 16_700, 12),
    ("admissionregistration.k8s.io", "v1alpha1", 16_700, 9),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("scheduling.k8s.io", "v1alpha2", 16_600, 2),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("coordination.k8s.io", "v1beta1", 16_500, 13),
    ("coordination.k8s.io", "v1alpha2", 16_500, 12),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 21),
    ("resource.k8s.io", "v1beta2", 16_200, 15),
    ("resource.k8s.io", "v1beta1", 16_200, 9),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("internal.apiserver.k8s.io", "v1alpha1", 16_000, 9),
    ("resource.k8s.io", "v1alpha3", 15_900, 9),
    ("storagemigration.k8s.io", "v1beta1", 15_800, 9),
];

/// The priorities of a version that is built in.
pub fn built_in(group: &str, version: &str) -> Option<(i64, i64)> {
    BUILT_IN.iter().find(|(g, v, ..)| (*g, *v) == (group, version)).map(|(.., group, version)| (*group, *version))
}

/// Stable versions before beta before alpha, higher before lower, others last by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (stability(a), stability(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

fn stability(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let (level, minor) = match &rest[digits..] {
        "" => return Some((2, major, 0)),
        rest => rest.strip_prefix("beta").map(|m| (1, m)).or_else(|| rest.strip_prefix("alpha").map(|m| (0, m)))?,
    };
    Some((level, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        let mut versions =
            ["foo10", "v3beta1", "v12alpha1", "v1", "v11beta2", "v10", "foo1", "v2", "v11alpha2", "v10beta3"];
        versions.sort_by(|a, b| compare_versions(a, b));
        let want = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(versions, want);
    }

    #[test]
    fn what_is_served_has_priorities() {
        for fact in schema::resources().iter().filter(|f| f.group != "apiregistration.k8s.io") {
            assert!(built_in(fact.group, fact.version).is_some(), "{}/{}", fact.group, fact.version);
        }
    }
}
