//! Go's names of fields, and what differs between internal types and served ones.

use crate::types::{Field, Schema};

/// JSON names whose Go name is more than the same with a capital letter.
const NAMES: &[(&str, &str)] = &[
    ("apiGroup", "APIGroup"),
    ("apiGroups", "APIGroups"),
    ("apiVersion", "APIVersion"),
    ("apiVersions", "APIVersions"),
    ("awsElasticBlockStore", "AWSElasticBlockStore"),
    ("caBundle", "CABundle"),
    ("cel", "CEL"),
    ("cephfs", "CephFS"),
    ("chapAuthDiscovery", "DiscoveryCHAPAuth"),
    ("chapAuthSession", "SessionCHAPAuth"),
    ("cidr", "CIDR"),
    ("cidrs", "CIDRs"),
    ("csi", "CSI"),
    ("diskURI", "DataDiskURI"),
    ("dnsConfig", "DNSConfig"),
    ("dnsPolicy", "DNSPolicy"),
    ("externalID", "DoNotUseExternalID"),
    ("fc", "FC"),
    ("fsGroup", "FSGroup"),
    ("fsGroupChangePolicy", "FSGroupChangePolicy"),
    ("fsGroupPolicy", "FSGroupPolicy"),
    ("fsType", "FSType"),
    ("gcePersistentDisk", "GCEPersistentDisk"),
    ("gid", "GID"),
    ("gmsaCredentialSpec", "GMSACredentialSpec"),
    ("gmsaCredentialSpecName", "GMSACredentialSpecName"),
    ("grpc", "GRPC"),
    ("http", "HTTP"),
    ("httpGet", "HTTPGet"),
    ("httpHeaders", "HTTPHeaders"),
    ("ip", "IP"),
    ("ipBlock", "IPBlock"),
    ("ipFamilies", "IPFamilies"),
    ("ipFamilyPolicy", "IPFamilyPolicy"),
    ("ipMode", "IPMode"),
    ("ips", "IPs"),
    ("iqn", "IQN"),
    ("iscsi", "ISCSI"),
    ("iscsiInterface", "ISCSIInterface"),
    ("jsonPatch", "JSONPatch"),
    ("lastState", "LastTerminationState"),
    ("nfs", "NFS"),
    ("os", "OS"),
    ("osImage", "OSImage"),
    ("pdName", "PDName"),
    ("qosClass", "QOSClass"),
    ("rbd", "RBD"),
    ("reportingComponent", "ReportingController"),
    ("seLinuxChangePolicy", "SELinuxChangePolicy"),
    ("seLinuxMount", "SELinuxMount"),
    ("seLinuxOptions", "SELinuxOptions"),
    ("sslEnabled", "SSLEnabled"),
    ("storageos", "StorageOS"),
    ("tcpSocket", "TCPSocket"),
    ("tls", "TLS"),
    ("ttlSecondsAfterFinished", "TTLSecondsAfterFinished"),
    ("tty", "TTY"),
    ("uid", "UID"),
    ("url", "URL"),
    ("wwids", "WWIDs"),
];

/// Names of single kinds of struct: start of the kind's name, JSON name, Go's.
const OF_KINDS: &[(&str, &str, &str)] = &[
    ("PodSpec", "serviceAccount", "DeprecatedServiceAccount"),
    ("Glusterfs", "endpoints", "EndpointsName"),
    ("RBD", "image", "RBDImage"),
    ("RBD", "monitors", "CephMonitors"),
    ("RBD", "pool", "RBDPool"),
    ("RBD", "user", "RadosUser"),
    ("DeviceAttribute", "bool", "BoolValue"),
    ("DeviceAttribute", "bools", "BoolValues"),
    ("DeviceAttribute", "int", "IntValue"),
    ("DeviceAttribute", "ints", "IntValues"),
    ("DeviceAttribute", "string", "StringValue"),
    ("DeviceAttribute", "strings", "StringValues"),
    ("DeviceAttribute", "version", "VersionValue"),
    ("DeviceAttribute", "versions", "VersionValues"),
];

