//! `cri::ImageService` on the store.

use crate::error::Error;
use crate::registry::PullEvent;
use crate::store::{Record, Store};
use async_trait::async_trait;
use cri::{AuthConfig, Image, ImageService};
use std::path::PathBuf;

impl From<Error> for cri::Error {
    fn from(error: Error) -> cri::Error {
        match &error {
            Error::InvalidName { .. } => cri::Error::Image { reason: "InvalidImageName", message: error.to_string() },
            Error::NotFound(name) => cri::Error::NotFound(format!("image {name:?}")),
            Error::Pull { .. } => cri::Error::Image { reason: "ErrImagePull", message: error.chain() },
            _ => cri::Error::Internal(error.chain()),
        }
    }
}

#[async_trait]
impl ImageService for Store {
    async fn list_images(&self) -> cri::Result<Vec<Image>> {
        self.blocking(|store| {
            let (index, held) = (store.index()?, store.held()?);
            let describe = |(id, record): (&String, &Record)| {
                let mut image = store.describe(id, record)?;
                image.pinned = record.layers.last().is_some_and(|top| held.contains(top));
                Ok(image)
            };
            index.images.iter().map(describe).collect()
        })
        .await
    }

    async fn image_status(&self, image: &str) -> cri::Result<Option<Image>> {
        let image = image.to_owned();
        self.blocking(move |store| {
            let index = store.index()?;
            let Some(id) = index.find(&image)? else { return Ok(None) };
            store.describe(&id, &index.images[&id]).map(Some)
        })
        .await
    }

    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> cri::Result<String> {
        let on_event = |event| match event {
            PullEvent::Resolved { digest } => tracing::debug!(image, digest, "resolved an image"),
            PullEvent::Layer { digest, done, total } if done == total => {
                tracing::debug!(image, digest, total, "fetched a layer");
            }
            PullEvent::Layer { .. } => {}
            PullEvent::Unpacking => tracing::debug!(image, "unpacking an image"),
        };
        Ok(self.pull(image, auth, &on_event).await?)
    }

    async fn remove_image(&self, image: &str) -> cri::Result<()> {
        let image = image.to_owned();
        self.blocking(move |store| store.remove(&image)).await
    }

    async fn image_fs(&self) -> cri::Result<Option<cri::FilesystemUsage>> {
        let used_bytes = self.image_fs_bytes().await?;
        let mountpoint = self.dir.display().to_string();
        Ok(Some(cri::FilesystemUsage { mountpoint, used_bytes, inodes_used: 0 }))
    }

    async fn hold_image(&self, owner: &str, holder: &str, image: &str) -> cri::Result<Option<Vec<PathBuf>>> {
        let (owner, holder, image) = (owner.to_owned(), holder.to_owned(), image.to_owned());
        // Overlayfs wants the uppermost first, as `ImageInfo` has them; the trait wants them as the image does.
        let layers = self.blocking(move |store| store.hold(&owner, &holder, &image)).await?.layers;
        Ok(Some(layers.into_iter().rev().collect()))
    }

    async fn release_image(&self, owner: &str, holder: &str) -> cri::Result<()> {
        let (owner, holder) = (owner.to_owned(), holder.to_owned());
        self.blocking(move |store| store.release(&owner, &holder)).await
    }

    async fn image_fs_bytes(&self) -> cri::Result<u64> {
        self.blocking(|store| {
            let index = store.index()?;
            let mut layers: Vec<&String> = index.images.values().flat_map(|image| &image.layers).collect();
            layers.sort();
            layers.dedup();
            let size =
                |layer: &&String| std::fs::read_to_string(store.layer(layer).join("size")).ok()?.parse::<u64>().ok();
            Ok(layers.iter().filter_map(size).sum())
        })
        .await
    }
}

impl Store {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> cri::Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(|e| cri::Error::Internal(e.to_string()))??)
    }

    fn describe(&self, id: &str, record: &Record) -> Result<Image, Error> {
        let user = self.config(id)?.image_config().user;
        let name = user.split(':').next().unwrap_or_default();
        let uid = name.parse().ok();
        Ok(Image {
            id: id.to_owned(),
            repo_tags: record.names.iter().cloned().collect(),
            repo_digests: record.digests.iter().cloned().collect(),
            size: record.size,
            username: if uid.is_some() { String::new() } else { name.to_owned() },
            uid,
            pinned: false,
        })
    }
}
