//! Sizes of directories and file systems.
//!
//! Walking a directory has its price: a size is kept for a while, as upstream keeps those of volumes.

use super::FsStats;
use crate::beneath;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, statat};
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a size holds: upstream's `volumeStatsAggPeriod`.
const KEPT: Duration = Duration::from_secs(60);
/// Most directories whose size is kept.
const MAX_ENTRIES: usize = 4096;

/// Bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// Sizes of directories, each measured at most once a minute unless that is not recent enough.
#[derive(Default)]
pub struct UsageCache(Mutex<HashMap<PathBuf, (Instant, Usage)>>);

impl UsageCache {
    /// The size of a directory at most `age` old.
    pub async fn get(&self, path: &Path, age: Duration) -> Usage {
        let known = self.0.lock().get(path).copied();
        if let Some((at, usage)) = known
            && at.elapsed() < age.min(KEPT)
        {
            return usage;
        }
        let walked = path.to_owned();
        let usage = tokio::task::spawn_blocking(move || walk(&walked)).await.unwrap_or_default();
        let mut entries = self.0.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if entries.len() < MAX_ENTRIES {
            entries.insert(path.to_owned(), (Instant::now(), usage));
        }
        usage
    }

    /// The size as measured last, however old; nothing where it never was.
    pub fn last(&self, path: &Path) -> Usage {
        self.0.lock().get(path).map_or_else(Usage::default, |(_, usage)| *usage)
    }
}

/// Bytes and inodes at and below a path, on its own file system; a file with several names counts once.
pub fn walk(path: &Path) -> Usage {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok((top, stat)) = open(path, flags, Mode::empty()).and_then(|top| fstat(&top).map(|stat| (top, stat))) else {
        return Usage::default();
    };
    let (mut usage, mut seen) = (used(&stat), HashSet::new());
    // A directory with the name of one in it: a million names may wait, but not a million long paths.
    let mut pending: Vec<(Rc<Path>, OsString)> = Vec::new();
    if is_directory(&stat) {
        pending.push((Path::new("").into(), ".".into()));
    }
    while let Some((parent, name)) = pending.pop() {
        let path: Rc<Path> = parent.join(name).into();
        // What vanishes meanwhile does not count.
        let Ok(Some(directory)) = beneath::open_directory(&top, &path) else { continue };
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(meta) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let linked = meta.st_nlink > 1 && !is_directory(&meta);
            if meta.st_dev != stat.st_dev || linked && !seen.insert(meta.st_ino) {
                continue;
            }
            usage += used(&meta);
            if is_directory(&meta) {
                pending.push((path.clone(), OsStr::from_bytes(name.to_bytes()).to_owned()));
            }
        }
    }
    usage
}

fn used(stat: &Stat) -> Usage {
    Usage { bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512, inodes: 1 }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A file system as a whole; `None` where it cannot be asked.
pub fn file_system(path: &Path, time: &str) -> Option<FsStats> {
    let found = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(FsStats {
        time: time.to_owned(),
        available_bytes: bytes(found.f_bavail),
        capacity_bytes: bytes(found.f_blocks),
        used_bytes: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        inodes_free: found.f_ffree,
        inodes: found.f_files,
        inodes_used: found.f_files.saturating_sub(found.f_ffree),
        device: found.f_fsid,
    })
}

/// A part of a file system: the whole's free space, the part's use.
pub fn part(whole: &FsStats, usage: Usage) -> FsStats {
    FsStats { used_bytes: usage.bytes, inodes_used: usage.inodes, ..whole.clone() }
}

/// The nearest directory of a path that exists: it is on the same file system.
pub fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sizes_are_measured_and_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("f");
        std::fs::write(&file, vec![1; 100_000]).expect("write");
        std::fs::hard_link(&file, dir.path().join("g")).expect("link");
        let cache = UsageCache::default();
        let first = cache.get(dir.path(), KEPT).await;
        assert!((100_000..120_000).contains(&first.bytes) && first.inodes == 2, "{first:?}");
        std::fs::write(dir.path().join("h"), "x").expect("write");
        assert_eq!(cache.get(dir.path(), KEPT).await, first);
        assert_eq!(cache.get(dir.path(), Duration::ZERO).await.inodes, 3);
    }

    #[test]
    fn what_is_too_deep_for_a_path_counts() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = beneath::tests::deep_file(dir.path());
        assert_eq!(walk(dir.path()).inodes, 1 + file.components().count() as u64);
        cri::remove_tree(dir.path()).expect("removed");
    }
}
