//! From an archive to the images it holds: an OCI layout's `index.json`, which has digests, or docker's `manifest.json`.

use crate::archive::{Archive, blob_path};
use crate::config::{ConfigBlob, host_platform};
use crate::error::{Error, Result};
use crate::reference::{Reference, is_digest, is_hex};
use crate::stream;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// An image of an archive, checked but not unpacked.
pub(crate) struct Candidate {
    pub id: String,
    pub config: Vec<u8>,
    /// Names it shall have.
    pub names: BTreeSet<String>,
    /// Digest and bytes of its manifest, where the archive has one.
    pub manifest: Option<(String, Vec<u8>)>,
    /// Lowest first.
    pub layers: Vec<LayerSource>,
}

/// A layer of an archive.
pub(crate) struct LayerSource {
    pub path: String,
    /// Digest of the member as stored, if known.
    pub digest: Option<String>,
    pub diff_id: String,
}

const LAYERS_MAX: usize = 500;
const IMAGES_MAX: usize = 1000;
const INDEX_DEPTH: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub digest: String,
    /// Bytes; every manifest of a registry says so.
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, PartialEq, Eq)]
pub(crate) struct Platform {
    architecture: String,
    os: String,
}

/// An OCI manifest or index; which one the fields say.
#[derive(Deserialize)]
pub(crate) struct Document {
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
    pub manifests: Option<Vec<Descriptor>>,
}

/// Reads what an archive holds.
pub(crate) fn read(archive: &Archive) -> Result<Vec<Candidate>> {
    let images = if let Some(bytes) = archive.optional_document("index.json")? {
        layout(archive, &bytes)?
    } else if let Some(bytes) = archive.optional_document("manifest.json")? {
        docker(archive, &bytes)?
    } else {
        return Err(Error::archive(
            &archive.name,
            "is no image archive: it has neither manifest.json (docker save) nor index.json (OCI layout)",
        ));
    };
    if images.is_empty() {
        return Err(Error::archive(&archive.name, "holds no image"));
    }
    Ok(images)
}

fn parse<'a, T: Deserialize<'a>>(archive: &Archive, path: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::archive(&archive.name, format!("{path:?} is broken: {e}")))
}

fn docker(archive: &Archive, bytes: &[u8]) -> Result<Vec<Candidate>> {
    let manifests: Vec<DockerManifest> = parse(archive, "manifest.json", bytes)?;
    bounded(archive, manifests.len(), IMAGES_MAX, "images")?;
    manifests.into_iter().map(|manifest| docker_image(archive, manifest)).collect()
}

fn docker_image(archive: &Archive, manifest: DockerManifest) -> Result<Candidate> {
    let config = archive.document(&manifest.config)?;
    let id = stream::digest(&config);
    let stem = manifest.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if is_hex(stem, 64) && id[7..] != *stem {
        return Err(Error::archive(
            &archive.name,
            format!("{:?} has the digest {id}: it was altered or damaged", manifest.config),
        ));
    }
    let mut names = BTreeSet::new();
    for tag in manifest.repo_tags.unwrap_or_default() {
        names.insert(Reference::parse(&tag)?.to_string());
    }
    let sources = manifest.layers.into_iter().map(|path| {
        let digest =
            path.strip_prefix("blobs/sha256/").filter(|hex| is_hex(hex, 64)).map(|hex| format!("sha256:{hex}"));
        (path, digest)
    });
    let layers = match_layers(archive, &config, sources.collect())?;
    Ok(Candidate { id, config, names, manifest: None, layers })
}

fn layout(archive: &Archive, bytes: &[u8]) -> Result<Vec<Candidate>> {
    let index: Document = parse(archive, "index.json", bytes)?;
    let manifests = index.manifests.unwrap_or_default();
    bounded(archive, manifests.len(), IMAGES_MAX, "images")?;
    let mut images: Vec<Candidate> = Vec::new();
    // Several entries without names are the platforms of one image (buildkit's `type=oci`).
    let one_image = manifests.len() > 1 && manifests.iter().all(|m| name_of(m).is_none() && m.platform.is_some());
    let roots = if one_image { vec![pick(&archive.name, manifests)?] } else { manifests };
    for descriptor in roots {
        if is_attestation(&descriptor) {
            continue;
        }
        let name = name_of(&descriptor).map(|name| Reference::parse(&name)).transpose()?;
        let mut image = oci_image(archive, descriptor, INDEX_DEPTH)?;
        image.names.extend(name.map(|name| name.to_string()));
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.names.append(&mut image.names),
            None => images.push(image),
        }
    }
    Ok(images)
}

