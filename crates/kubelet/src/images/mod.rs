//! Images of containers: pull policies, pulls with back-off, credentials.

pub mod credential_provider;
mod intents;
pub mod keyring;
pub mod pulls;
pub mod reference;
mod service_account;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::events::{EventType, Recorder, reason};
use crate::format::{duration, quote};
use crate::pod::PodExt;
use api::k8s::core::v1::{Container, Pod, Secret};
use credential_provider::CredentialProviders;
use cri::{Image, ImageService};
use keyring::Entry;
use parking_lot::Mutex;
use pulls::{Access, PullRecords};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// Why a container has no image: the waiting state's reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageError {
    /// `ErrImagePull`, `ImagePullBackOff`, …
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// When to try again, where that is known.
    pub retry_at: Option<SystemTime>,
}

/// How long `ErrImagePull` is shown before the back-off is.
const SHOWN: Duration = Duration::from_secs(5);

/// For whom an image is.
struct About<'a> {
    pod: &'a Pod,
    container: Option<&'a Container>,
}

/// Sees to it that images are there.
pub struct ImageManager {
    service: Arc<dyn ImageService>,
    recorder: Recorder,
    backoff: Backoff,
    last_error: Mutex<HashMap<String, String>>,
    providers: CredentialProviders,
    records: Arc<PullRecords>,
    /// Turns to pull, where not all may at once.
    turns: Option<Semaphore>,
}

