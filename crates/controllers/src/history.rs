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

/// The revisions of an owner, told apart.
pub(crate) struct Revisions {
    /// That of the present template: found, raised to newest, or made.
    pub current: ControllerRevision,
    pub others: Vec<Arc<ControllerRevision>>,
    /// For the owner's status: how often a hash was found to be taken.
    pub collisions: Option<i32>,
}

/// Tells the revision of the present template from the others.
pub(crate) async fn current<O>(
    ctx: &Context,
    owner: &O,
    mut known: Vec<Arc<ControllerRevision>>,
    new: New<'_>,
) -> Result<Revisions, Error>
where
    O: Stored<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let same = known.iter().rposition(|r| template_of(r).as_ref() == Some(new.template));
    let found = same.map(|at| ControllerRevision::clone(&known.remove(at)));
    let next = known.iter().map(|r| r.revision).max().unwrap_or(0) + 1;
    let api = ctx.api::<ControllerRevision>(&owner.namespace().unwrap_or_default());
    if let Some(mut current) = found {
        if current.revision < next {
            current.revision = next;
            current = api.replace(&current.name_any(), &PostParams::default(), &current).await?;
        }
        return Ok(Revisions { current, others: known, collisions: new.collisions });
    }
    let mut collisions = new.collisions;
    loop {
        let revision = make(owner, &new, collisions, next);
        match api.create(&PostParams::default(), &revision).await {
            Err(error) if is_already_exists(&error) => {
                let existing = api.get(&revision.name_any()).await?;
                if keeps(&existing, owner, new.template) {
                    return Ok(Revisions { current: existing, others: known, collisions });
                }
                // The name stays with what has it; the next one follows from the count.
                collisions = Some(collisions.unwrap_or(0) + 1);
            }
            created => return Ok(Revisions { current: created?, others: known, collisions }),
        }
    }
}

/// Whether a revision is the owner's own, of this template.
fn keeps<O: Stored>(revision: &ControllerRevision, owner: &O, template: &PodTemplateSpec) -> bool {
    let ours = ownership::controller_of(revision).is_some_and(|o| Some(&o.uid) == owner.meta().uid.as_ref());
    ours && template_of(revision).as_ref() == Some(template)
}

fn make<O>(owner: &O, new: &New<'_>, collisions: Option<i32>, number: i64) -> ControllerRevision
where
    O: Stored<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let data = data(new.template);
    let hash = (new.hash)(new.template, &data, collisions);
    let mut labels = new.labels.clone();
    labels.insert(new.hash_label.into(), hash.clone());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", owner.name_any())),
        labels: Some(labels),
        owner_references: Some(vec![ownership::reference_to(owner)]),
        ..Default::default()
    };
    ControllerRevision {
        metadata,
        data: Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(data)),
        revision: number,
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
