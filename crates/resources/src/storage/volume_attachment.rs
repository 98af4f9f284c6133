//! Volume attachments.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::persistent_volume;
use crate::core::pod::defaults;
use crate::core::pod::volume_sources::csi_driver_name;
use crate::core::quantities::round_up;
use crate::field::{Errors, Fields, IMMUTABLE, Path, field_mut, map_mut};
use crate::rules::{self, Check};
use crate::{Ctx, MetadataChecks, StatusRules, Strategy, names, semantic};
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
            if let Some(volume) = map_mut(spec, "source").and_then(|source| field_mut(source, "inlineVolumeSpec")) {
                field_mut(volume, "capacity").into_iter().for_each(round_up);
                volume.as_object_mut().into_iter().for_each(defaults::volume_sources);
            }
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
            (false, true) if source.text("persistentVolumeName").is_empty() => {
                errors.required(&path.field("persistentVolumeName"), "must specify non empty persistentVolumeName");
            }
            (false, true) => {}
            (true, false) => {
                persistent_volume::spec(
                    &mut errors,
                    source.at("inlineVolumeSpec"),
                    None,
                    &path.field("inlineVolumeSpec"),
                );
            }
        }
        let node = spec.text("nodeName");
        errors.invalid_each(&SPEC.field("nodeName"), node, names::dns1123_subdomain(node, false));
        status(&mut errors, obj.at("status"), &Path::root("status"));
        if let Some(name) = source.at("persistentVolumeName").as_str() {
            errors.invalid_each(&path.field("persistentVolumeName"), name, names::dns1123_subdomain(name, false));
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        let schema = "io.k8s.api.storage.v1.VolumeAttachmentSpec";
        if !semantic::equal(schema, new.at("spec"), old.at("spec")) {
            errors.invalid_struct(&SPEC, schema, new.at("spec"), IMMUTABLE);
        }
        errors.0
    }

    fn validate_status_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        self.validate_update(ctx, new, old)
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

/// The most bytes of what an attachment says of itself.
const METADATA_MAX: usize = 256 << 10;
const MESSAGE_MAX: usize = 1024;

fn status(errors: &mut Errors, status: &Value, path: &Path<'_>) {
    let length = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if status.entries("attachmentMetadata").map(length).sum::<usize>() > METADATA_MAX {
        errors.too_long(&path.field("attachmentMetadata"), METADATA_MAX);
    }
    for field in ["attachError", "detachError"] {
        let (of, path) = (status.at(field), path.field(field));
        if of.text("message").len() > MESSAGE_MAX {
            // upstream names the other limit
            errors.too_long(&path.field("message"), METADATA_MAX);
        }
        let range = "must be between 0 and 2147483647, inclusive";
        rules::check(errors, of, &path, &[("errorCode", Check::Within(0, i64::MAX, range))]);
    }
}
