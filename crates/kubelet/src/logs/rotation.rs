//! Rotation: a log that passes its size is renamed, its shim opens a new one; a few files are kept.

use crate::context::Context;
use cri::{ContainerEventKind, ContainerState};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{self, JoinSet};

/// Rotates the logs that the runtime calls full, and those that it does not watch (another runtime, a container of
/// before an update): these are looked at every ten seconds, as upstream does.
pub async fn run(ctx: Arc<Context>) {
    let mut ticks =
        tokio::time::interval(ctx.config.settings.container_log_monitor_interval.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut events = ctx.config.runtime.subscribe();
    let mut rotations = Rotations::default();
    loop {
        let full = tokio::select! {
            _ = ticks.tick() => too_large(&ctx).await,
            event = events.recv() => match event {
                Ok(event) if event.kind == ContainerEventKind::LogFull => log_of(&ctx, event.id).await,
                // What was lost is found by its size.
                Err(RecvError::Lagged(_)) => too_large(&ctx).await,
                Err(RecvError::Closed) => return std::future::pending().await,
                Ok(_) => continue,
            },
            Some(again) = rotations.ended() => match again {
                // It may have filled its new file, or told of the old one.
                Some(id) => log_of(&ctx, id).await.into_iter().filter(|(_, path)| is_full(&ctx, path)).collect(),
                None => continue,
            }
        };
        for (id, path) in full {
            let (ctx, container) = (ctx.clone(), id.clone());
            rotations.begin(id, async move {
                if let Err(error) = rotate(&ctx, &container, &path).await {
                    tracing::warn!(path = %path.display(), error, "cannot rotate log");
                    // Its container may wait for a new file.
                    let _ = ctx.config.runtime.reopen_container_log(&container).await;
                }
            });
        }
    }
}

/// Rotations in progress. Each container has at most one; one that floods its log does not keep the others from theirs.
#[derive(Default)]
struct Rotations {
    tasks: JoinSet<()>,
    busy: HashMap<task::Id, String>,
    /// Containers whose log was called full while it was rotated.
    again: HashSet<String>,
}

impl Rotations {
    fn begin(&mut self, id: String, rotation: impl Future<Output = ()> + Send + 'static) {
        if self.busy.values().any(|busy| *busy == id) {
            self.again.insert(id);
        } else {
            self.busy.insert(self.tasks.spawn(rotation).id(), id);
        }
    }

    /// Waits for the end of a rotation; returns its container where its log was called full again. `None`: there is none.
    async fn ended(&mut self) -> Option<Option<String>> {
        let task = match self.tasks.join_next_with_id().await? {
            Ok((task, ())) => task,
            Err(error) => error.id(),
        };
        let id = self.busy.remove(&task)?;
        Some(self.again.remove(&id).then_some(id))
    }
}

async fn log_of(ctx: &Context, id: String) -> Vec<(String, PathBuf)> {
    let status = ctx.config.runtime.container_status(&id).await.ok();
    let running = status.into_iter().filter(|s| s.state == ContainerState::Running);
    running.map(|s| (id.clone(), PathBuf::from(s.log_path))).collect()
}

async fn too_large(ctx: &Context) -> Vec<(String, PathBuf)> {
    let containers = ctx.config.runtime.list_containers().await.unwrap_or_default();
    let running = containers.into_iter().filter(|c| c.state == ContainerState::Running);
    let logs = running.map(|c| (c.id, PathBuf::from(c.log_path)));
    logs.filter(|(_, path)| is_full(ctx, path)).collect()
}

fn is_full(ctx: &Context, path: &Path) -> bool {
    std::fs::metadata(path).map_or(0, |m| m.len()) >= ctx.config.settings.log_max_size()
}

async fn rotate(ctx: &Context, id: &str, path: &Path) -> Result<(), String> {
    let old = rotated(path).map_err(|e| e.to_string())?;
    // All but the newest rotated file are compressed: readers may still be in that one.
    for file in old.iter().filter(|f| f.extension().is_none_or(|e| e != "gz")) {
        let file = file.clone();
        let compressed = tokio::task::spawn_blocking(move || compress(&file)).await;
        compressed.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    }
    let old = rotated(path).map_err(|e| e.to_string())?;
    let kept = ctx.config.settings.container_log_max_files.max(2);
    for file in &old[..old.len().saturating_sub(kept - 2)] {
        std::fs::remove_file(file).map_err(|e| e.to_string())?;
    }
    let renamed = free_name(path).await;
    std::fs::rename(path, &renamed).map_err(|e| e.to_string())?;
    if let Err(error) = ctx.config.runtime.reopen_container_log(id).await {
        // The shim still writes to the renamed file: give it its name back.
        std::fs::rename(&renamed, path).map_err(|e| e.to_string())?;
        return Err(error.to_string());
    }
    Ok(())
}

/// A name by the time, upstream's: one rotation a second, or an earlier log of the same second would be lost.
async fn free_name(path: &Path) -> PathBuf {
    loop {
        let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        let name = PathBuf::from(format!("{}.{stamp}", path.display()));
        if !name.exists() && !PathBuf::from(format!("{}.gz", name.display())).exists() {
            return name;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let target = PathBuf::from(format!("{}.gz", path.display()));
    let tmp = PathBuf::from(format!("{}.tmp", path.display()));
    // Made anew: what is there may be the rest of a crash, or a link that somebody put there.
    match std::fs::remove_file(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = std::fs::File::create_new(&tmp)?;
    let mut encoder = flate2::write::GzEncoder::new(made, flate2::Compression::default());
    io::copy(&mut super::reader::open(path)?, &mut encoder)?;
    encoder.finish()?;
    std::fs::rename(tmp, target)?;
    std::fs::remove_file(path)
}

/// The rotated files of a log, the oldest first.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

/// Removes a log and its rotated files.
pub fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
    rotated(path).into_iter().flatten().for_each(|file| drop(std::fs::remove_file(file)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_rotated_file_takes_the_name_of_another() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        let first = free_name(&path).await;
        std::fs::write(format!("{}.gz", first.display()), "x").expect("write");
        let second = free_name(&path).await;
        assert!(second > first, "{second:?}");
    }

    #[tokio::test]
    async fn what_is_full_again_is_not_forgotten() {
        let mut rotations = Rotations::default();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        rotations.begin("a".into(), async move { drop(ended.await) });
        rotations.begin("b".into(), async { panic!("a fault") });
        assert_eq!(rotations.ended().await, Some(None), "the faulty one frees its container");
        rotations.begin("a".into(), async { unreachable!("two at once") });
        end.send(()).expect("sent");
        assert_eq!(rotations.ended().await, Some(Some("a".into())));
        rotations.begin("a".into(), async {});
        rotations.begin("b".into(), async {});
        assert_eq!((rotations.ended().await, rotations.ended().await), (Some(None), Some(None)));
        assert_eq!(rotations.ended().await, None);
    }

    #[test]
    fn rotated_files_are_found_compressed_and_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        for name in ["0.log", "0.log.20260101-000000", "1.log"] {
            std::fs::write(dir.path().join(name), "x").expect("write");
        }
        compress(&dir.path().join("0.log.20260101-000000")).expect("compress");
        assert_eq!(rotated(&path).expect("list"), [dir.path().join("0.log.20260101-000000.gz")]);
        remove(&path);
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
