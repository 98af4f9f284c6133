//! With whose credentials the images of this node were pulled (KEP-2535): what needed credentials is given only to pods
//! that hold some of them, or others that the registry takes.
//!
//! The records lie below `image_manager` in the kubelet's directory, in the form upstream's kubelet gives them. An intent
//! ([`super::intents`]) is on disk before a pull begins and goes after the record is, so that an image of a pull that was
//! cut off asks for credentials. What has neither was not pulled by this kubelet (it was loaded, say), and is for all pods.
//!
//! Records are written by threads that may wait for the disk, one at a time; who asks never waits for them. He looks for
//! intents first and then for the record, which is there before its intent goes.

use super::intents::{Intent, Intents};
use super::keyring::{Entry, full_name};
use crate::configuration::{ImagePullCredentialsVerificationPolicy as Policy, KubeletConfiguration};
use cri::Image;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::task::spawn_blocking;

pub(super) const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Most credentials of one image that are written down when a pod only uses it.
const REMEMBERED_MAX: usize = 100;

/// Whose credentials are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Holder {
    /// Of the secret or service account.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of a secret's credentials.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credential_hash: String,
}

impl Holder {
    fn is(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// Where credentials come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A plugin that answers for the node, whatever the pod.
    #[default]
    Node,
    /// A pull secret.
    Secret(Holder),
    /// A plugin that was shown a service account's token.
    ServiceAccount(Holder),
}

/// Who may use an image by one of its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Granted {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<Holder>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_service_accounts: Vec<Holder>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    api_version: String,
    kind: String,
    last_updated_time: String,
    image_ref: String,
    #[serde(default)]
    credential_mapping: BTreeMap<String, Granted>,
}

/// Who may use an image that is here.
#[derive(Debug, PartialEq, Eq)]
pub enum Access {
    /// Every pod.
    All,
    /// Who holds one of these credentials; others have to pull.
    Holders(Granted),
}

/// The records of a node's pulls.
pub struct PullRecords {
    dir: PathBuf,
    policy: Policy,
    allowlist: Vec<String>,
    intents: Arc<Intents>,
    /// Held while records change.
    changing: Mutex<()>,
}

impl PullRecords {
    /// Uses the records below the kubelet's directory.
    pub fn open(root_dir: &Path, settings: &KubeletConfiguration) -> Arc<Self> {
        let dir = root_dir.join("image_manager");
        Arc::new(Self {
            policy: settings.image_pull_credentials_verification_policy,
            allowlist: settings.preloaded_images_verification_allowlist.clone(),
            intents: Arc::new(Intents::open(dir.join("pulling"))),
            changing: Mutex::default(),
            dir,
        })
    }

    /// Whether a pull of an image was cut off, and [`Self::settle`] has not seen since what it brought.
    pub fn is_left(&self, image: &str) -> bool {
        self.intents.is_left(image)
    }

    /// Says that an image is about to be pulled; `before` is the id that its name means now. The pull counts as cut off
    /// where what this returns is dropped.
    pub async fn intend(&self, image: &str, before: Option<String>) -> io::Result<Intent> {
        let intent = self.intents.begin(image, before);
        let write = move || match intent.write() {
            Ok(()) => Ok(intent),
            Err(error) => {
                intent.end();
                Err(error)
            }
        };
        spawn_blocking(write).await.map_err(io::Error::other)?
    }

    /// Says that an image was pulled with these credentials, or without any. An intent whose record cannot be written
    /// is left over: the image is then nobody's without credentials.
    pub async fn pulled(self: &Arc<Self>, intent: Intent, image: &str, id: &str, used: Option<&Entry>) {
        let (own, image, id, used) = (self.clone(), image.to_owned(), id.to_owned(), used.cloned());
        let write = move || match own.change(&id, |record| record.grant(&image, used.as_ref())) {
            Ok(()) => intent.end(),
            Err(error) => tracing::error!(%error, image, "cannot record with whose credentials an image was pulled"),
        };
        // Goes on where nobody waits for it any more.
        let _ = spawn_blocking(write).await;
    }

