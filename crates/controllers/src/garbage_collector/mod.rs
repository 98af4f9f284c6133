//! The garbage collector: deletes objects whose owners are gone, and carries out foreground and orphan deletion.
//!
//! It watches the metadata of every resource that can be deleted, found by discovery, again whenever a
//! CustomResourceDefinition or APIService changes. What it deletes it first looks up on the server.

mod graph;
mod sweep;

use crate::context::Context;
use crate::discovery::{self, Served};
use graph::{Graph, Node, Task};
use informer::{Controller, Event, Informer, WorkQueue};
use kube::core::{DynamicObject, PartialObjectMeta};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long the first lists may take before collection starts without them.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before discovery is tried again after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Resources whose changes change what is served.
const DEFINITIONS: [&str; 2] = ["customresourcedefinitions.apiextensions.k8s.io", "apiservices.apiregistration.k8s.io"];

type Metadata = PartialObjectMeta<DynamicObject>;

pub(crate) async fn run(ctx: Context) {
    let collector = Arc::new(Monitors {
        ctx: ctx.clone(),
        graph: Arc::default(),
        queue: WorkQueue::new(),
        watched: Mutex::default(),
        changed: Arc::new(Notify::new()),
    });
    let shutdown = ctx.shutdown();
    if shutdown.run_until_cancelled(collector.start()).await.is_none() {
        return;
    }
    let sweeper = sweep::Sweeper::new(ctx, collector.graph.clone(), collector.queue.clone(), collector.clone());
    let queue = collector.queue.clone();
    let refreshing = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { shutdown.run_until_cancelled(collector.follow()).await }
    });
    Controller::new("garbagecollector", queue, sweeper).workers(20).run(shutdown).await;
    refreshing.abort();
}

/// The informers that feed the graph.
struct Monitors {
    ctx: Context,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<Task>,
    watched: Mutex<HashMap<Arc<Served>, Informer<Metadata>>>,
    changed: Arc<Notify>,
}

impl Monitors {
    /// Finds what is served and waits for the first lists.
    async fn start(&self) {
        while let Err(error) = self.refresh().await {
            tracing::warn!(%error, "discovery failed, will retry");
            tokio::time::sleep(RETRY).await;
        }
        let informers: Vec<Informer<Metadata>> = self.watched.lock().values().cloned().collect();
        let all = futures::future::join_all(informers.iter().map(Informer::synced));
        if tokio::time::timeout(SYNC_TIMEOUT, all).await.is_err() {
            tracing::warn!("some resources cannot be listed; their objects do not count as dependents until they can");
        }
    }

    /// Discovers again whenever definitions change.
    async fn follow(&self) {
        loop {
            self.changed.notified().await;
            while let Err(error) = self.refresh().await {
                tracing::warn!(%error, "discovery failed, will retry");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn refresh(&self) -> Result<(), kube::Error> {
        let found = discovery::resources(&self.ctx.client).await?;
        let wanted = |s: &Served| ["delete", "list", "watch"].iter().all(|v| s.can(v)) && s.resource.plural != "events";
        let served: Vec<Arc<Served>> = found.resources.into_iter().filter(wanted).map(Arc::new).collect();
        for resource in &served {
            self.watch(resource);
        }
        // A group that did not answer is not gone.
        let silent = |s: &Served| found.failed.contains(&s.resource.api_version);
        let gone: Vec<Arc<Served>> =
            self.watched.lock().keys().filter(|s| !served.contains(s) && !silent(s)).cloned().collect();
        for resource in gone {
            self.watched.lock().remove(&resource);
            self.ctx.factory().forget_metadata(&resource.resource);
            let tasks = self.graph.lock().remove_resource(&resource);
            tasks.into_iter().for_each(|task| self.queue.add(task));
        }
        Ok(())
    }

    fn watch(&self, resource: &Arc<Served>) {
        if self.watched.lock().contains_key(resource) {
            return;
        }
        let informer = self.ctx.factory().metadata(&resource.resource);
        let (graph, queue, served) = (self.graph.clone(), self.queue.clone(), resource.clone());
        informer.on_event(move |event: &Event<Metadata>| {
            let meta = &event.object().metadata;
            let tasks = match event {
                Event::Deleted(_) => graph.lock().remove(meta.uid.as_deref().unwrap_or("")),
                Event::Added(_) => graph.lock().set(Node::new(&served, meta)),
                Event::Updated { old, .. } => {
                    let mut graph = graph.lock();
                    // Deleted and made anew between two looks.
                    let replaced = old.metadata.uid.as_ref().filter(|uid| Some(*uid) != meta.uid.as_ref());
                    let mut tasks = replaced.map(|uid| graph.remove(uid)).unwrap_or_default();
                    tasks.extend(graph.set(Node::new(&served, meta)));
                    tasks
                }
            };
            tasks.into_iter().for_each(|task| queue.add(task));
        });
        if DEFINITIONS.contains(&resource.group_resource().as_str()) {
            let changed = self.changed.clone();
            informer.on_event(move |_| changed.notify_one());
        }
        self.watched.lock().insert(resource.clone(), informer);
    }

    /// The resource of an owner reference.
    fn resolve(&self, api_version: &str, kind: &str) -> Option<Arc<Served>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let watched = self.watched.lock();
        watched.keys().find(|s| s.resource.kind == kind && s.resource.group == group).cloned()
    }
}
