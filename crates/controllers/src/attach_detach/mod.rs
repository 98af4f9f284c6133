//! Attach and detach: a VolumeAttachment for every CSI volume that a pod of a node uses and whose driver attaches.
//!
//! The key is a node. What it should have comes from its pods ([`wanted`]), what it has from the attachments; an
//! external attacher does the work and says so in their status, which goes to `status.volumesAttached` of the node.
//! A volume is detached when no pod wants it and the node no longer has it in use.
//!
//! Attachments that do not bear the name this controller would give them are somebody else's and left alone.

mod wanted;

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use crate::pods;
use api::k8s::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use api::k8s::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use wanted::{Wanted, attachment_name};

const BY_NODE: &str = "node";
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// How long a volume that a node says is in use keeps its attachment after the last pod went, as upstream.
const FORCE_DETACH: Duration = Duration::from_secs(360);

struct Nodes {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    attachments: Informer<VolumeAttachment>,
    /// Since when a volume of a node is wanted by nobody though in use.
    unwanted: parking_lot::Mutex<BTreeMap<String, std::time::Instant>>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (nodes, pods, claims) =
        (ctx.informer::<Node>(), ctx.informer::<Pod>(), ctx.informer::<PersistentVolumeClaim>());
    let (volumes, drivers) = (ctx.informer::<PersistentVolume>(), ctx.informer::<CSIDriver>());
    let attachments = ctx.informer::<VolumeAttachment>();
    attachments.add_index(BY_NODE, |a| vec![a.spec.node_name.clone()]);
    let filed = queue.clone();
    nodes.on_event(move |event: &Event<Node>| {
        let in_use = |n: &Node| n.status.as_ref().and_then(|s| s.volumes_in_use.clone());
        // The status of a node changes often; only what is in use matters here.
        if !matches!(event, Event::Updated { old, new } if in_use(old) == in_use(new)) {
            filed.add(Key::of(event.object().as_ref()));
        }
    });
    let filed = queue.clone();
    pods.on_event(move |event: &Event<Pod>| {
        let pod = event.object();
        let changed = match event {
            Event::Updated { old, new } => {
                pods::node_name(old) != pods::node_name(new) || pods::is_terminal(old) != pods::is_terminal(new)
            }
            _ => true,
        };
        if changed && !pods::node_name(pod).is_empty() && wanted::has_claims(pod) {
            filed.add(Key::new("", pods::node_name(pod)));
        }
    });
    let (filed, known) = (queue.clone(), pods.clone());
    claims.on_event(move |event: &Event<PersistentVolumeClaim>| {
        let claim = event.object();
        let volume = |c: &PersistentVolumeClaim| c.spec.as_ref().and_then(|s| s.volume_name.clone());
        if matches!(event, Event::Updated { old, new } if volume(old) == volume(new)) {
            return;
        }
        let namespace = claim.namespace().unwrap_or_default();
        let users = known.list_in(&namespace);
        let users = users.iter().filter(|p| wanted::claims(p).contains(&claim.name_any()));
        users.filter(|p| !pods::node_name(p).is_empty()).for_each(|p| filed.add(Key::new("", pods::node_name(p))));
    });
    let filed = queue.clone();
    attachments.on_event(move |event: &Event<VolumeAttachment>| {
        filed.add(Key::new("", event.object().spec.node_name.as_str()))
    });
    let (filed, known) = (queue.clone(), nodes.clone());
    drivers.on_event(move |_: &Event<CSIDriver>| known.list().iter().for_each(|n| filed.add(Key::of(n.as_ref()))));
    synced!(nodes, pods, claims, volumes, drivers, attachments);
    let unwanted = Default::default();
    let reconciler = Nodes { ctx: ctx.clone(), nodes, pods, claims, volumes, drivers, attachments, unwanted };
    Controller::new("attach-detach", queue, reconciler).workers(1).run(ctx.shutdown()).await;
}

impl Reconcile for Nodes {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let node = self.nodes.get_key(key);
        let managed = node.as_ref().is_some_and(|n| n.annotations().contains_key(MANAGED));
        let wanted = if managed { self.wanted(&key.name) } else { BTreeMap::new() };
        for (name, one) in &wanted {
            self.attach(&key.name, name, one).await?;
        }
        let again = self.detach(&key.name, node.as_deref(), &wanted).await?;
        if let Some(node) = node.filter(|_| managed) {
            self.report(&node).await?;
        }
        Ok(again.map_or(Requeue::Done, Requeue::After))
    }
}

