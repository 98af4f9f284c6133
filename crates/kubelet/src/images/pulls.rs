//! With whose credentials the images of this node were pulled (KEP-2535): what needed credentials is given only to pods
//! that hold some of them, or others that the registry takes.
//!
//! The records lie below `image_manager` in the kubelet's directory, in the form upstream's kubelet gives them. An intent is
//! on disk before a pull begins and goes after the record is, so that an image of a pull that was cut off asks for
//! credentials. What has neither was not pulled by this kubelet (it was loaded, say), and is for all pods.

use super::keyring::{Entry, full_name};
use crate::configuration::{ImagePullCredentialsVerificationPolicy as Policy, KubeletConfiguration};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Intent<'a> {
    api_version: &'a str,
    kind: &'a str,
    image: &'a str,
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
    /// Pulls in progress by image; held while files change.
    pulling: Mutex<HashMap<String, usize>>,
}

impl PullRecords {
    /// Uses the records below the kubelet's directory.
    pub fn open(root_dir: &Path, settings: &KubeletConfiguration) -> Self {
        Self {
            dir: root_dir.join("image_manager"),
            policy: settings.image_pull_credentials_verification_policy,
            allowlist: settings.preloaded_images_verification_allowlist.clone(),
            pulling: Mutex::default(),
        }
    }

