//! Follows the definitions: accepts names, serves what is established, removes the instances of deleted ones.

use super::{definition, names};
use crate::authn::UserInfo;
use crate::handlers::Request;
use crate::registry::delete::{DeleteOptions, delete};
use crate::registry::facts::BuiltIn;
use crate::registry::{Resource, meta as system};
use crate::server::ApiServer;
use crate::store::{ObjectStore, Preconditions, Selection, Update, WatchEvent, WatchOptions, WatchStart};
use api::{Object, Status, meta};
use futures::StreamExt;
use jiff::Timestamp;
use resources::field::Fields;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

const GROUP: &str = "apiextensions.k8s.io";
const RESOURCE: &str = "customresourcedefinitions";
const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVAL: &str = "api-approved.kubernetes.io";

/// What the controller knows.
#[derive(Default)]
struct State {
    /// The definitions by name.
    all: BTreeMap<String, Object>,
    /// What each served definition was when it was served.
    served: HashMap<String, Value>,
    /// UIDs of the definitions whose instances are being removed.
    cleaning: HashSet<String>,
}

/// Starts the controller, and waits until everything established before is served.
pub async fn start(server: &Arc<ApiServer>) {
    let Some(store) = server.store(GROUP, RESOURCE) else { return };
    let ready = watch::Sender::new(false);
    let mut synced = ready.subscribe();
    let (weak, token) = (Arc::downgrade(server), server.stopping().clone());
    tokio::spawn(async move { token.run_until_cancelled(run(weak, store, ready)).await });
    // An error means that the controller ended: the server is stopping.
    let _ = synced.wait_for(|synced| *synced).await;
}