    /// Who may use an image that is here.
    pub fn access(&self, image: &str, found: &Image) -> Access {
        let names = found.repo_tags.iter().chain(&found.repo_digests).map(String::as_str).chain([image]);
        let brought = self.intents.may_have_brought(&found.id, names);
        let record = match self.read(&found.id) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, image, "cannot read with whose credentials an image was pulled");
                return Access::Holders(Granted::default());
            }
        };
        if !self.verifies(&full_name(image), record.is_some() || brought) {
            return Access::All;
        }
        match record.and_then(|mut record| record.credential_mapping.remove(&full_name(image))).unwrap_or_default() {
            Granted { node_pods_accessible: true, .. } => Access::All,
            granted => Access::Holders(granted),
        }
    }

    /// Notes that a pod came with credentials that admit it, where they were not known.
    pub async fn used(self: &Arc<Self>, image: &str, id: &str, granted: &Granted, with: &Entry) {
        if granted.kubernetes_secrets.len() >= REMEMBERED_MAX || !granted.clone().add(Some(with)) {
            return;
        }
        let (own, image, id, with) = (self.clone(), image.to_owned(), id.to_owned(), with.clone());
        let write = move || own.change(&id, |record| record.grant(&image, Some(&with)));
        if let Err(error) = spawn_blocking(write).await.map_err(io::Error::other).and_then(|done| done) {
            tracing::error!(%error, "cannot record who uses an image");
        }
    }

    /// Forgets images that were gone at a time, and settles the pulls that were cut off.
    pub async fn prune(self: &Arc<Self>, present: &[Image], at: SystemTime) {
        let (own, present) = (self.clone(), present.to_vec());
        let prune = move || {
            own.settle_left(&present, at);
            own.forget_all_but(&present, at);
        };
        let _ = spawn_blocking(prune).await;
    }

    /// Writes down what pulls brought that were cut off: with whose credentials is not known, so that each pod has to
    /// pull.
    pub async fn settle(self: &Arc<Self>, present: Vec<Image>) {
        let own = self.clone();
        let _ = spawn_blocking(move || own.settle_left(&present, SystemTime::now())).await;
    }

    fn settle_left(&self, present: &[Image], now: SystemTime) {
        for (id, name) in self.intents.left(present, now) {
            match self.change(&id, |_| {}) {
                Ok(()) => self.intents.settled(&name),
                Err(error) => tracing::error!(%error, image = name, "cannot record that an image was pulled"),
            }
        }
    }

    fn forget_all_but(&self, present: &[Image], at: SystemTime) {
        let _changing = self.changing.lock();
        let kept: HashSet<String> = present.iter().map(|image| file_name(&image.id)).collect();
        let written = |file: &fs::DirEntry| file.metadata().and_then(|m| m.modified());
        for file in fs::read_dir(self.dir.join("pulled")).into_iter().flatten().flatten() {
            if !file.file_name().to_str().is_some_and(|name| kept.contains(name))
                && written(&file).is_ok_and(|written| written < at)
                && let Err(error) = fs::remove_file(file.path())
            {
                tracing::warn!(%error, "cannot remove the record of an image");
            }
        }
    }

    /// Whether the policy asks for credentials.
    fn verifies(&self, name: &str, pulled: bool) -> bool {
        let listed = |pattern: &String| match pattern.strip_suffix("/*") {
            Some(path) => name.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')),
            None => full_name(pattern) == name,
        };
        match self.policy {
            Policy::NeverVerify => false,
            Policy::NeverVerifyPreloadedImages => pulled,
            Policy::NeverVerifyAllowlistedImages => !self.allowlist.iter().any(listed),
            Policy::AlwaysVerify => true,
        }
    }

    /// Changes a record and writes it, also where nothing is new: then it is of now, and [`Self::prune`] keeps it.
    fn change(&self, id: &str, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let _changing = self.changing.lock();
        // A record that cannot be read is written anew: fewer pods may use the image, not more.
        let known = self.read(id).unwrap_or_default();
        let mut record = known.unwrap_or_else(|| Record {
            api_version: API_VERSION.into(),
            kind: "ImagePulledRecord".into(),
            last_updated_time: String::new(),
            image_ref: id.into(),
            credential_mapping: BTreeMap::new(),
        });
        change(&mut record);
        record.last_updated_time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        write(&self.dir.join("pulled"), &file_name(id), &serde_json::to_vec(&record)?)
    }

    fn read(&self, id: &str) -> io::Result<Option<Record>> {
        match fs::read(self.dir.join("pulled").join(file_name(id))) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Record {
    fn grant(&mut self, image: &str, used: Option<&Entry>) {
        self.credential_mapping.entry(full_name(image)).or_default().add(used);
    }
}

impl Granted {
    /// Whether credentials are among those that admit: the same secret, the same content of another, the same account.
    pub fn admits(&self, entry: &Entry) -> bool {
        match &entry.source {
            Source::Node => false,
            Source::Secret(secret) => self.kubernetes_secrets.iter().any(|known| {
                known.is(secret) && self.kubernetes_secrets.len() < REMEMBERED_MAX
                    || known.credential_hash == secret.credential_hash
            }),
            Source::ServiceAccount(account) => self.kubernetes_service_accounts.iter().any(|known| known.is(account)),
        }
    }

    /// Adds credentials; whether that changed anything.
    fn add(&mut self, used: Option<&Entry>) -> bool {
        if self.node_pods_accessible {
            return false;
        }
        let put = |list: &mut Vec<Holder>, holder: &Holder| {
            if list.contains(holder) {
                return false;
            }
            list.retain(|known| !known.is(holder));
            list.push(holder.clone());
            list.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
            true
        };
        match used.map(|entry| &entry.source) {
            None | Some(Source::Node) => {
                *self = Self { node_pods_accessible: true, ..Self::default() };
                true
            }
            Some(Source::Secret(secret)) => put(&mut self.kubernetes_secrets, secret),
            Some(Source::ServiceAccount(account)) => put(&mut self.kubernetes_service_accounts, account),
        }
    }
}

/// The name of a file for a name that may hold slashes.
pub(super) fn file_name(of: &str) -> String {
    format!("sha256-{}", hash(of.as_bytes()))
}

/// SHA-256 in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file, on disk and whole when this returns: a lost one would open its image to all.
pub(super) fn write(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = dir.join(format!("{name}.{}.tmp", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(name))
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
#[path = "pulls_tests.rs"]
mod tests;
