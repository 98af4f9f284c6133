//! The command line: what can be asked for, and what happens when it fails.

use crate::commands;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Kubernetes in one small binary.
///
/// `sagong up` starts a cluster on this machine and points kubectl at it; `sagong delete` removes every trace of it.
#[derive(Parser)]
#[command(name = "sagong", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the cluster, or resumes it, and selects its context for kubectl
    Up(commands::up::Up),
    /// Starts a stopped cluster
    Start(commands::start::Start),
    /// Stops the cluster; its data stays
    Stop(commands::stop::Stop),
    /// Deletes the cluster and everything of it
    Delete(commands::delete::Delete),
    /// Shows what the cluster is doing
    Status(commands::status::Status),
    /// Lists the clusters of this machine
    Ls(commands::ls::Ls),
    /// Prints the administrator's kubeconfig of the cluster
    Kubeconfig(commands::kubeconfig::Kubeconfig),
    /// Loads and lists container images
    Image(commands::image::Image),
    /// Prints the cluster's own log
    Logs(commands::logs::Logs),
    /// Manages the keys that encrypt secrets in the store
    Encryption(commands::encryption::Encryption),
    /// Prints the version
    Version(commands::version::Version),
    /// Runs a control plane, and a node beside it, in the foreground on this host
    Server(commands::server::Server),
    /// Runs a node in the foreground on this host
    Agent(commands::agent::Agent),
    /// Runs the container runtime alone and serves it as CRI, for another kubelet
    Cri(commands::cri::Cri),
}

/// Which cluster is meant.
#[derive(Args)]
pub struct Target {
    /// Name of the cluster
    #[arg(default_value = "sagong")]
    pub name: String,
    #[command(flatten)]
    pub data: DataDir,
}

impl Target {
    /// Where the cluster is.
    pub fn layout(&self) -> cluster::Result<cluster::Layout> {
        cluster::Layout::new(&self.data.data_dir, &self.name)
    }
}

/// Where clusters and images are kept.
#[derive(Args)]
pub struct DataDir {
    /// Directory of all clusters and images
    #[arg(long, env = "SAGONG_DATA_DIR", default_value = "/var/lib/sagong", value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Which kubeconfig is changed.
#[derive(Args)]
pub struct KubeconfigFile {
    /// File to change instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

impl KubeconfigFile {
    /// The files that hold the user's contexts.
    pub fn files(&self) -> cluster::kubeconfig::Files {
        match &self.kubeconfig {
            Some(path) => cluster::kubeconfig::Files::one(path),
            None => {
                let list = std::env::var("KUBECONFIG").ok();
                let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("/root"));
                cluster::kubeconfig::Files::of_user(list.as_deref(), &home)
            }
        }
    }
}

/// Reads the command line and runs the command.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(command) => command.run(),
        Command::Start(command) => command.run(),
        Command::Stop(command) => command.run(),
        Command::Delete(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Ls(command) => command.run(),
        Command::Kubeconfig(command) => command.run(),
        Command::Image(command) => command.run(),
        Command::Logs(command) => command.run(),
        Command::Encryption(command) => command.run(),
        Command::Version(command) => command.run(),
        Command::Server(command) => command.run(),
        Command::Agent(command) => command.run(),
        Command::Cri(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_readme() {
        let Command::Up(up) = Cli::try_parse_from(["sagong", "up"]).expect("parses").command else { panic!("up") };
        assert_eq!(up.target.name, "sagong");
    }
}
