//! Maintenance tasks: `cargo xtask tidy`, `cargo xtask test`, `cargo xtask bench …`, `cargo xtask escapes`.

mod bench;
mod escapes;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks the rules that ARCHITECTURE.md and CONTRIBUTING.md state
    Tidy,
    /// Installs what the tests need and runs all of them
    Test(test::Test),
    /// Measures a figure that the README claims
    Bench(bench::Bench),
    /// Tries published escapes on this tree, and on copies without their guards
    Escapes(escapes::Escapes),
    /// Writes the images of the examples and tests as archives into a directory
    Images {
        /// Directory, made when it does not exist
        dir: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Tidy => tidy::run(),
        Task::Test(test) => test.run(),
        Task::Bench(bench) => bench.run(),
        Task::Escapes(escapes) => escapes.run(),
        Task::Images { dir } => {
            test::install_packages()?;
            std::fs::create_dir_all(&dir)?;
            for file in e2e::image::make(&dir)? {
                println!("{}", file.display());
            }
            Ok(())
        }
    }
}

/// The workspace's directory.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
