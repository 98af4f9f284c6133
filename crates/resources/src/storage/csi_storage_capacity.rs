//! CSI storage capacities.

use crate::apps::print_selector;
use crate::core::pod::warnings;
use crate::core::quantities::quantity;
use crate::field::{Errors, Fields, IMMUTABLE, NOT_NEGATIVE, Path, same};
use crate::{Ctx, MetadataChecks, Strategy, metadata, names};
use api::{Cause, Object};
use serde_json::Value;

/// CSI storage capacities.
pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn default(&self, obj: &mut Object) {
        if !obj.has("storageClassName") {
            obj["storageClassName"] = "".into();
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let (topology, path) = (obj.at("nodeTopology"), Path::root("nodeTopology"));
        let mut out = warnings::deprecated_labels(topology, &path);
        let labels = topology.entries("matchLabels");
        let outdated = labels.filter_map(|(label, _)| Some((label, warnings::deprecated_label(label)?)));
        out.extend(outdated.map(|(label, why)| format!("nodeTopology.matchLabels.{label}: {why}")));
        out
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        metadata::label_selector(&mut errors, obj.at("nodeTopology"), &Path::root("nodeTopology"));
        let class = obj.text("storageClassName");
        errors.invalid_each(&Path::root("storageClassName"), class, names::dns1123_subdomain(class, false));
        let amount = quantity(obj.at("capacity"));
        if obj.has("capacity") && amount.sign() < 0 {
            errors.invalid(&Path::root("capacity"), amount.to_string(), NOT_NEGATIVE);
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        if !same(new.at("nodeTopology"), old.at("nodeTopology")) {
            let printed = || match new.at("nodeTopology") {
                Value::Null => "null".into(),
                selector => print_selector(selector),
            };
            errors.invalid_printed(&Path::root("nodeTopology"), printed, IMMUTABLE);
        }
        errors.immutable(&Path::root("storageClassName"), new.at("storageClassName"), old.at("storageClassName"));
        errors.0
    }
}
