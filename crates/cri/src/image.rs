//! `ImageService`: images of the node.

use crate::Result;
use async_trait::async_trait;

/// An image of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// Config digest, `sha256:…`.
    pub id: String,
    /// `docker.io/library/busybox:1.37`, normalised.
    pub repo_tags: Vec<String>,
    /// `docker.io/library/busybox@sha256:…`
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// `User` of the image's configuration as an id.
    pub uid: Option<i64>,
    /// `User` of the image's configuration as a name.
    pub username: String,
    /// Never garbage collected.
    pub pinned: bool,
}

/// Credentials of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// Identity token instead of a password.
    pub identity_token: String,
    /// Bearer token instead of both.
    pub registry_token: String,
}

/// Images.
#[async_trait]
pub trait ImageService: Send + Sync {
    /// All images.
    async fn list_images(&self) -> Result<Vec<Image>>;
    /// The image a reference (name, tag, digest or id) means; `None` when the node lacks it.
    async fn image_status(&self, image: &str) -> Result<Option<Image>>;
    /// Fetches an image, returning its id.
    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Result<String>;
    /// Removes an image by any reference; idempotent.
    async fn remove_image(&self, image: &str) -> Result<()>;
    /// Bytes used by images.
    async fn image_fs_bytes(&self) -> Result<u64>;
    /// File system of images; `None` where the service does not tell.
    async fn image_fs(&self) -> Result<Option<crate::FilesystemUsage>> {
        Ok(None)
    }
    /// Directories that are the layers of an image, the lowest first, for a read-only view of its files; kept until
    /// [`Self::release_image`]. `None`: the service cannot.
    async fn hold_image(&self, _owner: &str, _holder: &str, _image: &str) -> Result<Option<Vec<std::path::PathBuf>>> {
        Ok(None)
    }
    /// Ends a hold; idempotent.
    async fn release_image(&self, _owner: &str, _holder: &str) -> Result<()> {
        Ok(())
    }
}