impl ImageManager {
    /// Makes a manager of a node's images.
    pub fn new(config: &Config, recorder: Recorder) -> Self {
        let settings = &config.settings;
        let parallel = settings.max_parallel_image_pulls.map(|n| usize::try_from(n).unwrap_or(usize::MAX).max(1));
        let parallel = if settings.serialize_image_pulls { Some(1) } else { parallel };
        Self {
            service: config.images.clone(),
            recorder,
            backoff: Backoff::default(),
            last_error: Mutex::default(),
            providers: CredentialProviders::new(config.credential_provider.as_ref(), config.client.clone()),
            records: PullRecords::open(&config.root_dir, settings),
            turns: parallel.map(|n| Semaphore::new(n.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// The credentials that a pod has for an image, the best first.
    async fn credentials(&self, pod: &Pod, image: &str, secrets: &[Arc<Secret>]) -> Vec<Entry> {
        let mut entries = keyring::of_secrets(secrets);
        entries.extend(self.providers.get(pod, image).await);
        keyring::find(&entries, image)
    }

    /// Pulls with each of the credentials until one works; without any, anonymously.
    async fn pull_with_any(&self, pod: &Pod, image: &str, secrets: &[Arc<Secret>]) -> cri::Result<String> {
        let (intent, before) = self.intend(image).await?;
        let credentials = self.credentials(pod, image, secrets).await;
        let (mut result, mut used, mut tried) = (Err(cri::Error::Internal(String::new())), None, Vec::new());
        for entry in credentials.iter().map(Some).chain(credentials.is_empty().then_some(None)) {
            // Several secrets may hold the same: the registry's answer would be the same too.
            let auth = entry.map(|entry| &entry.auth);
            if tried.contains(&auth) {
                continue;
            }
            tried.push(auth);
            used = entry;
            result = self.service.pull_image(image, auth.cloned()).await;
            if result.is_ok() {
                break;
            }
        }
        match &result {
            // What the runtime calls the image here may be another name of it than its id.
            Ok(reference) => match self.service.image_status(reference).await {
                Ok(Some(found)) => self.records.pulled(intent, image, &found.id, used).await,
                _ => drop(intent),
            },
            Err(cri::Error::Image { .. }) if !self.has_come(image, before.as_deref()).await => intent.end(),
            // It may have come all the same, or come yet.
            Err(_) => drop(intent),
        }
        result
    }

    /// Whether another image than before has a name, as far as one can tell.
    async fn has_come(&self, image: &str, before: Option<&str>) -> bool {
        match self.service.image_status(image).await {
            Ok(found) => found.is_some_and(|found| before != Some(found.id.as_str())),
            Err(_) => true,
        }
    }

    /// Notes that a pull begins, after those of the name that were cut off are settled; gives the id of the image that has
    /// the name now, too.
    async fn intend(&self, image: &str) -> cri::Result<(intents::Intent, Option<String>)> {
        if self.records.is_left(image) {
            self.records.settle(self.service.list_images().await?).await;
        }
        let before = self.service.image_status(image).await?.map(|found| found.id);
        let failed = |error| cri::Error::Internal(format!("failed to record image pull intent: {error}"));
        Ok((self.records.intend(image, before.clone()).await.map_err(failed)?, before))
    }

    /// Whether a pod may use an image that is here without pulling it.
    async fn may_use(&self, pod: &Pod, image: &str, found: &Image, secrets: &[Arc<Secret>]) -> bool {
        let granted = match self.records.access(image, found) {
            Access::All => return true,
            Access::Holders(granted) => granted,
        };
        let credentials = self.credentials(pod, image, secrets).await;
        let admitted = credentials.iter().find(|entry| granted.admits(entry));
        if let Some(entry) = admitted {
            self.records.used(image, &found.id, &granted, entry).await;
        }
        admitted.is_some()
    }

    /// Forgets with whose credentials images were pulled that were gone at a time, and settles pulls that were cut off.
    pub async fn prune(&self, present: &[Image], at: SystemTime) {
        self.records.prune(present, at).await;
    }

    /// Makes an image present as its container's pull policy says.
    pub async fn ensure(&self, pod: &Pod, container: &Container, secrets: &[Arc<Secret>]) -> Result<Image, ImageError> {
        let image = container.image.as_deref().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or_else(|| reference::default_policy(image));
        self.present(&About { pod, container: Some(container) }, image, policy, secrets).await
    }

    /// The same for an image volume.
    pub async fn ensure_volume(
        &self,
        pod: &Pod,
        image: &str,
        policy: &str,
        secrets: &[Arc<Secret>],
    ) -> Result<Image, ImageError> {
        self.present(&About { pod, container: None }, image, policy, secrets).await
    }

    fn tell(&self, about: &About<'_>, kind: EventType, reason: &str, message: impl Into<String>) {
        match about.container {
            Some(container) => self.recorder.container(about.pod, container, kind, reason, message),
            None => self.recorder.pod(about.pod, kind, reason, message),
        }
    }

    async fn present(
        &self,
        about: &About<'_>,
        image: &str,
        policy: &str,
        secrets: &[Arc<Secret>],
    ) -> Result<Image, ImageError> {
        let warn = |reason: &str, message: &str| self.tell(about, EventType::Warning, reason, message);
        if let Err(why) = reference::validate(image) {
            let message = format!(
                "Failed to apply default image tag {}: couldn't parse image name {}: {why}",
                quote(image),
                quote(image)
            );
            warn(reason::INSPECT_FAILED, &message);
            return Err(ImageError { reason: "InvalidImageName", message, retry_at: None });
        }
        if policy != "Always" {
            match self.service.image_status(image).await {
                Ok(Some(found)) if self.may_use(about.pod, image, &found, secrets).await => {
                    let message = format!(
                        "Container image {} already present on machine and can be accessed by the pod",
                        quote(image)
                    );
                    self.tell(about, EventType::Normal, reason::PULLED, message);
                    return Ok(found);
                }
                // Whether an image is here is not for those who may not use it.
                Ok(_) if policy == "Never" => {
                    let message = format!("Container image {} is not present with pull policy of Never", quote(image));
                    warn(reason::ERR_IMAGE_NEVER_PULL, &message);
                    return Err(ImageError { reason: "ErrImageNeverPull", message, retry_at: None });
                }
                Ok(_) => {}
                Err(error) => {
                    let message = format!("Failed to inspect image \"\": {error}");
                    warn(reason::INSPECT_FAILED, &message);
                    return Err(ImageError { reason: "ImageInspectError", message, retry_at: None });
                }
            }
        }
        self.pull(about, image, secrets).await
    }

    async fn pull(&self, about: &About<'_>, image: &str, secrets: &[Arc<Secret>]) -> Result<Image, ImageError> {
        let key = format!("{}_{image}", about.pod.uid());
        if let Some((_, retry_at)) = self.backoff.since_update(&key, SystemTime::now()) {
            let mut message = format!("Back-off pulling image {}", quote(image));
            self.tell(about, EventType::Normal, reason::BACK_OFF, message.clone());
            if let Some(last) = self.last_error.lock().get(&key) {
                message = format!("{message}: {last}");
            }
            return Err(ImageError { reason: "ImagePullBackOff", message, retry_at: Some(retry_at) });
        }
        self.last_error.lock().remove(&key);
        self.tell(about, EventType::Normal, reason::PULLING, format!("Pulling image {}", quote(image)));
        let asked = Instant::now();
        let turn = match &self.turns {
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        let started = Instant::now();
        let pulled = match self.pull_with_any(about.pod, image, secrets).await {
            Ok(id) => self.service.image_status(&id).await.and_then(|found| found.ok_or(cri::Error::NotFound(id))),
            Err(error) => Err(error),
        };
        match pulled {
            Ok(found) => {
                drop(turn);
                let since = |at: Instant| {
                    duration(Duration::from_millis(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)))
                };
                let (took, all) = (since(started), since(asked));
                let message = format!(
                    "Successfully pulled image {} in {took} ({all} including waiting). Image size: {} bytes.",
                    quote(image),
                    found.size
                );
                self.tell(about, EventType::Normal, reason::PULLED, message);
                self.backoff.reset(&key);
                Ok(found)
            }
            Err(error) => {
                let message = format!("Failed to pull image {}: {error}", quote(image));
                self.tell(about, EventType::Warning, reason::FAILED, message);
                let now = SystemTime::now();
                self.backoff.next(&key, now);
                let reason = match &error {
                    cri::Error::Image { reason, .. } => *reason,
                    _ => "ErrImagePull",
                };
                let message = error.to_string();
                self.last_error.lock().insert(key.clone(), format!("{reason}: {message}"));
                // The next sync meets the back-off: that turns ErrImagePull into ImagePullBackOff.
                Err(ImageError { reason, message, retry_at: Some(now + SHOWN) })
            }
        }
    }

    /// Forgets a pod's failures.
    pub fn release(&self, pod_uid: &str) {
        let prefix = format!("{pod_uid}_");
        self.backoff.release(&prefix);
        self.providers.release(pod_uid);
        self.last_error.lock().retain(|key, _| !key.starts_with(&prefix));
    }
}
