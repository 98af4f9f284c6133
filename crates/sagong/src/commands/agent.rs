//! `sagong agent`

use super::server::NodeFlags;
use crate::server::{self, Remote};
use std::net::IpAddr;
use std::path::PathBuf;

/// Runs a node in the foreground on this host.
#[derive(clap::Args)]
pub struct Agent {
    /// Kubeconfig of the node, as `sagong kubeconfig --node NAME` prints it on the server's host
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Directory of the node's state
    #[arg(long, env = "SAGONG_DATA_DIR", default_value = "/var/lib/sagong", value_name = "DIR")]
    data_dir: PathBuf,
    /// Address others reach this host by [default: that of the default route]
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Addresses of pods, as the server has them
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    cluster_cidr: String,
    #[command(flatten)]
    node: NodeFlags,
    /// File to log to instead of stderr
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

impl Agent {
    /// Runs until SIGTERM or SIGINT.
    pub fn run(self) -> anyhow::Result<()> {
        crate::log::start(self.log_file.as_deref())?;
        let remote = Remote::read(&self.kubeconfig)?;
        let address = match self.advertise_address {
            Some(address) => address,
            None => server::default_address()?,
        };
        let options = self.node.options(&self.data_dir, self.cluster_cidr)?;
        server::run_agent(&options, &remote, address)
    }
}
