//! Images of the node: pull, import, content store and unpacked layers.
//!
//! Flow of an import: archive or directory ([`archive`]) → manifests and configurations, digests
//! checked ([`manifest`]) → each layer decompressed, checked against its diffID and unpacked below
//! a directory handle ([`unpack`]) into `tmp/` → renamed into `layers/<chainID>` and named in
//! `index.json` under the store's lock ([`Store`]).
//!
//! A pull ([`registry`]) writes an OCI layout into `tmp/` and imports that.
//!
//! Layout of a store:
//! ```text
//! blobs/sha256/<hex>       configurations and manifests
//! layers/<chainID>/fs      one unpacked layer: an overlayfs lower directory
//! layers/<chainID>/size    bytes it uses
//! holds/<owner>/<id>       chainIDs a container uses
//! index.json               names → image ids, images → layers
//! partial/<hex>            beginnings of layers whose pull was broken off
//! lock, import.lock, tmp/
//! ```
//!
//! Invariants: every file appears by rename, so readers never see half of one; a directory in
//! `layers/` is complete and synced; several processes may share a store (file locks); nothing an
//! archive says can reach outside the directory its layer is unpacked to.
//!
//! Absent: compressed layers (dropped once unpacked), pushing, images of other platforms.

mod archive;
mod config;
mod error;
mod export;
mod import;
mod manifest;
mod reference;
mod registry;
mod service;
mod store;
mod stream;
mod temporary;
mod unpack;

pub use config::{ImageConfig, ImageInfo};
pub use error::{Error, Result};
pub use reference::Reference;
pub use registry::{Error as RegistryError, PullEvent, system_bundle};
pub use store::{Options, Store};
