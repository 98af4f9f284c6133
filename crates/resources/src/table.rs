//! The table of resources: one row each.

use crate::{
    Strategy, admissionregistration, apiextensions, apiregistration, apps, autoscaling, batch, certificates,
    coordination, core, discovery, flowcontrol, networking, node, policy, rbac, resource, scheduling, storage,
};

/// A resource that is stored.
pub struct Row {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural name; all facts (kind, scope, verbs, subresources, names) are looked up in `schema` by it.
    pub resource: &'static str,
    /// Where its objects are stored, `apps/deployments`; two versions of one resource share it.
    pub storage: &'static str,
    /// The version whose form is stored, when it is another than `version` (`autoscaling/v1` → `v2`).
    pub convert: Option<&'static Conversion>,
    /// Its behaviour.
    pub strategy: &'static dyn Strategy,
}

/// How a served version differs from the stored one.
///
/// [`Strategy::default`] of the row sees the served form; every other method sees the stored form.
pub struct Conversion {
    /// The stored form's `apiVersion`.
    pub stored: &'static str,
    /// Served → stored.
    pub to_stored: fn(&mut api::Object),
    /// Stored → served.
    pub from_stored: fn(&mut api::Object),
    /// The stored form's name of a field that selectors may name; `None`: they may not.
    pub stored_field: fn(&str) -> Option<String>,
}

/// The row of a resource.
pub fn find(group: &str, version: &str, resource: &str) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.group == group && r.version == version && r.resource == resource)
}

macro_rules! row {
    ("", $version:literal, $resource:literal, $strategy:expr) => {
        row!("", $version, $resource, $strategy, concat!("core/", $resource), None)
    };
    ($group:literal, $version:literal, $resource:literal, $strategy:expr) => {
        row!($group, $version, $resource, $strategy, concat!($group, "/", $resource), None)
    };
    ($group:literal, $version:literal, $resource:literal, $strategy:expr, $storage:expr, $convert:expr) => {
        Row {
            group: $group,
            version: $version,
            resource: $resource,
            storage: $storage,
            convert: $convert,
            strategy: $strategy,
        }
    };
}

