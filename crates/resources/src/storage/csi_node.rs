//! CSI nodes.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::pod::volume_sources::csi_driver_name;
use crate::field::{Errors, Fields, IMMUTABLE, Path, go_struct, items_mut, map_mut, repeated, same};
use crate::{Ctx, MetadataChecks, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// CSI nodes.
pub struct CsiNode;

const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Drivers").describe("Drivers indicates the number of CSI drivers registered on the node"),
    AGE,
];

impl Strategy for CsiNode {
    fn default(&self, obj: &mut Object) {
        let Some(spec) = map_mut(obj, "spec") else { return };
        if !spec.has("drivers") {
            spec["drivers"] = Value::Null;
        }
        for driver in items_mut(spec, "drivers").filter(|d| d.is_object()) {
            if !driver.has("topologyKeys") {
                driver["topologyKeys"] = Value::Null;
            }
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Create
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("spec.drivers"));
        let list = obj.at("spec").list("drivers");
        let twice = repeated(list.iter().map(|driver| driver.text("name")));
        for (i, driver) in list.iter().enumerate() {
            let (item, name) = (path.index(i), driver.text("name"));
            csi_driver_name(&mut errors, name, &item.field("name"));
            let id = driver.text("nodeID");
            match id.len() {
                0 => errors.required(&item.field("nodeID"), ""),
                257.. => errors.invalid(&item.field("nodeID"), id, "must be 256 characters or less"),
                _ => {}
            }
            if let Some(count) = driver.at("allocatable").int("count").filter(|c| *c < 0) {
                errors.invalid(&item.field("allocatable.count"), count, "must be greater than or equal to 0");
            }
            if twice[i] {
                errors.duplicate(&item.field("name"), name);
            }
            let keys = driver.texts("topologyKeys");
            for (j, key) in keys.iter().enumerate() {
                if key.is_empty() {
                    errors.required(&item, "");
                }
                if keys[..j].contains(key) {
                    errors.duplicate(&item, *key);
                }
                errors.invalid_each(&item, key, names::qualified_name(key));
            }
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        for was in old.at("spec").list("drivers") {
            let same_name = |d: &&Value| d.text("name") == was.text("name");
            // how many volumes a driver takes may change
            let differs =
                |now: &&Value| ["nodeID", "topologyKeys"].iter().any(|field| !same(now.at(field), was.at(field)));
            for now in new.at("spec").list("drivers").iter().filter(same_name).filter(differs) {
                let printed = || {
                    go_struct(&[
                        ("Name", now.at("name").clone()),
                        ("NodeID", now.at("nodeID").clone()),
                        ("TopologyKeys", now.at("topologyKeys").clone()),
                        ("Allocatable", Value::Null),
                    ])
                };
                errors.invalid_printed(&Path::root("spec.drivers"), printed, IMMUTABLE);
            }
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let count = obj.at("spec").list("drivers").len();
        vec![api::meta::name(obj).into(), count.into(), age::since_creation(obj, now).into()]
    }
}
