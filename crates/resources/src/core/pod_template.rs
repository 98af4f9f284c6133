//! Pod templates that stand alone.

use crate::columns::{CONTAINERS, IMAGES, NAME};
use crate::core::pod::{defaults, template, warnings};
use crate::field::{Errors, Fields, Path, map_mut};
use crate::{Ctx, Strategy, metadata};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Pod templates.
pub struct PodTemplate;

const COLUMNS: &[Column] =
    &[NAME, CONTAINERS, IMAGES, Column::string("Pod Labels").describe("The labels for the pod template.")];

impl Strategy for PodTemplate {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "template").into_iter().for_each(defaults::template);
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn generation_changes(&self, new: &Object, old: &Object) -> bool {
        new.get("template") != old.get("template")
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        template::validate(&mut errors, obj.at("template"), &Path::root("template"));
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        match warnings::due(obj, old) {
            true => warnings::template(obj.at("template"), &Path::root("template")),
            false => Vec::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, _now: Timestamp) -> Vec<Value> {
        let template = obj.at("template");
        let (names, images) = crate::apps::containers(template);
        let labels = metadata::format_labels(template.at("metadata").at("labels"));
        vec![api::meta::name(obj).into(), names.into(), images.into(), labels.into()]
    }
}
