//! A pull from reference to image id.

use super::blob;
use super::endpoint::{Endpoint, Failures, attempts};
use super::error::{Error, Result};
use super::hosts;
use crate::config::ConfigBlob;
use crate::error as store_error;
use crate::import::chain_id;
use crate::manifest::{Descriptor, Document, pick};
use crate::reference::{Reference, is_digest};
use crate::store::Store;
use crate::stream;
use crate::temporary::Temporary;
use cri::AuthConfig;
use futures::{FutureExt, StreamExt};
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PULL_HOURS: u64 = 6;
/// containerd's default too.
const DOWNLOADS: usize = 3;
const CONFIG_MAX: u64 = 8 << 20;
/// Compressed, all layers together.
const IMAGE_MAX: u64 = 128 << 30;
const LAYERS_MAX: usize = 500;
const INDEX_DEPTH: usize = 4;
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*";

/// What a pull tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// The reference means this digest.
    Resolved {
        /// `sha256:…` of the index or manifest.
        digest: String,
    },
    /// Bytes of a layer have arrived.
    Layer {
        /// `sha256:…`, compressed.
        digest: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Everything is there and being unpacked.
    Unpacking,
}

/// Called with every [`PullEvent`], from the task that pulls: it must not block.
type OnEvent<'a> = &'a (dyn Fn(PullEvent) + Send + Sync);

impl Store {
    /// Pulls an image and returns its id; of a pull that fails, or is dropped, nothing stays.
    pub async fn pull(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        on_event: OnEvent<'_>,
    ) -> store_error::Result<String> {
        let reference = Reference::parse(image)?;
        let failed = |source: store_error::Error| store_error::Error::Pull {
            reference: reference.to_string(),
            source: Box::new(source.name_full_disk(&self.dir)),
        };
        let turn = self.registry.turn(&reference.to_string());
        let _turn = turn.lock().await;
        let started = std::time::Instant::now();
        let limit = Duration::from_secs(PULL_HOURS * 3600);
        let pulled = tokio::time::timeout(limit, self.run(&reference, auth.unwrap_or_default(), on_event)).await;
        let id = pulled.unwrap_or_else(|_| Err(Error::Deadline(PULL_HOURS).into())).map_err(failed)?;
        tracing::info!(image = %reference, %id, took = ?started.elapsed(), "pulled an image");
        Ok(id)
    }

    async fn run(&self, reference: &Reference, auth: AuthConfig, on_event: OnEvent<'_>) -> store_error::Result<String> {
        let endpoints = endpoints(&self.registry.certs, reference, &auth)?;
        let (digest, known) = resolve(&endpoints, reference)
            .await
            .map_err(|source| Error::Resolve { reference: reference.to_string(), source: Box::new(source) })?;
        on_event(PullEvent::Resolved { digest: digest.clone() });
        let layout =
            Layout { dir: Temporary::new(self)?, endpoints: endpoints.iter().filter(|e| e.host.pull).collect() };
        let fetched = |source| Error::Fetch(Box::new(source));
        layout.prepare()?;
        let (manifest, document) = layout.manifest(reference, &digest, known).await.map_err(fetched)?;
        let (id, chains) = layout.config(&document).await.map_err(fetched)?;
        let layers = checked(document.layers.unwrap_or_default(), chains)?;
        layout.name(reference, &digest, &manifest)?;
        let dir = layout.dir;
        self.fill(reference, dir, &layout.endpoints, layers, on_event).await?;
        Ok(id)
    }

    /// Downloads what the store lacks and imports it.
    async fn fill(
        &self,
        reference: &Reference,
        mut dir: Temporary,
        endpoints: &[&Endpoint],
        layers: Vec<Layer>,
        on_event: OnEvent<'_>,
    ) -> store_error::Result<()> {
        loop {
            let mut missing: Vec<&Layer> = layers.iter().filter(|layer| !self.has(layer, &dir.path)).collect();
            missing.sort_by(|a, b| a.digest.cmp(&b.digest));
            missing.dedup_by(|a, b| a.digest == b.digest);
            let path = &dir.path;
            let kept = self.dir.join("partial");
            let downloads: Vec<_> =
                missing.into_iter().map(|layer| download(endpoints, layer, path, &kept, on_event).boxed()).collect();
            let mut downloads = futures::stream::iter(downloads).buffer_unordered(DOWNLOADS);
            while let Some(done) = downloads.next().await {
                done.map_err(|source| Error::Fetch(Box::new(source)))?;
            }
            drop(downloads);
            on_event(PullEvent::Unpacking);
            let (store, wanted, name) = (self.clone(), layers.clone(), reference.to_string());
            let work = move || {
                // Layers found in the store may be gone by now; under the lock they stay.
                let complete = |store: &Store| wanted.iter().all(|layer| store.has(layer, &dir.path));
                let imported = store.import_layout(&name, &dir.path, complete)?;
                Ok::<_, store_error::Error>((dir, imported))
            };
            let done = tokio::task::spawn_blocking(work).await;
            let (back, imported) = done.map_err(|e| store_error::Error::io("unpack")(std::io::Error::other(e)))??;
            if imported {
                return Ok(());
            }
            dir = back;
        }
    }

