//! `ImageService` of our images.

use super::{Answer, Options, answer, missing, now};
use crate::convert::{from_auth, to_filesystem, to_image, to_status};
use cri::FilesystemUsage;
use protos::cri as p;
use protos::cri::image_service_server::ImageService;
use std::sync::Arc;
use tonic::{Request, Response, async_trait};

/// The service.
pub struct Images {
    pub options: Arc<Options>,
}

#[async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<p::ListImagesRequest>) -> Answer<p::ListImagesResponse> {
        let wanted = request.into_inner().filter.and_then(|f| f.image).map(|i| i.image).filter(|i| !i.is_empty());
        let images = match wanted {
            Some(image) => self.options.images.image_status(&image).await.map(|found| found.into_iter().collect()),
            None => self.options.images.list_images().await,
        };
        answer(images, |images: Vec<cri::Image>| p::ListImagesResponse {
            images: images.iter().map(to_image).collect(),
        })
    }

    async fn image_status(&self, request: Request<p::ImageStatusRequest>) -> Answer<p::ImageStatusResponse> {
        let image = request.into_inner().image.ok_or_else(|| missing("image"))?.image;
        let found = self.options.images.image_status(&image).await;
        answer(found, |image| p::ImageStatusResponse { image: image.as_ref().map(to_image), info: Default::default() })
    }

    async fn pull_image(&self, request: Request<p::PullImageRequest>) -> Answer<p::PullImageResponse> {
        let request = request.into_inner();
        let image = request.image.ok_or_else(|| missing("image"))?.image;
        let pulled = self.options.images.pull_image(&image, request.auth.and_then(from_auth)).await;
        answer(pulled, |image_ref| p::PullImageResponse { image_ref })
    }

    async fn remove_image(&self, request: Request<p::RemoveImageRequest>) -> Answer<p::RemoveImageResponse> {
        let image = request.into_inner().image.ok_or_else(|| missing("image"))?.image;
        answer(self.options.images.remove_image(&image).await, |()| p::RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: Request<p::ImageFsInfoRequest>) -> Answer<p::ImageFsInfoResponse> {
        let (images, at) = (&self.options.images, now());
        let layers = || self.options.layers.display().to_string();
        let used = match images.image_fs().await.map_err(to_status)? {
            Some(used) => used,
            None => FilesystemUsage {
                mountpoint: layers(),
                used_bytes: images.image_fs_bytes().await.map_err(to_status)?,
                inodes_used: 0,
            },
        };
        let containers = self.options.runtime.container_fs().await.map_err(to_status)?;
        let containers = containers.unwrap_or_else(|| FilesystemUsage { mountpoint: layers(), ..Default::default() });
        Ok(Response::new(p::ImageFsInfoResponse {
            image_filesystems: vec![to_filesystem(&used, at)],
            container_filesystems: vec![to_filesystem(&containers, at)],
        }))
    }
}
