//! `storage.k8s.io`.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

use crate::field::{Errors, Fields, Path};
use api::Object;

/// Errors of `parameters`: no empty key, not too many, not too long.
fn parameters(errors: &mut Errors, obj: &Object, required: bool) {
    let path = Path::root("parameters");
    let count = obj.entries("parameters").count();
    if count > 512 {
        errors.too_long(&path, 512);
        return;
    }
    let mut size = 0;
    for (key, value) in obj.entries("parameters") {
        if key.is_empty() {
            errors.invalid(&path, key.as_str(), "field can not be empty.");
        }
        size += key.len() + value.as_str().unwrap_or("").len();
    }
    if size > 256 * 1024 {
        errors.too_long(&path, 256 * 1024);
    }
    if required && count == 0 {
        errors.required(&path, "must contain at least one key/value pair");
    }
}
