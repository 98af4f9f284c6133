//! What a claim asks for: its requests with the selectors of their classes.

use super::selector::Selectors;
use api::k8s::resource::v1::{CapacityRequirements, DeviceClass, DeviceSelector, DeviceToleration, ResourceClaim};
use std::sync::Arc;

/// How many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Exactly(usize),
    All,
}

/// One way to serve a request.
pub(crate) struct Need {
    /// `request`, or `request/subrequest`.
    pub request: String,
    pub class: Arc<DeviceClass>,
    pub selectors: Selectors,
    pub count: Count,
    /// Devices may be in use by others.
    pub admin: bool,
    pub tolerations: Vec<DeviceToleration>,
    pub capacity: Option<CapacityRequirements>,
}

/// A claim that is to be allocated.
pub(crate) struct ClaimNeeds {
    pub claim: Arc<ResourceClaim>,
    /// By request, its alternatives in order of preference.
    pub requests: Vec<Vec<Need>>,
}

/// Finds a device class by its name.
pub(crate) type Classes<'a> = dyn Fn(&str) -> Option<Arc<DeviceClass>> + 'a;

/// The parts that exact requests and subrequests have in common.
struct Asked<'a> {
    class: &'a str,
    selectors: Option<&'a Vec<DeviceSelector>>,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin: bool,
    tolerations: Option<&'a Vec<DeviceToleration>>,
    capacity: Option<&'a CapacityRequirements>,
}

impl ClaimNeeds {
    /// Reads a claim; an error is why the pod waits.
    pub fn new(classes: &Classes<'_>, claim: &Arc<ResourceClaim>) -> Result<Self, String> {
        let name = claim_name(claim);
        let mut requests = Vec::new();
        for request in claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten()) {
            let alternatives = match (&request.exactly, &request.first_available) {
                (Some(exact), _) => {
                    let asked = Asked {
                        class: &exact.device_class_name,
                        selectors: exact.selectors.as_ref(),
                        mode: exact.allocation_mode.as_deref(),
                        count: exact.count,
                        admin: exact.admin_access == Some(true),
                        tolerations: exact.tolerations.as_ref(),
                        capacity: exact.capacity.as_ref(),
                    };
                    vec![need(classes, &name, request.name.clone(), &asked)?]
                }
                (None, Some(list)) if !list.is_empty() => list
                    .iter()
                    .map(|sub| {
                        let asked = Asked {
                            class: &sub.device_class_name,
                            selectors: sub.selectors.as_ref(),
                            mode: sub.allocation_mode.as_deref(),
                            count: sub.count,
                            admin: false,
                            tolerations: sub.tolerations.as_ref(),
                            capacity: sub.capacity.as_ref(),
                        };
                        need(classes, &name, format!("{}/{}", request.name, sub.name), &asked)
                    })
                    .collect::<Result<_, _>>()?,
                _ => return Err(format!("resource claim {name}, request {}: unknown request type", request.name)),
            };
            requests.push(alternatives);
        }
        Ok(Self { claim: claim.clone(), requests })
    }
}

fn need(classes: &Classes<'_>, claim: &str, request: String, asked: &Asked<'_>) -> Result<Need, String> {
    let class = classes(asked.class);
    let class = class.ok_or_else(|| format!("request {request}: device class {} does not exist", asked.class))?;
    let count = match (asked.mode.unwrap_or("ExactCount"), usize::try_from(asked.count.unwrap_or(1))) {
        ("ExactCount", Ok(count)) => Count::Exactly(count),
        ("All", _) => Count::All,
        (mode, _) => return Err(format!("claim {claim}, request {request}: unsupported count mode {mode}")),
    };
    Ok(Need {
        selectors: Selectors::new(claim, &class, asked.selectors),
        request,
        class,
        count,
        admin: asked.admin,
        tolerations: asked.tolerations.cloned().unwrap_or_default(),
        capacity: asked.capacity.cloned(),
    })
}

/// `namespace/name`
pub(crate) fn claim_name(claim: &ResourceClaim) -> String {
    let meta = &claim.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
