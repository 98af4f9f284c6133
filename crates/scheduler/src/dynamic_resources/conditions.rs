//! Binding conditions: what a driver must report of an allocated device before its pod is bound.

use api::k8s::resource::v1::{AllocatedDeviceStatus, DeviceRequestAllocationResult, ResourceClaim};
use api::machinery::apis::meta::v1::Condition;
use jiff::{SignedDuration, Timestamp};

/// How long an allocation may take to become ready.
pub(crate) const TIMEOUT: SignedDuration = SignedDuration::from_secs(600);

/// How far the devices of a claim are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Waiting,
    /// They will not be ready; why.
    Failed(String),
}

fn results(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let devices = claim.status.iter().flat_map(|s| s.allocation.iter()).flat_map(|a| a.devices.iter());
    devices.flat_map(|d| d.results.iter().flatten())
}

fn has_conditions(result: &DeviceRequestAllocationResult) -> bool {
    result.binding_conditions.as_ref().is_some_and(|c| !c.is_empty())
}

/// Whether any device of a claim has conditions.
pub(crate) fn any(claim: &ResourceClaim) -> bool {
    results(claim).any(has_conditions)
}

/// How far the devices of a claim are.
pub(crate) fn readiness(claim: &ResourceClaim) -> Readiness {
    if claim.status.as_ref().is_none_or(|s| s.allocation.is_none()) {
        return Readiness::Waiting;
    }
    for result in results(claim).filter(|r| has_conditions(r)) {
        let Some(status) = status_of(claim, result) else {
            return Readiness::Waiting;
        };
        for failure in result.binding_failure_conditions.iter().flatten() {
            if let Some(condition) = held(status, failure) {
                let name = claim.metadata.name.as_deref().unwrap_or_default();
                let (reason, message) = (&condition.reason, &condition.message);
                return Readiness::Failed(format!(
                    "device binding failed: claim={name}, reason={reason}, message={message:?}"
                ));
            }
        }
        if !result.binding_conditions.iter().flatten().all(|wanted| held(status, wanted).is_some()) {
            return Readiness::Waiting;
        }
    }
    Readiness::Ready
}

fn status_of<'a>(
    claim: &'a ResourceClaim,
    result: &DeviceRequestAllocationResult,
) -> Option<&'a AllocatedDeviceStatus> {
    let mut all = claim.status.iter().flat_map(|s| s.devices.iter().flatten());
    all.find(|d| d.device == result.device && d.driver == result.driver && d.pool == result.pool)
}

fn held<'a>(status: &'a AllocatedDeviceStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// When the time of a claim's devices is up, where they have conditions.
pub(crate) fn deadline(claim: &ResourceClaim) -> Option<Timestamp> {
    let allocation = claim.status.as_ref()?.allocation.as_ref()?;
    let since = allocation.allocation_timestamp.as_ref()?.0;
    if any(claim) { since.checked_add(TIMEOUT).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn devices_are_ready_once_all_conditions_hold() {
        let check = |conditions: Option<Value>, expect: Readiness| {
            let result = json!({"driver": "d", "pool": "p", "device": "x", "request": "r",
                "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]});
            let allocation = json!({"allocationTimestamp": "2026-01-01T00:00:00Z", "devices": {"results": [result]}});
            let devices: Vec<Value> = conditions
                .iter()
                .map(|c| json!({"driver": "d", "pool": "p", "device": "x", "conditions": c}))
                .collect();
            let claim = json!({"metadata": {"name": "c"}, "spec": {}, "status": {"allocation": allocation, "devices": devices}});
            let claim: ResourceClaim = serde_json::from_value(claim).expect("claim");
            assert_eq!(readiness(&claim), expect);
            assert_eq!(deadline(&claim).map(|d| d.to_string()).as_deref(), Some("2026-01-01T00:10:00Z"));
        };
        let condition = |kind: &str, status: &str| {
            json!({"type": kind, "status": status, "reason": "Why", "message": "text",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        check(None, Readiness::Waiting);
        check(Some(json!([condition("Attached", "False")])), Readiness::Waiting);
        check(Some(json!([condition("Attached", "True")])), Readiness::Ready);
        let failed = "device binding failed: claim=c, reason=Why, message=\"text\"";
        check(
            Some(json!([condition("Attached", "True"), condition("Broken", "True")])),
            Readiness::Failed(failed.into()),
        );
    }
}
