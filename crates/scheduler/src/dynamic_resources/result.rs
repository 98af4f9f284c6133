//! What was chosen, as a claim's status has it.

use super::allocator::{Choice, Refused};
use super::capacity::Consumed;
use super::inventory::Reach;
use super::needs::claim_name;
use api::k8s::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use api::k8s::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
    ResourceClaim,
};
use api::machinery::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;
use std::ops::Range;
use uuid::Uuid;

/// The allocation of the claim at an index.
pub(super) fn build(
    claim: &ResourceClaim,
    index: usize,
    chosen: &[Choice<'_>],
    node: &str,
) -> Result<AllocationResult, Refused> {
    let own: Vec<&Choice<'_>> = chosen.iter().filter(|c| c.claim == index).collect();
    let selector = node_selector(&own, node);
    let selector =
        selector.map_err(|e| Refused::Error(format!("create NodeSelector for claim {}: {e}", claim_name(claim))))?;
    let config = configurations(claim, &own);
    let results: Vec<_> = own.iter().map(|choice| device(choice)).collect();
    let devices = DeviceAllocationResult {
        config: Some(config).filter(|c| !c.is_empty()),
        results: Some(results).filter(|r| !r.is_empty()),
    };
    Ok(AllocationResult { devices: Some(devices), node_selector: selector, ..AllocationResult::default() })
}

fn device(choice: &Choice<'_>) -> DeviceRequestAllocationResult {
    let (entry, device) = (choice.entry, choice.entry.device());
    let amounts = |share: &Consumed| -> BTreeMap<_, _> {
        share.iter().map(|(name, amount)| (name.clone(), ApiQuantity(amount.to_string()))).collect()
    };
    DeviceRequestAllocationResult {
        admin_access: choice.need.admin.then_some(true),
        binding_conditions: device.binding_conditions.clone(),
        binding_failure_conditions: device.binding_failure_conditions.clone(),
        consumed_capacity: choice.share.as_deref().filter(|share| !share.is_empty()).map(amounts),
        device: device.name.clone(),
        driver: entry.driver().to_owned(),
        pool: entry.pool_name().to_owned(),
        request: choice.need.request.clone(),
        share_id: choice.share.is_some().then(|| Uuid::new_v4().to_string()),
        tolerations: Some(choice.need.tolerations.clone()).filter(|t| !t.is_empty()),
    }
}

/// The configurations of the classes, each once, then those of the claim that concern what was chosen.
fn configurations(claim: &ResourceClaim, own: &[&Choice<'_>]) -> Vec<DeviceAllocationConfiguration> {
    let mut out: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut requests: Vec<&str> = Vec::new();
    let mut classes: Vec<(Option<&str>, Range<usize>)> = Vec::new();
    for choice in own {
        let (request, class) = (choice.need.request.as_str(), &choice.need.class);
        if requests.contains(&request) {
            continue;
        }
        requests.push(request);
        if let Some((_, there)) = classes.iter().find(|(name, _)| *name == class.metadata.name.as_deref()) {
            out[there.clone()].iter_mut().for_each(|c| c.requests.get_or_insert_default().push(request.to_owned()));
            continue;
        }
        let start = out.len();
        out.extend(class.spec.config.iter().flatten().map(|config| DeviceAllocationConfiguration {
            opaque: config.opaque.clone(),
            requests: Some(vec![request.to_owned()]),
            source: "FromClass".into(),
        }));
        classes.push((class.metadata.name.as_deref(), start..out.len()));
    }
    let main = |request: &str| request.split('/').next().unwrap_or(request).to_owned();
    for config in claim.spec.devices.iter().flat_map(|d| d.config.iter().flatten()) {
        let named = config.requests.as_deref().unwrap_or_default();
        if named.is_empty() || named.iter().any(|n| requests.iter().any(|r| n == r || *n == main(r))) {
            out.push(DeviceAllocationConfiguration {
                opaque: config.opaque.clone(),
                requests: config.requests.clone(),
                source: "FromClaim".into(),
            });
        }
    }
    out
}

/// The nodes from which all chosen devices are reached; `None`: all nodes.
fn node_selector(own: &[&Choice<'_>], node: &str) -> Result<Option<NodeSelector>, String> {
    let mut term = NodeSelectorTerm::default();
    for choice in own {
        match choice.entry.reach() {
            _ if choice.entry.binds_to_node() => return Ok(Some(only(node))),
            Reach::One(_) => return Ok(Some(only(node))),
            Reach::All | Reach::None => {}
            Reach::Selected(selector) => match selector.node_selector_terms.as_slice() {
                [single] => {
                    merge(&mut term.match_expressions, single.match_expressions.as_ref());
                    merge(&mut term.match_fields, single.match_fields.as_ref());
                }
                terms => {
                    return Err(format!("unsupported ResourceSlice.NodeSelector with {} terms", terms.len()));
                }
            },
        }
    }
    let any = term.match_expressions.is_some() || term.match_fields.is_some();
    Ok(any.then(|| NodeSelector { node_selector_terms: vec![term] }))
}

fn merge(into: &mut Option<Vec<NodeSelectorRequirement>>, more: Option<&Vec<NodeSelectorRequirement>>) {
    for requirement in more.into_iter().flatten() {
        let list = into.get_or_insert_default();
        if !list.contains(requirement) {
            list.push(requirement.clone());
        }
    }
}

fn only(node: &str) -> NodeSelector {
    let field = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), ..NodeSelectorTerm::default() };
    NodeSelector { node_selector_terms: vec![term] }
}
