//! The store: directories, locks, the index, holds and garbage collection.

use crate::config::{ConfigBlob, ImageInfo};
use crate::error::{Error, Result};
use crate::reference::{Reference, is_digest, is_hex};
use crate::registry::Registry;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The image store of a machine; any number of processes may open the same directory.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) registry: Arc<Registry>,
}

/// How a store reaches registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of `<host>/hosts.toml` files as containerd has them; need not exist.
    pub certs_dir: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options { certs_dir: "/etc/sagong/certs.d".into() }
    }
}

/// `index.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// By image id.
    pub images: BTreeMap<String, Record>,
}

/// An image of the index.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// `docker.io/library/busybox:latest`
    pub names: BTreeSet<String>,
    /// `docker.io/library/busybox@sha256:…`
    pub digests: BTreeSet<String>,
    /// Digest of the manifest, where there is one.
    pub manifest: Option<String>,
    /// ChainIDs, lowest first.
    pub layers: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
}

impl Index {
    /// The id a name, digest or id means.
    pub fn find(&self, text: &str) -> Result<Option<String>> {
        let id = if is_hex(text, 64) { format!("sha256:{text}") } else { text.to_owned() };
        if is_digest(&id) {
            return Ok(self.images.contains_key(&id).then_some(id));
        }
        let reference = Reference::parse(text)?;
        let found = match &reference.digest {
            Some(digest) => {
                let name = format!("{}@{digest}", reference.repository());
                self.images.iter().find(|(_, image)| image.digests.contains(&name))
            }
            None => {
                let name = reference.to_string();
                self.images.iter().find(|(_, image)| image.names.contains(&name))
            }
        };
        Ok(found.map(|(id, _)| id.clone()))
    }
}

