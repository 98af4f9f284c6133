//! Namespaces that are being deleted: empty them, say what is left, and let them go.

use crate::context::{Context, synced};
use crate::discovery::{self, Served};
use crate::ownership::{is_not_found, message};
use crate::pods;
use api::k8s::core::v1::{Namespace, NamespaceCondition, Pod};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::core::DynamicObject;
use std::collections::BTreeMap;
use std::time::Duration;

const FINALIZER: &str = "kubernetes";
/// How long a namespace that is being deleted is left as it is. Clients that go on working with it (and the recorded
/// answers of real servers) expect to find it; upstream waits five seconds.
const GRACE_PERIOD: Duration = Duration::from_secs(1);

struct Namespaces {
    ctx: Context,
    namespaces: Informer<Namespace>,
}

pub(crate) async fn run(ctx: Context) {
    // What remains is mostly waiting for its own finalizers: look again soon, but not for ever often.
    let queue = WorkQueue::with_backoff(Duration::from_millis(20), Duration::from_secs(5));
    let (namespaces, pods) = (ctx.informer::<Namespace>(), ctx.informer::<Pod>());
    let enqueue = queue.clone();
    namespaces.on_event(move |event| {
        if event.object().metadata.deletion_timestamp.is_some() && !matches!(event, Event::Deleted(_)) {
            enqueue.add_after(Key::of(event.object().as_ref()), GRACE_PERIOD);
        }
    });
    let (enqueue, known) = (queue.clone(), namespaces.clone());
    pods.on_event(move |event| {
        let Event::Deleted(pod) = event else { return };
        let key = Key::new("", pod.namespace().unwrap_or_default());
        if known.get_key(&key).is_some_and(|ns| ns.metadata.deletion_timestamp.is_some()) {
            enqueue.add(key);
        }
    });
    synced!(namespaces, pods);
    let reconciler = Namespaces { ctx: ctx.clone(), namespaces };
    Controller::new("namespace", queue, reconciler).workers(10).run(ctx.shutdown()).await;
}

/// What one pass over a namespace found.
#[derive(Debug, Default)]
struct Outcome {
    undiscovered: Vec<String>,
    errors: Vec<String>,
    /// Objects left, by resource.
    remaining: BTreeMap<String, usize>,
    /// Objects left, by finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Reconcile for Namespaces {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Requeue::Done) };
        let held = namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).any(|f| f == FINALIZER);
        if namespace.metadata.deletion_timestamp.is_none() || !held {
            return Ok(Requeue::Done);
        }
        let outcome = self.empty(&key.name).await?;
        let mut namespace = Namespace::clone(&namespace);
        if report(&mut namespace, &outcome) {
            namespace = self.ctx.cluster_api().replace_status(&key.name, &PostParams::default(), &namespace).await?;
        }
        if !outcome.errors.is_empty() || !outcome.undiscovered.is_empty() {
            return Err(Error::Transient(
                outcome.errors.into_iter().chain(outcome.undiscovered).collect::<Vec<_>>().join("; "),
            ));
        }
        if !outcome.remaining.is_empty() {
            return Ok(Requeue::Again);
        }
        self.finalize(namespace).await
    }
}

impl Namespaces {
    /// Deletes everything, pods first: what serves them must outlive them.
    async fn empty(&self, namespace: &str) -> Result<Outcome, Error> {
        let found = discovery::resources(&self.ctx.client).await?;
        let mut outcome = Outcome { undiscovered: found.failed, ..Default::default() };
        let served = |s: &&Served| s.namespaced && s.can("delete") && s.can("list");
        let (pods, rest): (Vec<_>, Vec<_>) =
            found.resources.iter().filter(served).partition(|s| s.group_resource() == "pods");
        for resource in pods {
            self.delete_all(namespace, resource, &mut outcome).await;
        }
        if !outcome.remaining.is_empty() {
            return Ok(outcome);
        }
        for resource in rest {
            self.delete_all(namespace, resource, &mut outcome).await;
        }
        Ok(outcome)
    }

    async fn delete_all(&self, namespace: &str, served: &Served, outcome: &mut Outcome) {
        if let Err(error) = self.try_delete_all(namespace, served, outcome).await {
            // Virtual resources (and ones just removed) do not have these verbs.
            let ignorable = matches!(&error, kube::Error::Api(s) if s.code == 404 || s.code == 405);
            if !ignorable {
                outcome.errors.push(format!("{}: {}", served.group_resource(), message(&error)));
            }
        }
    }

