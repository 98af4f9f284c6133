//! Rotation: a log that passes its size is renamed, its shim opens a new one; a few files are kept.

use crate::context::Context;
use cri::ContainerState;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Looks at the logs of running containers every ten seconds, as upstream does: an event for every line written
/// would cost more than the look.
pub async fn run(ctx: Arc<Context>) {
    let mut ticks = tokio::time::interval(ctx.config.settings.container_log_monitor_interval.max(Duration::from_secs(1)));
    let max_size = ctx.config.settings.log_max_size();
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(containers) = ctx.config.runtime.list_containers().await else { continue };
        for container in containers.into_iter().filter(|c| c.state == ContainerState::Running) {
            let path = PathBuf::from(&container.log_path);
            if std::fs::metadata(&path).map_or(0, |m| m.len()) < max_size {
                continue;
            }
            if let Err(error) = rotate(&ctx, &container.id, &path).await {
                tracing::warn!(path = %path.display(), error, "cannot rotate log");
            }
        }
    }
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
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let renamed = PathBuf::from(format!("{}.{stamp}", path.display()));
    std::fs::rename(path, &renamed).map_err(|e| e.to_string())?;
    if let Err(error) = ctx.config.runtime.reopen_container_log(id).await {
        // The shim still writes to the renamed file: give it its name back.
        std::fs::rename(&renamed, path).map_err(|e| e.to_string())?;
        return Err(error.to_string());
    }
    Ok(())
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
