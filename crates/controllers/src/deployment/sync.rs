//! Revisions: which ReplicaSet is the new one, making it, and forgetting old ones.

use super::{Deployments, Sets, annotations, replicas, rolling, scale, spec, status};
use crate::ownership::{self, controller_of, is_already_exists, message};
use crate::template;
use api::k8s::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use api::k8s::core::v1::PodTemplateSpec;
use api::machinery::apis::meta::v1::ObjectMeta;
use informer::Error;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};

const HASH: &str = "pod-template-hash";

/// Splits ReplicaSets in the one whose template is the Deployment's (the oldest such) and the others.
pub(super) fn classify(deployment: &Deployment, mut sets: Vec<ReplicaSet>) -> Sets {
    sets.sort_by(|a, b| {
        (&a.metadata.creation_timestamp, &a.metadata.name).cmp(&(&b.metadata.creation_timestamp, &b.metadata.name))
    });
    let wanted = without_hash(&spec(deployment).template);
    let matches = |set: &ReplicaSet| {
        set.spec.as_ref().and_then(|s| s.template.as_ref()).is_some_and(|t| without_hash(t) == wanted)
    };
    let new = sets.iter().position(matches).map(|at| sets.remove(at));
    Sets { new, old: sets }
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.creation_timestamp = None;
    let labels = metadata.labels.get_or_insert_default();
    labels.remove(HASH);
    template
}

impl Deployments {
    /// Gives the new ReplicaSet its revision and annotations, making it when `create`.
    pub(super) async fn sync_revision(
        &self,
        deployment: &mut Deployment,
        sets: &mut Sets,
        create: bool,
    ) -> Result<(), Error> {
        let revision = sets.old.iter().map(annotations::revision).max().unwrap_or(0) + 1;
        match sets.new.take() {
            Some(new) => sets.new = Some(self.refresh(deployment, new, revision).await?),
            None if create => sets.new = Some(self.create(deployment, sets, revision).await?),
            None => {}
        }
        Ok(())
    }

    async fn refresh(
        &self,
        deployment: &mut Deployment,
        mut set: ReplicaSet,
        revision: i64,
    ) -> Result<ReplicaSet, Error> {
        let min_ready = spec(deployment).min_ready_seconds;
        let mut changed = annotations::set_new(deployment, &mut set, revision, true);
        let set_spec = set.spec.get_or_insert_default();
        changed |= set_spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0);
        set_spec.min_ready_seconds = min_ready;
        if changed {
            let api = self.ctx.api::<ReplicaSet>(&set.namespace().unwrap_or_default());
            set = api.replace(&set.name_any(), &PostParams::default(), &set).await?;
        }
        let reason = format!("Found new replica set \"{}\"", set.name_any());
        let first = status::condition(deployment, "Progressing").is_none();
        Self::note_revision(deployment, &set, first.then_some(("FoundNewReplicaSet", reason)));
        Ok(set)
    }

    async fn create(&self, deployment: &mut Deployment, sets: &Sets, revision: i64) -> Result<ReplicaSet, Error> {
        let set = new_set(deployment, sets, revision);
        let namespace = deployment.namespace().unwrap_or_default();
        let api = self.ctx.api::<ReplicaSet>(&namespace);
        let created = match api.create(&PostParams::default(), &set).await {
            Ok(created) => created,
            Err(error) if is_already_exists(&error) => match api.get(&set.name_any()).await? {
                existing if is_same(deployment, &existing) => existing,
                _ => return Err(self.collide(deployment).await?),
            },
            Err(error) => return Err(self.creation_failed(deployment, &set.name_any(), error).await),
        };
        if scale::size(&created) > 0 {
            self.tell_scaled(deployment, &created.name_any(), 0, scale::size(&created));
        }
        let reason = ("NewReplicaSetCreated", format!("Created new replica set \"{}\"", created.name_any()));
        Self::note_revision(deployment, &created, Some(reason));
        Ok(created)
    }

    /// Notes the revision annotation and a Progressing condition; the status at the end carries them.
    fn note_revision(deployment: &mut Deployment, set: &ReplicaSet, reason: Option<(&str, String)>) {
        let revision = annotations::revision(set).to_string();
        deployment.metadata.annotations.get_or_insert_default().insert(annotations::REVISION.into(), revision);
        if let Some((reason, message)) = reason.filter(|_| status::has_deadline(deployment)) {
            status::set_condition(deployment, "Progressing", "True", reason, &message);
        }
    }

    /// Another Deployment's ReplicaSet (or an older template) has this name: the next try hashes differently.
    async fn collide(&self, deployment: &mut Deployment) -> Result<Error, Error> {
        let count = deployment.status.get_or_insert_default().collision_count.get_or_insert(0);
        *count += 1;
        let count = *count;
        let text = format!("hash collision of deployment {}, count is now {count}", deployment.name_any());
        self.write_status(deployment).await?;
        Ok(Error::Transient(text))
    }

    async fn creation_failed(&self, deployment: &mut Deployment, set: &str, error: kube::Error) -> Error {
        let text = format!("Failed to create new replica set \"{set}\": {}", message(&error));
        if status::has_deadline(deployment) {
            status::set_condition(deployment, "Progressing", "False", "ReplicaSetCreateError", &text);
            if let Err(second) = self.write_status(deployment).await {
                tracing::debug!(%second, "condition was not written");
            }
        }
        self.ctx.warning(deployment, "ReplicaSetCreateError", text);
        error.into()
    }

    /// Deletes old ReplicaSets beyond the history limit, oldest revision first.
    pub(super) async fn clean_up(&self, deployment: &Deployment, sets: &Sets) -> Result<(), Error> {
        let Some(limit) = spec(deployment).revision_history_limit else { return Ok(()) };
        let mut old: Vec<&ReplicaSet> = sets.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|s| annotations::revision(s));
        for set in old.into_iter().take(surplus).filter(|s| is_empty(s)) {
            let uid = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams::background().preconditions(uid);
            let api = self.ctx.api::<ReplicaSet>(&set.namespace().unwrap_or_default());
            match api.delete(&set.name_any(), &params).await {
                Err(error) if !ownership::is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Has no pods, wants none, and its status says so.
fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let observed = status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0);
    status.replicas == 0 && scale::size(set) == 0 && observed
}

fn is_same(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let ours = controller_of(set).is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
    ours && classify(deployment, vec![set.clone()]).new.is_some()
}

fn new_set(deployment: &Deployment, sets: &Sets, revision: i64) -> ReplicaSet {
    let spec = spec(deployment);
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = template::hash(&spec.template, collisions);
    let mut pod = spec.template.clone();
    let labels = pod.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", deployment.name_any())),
        namespace: deployment.metadata.namespace.clone(),
        labels: Some(labels.clone()),
        owner_references: Some(vec![ownership::reference_to(deployment)]),
        ..Default::default()
    };
    let size = rolling::new_size(deployment, sets.total(), 0).min(replicas(deployment));
    let set_spec = ReplicaSetSpec {
        replicas: Some(size),
        min_ready_seconds: spec.min_ready_seconds,
        selector,
        template: Some(pod),
    };
    let mut set = ReplicaSet { metadata, spec: Some(set_spec), status: None };
    annotations::set_new(deployment, &mut set, revision, false);
    set
}
