//! `nfs` volumes, inline and of persistent volumes: mounted by the machine's `mount`, whose helper `mount.nfs` must be there.

use super::{MountedVolume, Request, VolumePlugin, bounded, mounts};
use crate::pod::PodExt;
use api::k8s::core::v1::{NFSVolumeSource, PersistentVolume, Volume};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// The plugin.
pub struct NfsVolume;

const NAME: &str = "kubernetes.io~nfs";
/// A server that does not answer holds a pod up no longer than this; it is tried again.
const PATIENCE: Duration = Duration::from_secs(120);

#[async_trait]
impl VolumePlugin for NfsVolume {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.nfs.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let NFSVolumeSource { server, path, read_only } = request.volume.nfs.as_ref().ok_or("not an nfs volume")?;
        let readonly = read_only.unwrap_or(false);
        unless_ending(request, ensure(&source(server, path), &request.dir, readonly, &[])).await?;
        Ok(MountedVolume { path: request.dir.clone(), readonly, renew_at: None })
    }
}

/// Mounts the export of a persistent volume for a pod.
pub async fn persistent(
    request: &Request<'_>,
    volume: &PersistentVolume,
    from: &NFSVolumeSource,
    claim_readonly: bool,
) -> Result<MountedVolume, String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let options = volume.spec.as_ref().and_then(|s| s.mount_options.as_deref()).unwrap_or_default();
    let readonly = claim_readonly || from.read_only.unwrap_or(false);
    let path = request.ctx.config.pod_dir(request.pod.uid()).join("volumes").join(NAME).join(name);
    unless_ending(request, ensure(&source(&from.server, &from.path), &path, readonly, options)).await?;
    Ok(MountedVolume { path, readonly, renew_at: None })
}

/// A server that does not answer does not hold up the end of its pod.
async fn unless_ending(
    request: &Request<'_>,
    mounting: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    request.ending.run_until_cancelled(mounting).await.unwrap_or_else(|| Err(String::new()))
}

fn source(server: &str, path: &str) -> String {
    match server.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{server}]:{path}"),
        Err(_) => format!("{server}:{path}"),
    }
}

async fn ensure(source: &str, dir: &Path, readonly: bool, options: &[String]) -> Result<(), String> {
    if mounts::is_mounted(dir).map_err(|e| e.to_string())? {
        return Ok(());
    }
    mounts::make_dir(dir, 0o750).map_err(|e| e.to_string())?;
    let mounted = mount(&arguments(source, dir, readonly, options)).await;
    if mounted.is_err() {
        // Removed only where nothing is mounted after all.
        let _ = std::fs::remove_dir(dir);
    }
    mounted
}

/// What `mount` is told; options once each, sorted.
fn arguments(source: &str, dir: &Path, readonly: bool, options: &[String]) -> Vec<String> {
    let own = readonly.then_some("ro");
    let options: BTreeSet<&str> = options.iter().map(String::as_str).chain(own).filter(|o| !o.is_empty()).collect();
    let mut out = vec!["-t".to_owned(), "nfs".to_owned()];
    if !options.is_empty() {
        out.extend(["-o".to_owned(), options.into_iter().collect::<Vec<_>>().join(",")]);
    }
    out.extend([source.to_owned(), dir.display().to_string()]);
    out
}

async fn mount(arguments: &[String]) -> Result<(), String> {
    let failed = |why: &str, output: &str| {
        let arguments = arguments.join(" ");
        format!("mount failed: {why}\nMounting command: mount\nMounting arguments: {arguments}\nOutput: {output}\n")
    };
    // The pod names the server and the export: neither is taken for an option, which could name another table of mounts.
    let (options, places) = arguments.split_at(arguments.len() - 2);
    let mut command = Command::new("mount");
    command.args(options).arg("--").args(places);
    let output = bounded::run(command, PATIENCE).await.map_err(|error| match error.kind() {
        ErrorKind::TimedOut => failed("timed out", ""),
        _ => failed(&format!("exec: \"mount\": {error}"), ""),
    })?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(failed(&format!("exit status {code}"), text)),
        None => Err(failed("signal: killed", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mount_is_told() {
        let check = |server: &str, readonly: bool, options: &[&str], expect: &str| {
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            assert_eq!(arguments(&source(server, "/x"), Path::new("/v"), readonly, &options).join(" "), expect);
        };
        check("h", false, &[], "-t nfs h:/x /v");
        check("::1", true, &[], "-t nfs -o ro [::1]:/x /v");
        check("h", true, &["soft", "nfsvers=4", "soft"], "-t nfs -o nfsvers=4,ro,soft h:/x /v");
    }

    #[tokio::test]
    async fn a_failure_is_told_as_upstream_does_and_leaves_no_directory() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = dir.path().join("v");
        // An option that no mount understands fails before anything is asked of a server.
        let why = ensure("127.0.0.1:/x", &at, false, &["=".into()]).await.expect_err("mounted");
        let begin = "mount failed: exit status ";
        let then = format!(
            "\nMounting command: mount\nMounting arguments: -t nfs -o = 127.0.0.1:/x {}\nOutput: ",
            at.display()
        );
        assert!(why.starts_with(begin) && why.contains(&then), "{why}");
        assert!(!at.exists());
    }

    #[tokio::test]
    async fn a_server_is_no_option() {
        let dir = tempfile::tempdir().expect("tempdir");
        let table = dir.path().join("fstab");
        std::fs::write(&table, format!("/ {} none bind 0 0\n", dir.path().join("v").display())).expect("table");
        let server = format!("-T{}", dir.path().display());
        let tried = ensure(&format!("{server}/x:/../fstab"), &dir.path().join("v"), false, &[]).await;
        assert!(tried.is_err_and(|why| why.contains("mount failed: exit status")));
        let tried = ensure(&format!("-T{}", table.display()), &dir.path().join("v"), false, &[]).await;
        assert!(tried.is_err_and(|why| why.contains("mount failed: exit status")));
        assert!(!dir.path().join("v").exists());
    }
}
