//! Saving images as an OCI layout in a tar stream, with docker's `manifest.json` for those who read no layouts.
//!
//! The compressed layers are not kept (see the crate's page), so they are packed anew from the unpacked
//! directories: same files, other bytes. The digests of layers, configuration and manifest are therefore new ones.

use crate::error::{Error, Result};
use crate::store::Store;
use crate::stream::{self, hex};
use crate::temporary::Temporary;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const OPAQUE: &str = "trusted.overlay.opaque";

impl Store {
    /// Writes images as one tar archive that [`Store::import`], `docker load` and containerd read. Blocks.
    pub fn export(&self, images: &[String], out: &mut dyn Write) -> Result<()> {
        let dir = Temporary::new(self)?;
        // Nothing is collected while it is read.
        let _import = self.lock("import.lock", FlockOperation::LockShared)?;
        let mut run = || -> Result<()> {
            let blobs = dir.path.join("blobs/sha256");
            fs::create_dir_all(&blobs).map_err(Error::io("make a layout"))?;
            let (mut manifests, mut docker) = (Vec::new(), Vec::new());
            for image in images {
                let exported = self.export_image(image, &blobs)?;
                docker.push(exported.docker());
                manifests.extend(exported.descriptors());
            }
            let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
            let write = |name: &str, value: &Value| {
                fs::write(dir.path.join(name), value.to_string()).map_err(Error::io(format!("write {name}")))
            };
            write("index.json", &index)?;
            write("manifest.json", &docker.into())?;
            write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
            pack_layout(&dir.path, out).map_err(Error::io("write the archive"))
        };
        run().map_err(|e| e.name_full_disk(&self.dir))
    }

    fn export_image(&self, image: &str, blobs: &Path) -> Result<Exported> {
        let info = self.image(image)?;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in info.layers.iter().rev() {
            let packed = pack_layer(layer, blobs).map_err(Error::io(format!("pack {layer:?}")))?;
            layers.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": packed.digest, "size": packed.size}));
            diff_ids.push(packed.diff_id);
        }
        let path = self.blob(&info.id);
        let bytes = fs::read(&path).map_err(Error::io(format!("read {path:?}")))?;
        let mut config: Value = serde_json::from_slice(&bytes).map_err(|e| Error::archive(path.display(), e))?;
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let (digest, size) = put(blobs, config.to_string().as_bytes())?;
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size}, "layers": layers});
        let (digest, size) = put(blobs, manifest.to_string().as_bytes())?;
        Ok(Exported { names: info.names, manifest, digest, size })
    }
}

/// An image whose blobs are written.
struct Exported {
    names: Vec<String>,
    manifest: Value,
    digest: String,
    size: usize,
}

impl Exported {
    /// Its entries of the layout's index, one for each name.
    fn descriptors(&self) -> Vec<Value> {
        let entry = |name: Option<&String>| {
            let mut entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.digest, "size": self.size});
            if let Some(name) = name {
                entry["annotations"] =
                    json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            }
            entry
        };
        let names: Vec<Value> = self.names.iter().map(|name| entry(Some(name))).collect();
        if names.is_empty() { vec![entry(None)] } else { names }
    }

    /// Its entry of docker's list, which knows no names by digest.
    fn docker(&self) -> Value {
        let path = |blob: &Value| blob["digest"].as_str().map(|digest| digest.replacen("sha256:", "blobs/sha256/", 1));
        let layers = self.manifest["layers"].as_array().into_iter().flatten();
        json!({
            "Config": path(&self.manifest["config"]),
            "RepoTags": self.names.iter().filter(|name| !name.contains('@')).collect::<Vec<_>>(),
            "Layers": layers.map(path).collect::<Vec<_>>(),
        })
    }
}

struct Packed {
    digest: String,
    diff_id: String,
    size: u64,
}

fn put(blobs: &Path, bytes: &[u8]) -> Result<(String, usize)> {
    let digest = stream::digest(bytes);
    fs::write(blobs.join(&digest[7..]), bytes).map_err(Error::io("write a blob"))?;
    Ok((digest, bytes.len()))
}

/// Hashes and counts what is written through it.
struct Counting<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn counting<W>(inner: W) -> Counting<W> {
    Counting { inner, hash: Sha256::new(), bytes: 0 }
}

fn pack_layer(root: &Path, blobs: &Path) -> io::Result<Packed> {
    let temporary = blobs.join("layer");
    let file = counting(io::BufWriter::new(File::create(&temporary)?));
    let gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let mut tar = tar::Builder::new(counting(gzip));
    tar.follow_symlinks(false);
    let mut links = std::collections::HashMap::new();
    append(&mut tar, root, Path::new(""), &mut links)?;
    let plain = tar.into_inner()?;
    let diff_id = format!("sha256:{}", hex(&plain.hash.finalize()));
    let mut file = plain.inner.finish()?;
    file.flush()?;
    let digest = hex(&file.hash.finalize());
    fs::rename(&temporary, blobs.join(&digest))?;
    Ok(Packed { digest: format!("sha256:{digest}"), diff_id, size: file.bytes })
}

