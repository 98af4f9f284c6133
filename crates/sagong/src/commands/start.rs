//! `sagong start`

use crate::cli::Target;
use crate::output::{Output, Progress};
use cluster::lifecycle;
use serde_json::json;

/// Starts a stopped cluster.
#[derive(clap::Args)]
pub struct Start {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Start {
    /// Returns when the node is ready; fails where there is no such cluster.
    pub fn run(self) -> anyhow::Result<()> {
        let layout = self.target.layout()?;
        let created = cluster::Spec::load(&layout)?.created;
        let progress = Progress::new(self.output.output.is_some());
        let spec = lifecycle::up(&layout, &std::env::current_exe()?, &created, &mut |text| progress.say(text))?;
        drop(progress);
        self.output.print(&json!({"name": spec.name, "state": lifecycle::state(&layout)}), || format!("Cluster {:?} runs.\n", spec.name))
    }
}
