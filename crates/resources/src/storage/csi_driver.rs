//! CSI drivers.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::pod::volume_sources::csi_driver_name;
use crate::field::{Errors, Fields, Path, map_mut, set_default};
use crate::{Ctx, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// CSI drivers.
pub struct CsiDriver;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column { kind: "boolean", ..Column::string("AttachRequired") }.describe("attachRequired indicates this CSI volume driver requires an attach operation (because it implements the CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the attach volume interface which checks the volumeattachment status and waits until the volume is attached before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates the volumeattachment status when the attach operation is complete. If the value is specified to false, the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is immutable."),
    Column { kind: "boolean", ..Column::string("PodInfoOnMount") }.describe("podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() calls. The CSI driver is responsible for parsing and validating the information passed in as VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline volume\n                                defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature in Kubernetes 1.16. It is only required for drivers which support both the \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or ignore this field. As Kubernetes 1.15 doesn't support this field, drivers can only support one mode when deployed on such a cluster and the deployment determines which mode that is, for example via a command line parameter of the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is mutable."),
    Column { kind: "boolean", ..Column::string("StorageCapacity") }.describe("storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that case, provisioning new volumes with late binding will pause until the driver deployment has published some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field unset or false and it can be flipped later when storage capacity information has been published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable."),
    Column::string("TokenRequests").describe("tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume calls. The CSI driver should parse and validate the following VolumeContext: \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: Audience in each TokenRequest should be different and at most one token is empty string. To receive a new token after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically."),
    Column { kind: "boolean", ..Column::string("RequiresRepublish") }.describe("requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the contents of the volume. New mount points will not be seen by a running container."),
    Column::string("Modes").describe("volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the lifecycle of that pod. A driver has to be aware of this because it is only going to get a NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable."),
    AGE,
];

impl Strategy for CsiDriver {
    fn default(&self, obj: &mut Object) {
        let Some(spec) = map_mut(obj, "spec") else { return };
        for (field, value) in [
            ("attachRequired", json!(true)),
            ("podInfoOnMount", json!(false)),
            ("storageCapacity", json!(false)),
            ("requiresRepublish", json!(false)),
            ("seLinuxMount", json!(false)),
            ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
        ] {
            set_default(spec, field, value);
        }
        if spec.list("volumeLifecycleModes").is_empty() {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        csi_driver_name(&mut errors, api::meta::name(obj), &Path::root("metadata.name"));
        spec(&mut errors, obj.at("spec"));
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (now, was) = (new.at("spec"), old.at("spec"));
        spec(&mut errors, now);
        for field in ["attachRequired", "fsGroupPolicy", "volumeLifecycleModes"] {
            errors.immutable(
                &SPEC.field(if field == "attachRequired" { "attachedRequired" } else { field }),
                now.at(field),
                was.at(field),
            );
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let audiences: Vec<&str> = spec.list("tokenRequests").iter().map(|t| t.text("audience")).collect();
        let modes = spec.texts("volumeLifecycleModes");
        let or_unset = |list: Vec<&str>| if list.is_empty() { "<unset>".into() } else { list.join(",") };
        vec![
            api::meta::name(obj).into(),
            spec.at("attachRequired").as_bool().unwrap_or(true).into(),
            spec.flag("podInfoOnMount").into(),
            spec.flag("storageCapacity").into(),
            or_unset(audiences).into(),
            spec.flag("requiresRepublish").into(),
            if modes.is_empty() { "<none>".into() } else { modes.join(",") }.into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn spec(errors: &mut Errors, spec: &Value) {
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity"].into_iter().filter(|f| !spec.has(f)) {
        errors.required(&SPEC.field(field), "");
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    errors.supported(&SPEC.field("fsGroupPolicy"), spec.text("fsGroupPolicy"), &policies);
    let path = SPEC.field("tokenRequests");
    let list = spec.list("tokenRequests");
    for (i, request) in list.iter().enumerate() {
        let (item, audience) = (path.index(i), request.text("audience"));
        if list[..i].iter().any(|r| r.text("audience") == audience) {
            errors.duplicate(&item.field("audience"), audience);
        }
        if let Some(seconds) = request.int("expirationSeconds") {
            if seconds < 600 {
                let text = "may not specify a duration less than 10 minutes";
                errors.invalid(&item.field("expirationSeconds"), seconds, text);
            }
            if seconds > 1 << 32 {
                let text = "may not specify a duration larger than 2^32 seconds";
                errors.invalid(&item.field("expirationSeconds"), seconds, text);
            }
        }
    }
    for mode in spec.texts("volumeLifecycleModes") {
        errors.supported(&SPEC.field("volumeLifecycleModes"), mode, &["Ephemeral", "Persistent"]);
    }
}
