//! `sagong up`

use crate::cli::{KubeconfigFile, Target};
use crate::output::{Output, Progress};
use cluster::{kubeconfig, lifecycle};
use serde_json::json;
use std::time::Instant;

/// Creates the cluster, or resumes it.
#[derive(clap::Args)]
pub struct Up {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    kubeconfig: KubeconfigFile,
    /// KubeletConfiguration of the node, kept with the cluster
    #[arg(long, value_name = "FILE")]
    kubelet_config: Option<std::path::PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// The node of a local cluster shares its disk with everything else of its user: a full disk is no reason to refuse
/// pods or to remove images before there is really no space left.
const LOCAL: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {memory.available: 100Mi, nodefs.available: 500Mi, nodefs.inodesFree: 1%, imagefs.available: 500Mi, imagefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
";

impl Up {
    /// Returns when the node is ready, cluster DNS answers and the context is selected.
    pub fn run(self) -> anyhow::Result<()> {
        let layout = self.target.layout()?;
        let own = layout.server_dir().join("kubelet.yaml");
        if let Some(file) = &self.kubelet_config {
            // Refused here rather than by a node that does not come up.
            kubelet::KubeletConfiguration::load(file)?;
            std::fs::create_dir_all(layout.server_dir())?;
            std::fs::copy(file, own)?;
        } else if !own.exists() {
            std::fs::create_dir_all(layout.server_dir())?;
            std::fs::write(own, LOCAL)?;
        }
        let begun = Instant::now();
        let progress = Progress::new(self.output.output.is_some());
        let now = super::now();
        let spec = lifecycle::up(&layout, &std::env::current_exe()?, &now, &mut |text| progress.say(text))?;
        let admin = lifecycle::admin_kubeconfig(&layout)?;
        let file = kubeconfig::add(&self.kubeconfig.files(), layout.name(), &admin)?;
        drop(progress);
        let server = format!("https://{}:6443", spec.node_ip());
        let took = begun.elapsed();
        let value = json!({"name": spec.name, "server": server, "context": spec.name, "kubeconfig": file, "seconds": took.as_secs_f64()});
        self.output.print(&value, || {
            format!(
                "Cluster {0:?} is ready after {1:.1} s at {server}.\nContext {0:?} is selected in {2}: try `kubectl get nodes`.\n",
                spec.name,
                took.as_secs_f64(),
                file.display()
            )
        })
    }
}
