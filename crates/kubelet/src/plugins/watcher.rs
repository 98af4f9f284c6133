//! Sockets in `plugins_registry`: each that appears is registered, each that goes is deregistered.

use crate::context::Context;
use crate::logs::notify::{self, Watch};
use crate::plugins::rpc;
use crate::{devices, volumes::csi};
use protos::pluginregistration::registration_client::RegistrationClient;
use protos::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus};
use protos::socket;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const CONNECT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(122);
/// Directories below the registry that are looked into.
const DEPTH: usize = 3;

/// One socket file: made anew, it is another.
type Identity = (u64, i64, i64);

struct Entry {
    identity: Identity,
    /// Ends the registration when dropped.
    _gone: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Follows the directory as long as the kubelet runs.
pub async fn run(ctx: Arc<Context>) {
    let root = ctx.config.root_dir.join("plugins_registry");
    if let Err(error) = std::fs::create_dir_all(&root) {
        tracing::error!(%error, dir = %root.display(), "cannot make the plugin registry");
        return std::future::pending().await;
    }
    let mut plugins: BTreeMap<PathBuf, Entry> = BTreeMap::new();
    loop {
        // Watched before it is read: what comes between wakes us again.
        let (watches, found) = look(&root, DEPTH);
        if watches.is_empty() {
            tracing::error!(dir = %root.display(), "cannot watch the plugin registry");
            return std::future::pending().await;
        }
        let gone: Vec<PathBuf> =
            plugins.iter().filter(|(path, e)| found.get(*path) != Some(&e.identity)).map(|(p, _)| p.clone()).collect();
        for path in gone {
            if let Some(Entry { _gone, task, .. }) = plugins.remove(&path) {
                drop(_gone);
                let _ = task.await;
            }
        }
        for (path, identity) in found {
            plugins.entry(path.clone()).or_insert_with(|| {
                let (gone, until) = oneshot::channel();
                Entry { identity, _gone: gone, task: tokio::spawn(life(ctx.clone(), path, until)) }
            });
        }
        futures::future::select_all(watches.iter().map(|w| Box::pin(w.changed()))).await;
    }
}

/// The watches of a directory and those below, and the sockets in them.
fn look(dir: &Path, depth: usize) -> (Vec<Watch>, BTreeMap<PathBuf, Identity>) {
    let (mut watches, mut found) = (Vec::new(), BTreeMap::new());
    watches.extend(notify::watch(dir).ok());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && depth > 0 {
            let (more, below) = look(&entry.path(), depth - 1);
            watches.extend(more);
            found.extend(below);
        } else if meta.file_type().is_socket() {
            found.insert(entry.path(), (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        }
    }
    (watches, found)
}

/// Registers a plugin, trying until it works, and deregisters it when its socket is gone.
async fn life(ctx: Arc<Context>, path: PathBuf, mut gone: oneshot::Receiver<()>) {
    let mut retry = FIRST_RETRY;
    let info = loop {
        let registered = tokio::select! {
            done = register(&ctx, &path) => done,
            _ = &mut gone => return,
        };
        match registered {
            Ok(info) => break info,
            Err(error) => tracing::warn!(socket = %path.display(), error, "cannot register a plugin"),
        }
        tokio::select! {
            () = tokio::time::sleep(retry) => retry = (retry * 2).min(LONGEST_RETRY),
            _ = &mut gone => return,
        }
    };
    tracing::info!(kind = info.r#type, name = info.name, "registered a plugin");
    let _ = gone.await;
    match info.r#type.as_str() {
        "CSIPlugin" => csi::registration::deregister(&ctx, &info.name).await,
        "DRAPlugin" => ctx.plugins.dra.deregister(&ctx, &info.name),
        // A device plugin's own stream tells that it is gone.
        _ => {}
    }
    tracing::info!(kind = info.r#type, name = info.name, "a plugin is gone");
}

async fn register(ctx: &Arc<Context>, path: &Path) -> Result<PluginInfo, String> {
    let channel = socket::connect(path, CONNECT).await.map_err(|e| e.to_string())?;
    let mut client = RegistrationClient::new(channel);
    let info = client.get_info(rpc::timed(InfoRequest {})).await.map_err(|s| rpc::text(&s))?.into_inner();
    let endpoint = if info.endpoint.is_empty() { path.to_owned() } else { PathBuf::from(&info.endpoint) };
    let taken = match info.r#type.as_str() {
        "CSIPlugin" => csi::registration::register(ctx, &info.name, &endpoint, &info.supported_versions).await,
        "DRAPlugin" => ctx.plugins.dra.register(ctx, &info.name, &endpoint, &info.supported_versions),
        "DevicePlugin" => devices::registration::register_plugin(ctx, &info.name, &endpoint, &info.supported_versions),
        other => Err(format!("no handler registered for plugin type: {other} at socket {}", path.display())),
    };
    let status =
        RegistrationStatus { plugin_registered: taken.is_ok(), error: taken.clone().err().unwrap_or_default() };
    let told = client.notify_registration_status(rpc::timed(status)).await.map_err(|s| rpc::text(&s));
    taken?;
    told?;
    Ok(info)
}
