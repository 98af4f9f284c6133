//! Constraints among the devices of a claim: the same attribute for all, or another for each.

use super::inventory::Candidate;
use super::selector::qualified;
use api::k8s::resource::v1::{DeviceAttribute, DeviceConstraint};

/// Whether a device may join those already chosen for a claim, each with its request's name.
pub(super) fn holds<'a>(
    constraint: &DeviceConstraint,
    request: &str,
    device: &Candidate,
    chosen: impl Iterator<Item = (&'a str, &'a Candidate)>,
) -> bool {
    if !concerns(constraint, request) {
        return true;
    }
    let (name, same) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => (name, true),
        (None, Some(name)) => (name, false),
        (None, None) => return false,
    };
    let Some(own) = attribute(device, name) else {
        return false;
    };
    let mut others = chosen.filter(|(request, _)| concerns(constraint, request));
    others.all(|(_, other)| attribute(other, name).is_some_and(|value| (value == own) == same))
}

/// A constraint concerns the requests it names, by the name of the request or of a subrequest, or all.
fn concerns(constraint: &DeviceConstraint, request: &str) -> bool {
    let main = request.split('/').next().unwrap_or(request);
    let named = constraint.requests.as_deref().unwrap_or_default();
    named.is_empty() || named.iter().any(|name| name == request || name == main)
}

fn attribute<'a>(device: &'a Candidate, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = device.device().attributes.as_ref()?;
    let driver = device.driver();
    let wanted = qualified(driver, name);
    attributes.iter().find(|(own, _)| qualified(driver, own) == wanted).map(|(_, value)| value)
}
