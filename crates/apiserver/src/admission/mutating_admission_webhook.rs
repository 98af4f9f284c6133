//! MutatingAdmissionWebhook: webhooks change objects, one after the other.

use super::json_patch;
use super::matching::equivalents;
use super::reinvocation::Reinvocation;
use super::versions::Version;
use super::webhooks::{Failure, Webhook, show};
use super::{Attributes, Plugin};
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Object, Status};
use async_trait::async_trait;
use serde_json::{Value, json};

const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const PATCH: &str = "patch.webhook.admission.k8s.io/";
const FAILED_OPEN: &str = "failed-open.mutation.webhook.admission.k8s.io/";

/// The plugin.
pub struct MutatingAdmissionWebhook;

#[async_trait]
impl Plugin for MutatingAdmissionWebhook {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        dispatch(server, a, Some(object)).await
    }
}

/// Calls every webhook that wants the request; a deletion has no object.
pub async fn dispatch(server: &ApiServer, a: &Attributes<'_>, mut object: Option<&mut Object>) -> Result<(), Status> {
    let configurations = server.lives().mutating_webhooks.values();
    if configurations.is_empty() || a.is_exempt() {
        return Ok(());
    }
    let again = remember(a, |r| {
        r.webhooks.begin(r.again, object.as_deref().unwrap_or(&Value::Null));
        r.again
    });
    let others = equivalents(server, a);
    for (index, hook) in configurations.iter().flat_map(|c| c.iter()).enumerate() {
        let Some(resource) = hook.wants(server, a, object.as_deref(), &others).await? else { continue };
        if !remember(a, |r| r.webhooks.is_due(again, &hook.id)) {
            continue;
        }
        let place = format!("round_{}_index_{index}", u8::from(again));
        let outcome = call(server, a, hook, resource, object.as_deref_mut(), &place).await;
        let changed = matches!(outcome, Ok(true));
        let facts = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
        a.request.annotate(&format!("{MUTATION}{place}"), facts.to_string());
        remember(a, |r| {
            if changed {
                r.webhooks.require();
                r.wanted = true;
            }
            if hook.reinvoked {
                r.webhooks.called(&hook.id);
            }
        });
        match outcome {
            Ok(_) => {}
            Err(Failure::Refused(status)) => return Err(status),
            Err(Failure::Calling(why)) if hook.ignores_failures => {
                tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing open");
                a.request.annotate(&format!("{FAILED_OPEN}{place}"), &hook.name);
            }
            Err(Failure::Calling(why)) => return Err(hook.failed(&why)),
        }
    }
    remember(a, |r| r.webhooks.end(object.as_deref().unwrap_or(&Value::Null)));
    Ok(())
}

/// Works on what is remembered between the rounds; a deletion has one round and remembers nothing.
pub(super) fn remember<T>(a: &Attributes<'_>, work: impl FnOnce(&mut Reinvocation) -> T) -> T {
    match a.reinvocation {
        Some(shared) => work(&mut shared.lock()),
        None => work(&mut Reinvocation::default()),
    }
}

/// Calls one and applies its patch; says whether the object is another now.
async fn call(
    server: &ApiServer,
    a: &Attributes<'_>,
    hook: &Webhook,
    resource: &Resource,
    object: Option<&mut Object>,
    place: &str,
) -> Result<bool, Failure> {
    let version = Version::new(a, resource);
    let shown = show(a, &version, object.as_deref()).await.map_err(Failure::Refused)?;
    let verdict = hook.call(server, a, (resource, &version), &shown, true).await?;
    if verdict.patch.is_empty() {
        return Ok(false);
    }
    let patch: Value = serde_json::from_slice(&verdict.patch)
        .map_err(|e| Failure::Calling(format!("received undecodable patch in webhook response: {e}")))?;
    if patch.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    let internal = |why: String| Failure::Refused(Status::internal(why));
    let (Some(object), Some(before)) = (object, shown.object) else {
        let why = "attempted to modify the object, which is not supported for this operation";
        return Err(internal(format!("admission webhook {:?} {why}", hook.name)));
    };
    let mut patched = json_patch::apply(&before, &patch).map_err(|e| internal(e.text().to_owned()))?;
    version.decode(a, &mut patched).map_err(Failure::Refused)?;
    let facts =
        json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch, "patchType": "JSONPatch"});
    a.request.annotate(&format!("{PATCH}{place}"), facts.to_string());
    let changed = patched != before;
    if changed {
        version.take_back(a, patched, object).await.map_err(Failure::Refused)?;
    }
    Ok(changed)
}