/// Go's name of a schema's field; that of an embedded struct is its type's.
pub(super) fn go_name(schema: Schema, field: Field) -> String {
    if let Some(embedded) = field.ty().schema().filter(|_| is_embedded(field)) {
        return embedded.kind_name().to_owned();
    }
    let (kind, json) = (schema.kind_name(), field.name());
    let own = OF_KINDS.iter().find(|(of, name, _)| kind.starts_with(of) && *name == json).map(|(_, _, go)| *go);
    let known = || NAMES.binary_search_by(|(name, _)| (*name).cmp(json)).ok().map(|at| NAMES[at].1);
    match own.or_else(known) {
        Some(go) => go.to_owned(),
        None => capital(json),
    }
}

/// Whether the struct stands in place: without a name of its own, or as metadata.
pub(super) fn is_embedded(field: Field) -> bool {
    let metadata = |of: Schema| ["ObjectMeta", "ListMeta"].contains(&of.kind_name()) && field.name() == "metadata";
    field.is_inline() || field.ty().schema().is_some_and(metadata)
}

fn capital(json: &str) -> String {
    let mut chars = json.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// How the order of an internal struct's fields differs: kind, field, the field it stands behind (empty: first).
pub(super) const MOVED: &[(&str, &str, &str)] = &[
    ("ContainerResourceMetricSource", "Container", "Name"),
    ("ContainerResourceMetricStatus", "Container", "Name"),
    ("CSIDriverSpec", "FSGroupPolicy", "AttachRequired"),
    ("JobSpec", "ActiveDeadlineSeconds", "SuccessPolicy"),
    ("JobStatus", "Terminating", "Active"),
    ("JobStatus", "Ready", "Terminating"),
    ("PersistentVolumeSource", "Quobyte", "RBD"),
    ("PersistentVolumeSource", "FlexVolume", "ISCSI"),
    ("PodSecurityContext", "FSGroupChangePolicy", "FSGroup"),
    ("PodSpec", "SetHostnameAsFQDN", "Subdomain"),
    ("PodSpec", "PreemptionPolicy", "Priority"),
    ("PodSpec", "Overhead", "RuntimeClassName"),
    ("PodStatus", "QOSClass", "StartTime"),
    ("ServiceSpec", "Type", ""),
    ("ServiceSpec", "IPFamilies", "ClusterIPs"),
    ("ServiceSpec", "IPFamilyPolicy", "IPFamilies"),
    ("ServiceSpec", "ExternalName", "IPFamilyPolicy"),
    ("ServiceSpec", "LoadBalancerIP", "ExternalIPs"),
    ("ServiceSpec", "SessionAffinityConfig", "SessionAffinity"),
    ("ValidatingAdmissionPolicySpec", "FailurePolicy", "MatchConditions"),
    ("ValidatingAdmissionPolicySpec", "AuditAnnotations", "FailurePolicy"),
    ("VolumeSource", "Quobyte", "RBD"),
];

/// Fields of a pod's spec that its internal form keeps in the security context, before the other fields.
pub(super) const OF_THE_HOST: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

/// Fields that internal types do not have.
pub(super) const DROPPED: [(&str, &str); 3] =
    [("PodSpec", "DeprecatedServiceAccount"), ("PodStatus", "PodIP"), ("NodeSpec", "PodCIDR")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_gos() {
        assert!(NAMES.is_sorted_by_key(|(json, _)| *json));
        for (schema, field, want) in [
            ("PodSpec", "hostIPC", "HostIPC"),
            ("PodSpec", "dnsPolicy", "DNSPolicy"),
            ("PodSpec", "serviceAccount", "DeprecatedServiceAccount"),
            ("RBDVolumeSource", "image", "RBDImage"),
            ("Container", "image", "Image"),
        ] {
            let schema = Schema::find(&format!("io.k8s.api.core.v1.{schema}")).expect("served");
            assert_eq!(go_name(schema, schema.field(field).expect("a field")), want);
        }
    }
}
