//! Changes in directories, by the one inotify instance of the process (users have only 128).

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// Watches by descriptor: how many use each, and whom it wakes.
type Watches = Arc<Mutex<HashMap<i32, (usize, Arc<Notify>)>>>;

struct Instance {
    fd: Arc<OwnedFd>,
    watches: Watches,
}

static INSTANCE: OnceLock<Option<Instance>> = OnceLock::new();

/// A watched directory; watching ends when the last of its watches is dropped.
pub struct Watch {
    wd: i32,
    changed: Arc<Notify>,
}

impl Watch {
    /// Waits for the next change; one since the last wait counts.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(Some(instance)) = INSTANCE.get() else { return };
        let mut watches = instance.watches.lock();
        if let Some((users, _)) = watches.get_mut(&self.wd) {
            *users -= 1;
            if *users == 0 {
                watches.remove(&self.wd);
                let _ = inotify::remove_watch(&*instance.fd, self.wd);
            }
        }
    }
}

/// Watches the directory that a file is in, or will be.
pub fn watch_file(path: &Path) -> io::Result<Watch> {
    watch(path.parent().unwrap_or(Path::new("/")))
}

/// Watches a directory for files that are written, made, renamed or removed.
pub fn watch(dir: &Path) -> io::Result<Watch> {
    let instance = INSTANCE.get_or_init(|| start().ok()).as_ref();
    let instance =
        instance.ok_or_else(|| io::Error::other("no inotify instance is left (fs.inotify.max_user_instances)"))?;
    let flags = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF;
    // Locked before the kernel knows: an event for the watch finds its entry.
    let mut watches = instance.watches.lock();
    let wd = inotify::add_watch(&*instance.fd, dir, flags)?;
    let (users, changed) = watches.entry(wd).or_insert_with(|| (0, Arc::new(Notify::new())));
    *users += 1;
    Ok(Watch { wd, changed: changed.clone() })
}

fn start() -> io::Result<Instance> {
    let fd = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
    let watches = Watches::default();
    let (reader, table) = (fd.clone(), watches.clone());
    std::thread::Builder::new().name("inotify".into()).spawn(move || {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut events = inotify::Reader::new(&*reader, &mut buffer);
        while let Ok(event) = events.next() {
            if let Some((_, changed)) = table.lock().get(&event.wd()) {
                // Every follower of the directory looks; one that is not waiting just now will.
                changed.notify_waiters();
                changed.notify_one();
            }
        }
    })?;
    Ok(Instance { fd, watches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_write_wakes_the_watcher() {
        let dir = tempfile::tempdir().expect("tempdir");
        let watch = watch(dir.path()).expect("watch");
        std::fs::write(dir.path().join("f"), "x").expect("write");
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.expect("woken");
    }
}
