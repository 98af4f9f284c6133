//! `sagong image`

use crate::cli::DataDir;
use crate::output::{Output, Progress, columns};
use anyhow::Context;
use clap::Subcommand;
use cri::ImageService;
use std::path::PathBuf;

/// Loads and lists container images.
#[derive(clap::Args)]
pub struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Loads images from docker archives or OCI layouts (files or directories); every cluster sees them
    Load(Load),
    /// Lists the images
    Ls(Ls),
}

#[derive(clap::Args)]
struct Load {
    /// Archives (`docker save`), OCI layouts; plain, gzip or zstd
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Ls {
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    output: Output,
}

impl Image {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Load(load) => load.run(),
            Verb::Ls(ls) => ls.run(),
        }
    }
}

fn open(data: &DataDir) -> anyhow::Result<std::sync::Arc<images::Store>> {
    Ok(images::Store::open(&cluster::images_dir(&data.data_dir))?)
}

impl Load {
    fn run(self) -> anyhow::Result<()> {
        let store = open(&self.data)?;
        let progress = Progress::new(self.output.output.is_some());
        let mut loaded = Vec::new();
        for file in &self.files {
            progress.say(&format!("loading {}", file.display()));
            loaded.extend(store.import(file).with_context(|| format!("cannot load {}", file.display()))?);
        }
        drop(progress);
        self.output.print(&loaded, || loaded.iter().map(|name| format!("Loaded {name}\n")).collect())
    }
}

impl Ls {
    fn run(self) -> anyhow::Result<()> {
        let store = open(&self.data)?;
        let list = super::block_on(store.list_images())??;
        self.output.print(&list, || {
            let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
            let names = |image: &cri::Image| if image.repo_tags.is_empty() { vec!["<none>".to_owned()] } else { image.repo_tags.clone() };
            let row = |image: &cri::Image, name: String| vec![name, short(&image.id), format!("{:.1} MB", image.size as f64 / 1e6)];
            let rows: Vec<_> = list.iter().flat_map(|image| names(image).into_iter().map(|name| row(image, name))).collect();
            columns(&["IMAGE", "ID", "SIZE"], &rows)
        })
    }
}