async fn run(server: Weak<ApiServer>, store: Arc<ObjectStore>, ready: watch::Sender<bool>) {
    let mut state = State::default();
    loop {
        match store.watch(everything()).await {
            Ok(mut watch) => {
                let mut fresh = Some(BTreeMap::new());
                while let Some(event) = watch.next().await {
                    let Some(server) = server.upgrade() else { return };
                    if !state.take(&server, &store, event, &mut fresh, &ready).await {
                        break;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot watch custom resource definitions"),
        }
        // The watch ended (compaction, lag): start over, without spinning when the store is ill.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn everything() -> WatchOptions {
    WatchOptions { selection: Selection::default(), start: WatchStart::InitialEvents(0), bookmarks: true }
}

impl State {
    /// Takes an event in; false ends the watch.
    async fn take(
        &mut self,
        server: &Arc<ApiServer>,
        store: &Arc<ObjectStore>,
        event: WatchEvent,
        fresh: &mut Option<BTreeMap<String, Object>>,
        ready: &watch::Sender<bool>,
    ) -> bool {
        match event {
            WatchEvent::Added(stored) | WatchEvent::Modified(stored) => {
                let Ok(object) = stored.object() else { return true };
                let name = stored.meta.name.clone();
                match fresh {
                    Some(fresh) => drop(fresh.insert(name, object)),
                    None => {
                        self.all.insert(name.clone(), object);
                        self.sync(server, store, &name).await;
                    }
                }
            }
            WatchEvent::Deleted(stored) => {
                self.all.remove(&stored.meta.name);
                self.cleaning.remove(&stored.meta.uid);
                self.unserve(server, &stored.meta.name);
                // Its names are free now.
                self.sync_all(server, store).await;
            }
            WatchEvent::Bookmark { initial_events_end: true, .. } => {
                self.all = fresh.take().unwrap_or_default();
                let gone: Vec<_> = self.served.keys().filter(|n| !self.all.contains_key(*n)).cloned().collect();
                gone.iter().for_each(|name| self.unserve(server, name));
                self.sync_all(server, store).await;
                ready.send_replace(true);
            }
            WatchEvent::Bookmark { .. } => {}
            WatchEvent::Error(_) => return false,
        }
        true
    }

    async fn sync_all(&mut self, server: &Arc<ApiServer>, store: &Arc<ObjectStore>) {
        for name in self.all.keys().cloned().collect::<Vec<_>>() {
            self.sync(server, store, &name).await;
        }
    }

    /// Brings one definition's status and what is served of it up to date.
    async fn sync(&mut self, server: &Arc<ApiServer>, store: &Arc<ObjectStore>, name: &str) {
        let Some(present) = self.all.get(name).cloned() else { return };
        let mut wanted = present.clone();
        settle(&mut wanted, &self.all);
        match is_true(&wanted, "Established") {
            true => self.serve(server, &wanted),
            false => self.unserve(server, name),
        }
        if wanted != present {
            match write_status(store, &wanted).await {
                Ok(()) => {
                    self.all.insert(name.to_owned(), wanted.clone());
                    self.released(server, store, &present, &wanted).await;
                }
                // The next event of the definition tries again.
                Err(error) => tracing::debug!(%error, name, "cannot write the status of a definition"),
            }
        }
        if meta::is_deleting(&wanted) && self.cleaning.insert(meta::uid(&wanted).to_owned()) {
            let (server, store) = (Arc::downgrade(server), store.clone());
            tokio::spawn(clean_up(server, store, name.to_owned()));
        }
    }

    /// Looks at the others of the group again when a definition gave up names.
    async fn released(&mut self, server: &Arc<ApiServer>, store: &Arc<ObjectStore>, old: &Object, new: &Object) {
        let names = |crd: &Object| crd.at("status").at("acceptedNames").clone();
        let group = new.at("spec").text("group");
        if names(old) == names(new) || old.at("status").at("acceptedNames").text("plural").is_empty() {
            return;
        }
        let same_group =
            |(name, crd): &(&String, &Object)| *name != meta::name(new) && crd.at("spec").text("group") == group;
        let others: Vec<String> = self.all.iter().filter(same_group).map(|(name, _)| name.clone()).collect();
        for name in others {
            Box::pin(self.sync(server, store, &name)).await;
        }
    }

    fn serve(&mut self, server: &Arc<ApiServer>, crd: &Object) {
        let name = meta::name(crd);
        let status = crd.at("status");
        let shape =
            json!([crd.at("spec"), status.at("storedVersions"), status.at("acceptedNames"), meta::is_deleting(crd)]);
        if self.served.get(name) == Some(&shape) {
            return;
        }
        let registry = server.registry();
        let before = of_definition(server, name);
        let now = definition::resources(crd, server, before.first().map(|r| &r.store));
        for old in before.iter().filter(|old| now.iter().all(|new| new.version != old.version)) {
            registry.remove(&old.group, &old.version, &old.resource);
        }
        now.into_iter().for_each(|resource| registry.insert(Arc::new(resource)));
        // As upstream: who watches begins anew, with what is served now.
        let (was, is) = (self.served.get(name).unwrap_or(&Value::Null), &shape);
        if (0..3).any(|part| was[part] != is[part]) {
            before.iter().for_each(|old| old.store.end_watches());
        }
        self.served.insert(name.to_owned(), shape);
    }

    fn unserve(&mut self, server: &ApiServer, name: &str) {
        self.served.remove(name);
        for old in of_definition(server, name) {
            server.registry().remove(&old.group, &old.version, &old.resource);
            old.store.end_watches();
        }
    }
}

fn of_definition(server: &ApiServer, name: &str) -> Vec<Arc<Resource>> {
    let mine = |r: &Arc<Resource>| r.custom.as_ref().is_some_and(|c| c.name == name);
    server.registry().all().into_iter().filter(mine).collect()
}

/// Sets accepted names and conditions.
fn settle(crd: &mut Object, all: &BTreeMap<String, Object>) {
    let (accepted, conflict) = names::accept(crd, all);
    // Who has the names that it wants is not judged again.
    let settled = crd.at("status").at("acceptedNames") == crd.at("spec").at("names");
    crd["status"]["acceptedNames"] = accepted;
    match &conflict {
        None => {
            if !settled {
                set_condition(crd, "NamesAccepted", true, "NoConflicts", "no conflicts found");
            }
            if is_true(crd, "NamesAccepted") && !is_true(crd, "Established") {
                let why = "the initial names have been accepted";
                set_condition(crd, "Established", true, "InitialNamesAccepted", why);
            }
        }
        Some((reason, message)) => {
            set_condition(crd, "NamesAccepted", false, reason, message);
            if !is_true(crd, "Established") {
                set_condition(crd, "Established", false, "NotAccepted", "not all names are accepted");
            }
        }
    }
    let approval = meta::annotation(crd, APPROVAL).unwrap_or("").to_owned();
    let group = crd.at("spec").text("group");
    let protected = ["k8s.io", "kubernetes.io"];
    let protected =
        protected.iter().any(|p| group.strip_suffix(p).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    if !approval.is_empty() && protected {
        let kind = "KubernetesAPIApprovalPolicyConformant";
        if !approval.starts_with("unapproved") && !approval.contains("://") {
            let why = format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
            );
            set_condition(crd, kind, false, "InvalidAnnotation", &why);
        } else if approval.starts_with("unapproved") {
            set_condition(crd, kind, false, "UnapprovedAnnotation", &format!("not approved: {approval:?}"));
        } else {
            set_condition(crd, kind, true, "ApprovedAnnotation", &format!("approved in {approval}"));
        }
    }
}

fn is_true(crd: &Object, kind: &str) -> bool {
    crd.at("status").list("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
}

fn set_condition(crd: &mut Object, kind: &str, value: bool, reason: &str, message: &str) {
    let value = if value { "True" } else { "False" };
    let mut list = crd.at("status").list("conditions").to_vec();
    let found = list.iter().position(|c| c.text("type") == kind);
    let old = found.map_or(&Value::Null, |at| &list[at]);
    let time = match old.text("status") == value {
        true => old.text("lastTransitionTime").to_owned(),
        false => system::time(Timestamp::now()),
    };
    let condition =
        json!({"type": kind, "status": value, "lastTransitionTime": time, "reason": reason, "message": message});
    match found {
        Some(at) => list[at] = condition,
        None => list.push(condition),
    }
    crd["status"]["conditions"] = list.into();
}

/// Writes accepted names and conditions, unless the definition is another one by now.
async fn write_status(store: &ObjectStore, wanted: &Object) -> Result<(), Status> {
    let (uid, generation) = (meta::uid(wanted), meta::generation(wanted));
    let change = |_: &_, mut object: Object| {
        if meta::uid(&object) != uid || meta::generation(&object) != generation {
            return Ok(Update::Keep);
        }
        let before = object.clone();
        for field in ["acceptedNames", "conditions"] {
            object["status"][field] = wanted.at("status").at(field).clone();
        }
        let write = merge::Write {
            old: &before,
            manager: "kube-apiserver",
            time: &system::time(Timestamp::now()),
            subresource: "status",
            schema: SCHEMA,
        };
        merge::update_managed_fields(&write, &mut object, &BuiltIn);
        Ok(Update::Write(object))
    };
    store.guaranteed_update("", meta::name(wanted), &Preconditions::default(), change, false).await.map(drop)
}

/// What a first deletion makes of a definition, alone: its instances go before it does. False: it is none, or marked.
pub fn mark_as_terminating(resource: &Resource, object: &mut Object, now: Timestamp) -> bool {
    if resource.group != GROUP || resource.resource != RESOURCE || meta::is_deleting(object) {
        return false;
    }
    let mut finalizers: Vec<Value> = meta::finalizers(object).into_iter().map(Value::from).collect();
    if !finalizers.contains(&FINALIZER.into()) {
        finalizers.push(FINALIZER.into());
    }
    meta::set(object, "finalizers", finalizers);
    let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(object, "Terminating", true, "InstanceDeletionPending", why);
    meta::set(object, "deletionTimestamp", system::time(now));
    true
}

/// How far the removal of instances has come.
#[derive(Clone)]
enum Removal {
    Begun,
    Failed(String),
    Done,
}

impl Removal {
    /// Says so on the definition, and lets go of it at the end.
    fn tell(self, mut object: Object) -> Update {
        let finalizers = meta::finalizers(&object);
        if !meta::is_deleting(&object) || !finalizers.contains(&FINALIZER) {
            return Update::Keep;
        }
        match self {
            Self::Begun => {
                let why = "CustomResource deletion is in progress";
                set_condition(&mut object, "Terminating", true, "InstanceDeletionInProgress", why);
                Update::Write(object)
            }
            Self::Failed(why) => {
                set_condition(&mut object, "Terminating", true, "InstanceDeletionFailed", &why);
                Update::Write(object)
            }
            Self::Done => {
                let rest: Vec<Value> = finalizers.into_iter().filter(|f| *f != FINALIZER).map(Value::from).collect();
                let last = rest.is_empty();
                meta::set(&mut object, "finalizers", rest);
                system::drop_empty(&mut object);
                set_condition(&mut object, "Terminating", false, "InstanceDeletionCompleted", "removed all instances");
                if last { Update::Delete(object) } else { Update::Write(object) }
            }
        }
    }
}

/// The longest pause between two attempts to remove instances.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Removes the instances of a deleted definition, and then its finalizer.
async fn clean_up(server: Weak<ApiServer>, store: Arc<ObjectStore>, name: String) {
    let none = Preconditions::default();
    let tell = async |removal: Removal| {
        let change = move |_: &_, object: Object| Ok(removal.clone().tell(object));
        store.guaranteed_update("", &name, &none, change, false).await.map(drop)
    };
    let mut pause = Duration::from_secs(1);
    loop {
        let mut result = tell(Removal::Begun).await;
        if result.is_ok() {
            result = match remove_instances(&server, &name).await {
                Ok(()) => tell(Removal::Done).await,
                Err(error) => {
                    let told = tell(Removal::Failed(format!("could not list instances: {error}"))).await;
                    told.and(Err(Status { code: 500, ..error }))
                }
            };
        }
        match result {
            Ok(()) => return,
            Err(error) if error.code == 404 || server.strong_count() == 0 => return,
            Err(error) => tracing::warn!(%error, name, "cannot remove the instances of a definition; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Deletes every instance and waits until all are gone.
async fn remove_instances(server: &Weak<ApiServer>, name: &str) -> Result<(), Status> {
    let mut all = server.upgrade().map(|s| of_definition(&s, name)).unwrap_or_default();
    // In the version they are stored in, nothing has to be converted.
    all.sort_by_key(|r| r.custom.as_ref().is_none_or(|c| !c.storage));
    let Some(resource) = all.into_iter().next() else { return Ok(()) };
    let request = Request::internal("delete", Arc::new(UserInfo::admin()));
    let mut left = BTreeSet::new();
    let mut complete = false;
    let mut watch = resource.store.watch(everything()).await?;
    while let Some(event) = watch.next().await {
        match event {
            WatchEvent::Added(stored) | WatchEvent::Modified(stored) => {
                let (namespace, name) = (&stored.meta.namespace, &stored.meta.name);
                left.insert((namespace.clone(), name.clone()));
                if !meta::is_deleting(&stored.object()?) {
                    let Some(server) = server.upgrade() else { return Ok(()) };
                    let options = DeleteOptions::default();
                    match delete(&server, &request, &resource, namespace, name, &options).await {
                        Err(error) if error.code != 404 => return Err(error),
                        _ => {}
                    }
                }
            }
            WatchEvent::Deleted(stored) => {
                left.remove(&(stored.meta.namespace.clone(), stored.meta.name.clone()));
            }
            WatchEvent::Bookmark { initial_events_end, .. } => complete |= initial_events_end,
            WatchEvent::Error(error) => return Err(error),
        }
        if complete && left.is_empty() {
            return Ok(());
        }
    }
    Err(Status::internal("the watch of the instances ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(name: &str, kind: &str) -> Object {
        json!({"metadata": {"name": name}, "spec": {"group": "g", "names": {"plural": name, "kind": kind}}, "status": {}})
    }

    fn conditions(crd: &Object) -> Vec<String> {
        let list = crd.at("status").list("conditions").iter();
        list.map(|c| format!("{}={} {}", c.text("type"), c.text("status"), c.text("reason"))).collect()
    }

    #[test]
    fn names_decide_what_is_established() {
        let mut first = crd("as", "A");
        settle(&mut first, &BTreeMap::new());
        assert_eq!(conditions(&first), ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
        let all = BTreeMap::from([("as".to_owned(), first)]);
        let mut second = crd("bs", "A");
        settle(&mut second, &all);
        assert_eq!(conditions(&second), ["NamesAccepted=False KindConflict", "Established=False NotAccepted"]);
        settle(&mut second, &BTreeMap::new());
        assert_eq!(conditions(&second), ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
    }

    #[test]
    fn conditions_keep_their_time() {
        let mut object = crd("as", "A");
        set_condition(&mut object, "X", true, "R", "m");
        object["status"]["conditions"][0]["lastTransitionTime"] = "t".into();
        set_condition(&mut object, "X", true, "R2", "m2");
        assert_eq!(object.pointer("/status/conditions/0/lastTransitionTime"), Some(&json!("t")));
        set_condition(&mut object, "X", false, "R", "m");
        assert_ne!(object.pointer("/status/conditions/0/lastTransitionTime"), Some(&json!("t")));
    }
}
