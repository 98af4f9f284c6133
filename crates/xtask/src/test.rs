//! `cargo xtask test`: everything CI runs, in the order in which failures are cheapest.

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

/// Programs the tests use, with the Debian package that has each.
const PACKAGES: [(&str, &str); 9] = [("containerd", "containerd"), ("host-local", "containernetworking-plugins"), ("busybox", "busybox-static"), ("nginx", "nginx-light"), ("curl", "curl"), ("script", "bsdutils"), ("nft", "nftables"), ("kubectl", "kubernetes-client"), ("patch", "patch")];

/// Installs what the tests need and runs all of them.
#[derive(clap::Args)]
pub struct Test {
    /// Leaves out the end-to-end tests
    #[arg(long)]
    no_e2e: bool,
}

impl Test {
    /// Stops at the first step that fails.
    pub fn run(self) -> Result<()> {
        install_packages()?;
        super::tidy::run()?;
        cargo(&["build", "--release", "--package", "sagong"])?;
        cargo(&["test", "--workspace", "--exclude", "e2e"])?;
        if !self.no_e2e {
            cargo(&["test", "--package", "e2e", "--", "--test-threads=1"])?;
        }
        Ok(())
    }
}

/// Installs the Debian packages whose programs are missing.
pub fn install_packages() -> Result<()> {
    let missing: Vec<&str> = PACKAGES.iter().filter(|(program, _)| !found(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = |args: &[&str]| run(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"));
    // A stale list is tried first: most machines need no update.
    let install = || apt(&[&["install", "-y", "-qq", "--no-install-recommends"], missing.as_slice()].concat());
    install().or_else(|_| apt(&["update", "-qq"]).and_then(|()| install()))
}

fn found(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin", "/usr/lib/cni"]).any(|dir| Path::new(dir).join(program).exists())
}

fn cargo(args: &[&str]) -> Result<()> {
    run(cargo_command().args(args).current_dir(super::root()))
}

/// Cargo without what `cargo run` told this program: build scripts that watch these variables, as ring's does, would
/// otherwise rebuild all that depends on them.
pub fn cargo_command() -> Command {
    let mut command = Command::new(env!("CARGO"));
    let told = |name: &OsStr| [b"CARGO_PKG_".as_slice(), b"CARGO_MANIFEST_"].iter().any(|start| name.as_bytes().starts_with(start));
    for (name, _) in std::env::vars_os().filter(|(name, _)| told(name)) {
        command.env_remove(name);
    }
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
