//! `sagong kubeconfig`

use crate::cli::Target;
use crate::output::{Output, write_stdout};
use anyhow::Context;
use cluster::{kubeconfig, lifecycle};
use pki::{Ca, Usage};
use serde_json::Value;
use std::path::PathBuf;

/// Prints the administrator's kubeconfig of the cluster, or that of a node that is to join it.
#[derive(clap::Args)]
pub struct Kubeconfig {
    #[command(flatten)]
    target: Target,
    /// Directory of a `sagong server` that is not a local cluster
    #[arg(long, value_name = "DIR")]
    server_dir: Option<PathBuf>,
    /// Issues a certificate for this node, for `sagong agent --kubeconfig`
    #[arg(long, value_name = "NODE", requires = "address")]
    node: Option<String>,
    /// Address of that node
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Kubeconfig {
    /// Prints it as YAML, or as JSON.
    pub fn run(self) -> anyhow::Result<()> {
        let mut config = self.admin()?;
        if let (Some(node), Some(address)) = (&self.node, &self.address) {
            config = self.of_node(&config, node, address)?;
        }
        if self.output.output.is_some() { self.output.print(&config, String::new) } else { write_stdout(&kubeconfig::to_yaml(&config)?) }
    }

    fn server_dir(&self) -> anyhow::Result<PathBuf> {
        Ok(match &self.server_dir {
            Some(dir) => dir.clone(),
            None => self.target.layout()?.server_dir(),
        })
    }

    fn admin(&self) -> anyhow::Result<Value> {
        match &self.server_dir {
            None => Ok(lifecycle::admin_kubeconfig(&self.target.layout()?)?),
            Some(dir) => {
                let path = dir.join("admin.kubeconfig");
                kubeconfig::read(&path)?.with_context(|| format!("{} does not exist; `sagong server --data-dir {}` writes it", path.display(), dir.display()))
            }
        }
    }

    /// One certificate serves both ways: the node's client of the API, and its own API on port 10250.
    fn of_node(&self, admin: &Value, node: &str, address: &str) -> anyhow::Result<Value> {
        let ca = Ca::load_or_create(&self.server_dir()?.join("pki"))?;
        let sans = [node.to_owned(), address.to_owned()];
        let identity = ca.issue(&format!("system:node:{node}"), &["system:nodes"], &sans, &[Usage::Client, Usage::Server])?;
        let server = admin.pointer("/clusters/0/cluster/server").and_then(Value::as_str).unwrap_or_default();
        Ok(crate::server::kubeconfig_of("sagong", server, ca.cert_pem(), &identity))
    }
}
