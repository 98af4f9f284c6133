//! Configuration files that are followed: read again when they change.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Calls `changed` whenever the content of a file is another one, until the token is cancelled.
pub fn follow(path: PathBuf, token: CancellationToken, changed: impl Fn() + Send + 'static) {
    let mut events = match watch(&path) {
        Ok(events) => events,
        Err(error) => {
            return tracing::warn!(%error, path = %path.display(), "changes of a configuration file go unnoticed");
        }
    };
    let mut before = digest(&path);
    let following = async move {
        while events.recv().await.is_some() {
            let now = digest(&path);
            if now.is_some() && now != before {
                before = now;
                changed();
            }
        }
    };
    tokio::spawn(async move { token.run_until_cancelled(following).await });
}

/// Tells of events in the directory of a file, as editors and mounted ConfigMaps replace files instead of writing
/// to them. A thread waits for them: it ends with the process, or with the first event that nobody wants.
fn watch(path: &Path) -> io::Result<mpsc::Receiver<()>> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fd = inotify::init(CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE;
    inotify::add_watch(&fd, directory, flags)?;
    let (send, receive) = mpsc::channel(1);
    std::thread::Builder::new().name("config-file".into()).spawn(move || {
        // The events themselves are dropped: the file's content says what happened.
        let mut buffer = [0; 4096];
        while rustix::io::read(&fd, &mut buffer).is_ok() && send.blocking_send(()).is_ok() {}
    })?;
    Ok(receive)
}

fn digest(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| pki::sha256_hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaced_files_are_noticed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a");
        std::fs::write(&path, "1").expect("write");
        let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
        let token = CancellationToken::new();
        follow(path.clone(), token.clone(), move || send.send(()).unwrap_or(()));
        // The watch begins some time after the call; a write that it misses is followed by one that it sees.
        for at in 0..100 {
            std::fs::write(dir.path().join("b"), format!("{at}x")).expect("write");
            std::fs::rename(dir.path().join("b"), &path).expect("rename");
            if tokio::time::timeout(std::time::Duration::from_millis(50), receive.recv()).await.is_ok() {
                return token.cancel();
            }
        }
        panic!("no change was noticed");
    }
}
