//! The table of resources: one row each.

use crate::{Strategy, apps, batch, core};
use crate::plain::Plain;

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
        Row { group: $group, version: $version, resource: $resource, storage: $storage, convert: $convert, strategy: $strategy }
    };
}

const RECORD: Plain = Plain { status: false, generation: false };
const STATUS: Plain = Plain { status: true, generation: false };
const COUNTED: Plain = Plain { status: false, generation: true };
const SPEC: Plain = Plain { status: true, generation: true };

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
    row!("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", &COUNTED),
    row!("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings", &COUNTED),
    row!("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", &COUNTED),
    row!("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", &SPEC),
    row!("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", &COUNTED),
    row!("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", &COUNTED),
    row!("apiextensions.k8s.io", "v1", "customresourcedefinitions", &SPEC),
    row!("apiregistration.k8s.io", "v1", "apiservices", &STATUS),
    row!("apps", "v1", "controllerrevisions", &apps::controller_revision::ControllerRevision),
    row!("apps", "v1", "daemonsets", &apps::daemon_set::DaemonSet),
    row!("apps", "v1", "deployments", &apps::deployment::Deployment),
    row!("apps", "v1", "replicasets", &apps::replica_set::ReplicaSet),
    row!("apps", "v1", "statefulsets", &apps::stateful_set::StatefulSet),
    row!("autoscaling", "v2", "horizontalpodautoscalers", &STATUS),
    row!("batch", "v1", "cronjobs", &batch::cron_job::CronJob),
    row!("batch", "v1", "jobs", &batch::job::Job),
    row!("certificates.k8s.io", "v1", "certificatesigningrequests", &STATUS),
    row!("coordination.k8s.io", "v1", "leases", &RECORD),
    row!("discovery.k8s.io", "v1", "endpointslices", &COUNTED),
    row!("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", &SPEC),
    row!("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations", &SPEC),
    row!("networking.k8s.io", "v1", "ingressclasses", &COUNTED),
    row!("networking.k8s.io", "v1", "ingresses", &SPEC),
    row!("networking.k8s.io", "v1", "ipaddresses", &RECORD),
    row!("networking.k8s.io", "v1", "networkpolicies", &COUNTED),
    row!("networking.k8s.io", "v1", "servicecidrs", &STATUS),
    row!("node.k8s.io", "v1", "runtimeclasses", &RECORD),
    row!("policy", "v1", "poddisruptionbudgets", &SPEC),
    row!("rbac.authorization.k8s.io", "v1", "clusterrolebindings", &crate::plain::PathNamed),
    row!("rbac.authorization.k8s.io", "v1", "clusterroles", &crate::plain::PathNamed),
    row!("rbac.authorization.k8s.io", "v1", "rolebindings", &crate::plain::PathNamed),
    row!("rbac.authorization.k8s.io", "v1", "roles", &crate::plain::PathNamed),
    row!("resource.k8s.io", "v1", "deviceclasses", &COUNTED),
    row!("resource.k8s.io", "v1", "resourceclaims", &STATUS),
    row!("resource.k8s.io", "v1", "resourceclaimtemplates", &RECORD),
    row!("resource.k8s.io", "v1", "resourceslices", &COUNTED),
    row!("scheduling.k8s.io", "v1", "priorityclasses", &COUNTED),
    row!("storage.k8s.io", "v1", "csidrivers", &RECORD),
    row!("storage.k8s.io", "v1", "csinodes", &RECORD),
    row!("storage.k8s.io", "v1", "csistoragecapacities", &RECORD),
    row!("storage.k8s.io", "v1", "storageclasses", &RECORD),
    row!("storage.k8s.io", "v1", "volumeattachments", &STATUS),
    row!("storage.k8s.io", "v1", "volumeattributesclasses", &RECORD),
    row!("events.k8s.io", "v1", "events", &core::event::NewEvent, "core/events", Some(&crate::events::CONVERSION)),
    row!("autoscaling", "v1", "horizontalpodautoscalers", &STATUS, "autoscaling/horizontalpodautoscalers", Some(&crate::autoscaling::V1)),
];
