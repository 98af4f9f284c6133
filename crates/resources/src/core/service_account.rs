//! Service accounts.

use crate::Strategy;
use crate::age;
use crate::columns::{AGE, NAME};
use api::Object;
use api::table::Column;
use jiff::Timestamp;
use serde_json::Value;

/// Service accounts.
pub struct ServiceAccount;

const COLUMNS: &[Column] = &[NAME, AGE];

impl Strategy for ServiceAccount {
    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), age::since_creation(obj, now).into()]
    }
}
