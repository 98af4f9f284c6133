//! `sagong stop`

use crate::cli::Target;
use crate::output::{Output, Progress};
use cluster::lifecycle;
use serde_json::json;

/// Stops the cluster; its data stays.
#[derive(clap::Args)]
pub struct Stop {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Stop {
    /// Returns when nothing of the cluster runs.
    pub fn run(self) -> anyhow::Result<()> {
        let layout = self.target.layout()?;
        let progress = Progress::new(self.output.output.is_some());
        progress.say("stopping the node");
        lifecycle::stop(&layout)?;
        drop(progress);
        let name = layout.name();
        self.output.print(&json!({"name": name, "state": lifecycle::state(&layout)}), || format!("Cluster {name:?} is stopped; `sagong start {name}` resumes it.\n"))
    }
}
