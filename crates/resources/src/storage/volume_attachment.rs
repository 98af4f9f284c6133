//! Volume attachments.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::persistent_volume;
use crate::core::pod::volume_sources::csi_driver_name;
use crate::field::{Errors, Fields, IMMUTABLE, Path, go_struct, map_mut, same};
use crate::{Ctx, MetadataChecks, StatusRules, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Volume attachments.
pub struct VolumeAttachment;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column { format: "name", ..Column::string("Attacher") }
        .field("io.k8s.api.storage.v1.VolumeAttachmentSpec", "attacher"),
    Column::string("PV").field("io.k8s.api.storage.v1.VolumeAttachmentSource", "persistentVolumeName"),
    Column::string("Node").field("io.k8s.api.storage.v1.VolumeAttachmentSpec", "nodeName"),
    Column { kind: "boolean", ..Column::string("Attached") }
        .field("io.k8s.api.storage.v1.VolumeAttachmentStatus", "attached"),
    AGE,
];

impl Strategy for VolumeAttachment {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            map_mut(spec, "source");
        }
        if let Some(status) = map_mut(obj, "status") {
            if !status.has("attached") {
                status["attached"] = false.into();
            }
        }
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({"attached": false})).keeps(crate::METADATA)
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Create
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        csi_driver_name(&mut errors, spec.text("attacher"), &SPEC.field("attacher"));
        let (source, path) = (spec.at("source"), SPEC.field("source"));
        match (source.has("inlineVolumeSpec"), source.has("persistentVolumeName")) {
            (false, false) => {
                errors.required(&path, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (true, true) => {
                let text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.forbidden(&path, text);
            }
            (false, true) => match source.text("persistentVolumeName") {
                "" => {
                    let path = path.field("persistentVolumeName");
                    errors.required(&path, "must specify non empty persistentVolumeName");
                    errors.invalid_each(&path, "", names::dns1123_subdomain("", false));
                }
                name => errors.invalid_each(
                    &path.field("persistentVolumeName"),
                    name,
                    names::dns1123_subdomain(name, false),
                ),
            },
            (true, false) => {
                persistent_volume::spec(
                    &mut errors,
                    source.at("inlineVolumeSpec"),
                    true,
                    &path.field("inlineVolumeSpec"),
                );
            }
        }
        let node = spec.text("nodeName");
        errors.invalid_each(&SPEC.field("nodeName"), node, names::dns1123_subdomain(node, false));
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        let (now, was) = (new.at("spec"), old.at("spec"));
        if !same(now, was) {
            let source = go_struct(&[
                ("PersistentVolumeName", now.at("source").at("persistentVolumeName").clone()),
                ("InlineVolumeSpec", now.at("source").at("inlineVolumeSpec").clone()),
            ]);
            let printed = format!(
                "{{\"Attacher\":{},\"Source\":{source},\"NodeName\":{}}}",
                now.at("attacher"),
                now.at("nodeName")
            );
            errors.invalid_printed(&SPEC, &printed, IMMUTABLE);
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        vec![
            api::meta::name(obj).into(),
            spec.text("attacher").into(),
            spec.at("source").text("persistentVolumeName").into(),
            spec.text("nodeName").into(),
            obj.at("status").flag("attached").into(),
            age::since_creation(obj, now).into(),
        ]
    }
}
