//! `sagong encryption`

use anyhow::{Context, Result};
use std::path::PathBuf;

/// Manages the keys that encrypt secrets in the store.
#[derive(clap::Args)]
pub struct Encryption {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Adds a key, with which the server encrypts everything anew when it starts next
    Rotate {
        /// Directory of the store, certificates and the node's state
        #[arg(long, env = "SAGONG_DATA_DIR", default_value = "/var/lib/sagong", value_name = "DIR")]
        data_dir: PathBuf,
    },
}

impl Encryption {
    /// Runs it.
    pub fn run(self) -> Result<()> {
        let Action::Rotate { data_dir } = self.action;
        let file = data_dir.join(crate::server::ENCRYPTION_KEYS);
        if !data_dir.is_dir() {
            anyhow::bail!("{} does not exist: name the server's directory with --data-dir", data_dir.display());
        }
        let name = apiserver::encryption::key_file::rotate(&file).with_context(|| format!("add a key to {}", file.display()))?;
        println!("{name} is the newest key in {}.\nRestart the server: it encrypts all secrets with it. Keep the file with every backup of the store.", file.display());
        Ok(())
    }
}