    fn has(&self, layer: &Layer, layout: &Path) -> bool {
        self.layer(&layer.chain).exists() || blob_path(layout, &layer.digest).exists()
    }
}

/// A layer to fetch, unless the store has its chainID.
#[derive(Clone)]
struct Layer {
    digest: String,
    size: u64,
    chain: String,
}

fn endpoints(certs: &Path, reference: &Reference, auth: &AuthConfig) -> Result<Vec<Endpoint>> {
    let hosts = hosts::load(certs, &reference.domain)?;
    hosts.into_iter().map(|host| Endpoint::new(host, &reference.path, auth)).collect()
}

async fn download(
    endpoints: &[&Endpoint],
    layer: &Layer,
    layout: &Path,
    kept: &Path,
    on_event: OnEvent<'_>,
) -> Result<()> {
    let (digest, total) = (&layer.digest, layer.size);
    let on_bytes = |done| on_event(PullEvent::Layer { digest: digest.clone(), done, total });
    blob::download(endpoints, digest, total, &blob_path(layout, digest), kept, &on_bytes).await
}

fn accept_manifests() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES))])
}

/// The digest a reference means, and its bytes where they had to be fetched to know it.
async fn resolve(endpoints: &[Endpoint], reference: &Reference) -> Result<(String, Option<Vec<u8>>)> {
    let (target, by_digest) = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => (digest.as_str(), true),
        (None, tag) => (tag.as_deref().unwrap_or("latest"), false),
    };
    let able = |endpoint: &&Endpoint| if by_digest { endpoint.host.pull } else { endpoint.host.resolve };
    let able: Vec<&Endpoint> = endpoints.iter().filter(able).collect();
    let mut failures = Failures::default();
    for (at, endpoint) in able.iter().enumerate() {
        let asked = look_up(endpoint, target, attempts(at + 1 == able.len())).await;
        match asked {
            Ok(found) => return Ok(found),
            Err(Error::NotFound(_)) => failures.push(endpoint, Error::NotFound(reference.to_string())),
            Err(error) => failures.push(endpoint, error),
        }
    }
    Err(failures.worst(&reference.to_string()))
}

async fn look_up(endpoint: &Endpoint, target: &str, attempts: u32) -> Result<(String, Option<Vec<u8>>)> {
    let (what, headers) = (format!("manifests/{target}"), accept_manifests());
    let answer = endpoint.request(Method::HEAD, &what, &headers, attempts).await?;
    if is_digest(target) {
        return Ok((target.to_owned(), None));
    }
    let digest = answer.headers.get("docker-content-digest").and_then(|value| value.to_str().ok());
    if let Some(digest) = digest.filter(|digest| is_digest(digest)) {
        return Ok((digest.to_owned(), None));
    }
    let bytes = endpoint.request(Method::GET, &what, &headers, attempts).await?.bytes;
    Ok((stream::digest(&bytes), Some(bytes)))
}

/// An OCI layout that grows in `tmp/`.
struct Layout<'a> {
    dir: Temporary,
    endpoints: Vec<&'a Endpoint>,
}

