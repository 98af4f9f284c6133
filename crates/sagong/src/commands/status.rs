//! `sagong status`

use crate::cli::Target;
use crate::output::{Output, columns};
use cluster::{Layout, Spec, lifecycle};
use serde::Serialize;

/// Shows what the cluster is doing.
#[derive(clap::Args)]
pub struct Status {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

/// One cluster as `status` and `ls` show it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    name: String,
    state: lifecycle::State,
    server: String,
    created: String,
    cluster_cidr: String,
    service_cidr: String,
}

impl Shown {
    /// Looks at a cluster.
    pub fn of(layout: &Layout) -> cluster::Result<Self> {
        let spec = Spec::load(layout)?;
        Ok(Self {
            state: lifecycle::state(layout),
            server: format!("https://{}:6443", spec.node_ip()),
            created: spec.created.clone(),
            cluster_cidr: cluster::cidr_text(spec.cluster_cidr()),
            service_cidr: cluster::cidr_text(spec.service_cidr()),
            name: spec.name,
        })
    }
}

/// A table of clusters.
pub fn table(shown: &[Shown]) -> String {
    let row = |s: &Shown| vec![s.name.clone(), format!("{:?}", s.state), s.server.clone(), s.cluster_cidr.clone(), s.service_cidr.clone(), s.created.clone()];
    columns(&["NAME", "STATE", "SERVER", "PODS", "SERVICES", "CREATED"], &shown.iter().map(row).collect::<Vec<_>>())
}

impl Status {
    /// Prints it; fails where there is no such cluster.
    pub fn run(self) -> anyhow::Result<()> {
        let shown = Shown::of(&self.target.layout()?)?;
        self.output.print(&shown, || table(std::slice::from_ref(&shown)))
    }
}