    async fn try_delete_all(&self, namespace: &str, served: &Served, outcome: &mut Outcome) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.ctx.client.clone(), namespace, &served.resource);
        // Asking first keeps the usual case, nothing there, to a cached read.
        if api.list_metadata(&ListParams::default()).await?.items.is_empty() {
            return Ok(());
        }
        let background = DeleteParams::background();
        if served.can("deletecollection") {
            api.delete_collection(&background, &ListParams::default()).await?;
        } else {
            for object in api.list_metadata(&ListParams::default()).await?.items {
                match api.delete(&object.name_any(), &background).await {
                    Err(error) if !is_not_found(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        let left = api.list_metadata(&ListParams::default()).await?.items;
        if !left.is_empty() {
            outcome.remaining.insert(served.group_resource(), left.len());
        }
        for finalizer in left.iter().flat_map(|o| o.finalizers()) {
            *outcome.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        Ok(())
    }

    /// Removes our finalizer; with the last one the server removes the namespace.
    async fn finalize(&self, mut namespace: Namespace) -> Result<Requeue, Error> {
        let name = namespace.name_any();
        if let Some(list) = namespace.spec.get_or_insert_default().finalizers.as_mut() {
            list.retain(|f| f != FINALIZER);
        }
        let body = serde_json::to_vec(&namespace).map_err(|e| Error::Terminal(e.to_string()))?;
        let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json");
        let request = request.body(body).map_err(kube::Error::HttpError)?;
        match self.ctx.client.request_text(request).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

/// Writes the conditions of an outcome to the status; tells whether they changed.
fn report(namespace: &mut Namespace, outcome: &Outcome) -> bool {
    let status = namespace.status.get_or_insert_default();
    let before = status.clone();
    status.phase = Some("Terminating".into());
    let list = status.conditions.get_or_insert_default();
    let first = list.is_empty();
    if first && outcome.remaining.is_empty() && outcome.errors.is_empty() && outcome.undiscovered.is_empty() {
        // It goes away with the next request: nobody would read the conditions.
        return false;
    }
    let discovery = outcome.undiscovered.join(", ");
    set(
        list,
        "NamespaceDeletionDiscoveryFailure",
        (
            "DiscoveryFailed",
            &format!(
                "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {discovery}",
                outcome.undiscovered.len()
            ),
        ),
        ("ResourcesDiscovered", "All resources successfully discovered"),
        !outcome.undiscovered.is_empty(),
    );
    set(
        list,
        "NamespaceDeletionGroupVersionParsingFailure",
        ("GroupVersionParsingFailed", ""),
        ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        false,
    );
    set(
        list,
        "NamespaceDeletionContentFailure",
        (
            "ContentDeletionFailed",
            &format!(
                "Failed to delete all resource types, {} remaining: {}",
                outcome.errors.len(),
                outcome.errors.join(", ")
            ),
        ),
        ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        !outcome.errors.is_empty(),
    );
    let some = |map: &BTreeMap<String, usize>, word: &str| {
        // Resource and group with a dot between, also where the group has no name.
        let dot = |k: &str| if word == "has" && !k.contains('.') { "." } else { "" };
        let shown = |(k, n): (&String, &usize)| format!("{k}{} {word} {n} resource instances", dot(k));
        map.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    set(
        list,
        "NamespaceContentRemaining",
        ("SomeResourcesRemain", &format!("Some resources are remaining: {}", some(&outcome.remaining, "has"))),
        ("ContentRemoved", "All content successfully removed"),
        !outcome.remaining.is_empty(),
    );
    set(
        list,
        "NamespaceFinalizersRemaining",
        (
            "SomeFinalizersRemain",
            &format!("Some content in the namespace has finalizers remaining: {}", some(&outcome.finalizers, "in")),
        ),
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        !outcome.finalizers.is_empty(),
    );
    *status != before
}

fn set(list: &mut Vec<NamespaceCondition>, kind: &str, bad: (&str, &str), good: (&str, &str), is_bad: bool) {
    let ((reason, text), status) = if is_bad { (bad, "True") } else { (good, "False") };
    let at = list.iter().position(|c| c.type_ == kind);
    if let Some(old) = at.map(|at| &mut list[at]) {
        if old.status != status || old.reason.as_deref() != Some(reason) || old.message.as_deref() != Some(text) {
            *old = condition(kind, status, reason, text);
        }
    } else {
        list.push(condition(kind, status, reason, text));
    }
}

fn condition(kind: &str, status: &str, reason: &str, text: &str) -> NamespaceCondition {
    NamespaceCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(text.into()),
        last_transition_time: Some(pods::now()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_reported_once() {
        let mut namespace = Namespace::default();
        let mut outcome = Outcome::default();
        assert!(!report(&mut namespace, &outcome));
        outcome.remaining.insert("pods".into(), 2);
        assert!(report(&mut namespace, &outcome));
        assert!(!report(&mut namespace, &outcome));
        let conditions = namespace.status.and_then(|s| s.conditions).unwrap_or_default();
        let remaining = conditions.iter().find(|c| c.type_ == "NamespaceContentRemaining").expect("condition");
        assert_eq!(remaining.message.as_deref(), Some("Some resources are remaining: pods. has 2 resource instances"));
    }
}
