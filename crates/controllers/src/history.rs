//! ControllerRevisions: the templates a DaemonSet or StatefulSet has had.

use crate::context::Context;
use crate::ownership::{self, Claimant, claim, is_already_exists, is_not_found};
use api::k8s::apps::v1::ControllerRevision;
use api::k8s::core::v1::PodTemplateSpec;
use api::machinery::apis::meta::v1::ObjectMeta;
use api::selector::LabelSelector;
use informer::{Error, Informer, Stored};
use k8s_openapi::NamespaceResourceScope;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// Revisions of an owner, oldest first.
pub(crate) async fn list<O>(
    ctx: &Context,
    owner: &O,
    selector: &LabelSelector,
    informer: &Informer<ControllerRevision>,
) -> Result<Vec<Arc<ControllerRevision>>, Error>
where
    O: Stored<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let mut list = claim(ctx, &Claimant { owner, selector, finalizers: &[] }, informer).await?;
    list.sort_by_key(|r| (r.revision, r.metadata.creation_timestamp.clone()));
    Ok(list)
}

/// What a revision keeps of its owner: the pod template, as a patch that restores it.
pub(crate) fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The pod template a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// How a revision is to be made.
pub(crate) struct New<'a> {
    pub template: &'a PodTemplateSpec,
    pub labels: BTreeMap<String, String>,
    /// Label that carries the hash.
    pub hash_label: &'a str,
    /// The hash, of the template and the data made of it.
    pub hash: fn(&PodTemplateSpec, &Value, Option<i32>) -> String,
    /// How often the hash was taken by something else.
    pub collisions: Option<i32>,
}

/// The revision of the present template (found, raised to newest, or made) and the others.
pub(crate) async fn current<O>(
    ctx: &Context,
    owner: &O,
    mut known: Vec<Arc<ControllerRevision>>,
    new: New<'_>,
) -> Result<(ControllerRevision, Vec<Arc<ControllerRevision>>), Error>
where
    O: Stored<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let next = known.iter().map(|r| r.revision).max().unwrap_or(0) + 1;
    let wanted = data(new.template);
    let same = known.iter().rposition(|r| template_of(r).as_ref() == Some(new.template));
    let api = ctx.api::<ControllerRevision>(&owner.namespace().unwrap_or_default());
    if let Some(at) = same {
        let mut found = ControllerRevision::clone(&known.remove(at));
        if found.revision < next - 1 {
            found.revision = next;
            found = api.replace(&found.name_any(), &PostParams::default(), &found).await?;
        }
        return Ok((found, known));
    }
    let hash = (new.hash)(new.template, &wanted, new.collisions);
    let mut labels = new.labels;
    labels.insert(new.hash_label.into(), hash.clone());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", owner.name_any())),
        labels: Some(labels),
        owner_references: Some(vec![ownership::reference_to(owner)]),
        ..Default::default()
    };
    let revision = ControllerRevision {
        metadata,
        data: Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(wanted)),
        revision: next,
    };
    match api.create(&PostParams::default(), &revision).await {
        Ok(created) => Ok((created, known)),
        Err(error) if is_already_exists(&error) => {
            let existing = api.get(&revision.name_any()).await?;
            let ours = ownership::controller_of(&existing).is_some_and(|o| Some(&o.uid) == owner.meta().uid.as_ref());
            if ours && template_of(&existing).as_ref() == Some(new.template) {
                Ok((existing, known))
            } else {
                Err(error.into())
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes the oldest revisions that nothing uses, beyond `limit`.
pub(crate) async fn truncate(ctx: &Context, unused: &[Arc<ControllerRevision>], limit: usize) -> Result<(), Error> {
    for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
        let api = ctx.api::<ControllerRevision>(&revision.namespace().unwrap_or_default());
        match api.delete(&revision.name_any(), &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
