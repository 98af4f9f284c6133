//! Where an import reads from: a tar file (spooled if it is a stream or compressed) or a directory.

use crate::error::{Error, Result};
use crate::stream;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const ENTRIES_MAX: usize = 1 << 20;
/// Manifests, indexes and configurations.
const DOCUMENT_MAX: u64 = 8 << 20;

/// An archive whose members can be read by name in any order.
pub(crate) struct Archive {
    /// For error texts.
    pub name: String,
    members: Members,
}

enum Members {
    Tar { file: Arc<File>, files: HashMap<String, (u64, u64)>, links: HashMap<String, String> },
    Directory(rustix::fd::OwnedFd),
}

impl Archive {
    /// Opens a tar file, compressed or not, or a directory.
    pub fn open(path: &Path, spool: &Path) -> Result<Archive> {
        let name = path.display().to_string();
        let metadata = std::fs::metadata(path).map_err(Error::io(format!("read {name:?}")))?;
        if metadata.is_dir() {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|e| Error::io(format!("open {name:?}"))(e.into()))?;
            return Ok(Archive { name, members: Members::Directory(directory) });
        }
        let mut file = File::open(path).map_err(Error::io(format!("open {name:?}")))?;
        let mut magic = [0; 4];
        let seekable = file.stream_position().is_ok();
        if seekable && !(file.read_exact_at(&mut magic, 0).is_ok() && stream::is_compressed(&magic)) {
            return Archive::index(name, file);
        }
        Archive::spool(name, file, spool)
    }

    /// Reads a stream into a file without a name, so that its members can be read in any order.
    pub fn spool(name: String, source: impl Read, spool: &Path) -> Result<Archive> {
        let mut file = unnamed(spool).map_err(Error::io(format!("make a temporary file in {spool:?}")))?;
        let mut plain = stream::decompress(source, &name)?;
        io::copy(&mut plain, &mut file).map_err(Error::io(format!("copy {name} to {spool:?}")))?;
        file.rewind().map_err(Error::io("rewind a temporary file"))?;
        Archive::index(name, file)
    }

    fn index(name: String, file: File) -> Result<Archive> {
        let broken =
            |e: io::Error| Error::archive(&name, format!("is not a complete tar archive ({e}); save the image again"));
        let length = file.metadata().map_err(&broken)?.len();
        let file = Arc::new(file);
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut tar = tar::Archive::new(&*file);
        for entry in tar.entries_with_seek().map_err(&broken)? {
            let entry = entry.map_err(&broken)?;
            let path = clean(&entry.path().map_err(&broken)?.to_string_lossy(), "");
            let Some(path) = path else { continue };
            if files.len() + links.len() >= ENTRIES_MAX {
                return Err(Error::archive(&name, format!("has more than {ENTRIES_MAX} members")));
            }
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let (at, size) = (entry.raw_file_position(), entry.size());
                    if at.checked_add(size).is_none_or(|end| end > length) {
                        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
                    }
                    files.insert(path, (at, size));
                }
                // Old `docker save` writes a layer used twice as a link.
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let base = if entry.header().entry_type() == tar::EntryType::Link { "" } else { &path };
                    let target = entry.link_name().ok().flatten().and_then(|to| clean(&to.to_string_lossy(), base));
                    if let Some(target) = target {
                        links.insert(path, target);
                    }
                }
                _ => {}
            }
        }
        Ok(Archive { name, members: Members::Tar { file, files, links } })
    }

    /// Opens a member; `None` when there is none of this name.
    pub fn member(&self, path: &str) -> Result<Option<Box<dyn Read + Send>>> {
        match &self.members {
            Members::Tar { file, files, links } => {
                let found = files.get(path).or_else(|| links.get(path).and_then(|target| files.get(target)));
                Ok(found
                    .map(|&(at, size)| Box::new(Range { file: file.clone(), at, left: size }) as Box<dyn Read + Send>))
            }
            Members::Directory(root) => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(
                    root,
                    path,
                    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
                    Mode::empty(),
                    resolve,
                ) {
                    Ok(fd) => Ok(Some(Box::new(File::from(fd)))),
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(e) => Err(Error::io(format!("open {path:?} of {}", self.name))(e.into())),
                }
            }
        }
    }

    /// Reads a small member whole; missing is an error.
    pub fn document(&self, path: &str) -> Result<Vec<u8>> {
        self.optional_document(path)?.ok_or_else(|| {
            Error::archive(&self.name, format!("lacks {path:?}: it is incomplete, save the image again"))
        })
    }

    /// Reads a small member whole, if there is one.
    pub fn optional_document(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(member) = self.member(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        member
            .take(DOCUMENT_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io(format!("read {path:?} of {}", self.name)))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(Error::archive(&self.name, format!("{path:?} is larger than {DOCUMENT_MAX} bytes")));
        }
        Ok(Some(bytes))
    }
}

/// A file that is gone with its last descriptor. (`O_TMPFILE` is not known to every file system.)
fn unnamed(dir: &Path) -> io::Result<File> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = format!("spool-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let path = dir.join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// A part of a file, read by position so that readers do not disturb each other.
struct Range {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..want], self.at)?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Resolves a member name, or a link's target next to `base`, lexically; `None` if it leaves the archive.
fn clean(path: &str, base: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The path of a blob of an OCI layout.
pub(crate) fn blob_path(digest: &str) -> PathBuf {
    Path::new("blobs").join(digest.replacen(':', "/", 1))
}