/// Adds what is below a directory, in the order of names, whiteouts in the form of image layers.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    root: &Path,
    below: &Path,
    links: &mut std::collections::HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(below))?.collect::<io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        let meta = fs::symlink_metadata(&path)?;
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            let mut hidden = std::ffi::OsString::from(".wh.");
            hidden.push(entry.file_name());
            tar.append_data(&mut empty(), below.join(hidden), io::empty())?;
            continue;
        }
        if kind.is_socket() {
            continue;
        }
        let extensions = xattrs(&path)?;
        if !extensions.is_empty() {
            tar.append_pax_extensions(extensions.iter().map(|(k, v)| (k.as_str(), v.as_slice())))?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&meta);
        if kind.is_file() && meta.nlink() > 1 {
            match links.get(&(meta.dev(), meta.ino())) {
                Some(first) => {
                    header.set_entry_type(tar::EntryType::Link);
                    header.set_size(0);
                    tar.append_link(&mut header, &name, first)?;
                    continue;
                }
                None => drop(links.insert((meta.dev(), meta.ino()), name.clone())),
            }
        }
        if kind.is_symlink() {
            header.set_size(0);
            tar.append_link(&mut header, &name, fs::read_link(&path)?)?;
        } else if kind.is_file() {
            tar.append_data(&mut header, &name, File::open(&path)?.take(meta.len()))?;
        } else {
            header.set_size(0);
            tar.append_data(&mut header, &name, io::empty())?;
        }
        if kind.is_dir() {
            let mut value = [0; 1];
            if rustix::fs::lgetxattr(&path, OPAQUE, &mut value[..]).is_ok_and(|n| n == 1 && value[0] == b'y') {
                tar.append_data(&mut empty(), name.join(".wh..wh..opq"), io::empty())?;
            }
            append(tar, root, &name, links)?;
        }
    }
    Ok(())
}

fn empty() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    header
}

/// Extended attributes that belong to the file, not to overlayfs.
fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 4096];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut out = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        if text.starts_with("trusted.overlay.") || text.starts_with("security.selinux") {
            continue;
        }
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(length);
        out.push((format!("SCHILY.xattr.{text}"), value));
    }
    Ok(out)
}

fn pack_layout(dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    for name in ["oci-layout", "index.json", "manifest.json"] {
        tar.append_path_with_name(dir.join(name), name)?;
    }
    let mut blobs: Vec<_> = fs::read_dir(dir.join("blobs/sha256"))?.collect::<io::Result<_>>()?;
    blobs.sort_by_key(std::fs::DirEntry::file_name);
    for blob in blobs {
        tar.append_path_with_name(blob.path(), Path::new("blobs/sha256").join(blob.file_name()))?;
    }
    tar.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_list_names_blobs_by_path_and_no_digests() {
        let names = ["docker.io/library/a:1", "docker.io/library/a@sha256:12"].map(str::to_owned).to_vec();
        let manifest = json!({"config": {"digest": "sha256:c0"}, "layers": [{"digest": "sha256:01"}, {"digest": "sha256:02"}]});
        let exported = Exported { names, manifest, digest: "sha256:03".into(), size: 1 };
        let want = json!({"Config": "blobs/sha256/c0", "RepoTags": ["docker.io/library/a:1"], "Layers": ["blobs/sha256/01", "blobs/sha256/02"]});
        assert_eq!(exported.docker(), want);
    }

    #[test]
    fn links_and_files_are_packed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (root, blobs) = (dir.path().join("root"), dir.path().join("blobs"));
        fs::create_dir_all(root.join("d")).expect("mkdir");
        fs::create_dir_all(&blobs).expect("mkdir");
        fs::write(root.join("d/a"), "x").expect("write");
        fs::hard_link(root.join("d/a"), root.join("d/b")).expect("link");
        std::os::unix::fs::symlink("/etc/passwd", root.join("s")).expect("symlink");
        let packed = pack_layer(&root, &blobs).expect("pack");
        let file = File::open(blobs.join(&packed.digest[7..])).expect("open");
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let entries = tar.entries().expect("entries").map(|e| {
            let e = e.expect("entry");
            (e.path().expect("path").display().to_string(), e.header().entry_type().as_byte() as char)
        });
        let got: Vec<_> = entries.collect();
        let want = [("d", '5'), ("d/a", '0'), ("d/b", '1'), ("s", '2')];
        let want: Vec<_> = want.iter().map(|(n, k)| ((*n).to_owned(), *k)).collect();
        assert_eq!(got.iter().map(|(n, k)| (n.trim_end_matches('/').to_owned(), *k)).collect::<Vec<_>>(), want);
    }
}
