//! Importing an archive: all of it or nothing.

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::manifest::{self, Candidate, LayerSource};
use crate::reference::Reference;
use crate::store::{Record, Store};
use crate::stream::{self, Bounded, Hashing};
use crate::temporary::{Temporary, open_dir};
use crate::unpack;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LAYER_ENTRIES: usize = 4 << 20;
const LAYER_BYTES: u64 = 128 << 30;
const LAYER_TIME: Duration = Duration::from_secs(30 * 60);

impl Store {
    /// Imports every image of a docker archive or OCI layout (file or directory); returns their names,
    /// or ids where they have none. Blocks; on error nothing of the archive stays.
    pub fn import(&self, path: &Path) -> Result<Vec<String>> {
        let run = || self.import_archive(Archive::open(path, &self.dir.join("tmp"))?);
        run().map_err(|e| e.name_full_disk(&self.dir))
    }

    /// Imports a layout whose blobs may lack what the store has; false if `complete`, asked when nothing
    /// can be removed any more, says that something else is missing.
    pub(crate) fn import_layout(&self, name: &str, path: &Path, complete: impl Fn(&Store) -> bool) -> Result<bool> {
        let _import = self.lock("import.lock", FlockOperation::LockShared)?;
        if !complete(self) {
            return Ok(false);
        }
        let mut archive = Archive::open(path, &self.dir.join("tmp"))?;
        archive.name = name.to_owned();
        self.import_archive(archive).map(|_| true)
    }

    /// As [`Store::import`], from a stream; `name` is used in error texts.
    pub fn import_reader(&self, name: &str, source: impl Read) -> Result<Vec<String>> {
        let run = || self.import_archive(Archive::spool(name.to_owned(), source, &self.dir.join("tmp"))?);
        run().map_err(|e| e.name_full_disk(&self.dir))
    }

    fn import_archive(&self, archive: Archive) -> Result<Vec<String>> {
        let _import = self.lock("import.lock", FlockOperation::LockShared)?;
        let candidates = manifest::read(&archive)?;
        let mut workspace = Workspace::new(self)?;
        let mut images = Vec::new();
        for candidate in candidates {
            let layers = workspace.layers(&archive, &candidate)?;
            images.push((candidate, layers));
        }
        workspace.commit(images)
    }
}

/// Where layers wait until the whole archive is unpacked.
struct Workspace<'a> {
    store: &'a Store,
    dir: Temporary,
    /// Bytes of the new layers by chainID.
    fresh: BTreeMap<String, u64>,
}

impl<'a> Workspace<'a> {
    fn new(store: &'a Store) -> Result<Self> {
        Ok(Workspace { store, dir: Temporary::new(store)?, fresh: BTreeMap::new() })
    }

    /// Unpacks the layers the store lacks; returns all chainIDs, lowest first.
    fn layers(&mut self, archive: &Archive, image: &Candidate) -> Result<Vec<String>> {
        let mut chains: Vec<String> = Vec::new();
        for layer in &image.layers {
            let chain = chain_id(chains.last(), &layer.diff_id);
            if !self.fresh.contains_key(&chain) && !self.store.layer(&chain).exists() {
                let size = self.unpack(archive, layer, &chain, &chains)?;
                self.fresh.insert(chain.clone(), size);
            }
            chains.push(chain);
        }
        Ok(chains)
    }

