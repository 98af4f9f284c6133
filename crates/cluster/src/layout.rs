//! Where a cluster keeps its files.

use crate::{Doing, Error, Result};
use std::path::{Path, PathBuf};

/// The directories and files of one cluster below a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    data_dir: PathBuf,
    name: String,
}

impl Layout {
    /// Names the places of cluster `name`; the name must be a DNS label of at most 40 characters.
    pub fn new(data_dir: &Path, name: &str) -> Result<Self> {
        let fits = name.len() <= 40
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !fits {
            return Err(Error::BadName(name.into()));
        }
        let data_dir = std::path::absolute(data_dir).doing(|| format!("find {}", data_dir.display()))?;
        Ok(Self { data_dir, name: name.into() })
    }

    /// Every cluster of a data directory, by name.
    pub fn all(data_dir: &Path) -> Result<Vec<Self>> {
        let dir = data_dir.join("clusters");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).doing(|| format!("read {}", dir.display())),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<Self> = names.filter_map(|name| Self::new(data_dir, &name).ok()).filter(Self::exists).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The data directory all clusters share.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Everything of this cluster.
    pub fn dir(&self) -> PathBuf {
        self.data_dir.join("clusters").join(&self.name)
    }

    /// Whether the cluster has been made.
    pub fn exists(&self) -> bool {
        self.spec().exists()
    }

    /// What the cluster is.
    pub fn spec(&self) -> PathBuf {
        self.dir().join("cluster.json")
    }

    /// Held by the command that works on the cluster. Outside the cluster's directory, so that it
    /// outlives a delete that another command waits for.
    pub fn lock(&self) -> PathBuf {
        self.data_dir.join("clusters").join(format!(".{}.lock", self.name))
    }

    /// Data directory of the node's `sagong server`.
    pub fn server_dir(&self) -> PathBuf {
        self.dir().join("server")
    }

    /// Kubeconfig of the cluster's administrator, written by the server.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.server_dir().join("admin.kubeconfig")
    }

    /// Log of the node: supervisor and server.
    pub fn log(&self) -> PathBuf {
        self.dir().join("node.log")
    }

    /// A tmpfs for what must not outlive a reboot: namespace pins, sockets, process ids.
    pub fn run(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// Process id of the supervisor, with its start time.
    pub fn supervisor_pid(&self) -> PathBuf {
        self.run().join("node.pid")
    }

    /// Process id of the server, with its start time.
    pub fn server_pid(&self) -> PathBuf {
        self.run().join("server.pid")
    }

    /// There while the server is ready.
    pub fn ready(&self) -> PathBuf {
        self.run().join("ready")
    }

    /// Where a starting node says how far it is.
    pub fn notify_socket(&self) -> PathBuf {
        self.run().join("notify.sock")
    }

    /// Image content, shared by every node of every cluster of the data directory.
    pub fn images(&self) -> PathBuf {
        images_dir(&self.data_dir)
    }
}

/// Image content of a data directory.
pub fn images_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("images")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (name, want) in [("sagong", true), ("a-1", true), ("", false), ("../x", false), ("A", false), ("1a", false), ("a-", false)] {
            assert_eq!(Layout::new(Path::new("/tmp"), name).is_ok(), want, "{name}");
        }
    }
}