impl Nodes {
    async fn attach(&self, node: &str, name: &str, wanted: &Wanted) -> Result<(), Error> {
        if let Some(known) = self.attachments.get("", name) {
            let status = known.status.clone().unwrap_or_default();
            if let Some(error) = status.attach_error.filter(|_| !status.attached).and_then(|e| e.message) {
                let why = format!("AttachVolume.Attach failed for volume {:?} : {error}", wanted.volume);
                wanted.pods.iter().for_each(|pod| self.ctx.warning(pod.as_ref(), "FailedAttachVolume", why.clone()));
            }
            return Ok(());
        }
        if let Some(users) = self.attached_elsewhere(node, wanted) {
            let why = format!("Multi-Attach error for volume {:?} {users}", wanted.volume);
            wanted.pods.iter().for_each(|pod| self.ctx.warning(pod.as_ref(), "FailedAttachVolume", why.clone()));
            return Ok(());
        }
        let mut fresh = VolumeAttachment {
            metadata: Default::default(),
            spec: VolumeAttachmentSpec {
                attacher: wanted.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(wanted.volume.clone()),
                    ..VolumeAttachmentSource::default()
                },
            },
            status: None,
        };
        fresh.metadata.name = Some(name.to_owned());
        match self.ctx.cluster_api::<VolumeAttachment>().create(&PostParams::default(), &fresh).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    /// Who has a volume that only one node may have, in the words of the event.
    fn attached_elsewhere(&self, node: &str, wanted: &Wanted) -> Option<&'static str> {
        let elsewhere = |a: &VolumeAttachment| {
            a.spec.node_name != node && a.spec.source.persistent_volume_name.as_ref() == Some(&wanted.volume)
        };
        let shared = wanted.shared || !self.attachments.list().iter().any(|a| elsewhere(a));
        (!shared).then_some("Volume is already exclusively attached to one node and can't be attached to another")
    }

    /// Deletes attachments that nobody wants; when to look again at those that must wait.
    async fn detach(
        &self,
        node: &str,
        object: Option<&Node>,
        wanted: &BTreeMap<String, Wanted>,
    ) -> Result<Option<Duration>, Error> {
        let in_use = object.and_then(|n| n.status.as_ref()).and_then(|s| s.volumes_in_use.clone()).unwrap_or_default();
        let mut again = None;
        for attachment in self.attachments.by_index(BY_NODE, node) {
            let name = attachment.name_any();
            let Some(unique) = self.own(&attachment).filter(|_| !wanted.contains_key(&name)) else {
                self.unwanted.lock().remove(&name);
                continue;
            };
            if attachment.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if in_use.contains(&unique) {
                let since = *self.unwanted.lock().entry(name.clone()).or_insert_with(std::time::Instant::now);
                let left = FORCE_DETACH.saturating_sub(since.elapsed());
                if !left.is_zero() {
                    again = Some(again.map_or(left, |a: Duration| a.min(left)));
                    continue;
                }
            }
            self.unwanted.lock().remove(&name);
            match self.ctx.cluster_api::<VolumeAttachment>().delete(&name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(again)
    }

    /// The unique name of an attachment's volume, if the attachment is one of ours.
    fn own(&self, attachment: &VolumeAttachment) -> Option<String> {
        let volume = self.volumes.get("", attachment.spec.source.persistent_volume_name.as_deref()?)?;
        let source = volume.spec.as_ref()?.csi.as_ref()?;
        let name = attachment_name(&source.volume_handle, &source.driver, &attachment.spec.node_name);
        (name == attachment.name_any()).then(|| wanted::unique_name(&source.driver, &source.volume_handle))
    }

    /// Tells the node what is attached to it.
    async fn report(&self, node: &Node) -> Result<(), Error> {
        let attachments = self.attachments.by_index(BY_NODE, &node.name_any());
        let attached = attachments.iter().filter(|a| a.status.as_ref().is_some_and(|s| s.attached));
        let mut names: Vec<String> = attached.filter_map(|a| self.own(a)).collect();
        names.sort();
        let known = node.status.as_ref().and_then(|s| s.volumes_attached.clone()).unwrap_or_default();
        let mut before: Vec<String> = known.into_iter().map(|v| v.name).collect();
        before.sort();
        if before == names {
            return Ok(());
        }
        let list: Vec<_> = names.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
        let patch = json!({"status": {"volumesAttached": list}});
        let nodes = self.ctx.cluster_api::<Node>();
        match nodes.patch_status(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !is_not_found(&error) => return Err(error.into()),
            _ => {}
        }
        for name in names.iter().filter(|n| !before.contains(n)) {
            self.announce(node, name);
        }
        Ok(())
    }

    /// Says to the pods of a volume that it is attached now.
    fn announce(&self, node: &Node, unique: &str) {
        for wanted in self.wanted(&node.name_any()).into_values().filter(|w| w.unique == unique) {
            let text = format!("AttachVolume.Attach succeeded for volume {:?} ", wanted.volume);
            wanted.pods.iter().for_each(|pod| self.ctx.normal(pod.as_ref(), "SuccessfulAttachVolume", text.clone()));
        }
    }
}
