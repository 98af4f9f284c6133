//! Service accounts.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::Fields;
use crate::{Ctx, Strategy};
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

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        // only the token controller of old wrote secrets on creation, and clients still may
        let _ = obj;
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), obj.list("secrets").len().into(), age::since_creation(obj, now).into()]
    }
}
