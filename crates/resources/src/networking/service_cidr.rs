//! Ranges of service addresses.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, IMMUTABLE, Path, map_mut};
use crate::{Ctx, StatusRules, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Service CIDRs.
pub struct ServiceCidr;

const COLUMNS: &[Column] =
    &[NAME, Column::string("CIDRs").field("io.k8s.api.networking.v1.ServiceCIDRSpec", "cidrs"), AGE];

impl Strategy for ServiceCidr {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "spec");
        map_mut(obj, "status");
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({})).keeps(crate::METADATA)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"));
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("spec.cidrs"));
        let (now, was) = (new.at("spec").texts("cidrs"), old.at("spec").texts("cidrs"));
        match (was.len(), now.len()) {
            (a, b) if a == b => {
                for (i, (cidr, _)) in now.iter().zip(&was).enumerate().filter(|(_, (a, b))| a != b) {
                    errors.invalid(&path.index(i), *cidr, IMMUTABLE);
                }
            }
            (1, 2) => {
                if now[0] != was[0] {
                    errors.invalid(&path.index(0), now[0], IMMUTABLE);
                }
                spec(&mut errors, new.at("spec"));
            }
            _ => errors.invalid(&path, new.at("spec").at("cidrs").clone(), IMMUTABLE),
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let cidrs = obj.at("spec").texts("cidrs").join(",");
        vec![api::meta::name(obj).into(), cidrs.into(), age::since_creation(obj, now).into()]
    }
}

fn spec(errors: &mut Errors, spec: &Value) {
    let (list, path) = (spec.texts("cidrs"), Path::root("spec.cidrs"));
    if list.is_empty() {
        return errors.required(&path, "at least one CIDR required");
    }
    if list.len() > 2 {
        let printed = || format!("{{\"CIDRs\":{}}}", spec.at("cidrs"));
        return errors.invalid_printed(&path, printed, "may only hold up to 2 values");
    }
    for (i, cidr) in list.iter().enumerate() {
        errors.invalid_each(&path.index(i), cidr, names::strict_cidr(cidr));
    }
    let v4: Vec<bool> = list.iter().filter_map(|c| names::parse_cidr(c)).map(|(ip, _)| ip.is_ipv4()).collect();
    if v4.len() == 2 && v4[0] == v4[1] {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&path, spec.at("cidrs").clone(), text);
    }
}