/// How long the beginning of a layer waits for the pull to be tried again.
const PARTIAL_KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// Opens a store, making it if need be, and removes what dead processes left in `tmp/`.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Arc<Store>> {
        Store::open_with(dir, Options::default())
    }

    /// As [`Store::open`], with options.
    pub fn open_with(dir: impl Into<PathBuf>, options: Options) -> Result<Arc<Store>> {
        let store = Store { dir: dir.into(), registry: Registry::new(options.certs_dir) };
        for name in ["blobs/sha256", "layers", "holds", "partial", "tmp"] {
            let path = store.dir.join(name);
            fs::create_dir_all(&path).map_err(Error::io(format!("make {path:?}")))?;
        }
        let _lock = store.lock("lock", FlockOperation::LockExclusive)?;
        store.remove_stale()?;
        store.remove_old_partials()?;
        Ok(Arc::new(store))
    }

    /// The image a name, digest or id means, with the paths of its layers.
    pub fn image(&self, text: &str) -> Result<ImageInfo> {
        let index = self.index()?;
        let id = index.find(text)?.ok_or_else(|| Error::NotFound(text.to_owned()))?;
        self.info(&id, &index.images[&id])
    }

    /// Like [`Store::image`], and keeps the layers until [`Store::release`], also when the image is removed.
    ///
    /// `owner` is the node, `container` unique within it; holding again replaces.
    pub fn hold(&self, owner: &str, container: &str, image: &str) -> Result<ImageInfo> {
        let path = self.hold_path(owner, container)?;
        let _lock = self.lock("lock", FlockOperation::LockExclusive)?;
        let index = self.index()?;
        let id = index.find(image)?.ok_or_else(|| Error::NotFound(image.to_owned()))?;
        let record = &index.images[&id];
        fs::create_dir_all(self.dir.join("holds").join(owner)).map_err(Error::io(format!("make {path:?}")))?;
        self.write(&path, record.layers.join("\n").as_bytes(), false)?;
        self.info(&id, record)
    }

    /// Ends a hold; idempotent. Layers of removed images go with their last hold.
    pub fn release(&self, owner: &str, container: &str) -> Result<()> {
        let path = self.hold_path(owner, container)?;
        let Some(layers) = optional(fs::read_to_string(&path), &path)? else { return Ok(()) };
        remove_file(&path)?;
        let index = self.index()?;
        let known: BTreeSet<&str> =
            index.images.values().flat_map(|image| image.layers.iter().map(String::as_str)).collect();
        if layers.lines().any(|layer| !known.contains(layer)) {
            self.collect()?;
        }
        Ok(())
    }

    /// Ends the holds of an owner whose container `keep` does not know; for a restarted node.
    pub fn retain(&self, owner: &str, keep: impl Fn(&str) -> bool) -> Result<()> {
        for container in list(&self.dir.join("holds").join(owner))? {
            if !keep(&container) {
                self.release(owner, &container)?;
            }
        }
        Ok(())
    }

    /// Removes an image with all its names; idempotent. Layers a container holds stay until it lets go.
    pub fn remove(&self, text: &str) -> Result<()> {
        {
            let _lock = self.lock("lock", FlockOperation::LockExclusive)?;
            let mut index = self.index()?;
            let Some(id) = index.find(text)? else { return Ok(()) };
            index.images.remove(&id);
            self.write_index(&index)?;
        }
        self.collect()
    }

    /// Takes one name from an image that has others, else removes it; what was removed, `None`: there was nothing.
    pub fn untag(&self, text: &str) -> Result<Option<String>> {
        {
            let _lock = self.lock("lock", FlockOperation::LockExclusive)?;
            let mut index = self.index()?;
            let Some(id) = index.find(text)? else { return Ok(None) };
            let name = Reference::parse(text).ok().filter(|r| r.digest.is_none()).and_then(|r| r.tagged());
            let record = index.images.get_mut(&id);
            if let (Some(name), Some(record)) = (name, record)
                && record.names.len() > 1
                && record.names.remove(&name)
            {
                self.write_index(&index)?;
                return Ok(Some(name));
            }
        }
        self.remove(text)?;
        Ok(Some(text.to_owned()))
    }

    /// Removes the images that no container of any node holds; returns their names (or ids) and the bytes freed.
    pub fn prune(&self) -> Result<(Vec<String>, u64)> {
        let mut gone = Vec::new();
        let before = self.layer_bytes()?;
        {
            // Imports write the index under the same lock: none can name a layer meanwhile that goes below.
            let _lock = self.lock("lock", FlockOperation::LockExclusive)?;
            let (mut index, held) = (self.index()?, self.held()?);
            index.images.retain(|id, image| {
                let used = image.layers.last().is_some_and(|top| held.contains(top));
                if !used && image.names.is_empty() {
                    gone.push(id.clone());
                } else if !used {
                    gone.extend(image.names.iter().cloned());
                }
                used
            });
            self.write_index(&index)?;
        }
        self.collect()?;
        Ok((gone, before.saturating_sub(self.layer_bytes()?)))
    }

    fn layer_bytes(&self) -> Result<u64> {
        let names = list(&self.dir.join("layers"))?;
        let size = |name: &String| fs::read_to_string(self.layer(name).join("size")).ok()?.parse::<u64>().ok();
        Ok(names.iter().filter_map(size).sum())
    }

    /// Removes layers and blobs that no image names and no container holds; waits for running imports.
    pub fn collect(&self) -> Result<()> {
        let _import = self.lock("import.lock", FlockOperation::LockExclusive)?;
        let _lock = self.lock("lock", FlockOperation::LockExclusive)?;
        let index = self.index()?;
        let mut layers = self.held()?;
        layers.extend(index.images.values().flat_map(|image| image.layers.iter().cloned()));
        for name in list(&self.dir.join("layers"))? {
            if !layers.contains(&name) {
                self.discard(&self.dir.join("layers").join(name))?;
            }
        }
        let blobs: BTreeSet<&str> = index
            .images
            .iter()
            .flat_map(|(id, image)| [Some(id.as_str()), image.manifest.as_deref()])
            .flatten()
            .collect();
        for name in list(&self.dir.join("blobs/sha256"))? {
            if !blobs.contains(format!("sha256:{name}").as_str()) {
                remove_file(&self.dir.join("blobs/sha256").join(name))?;
            }
        }
        Ok(())
    }

    /// ChainIDs of the layers that containers of all nodes hold.
    pub(crate) fn held(&self) -> Result<BTreeSet<String>> {
        let mut layers = BTreeSet::new();
        for owner in list(&self.dir.join("holds"))? {
            let owner = self.dir.join("holds").join(owner);
            for container in list(&owner)? {
                let path = owner.join(container);
                let held = optional(fs::read_to_string(&path), &path)?.unwrap_or_default();
                layers.extend(held.lines().map(str::to_owned));
            }
        }
        Ok(layers)
    }

    pub(crate) fn info(&self, id: &str, record: &Record) -> Result<ImageInfo> {
        let blob = self.config(id)?;
        let layers = record.layers.iter().rev().map(|layer| self.layer(layer).join("fs")).collect();
        Ok(ImageInfo {
            id: id.to_owned(),
            config: blob.image_config(),
            layers,
            size: record.size,
            names: record.names.iter().cloned().collect(),
            digests: record.digests.iter().cloned().collect(),
        })
    }

    pub(crate) fn config(&self, id: &str) -> Result<ConfigBlob> {
        let path = self.blob(id);
        let bytes = fs::read(&path).map_err(Error::io(format!("read {path:?}")))?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::archive(path.display(), format!("is damaged ({e}): remove the image and load it again"))
        })
    }

    pub(crate) fn layer(&self, chain: &str) -> PathBuf {
        self.dir.join("layers").join(chain)
    }

    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    pub(crate) fn index(&self) -> Result<Index> {
        let path = self.dir.join("index.json");
        match optional(fs::read(&path), &path)? {
            None => Ok(Index::default()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::archive(path.display(), format!("is damaged ({e}): remove it and load the images again"))
            }),
        }
    }

    pub(crate) fn write_index(&self, index: &Index) -> Result<()> {
        let bytes = serde_json::to_vec(index).map_err(|e| Error::io("encode the index")(e.into()))?;
        self.write(&self.dir.join("index.json"), &bytes, true)
    }

    /// Writes a file by rename; `durable` waits for the disk.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
        let temporary = self.temporary();
        let written = (|| {
            let mut file = File::create_new(&temporary)?;
            file.write_all(bytes)?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(&temporary, path)?;
            match path.parent() {
                Some(parent) if durable => File::open(parent)?.sync_all(),
                _ => Ok(()),
            }
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(Error::io(format!("write {path:?}")))
    }

    /// A name in `tmp/` nobody else uses.
    pub(crate) fn temporary(&self) -> PathBuf {
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        self.dir.join("tmp").join(format!("{at:x}-{}-{count}", std::process::id()))
    }

    /// Takes a lock of the store; it ends with the file returned.
    pub(crate) fn lock(&self, name: &str, how: FlockOperation) -> Result<File> {
        let path = self.dir.join(name);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(Error::io(format!("open {path:?}")))?;
        loop {
            match rustix::fs::flock(&file, how) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io(format!("lock {path:?}"))(e.into())),
            }
        }
    }

    /// Moves a directory out of sight first, so that nobody sees half of it.
    fn discard(&self, path: &Path) -> Result<()> {
        let gone = self.temporary();
        match fs::rename(path, &gone).and_then(|()| cri::remove_tree(&gone)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(format!("remove {path:?}"))(e)),
            _ => Ok(()),
        }
    }

    fn hold_path(&self, owner: &str, container: &str) -> Result<PathBuf> {
        for part in [owner, container] {
            if part.is_empty() || part.starts_with('.') || part.contains('/') {
                return Err(Error::io(format!("use {part:?} as the name of a hold"))(ErrorKind::InvalidInput.into()));
            }
        }
        Ok(self.dir.join("holds").join(owner).join(container))
    }

    /// Removes what pulls began long ago and nobody went on with.
    fn remove_old_partials(&self) -> Result<()> {
        for name in list(&self.dir.join("partial"))? {
            let path = self.dir.join("partial").join(name);
            let changed = fs::metadata(&path).and_then(|m| m.modified()).ok();
            if changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > PARTIAL_KEPT) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes leftovers in `tmp/`; directories in use are locked by their process. Call under `lock`.
    fn remove_stale(&self) -> Result<()> {
        for name in list(&self.dir.join("tmp"))? {
            let path = self.dir.join("tmp").join(name);
            let Ok(file) = File::open(&path) else { continue };
            let is_dir = file.metadata().is_ok_and(|m| m.is_dir());
            if is_dir && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let removed = if is_dir { cri::remove_tree(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(?path, %error, "cannot remove a leftover of an earlier import");
            }
        }
        Ok(())
    }
}

fn optional<T>(result: std::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("read {path:?}"))(e)),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(format!("remove {path:?}"))(e)),
        _ => Ok(()),
    }
}

/// Names in a directory; none if there is no directory.
fn list(dir: &Path) -> Result<Vec<String>> {
    let Some(entries) = optional(fs::read_dir(dir), dir)? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(format!("read {dir:?}")))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}