/// Every stored resource.
pub const ROWS: &[Row] = &[
    row!("", "v1", "configmaps", &core::config_map::ConfigMap),
    row!("", "v1", "endpoints", &core::endpoints::Endpoints),
    row!("", "v1", "events", &core::event::Event),
    row!("", "v1", "limitranges", &core::limit_range::LimitRange),
    row!("", "v1", "namespaces", &core::namespace::Namespace),
    row!("", "v1", "nodes", &core::node::Node),
    row!("", "v1", "persistentvolumeclaims", &core::persistent_volume_claim::PersistentVolumeClaim),
    row!("", "v1", "persistentvolumes", &core::persistent_volume::PersistentVolume),
    row!("", "v1", "pods", &core::pod::Pod),
    row!("", "v1", "podtemplates", &core::pod_template::PodTemplate),
    row!("", "v1", "replicationcontrollers", &core::replication_controller::ReplicationController),
    row!("", "v1", "resourcequotas", &core::resource_quota::ResourceQuota),
    row!("", "v1", "secrets", &core::secret::Secret),
    row!("", "v1", "serviceaccounts", &core::service_account::ServiceAccount),
    row!("", "v1", "services", &core::service::Service),
    row!(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingadmissionpolicies",
        &admissionregistration::policy::AdmissionPolicy { mutating: true }
    ),
    row!(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingadmissionpolicybindings",
        &admissionregistration::binding::AdmissionPolicyBinding { mutating: true }
    ),
    row!(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        &admissionregistration::webhook::WebhookConfiguration { mutating: true }
    ),
    row!(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicies",
        &admissionregistration::policy::AdmissionPolicy { mutating: false }
    ),
    row!(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
        &admissionregistration::binding::AdmissionPolicyBinding { mutating: false }
    ),
    row!(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        &admissionregistration::webhook::WebhookConfiguration { mutating: false }
    ),
    row!("apiextensions.k8s.io", "v1", "customresourcedefinitions", &apiextensions::CustomResourceDefinition),
    row!("apiregistration.k8s.io", "v1", "apiservices", &apiregistration::ApiService),
    row!("apps", "v1", "controllerrevisions", &apps::controller_revision::ControllerRevision),
    row!("apps", "v1", "daemonsets", &apps::daemon_set::DaemonSet),
    row!("apps", "v1", "deployments", &apps::deployment::Deployment),
    row!("apps", "v1", "replicasets", &apps::replica_set::ReplicaSet),
    row!("apps", "v1", "statefulsets", &apps::stateful_set::StatefulSet),
    row!(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        &autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscaler
    ),
    row!("batch", "v1", "cronjobs", &batch::cron_job::CronJob),
    row!("batch", "v1", "jobs", &batch::job::Job),
    row!("certificates.k8s.io", "v1", "certificatesigningrequests", &certificates::CertificateSigningRequest),
    row!("coordination.k8s.io", "v1", "leases", &coordination::Lease),
    row!("discovery.k8s.io", "v1", "endpointslices", &discovery::EndpointSlice),
    row!("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", &flowcontrol::FlowSchema),
    row!("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations", &flowcontrol::PriorityLevelConfiguration),
    row!("networking.k8s.io", "v1", "ingressclasses", &networking::ingress_class::IngressClass),
    row!("networking.k8s.io", "v1", "ingresses", &networking::ingress::Ingress),
    row!("networking.k8s.io", "v1", "ipaddresses", &networking::ip_address::IpAddress),
    row!("networking.k8s.io", "v1", "networkpolicies", &networking::network_policy::NetworkPolicy),
    row!("networking.k8s.io", "v1", "servicecidrs", &networking::service_cidr::ServiceCidr),
    row!("node.k8s.io", "v1", "runtimeclasses", &node::RuntimeClass),
    row!("policy", "v1", "poddisruptionbudgets", &policy::PodDisruptionBudget),
    row!("rbac.authorization.k8s.io", "v1", "clusterrolebindings", &rbac::of_cluster(rbac::binding::Binding)),
    row!("rbac.authorization.k8s.io", "v1", "clusterroles", &rbac::of_cluster(rbac::role::Role)),
    row!("rbac.authorization.k8s.io", "v1", "rolebindings", &rbac::of_namespace(rbac::binding::Binding)),
    row!("rbac.authorization.k8s.io", "v1", "roles", &rbac::of_namespace(rbac::role::Role)),
    row!("resource.k8s.io", "v1", "deviceclasses", &resource::DeviceClass),
    row!("resource.k8s.io", "v1", "resourceclaims", &resource::ResourceClaim),
    row!("resource.k8s.io", "v1", "resourceclaimtemplates", &resource::ResourceClaimTemplate),
    row!("resource.k8s.io", "v1", "resourceslices", &resource::ResourceSlice),
    row!("scheduling.k8s.io", "v1", "priorityclasses", &scheduling::PriorityClass),
    row!("storage.k8s.io", "v1", "csidrivers", &storage::csi_driver::CsiDriver),
    row!("storage.k8s.io", "v1", "csinodes", &storage::csi_node::CsiNode),
    row!("storage.k8s.io", "v1", "csistoragecapacities", &storage::csi_storage_capacity::CsiStorageCapacity),
    row!("storage.k8s.io", "v1", "storageclasses", &storage::storage_class::StorageClass),
    row!("storage.k8s.io", "v1", "volumeattachments", &storage::volume_attachment::VolumeAttachment),
    row!("storage.k8s.io", "v1", "volumeattributesclasses", &storage::volume_attributes_class::VolumeAttributesClass),
    row!("events.k8s.io", "v1", "events", &core::event::NewEvent, "core/events", Some(&crate::events::CONVERSION)),
    row!(
        "autoscaling",
        "v1",
        "horizontalpodautoscalers",
        &autoscaling::HorizontalPodAutoscalerV1,
        "autoscaling/horizontalpodautoscalers",
        Some(&crate::autoscaling::V1)
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ctx;
    use serde_json::json;

    /// Every kind takes an object with nothing in it through the whole way of a write, and shows it.
    #[test]
    fn every_row_takes_an_empty_object() {
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let ctx = Ctx { user: "u", groups: &[], now, dry_run: false };
        for row in ROWS {
            for body in [
                json!({"metadata": {"name": "x"}}),
                json!({"metadata": null, "spec": null, "status": null}),
                json!({"spec": {}, "status": {}}),
            ] {
                let mut obj = body.clone();
                row.strategy.default(&mut obj);
                if let Some(convert) = row.convert {
                    (convert.to_stored)(&mut obj);
                }
                row.strategy.prepare_for_create(&ctx, &mut obj);
                let old = obj.clone();
                row.strategy.validate(&ctx, &obj);
                row.strategy.prepare_for_update(&ctx, &mut obj, &old);
                row.strategy.validate_update(&ctx, &obj, &old);
                row.strategy.prepare_for_status_update(&ctx, &mut obj, &old);
                row.strategy.validate_status_update(&ctx, &obj, &old);
                row.strategy.warnings(&obj, Some(&old));
                row.strategy.selectable_fields(&obj);
                row.strategy.scale(&obj);
                let cells = row.strategy.row(&obj, now).len();
                // upstream gives rows of addresses an age without a column for it
                let uncounted = usize::from(row.resource == "ipaddresses");
                assert_eq!(cells, row.strategy.columns().len() + uncounted, "{} {body}", row.resource);
                if let Some(convert) = row.convert {
                    (convert.from_stored)(&mut obj);
                }
            }
        }
    }

    #[test]
    fn rows_are_unique() {
        for (i, row) in ROWS.iter().enumerate() {
            let same = |r: &Row| (r.group, r.version, r.resource) == (row.group, row.version, row.resource);
            assert_eq!(ROWS.iter().position(same), Some(i), "{}/{}", row.group, row.resource);
        }
        assert_eq!(find("apps", "v1", "deployments").map(|r| r.storage), Some("apps/deployments"));
        assert_eq!(find("events.k8s.io", "v1", "events").map(|r| r.storage), Some("core/events"));
    }
}
