//! `sagong version`

use crate::output::Output;
use serde_json::json;

/// Prints the version.
#[derive(clap::Args)]
pub struct Version {
    #[command(flatten)]
    output: Output,
}

impl Version {
    /// Prints it.
    pub fn run(self) -> anyhow::Result<()> {
        let (own, kubernetes) = (env!("CARGO_PKG_VERSION"), "v1.36");
        self.output.print(&json!({"sagong": own, "kubernetes": kubernetes}), || format!("sagong {own}, Kubernetes {kubernetes}\n"))
    }
}
