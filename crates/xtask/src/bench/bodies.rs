//! `cargo xtask bench bodies`: what the worst request bodies cost the server.
//!
//! The measurement itself is a bench target of the API server, which counts what it allocates; here it is only built and run.

use anyhow::{Result, bail};

/// The worst request bodies: CPU time and memory of each; fails when one is over 100 ms or 64 MiB.
#[derive(clap::Args)]
pub struct Bodies {
    /// Only the cases whose names contain one of these
    names: Vec<String>,
}

impl Bodies {
    /// Prints a table.
    pub fn run(self) -> Result<()> {
        let mut cargo = crate::test::cargo_command();
        cargo.current_dir(crate::root()).args(["bench", "--package", "apiserver", "--bench", "bodies", "--"]);
        match cargo.args(self.names).status()?.success() {
            true => Ok(()),
            false => bail!("bodies are over the bounds"),
        }
    }
}
