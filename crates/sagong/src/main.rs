//! Sagong: Kubernetes in one small binary.
//!
//! The only crate that knows every other, and the only place that reads flags and the environment.
//! [`cli`] says what can be asked; a command is one file in [`commands`]; [`server`] wires the
//! components of a control plane and a node together.
//!
//! The shim, the node supervisor and the clone of a gitRepo volume are this program too, told apart by their first
//! argument before any thread exists: the first two change namespaces, the last starts with nothing of ours.

mod cli;
mod commands;
mod log;
mod output;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|arg| arg.to_str()) {
        Some("shim") => runtime::shim::main(args.collect()),
        Some("git-clone") => git::main(args.collect()),
        Some("node") => commands::node::main(args.collect()),
        _ => cli::main(),
    }
}
