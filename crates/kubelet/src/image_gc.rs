//! Image garbage collection: unused images go, the least recently used first, when their disk is full.
//!
//! Looked at every five minutes as upstream does, because disk space has no event; eviction asks for more at once.
//! An image that a container of another node of this machine uses is pinned in the list, and never removed.

use crate::context::Context;
use crate::events::{EventType, reason};
use crate::summary::usage;
use cri::Image;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const PERIOD: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
struct Record {
    first_detected: SystemTime,
    last_used: Option<SystemTime>,
}

/// What is known of the node's images by id.
#[derive(Default)]
pub struct ImageGc(Mutex<HashMap<String, Record>>);

/// Runs until dropped.
pub async fn run(ctx: Arc<Context>) {
    let began = SystemTime::now();
    loop {
        if let Err(error) = ctx.image_gc.collect(&ctx, began).await {
            tracing::warn!(error, "image garbage collection failed");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Ids of images that containers or image volumes of this node use.
async fn in_use(ctx: &Context) -> cri::Result<BTreeSet<String>> {
    let containers = ctx.config.runtime.list_containers().await?;
    let mut used = BTreeSet::new();
    for container in containers {
        used.extend([container.image_id, container.image_ref].into_iter().filter(|id| !id.is_empty()));
    }
    Ok(used)
}

fn is_used(image: &Image, used: &BTreeSet<String>) -> bool {
    used.contains(&image.id) || image.repo_digests.iter().any(|d| used.contains(d))
}

impl ImageGc {
    /// Unused images, the least recently used first; brings the records up to date.
    async fn candidates(&self, ctx: &Context, now: SystemTime) -> Result<Vec<(Image, Record)>, String> {
        let used = in_use(ctx).await.map_err(|e| e.to_string())?;
        let images = ctx.config.images.list_images().await.map_err(|e| e.to_string())?;
        ctx.images.prune(&images, now).await;
        Ok(self.order(images, &used, now))
    }

    fn order(&self, images: Vec<Image>, used: &BTreeSet<String>, now: SystemTime) -> Vec<(Image, Record)> {
        let mut records = self.0.lock();
        records.retain(|id, _| images.iter().any(|image| image.id == *id));
        let mut out = Vec::new();
        for image in images {
            let record = records.entry(image.id.clone()).or_insert(Record { first_detected: now, last_used: None });
            if is_used(&image, used) {
                record.last_used = Some(now);
            } else if !image.pinned {
                out.push((image, *record));
            }
        }
        out.sort_by_key(|(_, record)| (record.last_used, record.first_detected));
        out
    }

    async fn collect(&self, ctx: &Context, began: SystemTime) -> Result<(), String> {
        let (settings, now) = (&ctx.config.settings, SystemTime::now());
        let mut candidates = self.candidates(ctx, now).await?;
        let age = settings.image_maximum_gc_age;
        if !age.is_zero() && now.duration_since(began).unwrap_or_default() > age {
            let used_at = |r: &Record| r.last_used.unwrap_or(r.first_detected);
            let old = |r: &Record| now.duration_since(used_at(r)).unwrap_or_default() > age;
            let (gone, kept): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|(_, r)| old(r));
            candidates = kept;
            for (image, _) in gone {
                remove(ctx, &image).await?;
            }
        }
        let used = ctx.config.images.image_fs().await.map_err(|e| e.to_string())?;
        let path = used.map_or_else(|| ctx.config.root_dir.clone(), |u| u.mountpoint.into());
        let Some(fs) = usage::file_system(usage::existing(Path::new(&path)), "") else { return Ok(()) };
        let about = ctx.node.read().clone();
        if fs.capacity_bytes == 0 {
            let text = "invalid capacity 0 on image filesystem";
            ctx.recorder.node(&about, EventType::Warning, reason::INVALID_DISK_CAPACITY, text);
            return Err(text.into());
        }
        let available = fs.available_bytes.min(fs.capacity_bytes);
        let percent = 100 - available * 100 / fs.capacity_bytes;
        if percent < u64::from(settings.image_gc_high_threshold_percent) {
            return Ok(());
        }
        let wanted = fs.capacity_bytes / 100 * u64::from(100 - settings.image_gc_low_threshold_percent.min(100));
        let wanted = wanted.saturating_sub(available);
        let freed = self.free(ctx, candidates, wanted, now).await?;
        if freed >= wanted {
            return Ok(());
        }
        let message = format!(
            "Insufficient free disk space on the node's image filesystem ({percent}% of {} used). Failed to free sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
            size(fs.capacity_bytes)
        );
        ctx.recorder.node(&about, EventType::Warning, reason::FREE_DISK_SPACE_FAILED, message.clone());
        Err(message)
    }

    /// Removes images until so many bytes are free; returns how many are.
    async fn free(
        &self,
        ctx: &Context,
        candidates: Vec<(Image, Record)>,
        wanted: u64,
        now: SystemTime,
    ) -> Result<u64, String> {
        let (mut freed, mut errors) = (0, Vec::new());
        for (image, record) in candidates {
            let age = now.duration_since(record.first_detected).unwrap_or_default();
            if age < ctx.config.settings.image_minimum_gc_age {
                continue;
            }
            match remove(ctx, &image).await {
                Ok(()) => freed += image.size,
                Err(error) => errors.push(error),
            }
            if freed >= wanted {
                break;
            }
        }
        if errors.is_empty() {
            return Ok(freed);
        }
        let errors = errors.join(", ");
        Err(format!(
            "wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}"
        ))
    }

    /// Removes every unused image that is old enough.
    pub async fn delete_unused(&self, ctx: &Context) -> Result<u64, String> {
        let now = SystemTime::now();
        let candidates = self.candidates(ctx, now).await?;
        self.free(ctx, candidates, u64::MAX, now).await
    }
}

async fn remove(ctx: &Context, image: &Image) -> Result<(), String> {
    tracing::info!(image = image.id, names = ?image.repo_tags, size = image.size, "removing an unused image");
    ctx.config.images.remove_image(&image.id).await.map_err(|e| e.to_string())
}

/// A size in binary units with one decimal, `93.7 GiB`.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_used_never() {
        let image = |id: &str, pinned: bool| Image { id: id.into(), pinned, ..Image::default() };
        let (gc, t0) = (ImageGc::default(), SystemTime::UNIX_EPOCH);
        let at = |s: u64| t0 + Duration::from_secs(s);
        let all = || vec![image("a", false), image("b", false), image("c", false), image("p", true)];
        let used = |id: &str| BTreeSet::from([id.to_owned()]);
        let order = |used: &BTreeSet<String>, now: u64| -> Vec<String> {
            gc.order(all(), used, at(now)).into_iter().map(|(i, _)| i.id).collect()
        };
        order(&used("a"), 1);
        order(&used("b"), 2);
        assert_eq!(order(&used("x"), 3), ["c", "a", "b"], "never used, then longest ago");
        assert_eq!(order(&used("c"), 4), ["a", "b"]);
    }

    #[test]
    fn sizes() {
        assert_eq!((size(12), size(1 << 30), size(251 << 30)), ("12 B".into(), "1.0 GiB".into(), "251.0 GiB".into()));
    }
}