    /// Says that an image is about to be pulled.
    pub fn intend(&self, image: &str) -> io::Result<()> {
        let mut pulling = self.pulling.lock();
        let intent = Intent { api_version: API_VERSION, kind: "ImagePullIntent", image };
        write(&self.dir.join("pulling"), &file_name(image), &serde_json::to_vec(&intent)?)?;
        *pulling.entry(image.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Says that the pull has failed.
    pub fn failed(&self, image: &str) {
        self.end(&mut self.pulling.lock(), image);
    }

    /// Says that an image was pulled with these credentials, or without any. An intent whose record cannot be written
    /// stays: the image is then nobody's without credentials.
    pub fn pulled(&self, image: &str, id: &str, used: Option<&Entry>) {
        let mut pulling = self.pulling.lock();
        match self.grant(image, id, used) {
            Ok(()) => self.end(&mut pulling, image),
            Err(error) => tracing::error!(%error, image, "cannot record with whose credentials an image was pulled"),
        }
    }

    /// Who may use an image that is here under an id.
    pub fn access(&self, image: &str, id: &str) -> Access {
        let _changing = self.pulling.lock();
        let record = match self.read(id) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, image, "cannot read with whose credentials an image was pulled");
                return Access::Holders(Granted::default());
            }
        };
        let pulled = record.is_some() || self.dir.join("pulling").join(file_name(image)).exists();
        if !self.verifies(&full_name(image), pulled) {
            return Access::All;
        }
        match record.and_then(|mut record| record.credential_mapping.remove(&full_name(image))).unwrap_or_default() {
            Granted { node_pods_accessible: true, .. } => Access::All,
            granted => Access::Holders(granted),
        }
    }

    /// Notes that a pod came with credentials that admit it, where they were not known.
    pub fn used(&self, image: &str, id: &str, granted: &Granted, with: &Entry) {
        let _changing = self.pulling.lock();
        if granted.kubernetes_secrets.len() < REMEMBERED_MAX
            && let Err(error) = self.grant(image, id, Some(with))
        {
            tracing::error!(%error, image, "cannot record who uses an image");
        }
    }

    /// Forgets images that were gone at a time.
    pub fn prune(&self, present: &[cri::Image], at: SystemTime) {
        let _changing = self.pulling.lock();
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

    fn end(&self, pulling: &mut HashMap<String, usize>, image: &str) {
        let left = pulling.get(image).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            pulling.insert(image.to_owned(), left);
            return;
        }
        pulling.remove(image);
        match fs::remove_file(self.dir.join("pulling").join(file_name(image))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, image, "cannot remove the intent of a pull");
            }
            _ => {}
        }
    }

    fn grant(&self, image: &str, id: &str, used: Option<&Entry>) -> io::Result<()> {
        // A record that cannot be read is written anew: fewer pods may use the image, not more.
        let known = self.read(id).unwrap_or_default();
        let mut record = known.unwrap_or_else(|| Record {
            api_version: API_VERSION.into(),
            kind: "ImagePulledRecord".into(),
            last_updated_time: String::new(),
            image_ref: id.into(),
            credential_mapping: BTreeMap::new(),
        });
        let granted = record.credential_mapping.entry(full_name(image)).or_default();
        if granted.add(used) {
            record.last_updated_time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            write(&self.dir.join("pulled"), &file_name(id), &serde_json::to_vec(&record)?)?;
        }
        Ok(())
    }

    fn read(&self, id: &str) -> io::Result<Option<Record>> {
        match fs::read(self.dir.join("pulled").join(file_name(id))) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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
fn file_name(of: &str) -> String {
    format!("sha256-{}", hash(of.as_bytes()))
}

/// SHA-256 in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file, on disk and whole when this returns: a lost one would open its image to all.
fn write(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(temporary, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(uid: &str, content: &str) -> Entry {
        let holder = Holder {
            uid: uid.into(),
            name: "s".into(),
            namespace: "ns".into(),
            credential_hash: hash(content.as_bytes()),
        };
        Entry { source: Source::Secret(holder), ..Entry::default() }
    }

    fn admitted(records: &PullRecords, image: &str, entry: &Entry) -> bool {
        match records.access(image, "sha256:1") {
            Access::All => true,
            Access::Holders(granted) => granted.admits(entry),
        }
    }

    #[test]
    fn images_are_for_those_who_hold_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let records = PullRecords::open(dir.path(), &KubeletConfiguration::default());
        let (own, other) = (secret("1", "a"), secret("2", "b"));
        assert_eq!(records.access("r.io/a:1", "sha256:1"), Access::All, "it was loaded");
        records.intend("r.io/a:1").unwrap();
        assert!(!admitted(&records, "r.io/a:1", &own), "a pull that is not over");
        records.pulled("r.io/a:1", "sha256:1", Some(&own));
        for (image, entry, expect) in [
            ("r.io/a:1", &own, true),
            ("r.io/a:2", &own, true),
            ("r.io/b:1", &own, false),
            ("r.io/a:1", &other, false),
            ("r.io/a:1", &secret("3", "a"), true),
            ("r.io/a:1", &secret("1", "changed"), true),
            ("r.io/a:1", &Entry::default(), false),
        ] {
            assert_eq!(admitted(&records, image, entry), expect, "{image} {entry:?}");
        }
        let again = PullRecords::open(dir.path(), &KubeletConfiguration::default());
        assert!(admitted(&again, "r.io/a:1", &own) && !admitted(&again, "r.io/a:1", &other), "after a restart");
        again.pulled("r.io/a:1", "sha256:1", None);
        assert_eq!(again.access("r.io/a:1", "sha256:1"), Access::All, "it needed no credentials");
        assert!(fs::read_dir(dir.path().join("image_manager/pulling")).unwrap().next().is_none());
        again.prune(&[], SystemTime::UNIX_EPOCH);
        assert_eq!(fs::read_dir(dir.path().join("image_manager/pulled")).unwrap().count(), 1, "pulled since");
        again.prune(&[], SystemTime::now() + std::time::Duration::from_secs(1));
        assert!(fs::read_dir(dir.path().join("image_manager/pulled")).unwrap().next().is_none());
    }

    #[test]
    fn policies() {
        let allowlist = vec!["r.io/team/*".to_owned(), "r.io/one".to_owned()];
        for (policy, name, expect) in [
            (Policy::NeverVerify, "r.io/x", [false, false]),
            (Policy::NeverVerifyPreloadedImages, "r.io/x", [true, false]),
            (Policy::NeverVerifyAllowlistedImages, "r.io/team/a/b", [false, false]),
            (Policy::NeverVerifyAllowlistedImages, "r.io/teams/a", [true, true]),
            (Policy::NeverVerifyAllowlistedImages, "r.io/one", [false, false]),
            (Policy::AlwaysVerify, "r.io/x", [true, true]),
        ] {
            let settings = KubeletConfiguration {
                image_pull_credentials_verification_policy: policy,
                preloaded_images_verification_allowlist: allowlist.clone(),
                ..KubeletConfiguration::default()
            };
            let records = PullRecords::open(Path::new("/nowhere"), &settings);
            assert_eq!([true, false].map(|pulled| records.verifies(name, pulled)), expect, "{policy:?} {name}");
        }
    }

    #[test]
    fn a_pull_that_was_cut_off_asks_for_credentials() {
        let dir = tempfile::tempdir().unwrap();
        PullRecords::open(dir.path(), &KubeletConfiguration::default()).intend("r.io/a:1").unwrap();
        let records = PullRecords::open(dir.path(), &KubeletConfiguration::default());
        assert!(!admitted(&records, "r.io/a:1", &secret("1", "a")));
        assert!(records.access("r.io/other:1", "sha256:1") == Access::All);
    }
}
