//! `sagong cri`

use super::server::{NodeFlags, endpoint};
use crate::server;
use std::net::IpAddr;
use std::path::PathBuf;

/// Runs the container runtime alone and serves it as CRI, for another kubelet.
#[derive(clap::Args)]
pub struct Cri {
    /// Socket to serve on
    #[arg(long, default_value = "/run/sagong/cri.sock", value_name = "SOCKET", value_parser = endpoint)]
    socket: PathBuf,
    /// Directory of images and of the containers' writable layers
    #[arg(long, env = "SAGONG_DATA_DIR", default_value = "/var/lib/sagong", value_name = "DIR")]
    data_dir: PathBuf,
    /// Address others reach this host by [default: that of the default route]
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Addresses of all pods of the cluster; the kubelet tells those of this node
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    cluster_cidr: String,
    #[command(flatten)]
    node: NodeFlags,
    /// File to log to instead of stderr
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

impl Cri {
    /// Runs until SIGTERM or SIGINT.
    pub fn run(self) -> anyhow::Result<()> {
        crate::log::start(self.log_file.as_deref())?;
        let address = match self.advertise_address {
            Some(address) => address,
            None => server::default_address()?,
        };
        let options = self.node.options(&self.data_dir, self.cluster_cidr)?;
        server::run_cri(&options, self.socket, address)
    }
}
