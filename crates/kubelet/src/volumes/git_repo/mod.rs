//! `gitRepo` volumes: a directory that a container of the pod clones into before the pod's own containers start.
//!
//! Cloning on the node let whoever may create pods run code there. Here the volume is made empty; once the pod has its
//! network, the hook [`git_repos`](crate::hooks) runs [`container`], which has no image, no rights, no credentials
//! and sees nothing but the volume. What it leaves is given to root, and a marker keeps it from being cloned again.

pub mod container;
mod program;

use super::{MountedVolume, Request, VolumePlugin, mounts, ownership};
use crate::context::Context;
use crate::pod::PodExt;
use api::k8s::core::v1::{Pod, Volume};
use async_trait::async_trait;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// The user that clones: of the numbers that systemd leaves to nobody.
const USER: u32 = 65_530;

/// What clones need of the node.
#[derive(Clone, Debug)]
pub struct GitClone {
    /// The program with the verb `git-clone`.
    pub program: PathBuf,
    /// The node's certificate authorities, one PEM file; `None`: no server with TLS is trusted.
    pub certificates: Option<PathBuf>,
}

/// The plugin.
pub struct GitRepoVolume;

#[async_trait]
impl VolumePlugin for GitRepoVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~git-repo"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.git_repo.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let ctx = request.ctx;
        if ctx.config.git.is_none() || !ctx.config.runtime.features().containers_without_image {
            return Err("git-repo volume plugin has been disabled: the container runtime cannot run a clone".into());
        }
        if !request.dir.is_dir() {
            mounts::make_dir(&request.dir, 0o755).map_err(|e| e.to_string())?;
        }
        Ok(MountedVolume { path: request.dir.clone(), readonly: false, renew_at: None })
    }
}

/// A volume of a pod with its places on the node.
pub struct Checkout<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The volume.
    pub volume: &'a Volume,
    /// What is mounted into containers.
    pub dir: PathBuf,
    /// What the kubelet keeps of it.
    meta: PathBuf,
}

impl<'a> Checkout<'a> {
    /// The gitRepo volumes of a pod.
    pub fn of(ctx: &Context, pod: &'a Pod) -> Vec<Self> {
        let base = ctx.config.pod_dir(pod.uid());
        let volumes = pod.spec().volumes.iter().flatten().filter(|v| v.git_repo.is_some());
        let checkout = |volume: &'a Volume| Self {
            pod,
            volume,
            dir: base.join("volumes").join(GitRepoVolume.name()).join(&volume.name),
            meta: base.join("plugins").join(GitRepoVolume.name()).join(&volume.name),
        };
        volumes.map(checkout).collect()
    }

    /// Whether it was cloned.
    pub fn is_ready(&self) -> bool {
        self.meta.join("ready").exists()
    }

    /// Makes the volume empty and the clone's own, and a file for its message.
    fn prepare(&self) -> io::Result<()> {
        remove(&self.dir)?;
        mounts::make_dir(&self.dir, 0o755)?;
        std::os::unix::fs::chown(&self.dir, Some(USER), Some(USER))?;
        mounts::make_dir(&self.meta, 0o750)?;
        std::fs::write(self.message_file(), "")?;
        std::os::unix::fs::chown(self.message_file(), Some(USER), Some(USER))
    }

    fn message_file(&self) -> PathBuf {
        self.meta.join("message")
    }

    /// What the clone said when it failed.
    pub fn message(&self) -> String {
        use std::io::Read;
        let mut text = String::new();
        let read = std::fs::File::open(self.message_file()).and_then(|f| f.take(1024).read_to_string(&mut text));
        // Its words are for an event: nothing that could pass for another line or move a cursor.
        match read {
            Ok(_) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
            Err(_) => String::new(),
        }
    }

    /// Gives what was cloned to root and the pod's group, and marks it.
    pub async fn finish(&self) -> io::Result<()> {
        let group = self.pod.spec().security_context.as_ref().and_then(|s| s.fs_group);
        let group = group.and_then(|g| u32::try_from(g).ok());
        let (dir, meta) = (self.dir.clone(), self.meta.clone());
        let work = move || {
            ownership::give_to_root(&dir)?;
            // As an emptyDir is: upstream's clone goes into one.
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777))?;
            group.map_or(Ok(()), |group| ownership::set(&dir, group, false, false))?;
            std::fs::write(meta.join("ready"), "")
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

fn remove(dir: &std::path::Path) -> io::Result<()> {
    cri::remove_tree(dir)
}
