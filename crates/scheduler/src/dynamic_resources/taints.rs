//! Taints of devices: those that keep a device from being chosen, unless a request tolerates them.

use api::k8s::resource::v1::{Device, DeviceTaint, DeviceToleration};

/// Whether a request tolerates all taints of a device.
pub(super) fn tolerated(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    let taints = device.taints.iter().flatten().filter(|t| ["NoSchedule", "NoExecute"].contains(&t.effect.as_str()));
    taints.into_iter().all(|taint| tolerations.iter().any(|t| tolerates(t, taint)))
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let effect = given(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key = given(&toleration.key).is_none_or(|key| key == taint.key);
    let value = match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Exists" => true,
        _ => false,
    };
    effect && key && value
}
