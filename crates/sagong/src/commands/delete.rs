//! `sagong delete`

use crate::cli::{KubeconfigFile, Target};
use crate::output::{Output, Progress};
use cluster::lifecycle;
use serde_json::json;

/// Deletes the cluster and everything of it.
#[derive(clap::Args)]
pub struct Delete {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    kubeconfig: KubeconfigFile,
    #[command(flatten)]
    output: Output,
}

impl Delete {
    /// Returns when no process, namespace, mount, cgroup, link, route, table or file of it is left.
    pub fn run(self) -> anyhow::Result<()> {
        let layout = self.target.layout()?;
        let progress = Progress::new(self.output.output.is_some());
        progress.say("deleting the cluster");
        lifecycle::delete(&layout, &self.kubeconfig.files())?;
        drop(progress);
        let name = layout.name();
        self.output.print(&json!({"name": name, "deleted": true}), || format!("Cluster {name:?} is deleted.\n"))
    }
}
