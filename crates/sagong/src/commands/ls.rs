//! `sagong ls`

use super::status::{Shown, table};
use crate::cli::DataDir;
use crate::output::Output;
use cluster::Layout;

/// Lists the clusters of this machine.
#[derive(clap::Args)]
pub struct Ls {
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    output: Output,
}

impl Ls {
    /// Prints them; none is no error.
    pub fn run(self) -> anyhow::Result<()> {
        let shown = Layout::all(&self.data.data_dir)?.iter().map(Shown::of).collect::<cluster::Result<Vec<_>>>()?;
        self.output.print(&shown, || if shown.is_empty() { "No clusters; `sagong up` makes one.\n".into() } else { table(&shown) })
    }
}
