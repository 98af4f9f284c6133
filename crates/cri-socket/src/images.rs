//! Images behind a CRI socket as [`ImageService`].

use crate::client::{call, timed};
use crate::convert::*;
use async_trait::async_trait;
use cri::{AuthConfig, FilesystemUsage, Image, ImageService, Result};
use protos::cri as p;
use protos::cri::image_service_client::ImageServiceClient;
use protos::socket::{self, MAX_MESSAGE};
use std::path::Path;
use tonic::transport::Channel;

/// The images of the runtime behind a socket.
pub struct RemoteImages(ImageServiceClient<Channel>);

impl RemoteImages {
    /// Connects when it is first used.
    pub fn new(socket: &Path) -> Self {
        Self(ImageServiceClient::new(socket::connect_lazily(socket)).max_decoding_message_size(MAX_MESSAGE))
    }

    async fn filesystems(&self) -> Result<Vec<FilesystemUsage>> {
        let answer = call(self.0.clone().image_fs_info(timed(p::ImageFsInfoRequest {}))).await?;
        Ok(answer.image_filesystems.into_iter().map(from_filesystem).collect())
    }
}

fn spec(image: &str) -> Option<p::ImageSpec> {
    Some(p::ImageSpec { image: image.into(), ..Default::default() })
}

#[async_trait]
impl ImageService for RemoteImages {
    async fn list_images(&self) -> Result<Vec<Image>> {
        let answer = call(self.0.clone().list_images(timed(p::ListImagesRequest::default()))).await?;
        Ok(answer.images.into_iter().map(from_image).collect())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        let request = p::ImageStatusRequest { image: spec(image), verbose: false };
        Ok(call(self.0.clone().image_status(timed(request))).await?.image.map(from_image))
    }

    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Result<String> {
        let request = p::PullImageRequest { image: spec(image), auth: auth.map(to_auth), sandbox_config: None };
        // No deadline: a pull takes as long as it makes progress, which the runtime watches over.
        Ok(call(self.0.clone().pull_image(request)).await?.image_ref)
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        call(self.0.clone().remove_image(timed(p::RemoveImageRequest { image: spec(image) }))).await.map(drop)
    }

    async fn image_fs_bytes(&self) -> Result<u64> {
        Ok(self.filesystems().await?.iter().map(|f| f.used_bytes).sum())
    }

    async fn image_fs(&self) -> Result<Option<FilesystemUsage>> {
        Ok(self.filesystems().await?.into_iter().next())
    }
}