fn oci_image(archive: &Archive, descriptor: Descriptor, depth: usize) -> Result<Candidate> {
    let bytes = blob(archive, &descriptor.digest)?;
    let document: Document = parse(archive, &descriptor.digest, &bytes)?;
    if let Some(manifests) = document.manifests {
        if depth == 0 {
            return Err(Error::archive(&archive.name, "indexes are nested too deep"));
        }
        return oci_image(archive, pick(&archive.name, manifests)?, depth - 1);
    }
    let config = document.config.ok_or_else(|| {
        Error::archive(&archive.name, format!("{} is neither an image manifest nor an index", descriptor.digest))
    })?;
    let id = config.digest;
    let config = blob(archive, &id)?;
    let mut sources = Vec::new();
    for layer in document.layers.unwrap_or_default() {
        if !is_digest(&layer.digest) {
            return Err(Error::archive(
                &archive.name,
                format!("layer digest {:?} is not a sha256 digest", layer.digest),
            ));
        }
        if layer.media_type.contains("encrypted") {
            return Err(Error::archive(
                &archive.name,
                format!("layer {} is encrypted, which is not supported", layer.digest),
            ));
        }
        sources.push((blob_path(&layer.digest).to_string_lossy().into_owned(), Some(layer.digest)));
    }
    let layers = match_layers(archive, &config, sources)?;
    Ok(Candidate { id, config, names: BTreeSet::new(), manifest: Some((descriptor.digest, bytes)), layers })
}

/// Chooses the entry of this machine's platform.
pub(crate) fn pick(name: &str, manifests: Vec<Descriptor>) -> Result<Descriptor> {
    let (os, architecture) = host_platform();
    let mut offered = BTreeSet::new();
    let mut unnamed = Vec::new();
    for descriptor in manifests {
        if is_attestation(&descriptor) {
            continue;
        }
        match &descriptor.platform {
            Some(platform) if platform.os == os && platform.architecture == architecture => return Ok(descriptor),
            Some(platform) => drop(offered.insert(format!("{}/{}", platform.os, platform.architecture))),
            None => unnamed.push(descriptor),
        }
    }
    if unnamed.len() == 1
        && let Some(only) = unnamed.pop()
    {
        return Ok(only);
    }
    let offered: Vec<_> = offered.into_iter().collect();
    let text = format!("has no image for {os}/{architecture}, only for {}", offered.join(", "));
    Err(Error::archive(name, text))
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    let mark = descriptor.annotations.as_ref().and_then(|a| a.get("vnd.docker.reference.type"));
    mark.is_some() || descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown")
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    let name =
        annotations.get("io.containerd.image.name").or_else(|| annotations.get("org.opencontainers.image.ref.name"))?;
    // The reference name may be a tag alone, which names nothing.
    name.contains(['/', ':', '.'])
        .then(|| name.clone())
        .or_else(|| annotations.get("io.containerd.image.name").cloned())
}

fn blob(archive: &Archive, digest: &str) -> Result<Vec<u8>> {
    if !is_digest(digest) {
        return Err(Error::archive(&archive.name, format!("{digest:?} is not a sha256 digest")));
    }
    let bytes = archive.document(&blob_path(digest).to_string_lossy())?;
    let actual = stream::digest(&bytes);
    if actual != digest {
        return Err(Error::archive(
            &archive.name,
            format!("blob {digest} has the digest {actual}: it was altered or damaged"),
        ));
    }
    Ok(bytes)
}

fn match_layers(archive: &Archive, config: &[u8], sources: Vec<(String, Option<String>)>) -> Result<Vec<LayerSource>> {
    let parsed: ConfigBlob = parse(archive, "the image's configuration", config)?;
    let (os, architecture) = host_platform();
    let foreign = |have: &str, want: &str| !have.is_empty() && have != want;
    if foreign(&parsed.os, os) || foreign(&parsed.architecture, architecture) {
        let text =
            format!("is an image for {}/{}, this machine is {os}/{architecture}", parsed.os, parsed.architecture);
        return Err(Error::archive(&archive.name, text));
    }
    let diff_ids = parsed.rootfs.diff_ids;
    bounded(archive, diff_ids.len(), LAYERS_MAX, "layers")?;
    if diff_ids.len() != sources.len() || !diff_ids.iter().all(|id| is_digest(id)) {
        let text = format!("its configuration names {} layers and its manifest {}", diff_ids.len(), sources.len());
        return Err(Error::archive(&archive.name, text));
    }
    let layers = sources.into_iter().zip(diff_ids);
    Ok(layers.map(|((path, digest), diff_id)| LayerSource { path, digest, diff_id }).collect())
}

fn bounded(archive: &Archive, count: usize, max: usize, what: &str) -> Result<()> {
    if count > max {
        return Err(Error::archive(&archive.name, format!("names {count} {what}, more than {max}")));
    }
    Ok(())
}
