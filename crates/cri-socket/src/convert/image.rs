//! Images.

use super::to_int;
use cri::{AuthConfig, Image};
use protos::cri as p;

/// An image.
pub fn to_image(from: &Image) -> p::Image {
    p::Image {
        id: from.id.clone(),
        repo_tags: from.repo_tags.clone(),
        repo_digests: from.repo_digests.clone(),
        size: from.size,
        uid: from.uid.map(to_int),
        username: from.username.clone(),
        spec: Some(p::ImageSpec { image: from.id.clone(), ..Default::default() }),
        pinned: from.pinned,
    }
}

/// An image.
pub fn from_image(from: p::Image) -> Image {
    Image {
        id: from.id,
        repo_tags: from.repo_tags,
        repo_digests: from.repo_digests,
        size: from.size,
        uid: from.uid.map(|v| v.value),
        username: from.username,
        pinned: from.pinned,
    }
}

/// Credentials.
pub fn to_auth(from: AuthConfig) -> p::AuthConfig {
    let AuthConfig { username, password, identity_token, registry_token } = from;
    p::AuthConfig { username, password, identity_token, registry_token, ..Default::default() }
}

/// Credentials; empty ones are none.
pub fn from_auth(from: p::AuthConfig) -> Option<AuthConfig> {
    let p::AuthConfig { username, password, identity_token, registry_token, .. } = from;
    let auth = AuthConfig { username, password, identity_token, registry_token };
    (auth != AuthConfig::default()).then_some(auth)
}
