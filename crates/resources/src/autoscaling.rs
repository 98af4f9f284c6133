//! `autoscaling`: v1 is served from the stored v2 form.

use crate::table::Conversion;
use api::Object;

/// `autoscaling/v1` ⇄ v2.
pub static V1: Conversion = Conversion { stored: "autoscaling/v2", to_stored, from_stored };

fn to_stored(obj: &mut Object) {
    obj["apiVersion"] = "autoscaling/v2".into();
}

fn from_stored(obj: &mut Object) {
    obj["apiVersion"] = "autoscaling/v1".into();
}