impl Layout<'_> {
    fn prepare(&self) -> Result<()> {
        let path = self.dir.path.join("blobs/sha256");
        std::fs::create_dir_all(&path).map_err(|source| Error::Write { path, source })
    }

    /// Follows indexes to the manifest of this machine; returns its digest too.
    async fn manifest(
        &self,
        reference: &Reference,
        digest: &str,
        known: Option<Vec<u8>>,
    ) -> Result<(String, Document)> {
        let (mut digest, mut known) = (digest.to_owned(), known);
        for _ in 0..=INDEX_DEPTH {
            let bytes = match known.take() {
                Some(bytes) => bytes,
                None => self.document(&digest).await?,
            };
            let document: Document = serde_json::from_slice(&bytes)
                .map_err(|e| Error::protocol(&digest, format!("is no image manifest that is supported: {e}")))?;
            let Some(manifests) = document.manifests else {
                self.write(&blob_path(&self.dir.path, &digest), &bytes)?;
                return Ok((digest, document));
            };
            let name = reference.to_string();
            digest = checked_digest(pick(&name, manifests).map_err(|e| Error::Platform(e.to_string()))?)?;
        }
        Err(Error::protocol(digest, "indexes are nested too deep"))
    }

    async fn document(&self, digest: &str) -> Result<Vec<u8>> {
        let mut failures = Failures::default();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            match manifest_bytes(endpoint, digest, attempts(at + 1 == self.endpoints.len())).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failures.push(endpoint, error),
            }
        }
        Err(failures.worst(digest))
    }

    /// Fetches the configuration; returns its digest and the chainIDs of the layers.
    async fn config(&self, manifest: &Document) -> Result<(String, Vec<String>)> {
        let Some(config) = &manifest.config else {
            return Err(Error::protocol("manifest", "is neither an image manifest nor an index"));
        };
        let (digest, size) = (&config.digest, size_of(config)?);
        if !is_digest(digest) || size > CONFIG_MAX {
            return Err(Error::protocol(digest, format!("is no configuration of at most {CONFIG_MAX} bytes")));
        }
        let path = blob_path(&self.dir.path, digest);
        // Small: nothing of it is kept for another pull.
        blob::download(&self.endpoints, digest, size, &path, &self.dir.path, &|_| ()).await?;
        let bytes = std::fs::read(&path).map_err(|source| Error::Write { path, source })?;
        let parsed: ConfigBlob = serde_json::from_slice(&bytes)
            .map_err(|e| Error::protocol(digest, format!("is no configuration of an image: {e}")))?;
        let mut chains: Vec<String> = Vec::new();
        for diff_id in parsed.rootfs.diff_ids.iter().take(LAYERS_MAX + 1) {
            chains.push(chain_id(chains.last(), diff_id));
        }
        Ok((digest.clone(), chains))
    }

    /// Writes `index.json`: the import reads the name and the digest it was pulled by from it.
    fn name(&self, reference: &Reference, digest: &str, manifest: &str) -> Result<()> {
        let name = match (&reference.digest, reference.tagged()) {
            (None, Some(tagged)) => format!("{tagged}@{digest}"),
            _ => format!("{}@{digest}", reference.repository()),
        };
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{"digest": manifest, "annotations": {"io.containerd.image.name": name}}],
        });
        self.write(&self.dir.path.join("index.json"), index.to_string().as_bytes())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        std::fs::write(path, bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
    }
}

async fn manifest_bytes(endpoint: &Endpoint, digest: &str, attempts: u32) -> Result<Vec<u8>> {
    let what = format!("manifests/{digest}");
    let bytes = endpoint.request(Method::GET, &what, &accept_manifests(), attempts).await?.bytes;
    let actual = stream::digest(&bytes);
    if actual == digest { Ok(bytes) } else { Err(Error::Digest { expect: digest.to_owned(), actual }) }
}

fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join(crate::archive::blob_path(digest))
}

fn checked_digest(descriptor: Descriptor) -> Result<String> {
    if is_digest(&descriptor.digest) {
        return Ok(descriptor.digest);
    }
    Err(Error::protocol(&descriptor.digest, "is not a sha256 digest"))
}

fn size_of(descriptor: &Descriptor) -> Result<u64> {
    descriptor.size.ok_or_else(|| Error::protocol(&descriptor.digest, "has no size in its manifest"))
}

/// Pairs the layers of the manifest with the chainIDs of the configuration.
fn checked(layers: Vec<Descriptor>, chains: Vec<String>) -> Result<Vec<Layer>> {
    if layers.len() != chains.len() || layers.len() > LAYERS_MAX {
        let text = format!("has {} layers, its configuration names {}", layers.len(), chains.len());
        return Err(Error::protocol("manifest", text));
    }
    let (mut out, mut total) = (Vec::new(), 0u64);
    for (descriptor, chain) in layers.into_iter().zip(chains) {
        let size = size_of(&descriptor)?;
        total = total.saturating_add(size);
        if total > IMAGE_MAX {
            return Err(Error::protocol("manifest", format!("names layers of more than {IMAGE_MAX} bytes")));
        }
        out.push(Layer { digest: checked_digest(descriptor)?, size, chain });
    }
    Ok(out)
}