    fn unpack(&self, archive: &Archive, layer: &LayerSource, chain: &str, below: &[String]) -> Result<u64> {
        let what = format!("{}, layer {}", archive.name, layer.diff_id);
        let root = self.dir.path.join(chain).join("fs");
        let mut parents = Vec::new();
        for parent in below.iter().rev() {
            let path = self.place(parent).join("fs");
            parents.push(open_dir(&path).map_err(Error::io(format!("open {path:?}")))?);
        }
        fs::create_dir_all(&root).map_err(Error::io(format!("make {root:?}")))?;
        let root = open_dir(&root).map_err(Error::io(format!("open {root:?}")))?;
        if let Some(lower) = parents.first() {
            copy_attributes(lower, &root).map_err(Error::io("copy the root directory's attributes"))?;
        }
        let member = archive.member(&layer.path)?;
        let member =
            member.ok_or_else(|| Error::archive(&what, format!("lacks {:?}: save the image again", layer.path)))?;
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::InvalidData => Error::archive(&what, e),
            _ => Error::io(format!("unpack {what}"))(e),
        };
        let mut raw = Hashing::new(member);
        let plain = stream::decompress(&mut raw, &what)?;
        let mut plain = Hashing::new(Bounded::new(plain, LAYER_BYTES, Instant::now() + LAYER_TIME));
        let size = unpack::unpack(&mut plain, root.as_fd(), &parents, LAYER_ENTRIES, LAYER_BYTES).map_err(failed)?;
        let diff_id = plain.finish().map_err(failed)?;
        let mut found = vec![(diff_id, layer.diff_id.as_str())];
        if let Some(digest) = &layer.digest {
            found.push((raw.finish().map_err(failed)?, digest));
        }
        match found.into_iter().find(|(actual, expect)| actual != expect) {
            Some((actual, _)) => {
                Err(Error::archive(&what, format!("has the digest {actual}: it was altered or damaged")))
            }
            None => Ok(size),
        }
    }

    fn place(&self, chain: &str) -> PathBuf {
        if self.fresh.contains_key(chain) { self.dir.path.join(chain) } else { self.store.layer(chain) }
    }

    /// Makes everything durable, then visible, under the store's lock.
    fn commit(mut self, images: Vec<(Candidate, Vec<String>)>) -> Result<Vec<String>> {
        for (chain, size) in &self.fresh {
            let path = self.dir.path.join(chain).join("size");
            fs::write(&path, size.to_string()).map_err(Error::io(format!("write {path:?}")))?;
        }
        rustix::fs::syncfs(&self.dir.handle)
            .map_err(|e| Error::io(format!("write {:?} to the disk", self.store.dir))(e.into()))?;
        let _lock = self.store.lock("lock", FlockOperation::LockExclusive)?;
        for chain in std::mem::take(&mut self.fresh).into_keys() {
            let (from, to) = (self.dir.path.join(&chain), self.store.layer(&chain));
            // Another process may have unpacked the same layer meanwhile.
            if !to.exists() {
                fs::rename(&from, &to).map_err(Error::io(format!("rename {from:?} to {to:?}")))?;
            }
        }
        let mut index = self.store.index()?;
        let mut names = Vec::new();
        for (image, layers) in images {
            self.store.write(&self.store.blob(&image.id), &image.config, true)?;
            if let Some((digest, bytes)) = &image.manifest {
                self.store.write(&self.store.blob(digest), bytes, true)?;
            }
            let tags = tags(&image)?;
            for record in index.images.values_mut() {
                record.names.retain(|name| !tags.contains(name));
            }
            let size = layers.iter().map(|layer| layer_size(&self.store.layer(layer))).sum::<u64>()
                + image.config.len() as u64;
            names.extend(if image.names.is_empty() {
                vec![image.id.clone()]
            } else {
                image.names.iter().cloned().collect()
            });
            name_image(index.images.entry(image.id.clone()).or_default(), image, layers, size)?;
        }
        self.store.write_index(&index)?;
        Ok(names)
    }
}

/// The names of an image without digests, as the index has them.
fn tags(image: &Candidate) -> Result<BTreeSet<String>> {
    let parsed = image.names.iter().map(|name| Ok(Reference::parse(name)?.tagged()));
    Ok(parsed.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn name_image(record: &mut Record, image: Candidate, layers: Vec<String>, size: u64) -> Result<()> {
    (record.layers, record.size) = (layers, size);
    let manifest = image.manifest.as_ref().map(|(digest, _)| digest);
    for name in &image.names {
        let reference = Reference::parse(name)?;
        // What the name was resolved to, an index perhaps, tells more than the manifest it led to.
        let digest = reference.digest.as_ref().or(manifest);
        record.digests.extend(digest.map(|digest| format!("{}@{digest}", reference.repository())));
        record.names.extend(reference.tagged());
    }
    record.manifest = image.manifest.map(|(digest, _)| digest).or(record.manifest.take());
    Ok(())
}

fn layer_size(path: &Path) -> u64 {
    fs::read_to_string(path.join("size")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// OCI's chainID: what a layer is on top of what it was made for.
pub(crate) fn chain_id(below: Option<&String>, diff_id: &str) -> String {
    match below {
        None => diff_id.trim_start_matches("sha256:").to_owned(),
        Some(below) => stream::digest(format!("sha256:{below} {diff_id}").as_bytes())[7..].to_owned(),
    }
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> std::io::Result<()> {
    use rustix::fs::{Gid, Uid};
    let found = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    Ok(rustix::fs::fchmod(to, Mode::from_raw_mode(found.st_mode & 0o7777))?)
}
