//! Consumable capacity: how much of a device a request gets, under the device's policy, and whether that is left.

use api::k8s::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, CapacityRequirements, Device, DeviceCapacity,
};
use api::machinery::api::resource::Quantity as ApiQuantity;
use api::quantity::{Format, Quantity};
use std::collections::BTreeMap;

/// Amounts by the name of a capacity.
pub(crate) type Consumed = BTreeMap<String, Quantity>;

/// Adds amounts to others.
pub(super) fn add(into: &mut Consumed, more: &Consumed) {
    for (name, amount) in more {
        let sum = into.get(name).map_or(*amount, |there| there.plus(amount));
        into.insert(name.clone(), sum);
    }
}

/// What a request consumes of a device; `None`: the device lacks a capacity, or its policy rules the amount out.
pub(super) fn consumption(device: &Device, wanted: Option<&CapacityRequirements>) -> Option<Consumed> {
    let wanted = wanted.and_then(|w| w.requests.as_ref());
    let has = |name: &String| device.capacity.as_ref().is_some_and(|c| c.contains_key(name));
    if !wanted.into_iter().flatten().all(|(name, _)| has(name)) {
        return None;
    }
    let mut out = Consumed::new();
    for (name, capacity) in device.capacity.iter().flatten() {
        let amount = match wanted.and_then(|w| w.get(name)) {
            Some(amount) => round_up(parse(amount)?, capacity.request_policy.as_ref())?,
            None => unasked(capacity)?,
        };
        if !is_allowed(amount, capacity.request_policy.as_ref())? {
            return None;
        }
        out.insert(name.clone(), amount);
    }
    Some(out)
}

/// Whether a device has what is consumed of it in all.
pub(super) fn suffices(device: &Device, consumed: &Consumed) -> bool {
    let has = |name: &String| parse(&device.capacity.as_ref()?.get(name)?.value);
    consumed.iter().all(|(name, amount)| has(name).is_some_and(|has| *amount <= has))
}

fn parse(amount: &ApiQuantity) -> Option<Quantity> {
    Quantity::parse(&amount.0).ok()
}

/// What a request gets of a capacity it does not name.
fn unasked(capacity: &DeviceCapacity) -> Option<Quantity> {
    let default = capacity.request_policy.as_ref().and_then(|p| p.default.as_ref());
    parse(default.unwrap_or(&capacity.value))
}

fn round_up(wanted: Quantity, policy: Option<&CapacityRequestPolicy>) -> Option<Quantity> {
    let Some(policy) = policy else { return Some(wanted) };
    if let Some(range) = &policy.valid_range {
        return round_up_to_step(wanted, range);
    }
    // They are in ascending order, which the server checks.
    let values = policy.valid_values.iter().flatten().filter_map(parse);
    Some(values.into_iter().find(|value| wanted <= *value).unwrap_or(wanted))
}

fn round_up_to_step(wanted: Quantity, range: &CapacityRequestPolicyRange) -> Option<Quantity> {
    let min = parse(&range.min)?;
    if wanted < min {
        return Some(min);
    }
    let Some(step) = range.step.as_ref().and_then(parse).map(|s| s.value()).filter(|s| *s > 0) else {
        return Some(wanted);
    };
    let above = wanted.value().checked_sub(min.value())?;
    let steps = above / step + i64::from(above % step != 0);
    let value = steps.checked_mul(step)?.checked_add(min.value())?;
    Some(Quantity::from_units(value, Format::BinarySi))
}

fn is_allowed(amount: Quantity, policy: Option<&CapacityRequestPolicy>) -> Option<bool> {
    let Some(policy) = policy else { return Some(true) };
    if policy.default.as_ref().and_then(parse) == Some(amount) {
        return Some(true);
    }
    if let Some(range) = &policy.valid_range {
        let step = range.step.as_ref().and_then(parse).map(|s| s.value()).filter(|s| *s > 0);
        let above = amount.value().checked_sub(parse(&range.min)?.value())?;
        let in_range = range.max.as_ref().and_then(parse).is_none_or(|max| amount <= max);
        return Some(in_range && step.is_none_or(|step| above % step == 0));
    }
    let values = policy.valid_values.as_deref().unwrap_or_default();
    Some(values.is_empty() || values.iter().filter_map(parse).any(|value| value == amount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn requests_are_rounded_up_and_held_against_the_policy() {
        let check = |policy: Value, wanted: Option<&str>, expect: Option<&str>| {
            let mut capacity = json!({"value": "10Gi"});
            if !policy.is_null() {
                capacity["requestPolicy"] = policy.clone();
            }
            let device = json!({"name": "d", "capacity": {"memory": capacity}});
            let device: Device = serde_json::from_value(device).expect("device");
            let wanted = wanted.map(|w| CapacityRequirements {
                requests: Some(BTreeMap::from([("memory".to_owned(), ApiQuantity(w.to_owned()))])),
            });
            let got = consumption(&device, wanted.as_ref()).map(|c| c["memory"].to_string());
            assert_eq!(got.as_deref(), expect, "{policy}");
        };
        check(Value::Null, None, Some("10Gi"));
        check(Value::Null, Some("1Gi"), Some("1Gi"));
        check(json!({"default": "2Gi"}), None, Some("2Gi"));
        let range = || json!({"default": "1Gi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "2Gi"}});
        check(range(), Some("512Mi"), Some("1Gi"));
        check(range(), Some("2Gi"), Some("3Gi"));
        check(range(), Some("9Gi"), None);
        let values = || json!({"default": "1Gi", "validValues": ["1Gi", "4Gi"]});
        check(values(), Some("2Gi"), Some("4Gi"));
        check(values(), Some("5Gi"), None);
    }

    #[test]
    fn a_capacity_that_does_not_exist_cannot_be_had() {
        let device: Device = serde_json::from_value(json!({"name": "d"})).expect("device");
        let wanted: CapacityRequirements = serde_json::from_value(json!({"requests": {"x": "1"}})).expect("wanted");
        assert_eq!(consumption(&device, Some(&wanted)), None);
        assert_eq!(consumption(&device, None), Some(Consumed::new()));
    }
}
