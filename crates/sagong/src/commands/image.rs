//! `sagong image`

use crate::cli::DataDir;
use crate::output::{Output, Progress, columns};
use anyhow::Context;
use clap::Subcommand;
use cri::ImageService;
use images::PullEvent;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

/// Loads, lists, pulls, saves and removes container images.
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
    /// Pulls images from their registries
    Pull(Pull),
    /// Saves images as one archive, which `sagong image load` and `docker load` read
    Save(Save),
    /// Removes images, or one of several names of an image; what containers use stays until they end
    Rm(Rm),
    /// Removes all images that no container uses
    Prune(Prune),
}

#[derive(clap::Args)]
struct Load {
    /// Archives (`docker save`), OCI layouts; plain, gzip or zstd; `-` for stdin
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

#[derive(clap::Args)]
struct Pull {
    /// Images, as a pod names them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// User at the registry
    #[arg(long)]
    username: Option<String>,
    /// Reads the password from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Save {
    /// Images, as a pod names them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// File to write instead of stdout
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    data: DataDir,
}

#[derive(clap::Args)]
struct Rm {
    /// Names, digests or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Prune {
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
            Verb::Pull(pull) => pull.run(),
            Verb::Save(save) => save.run(),
            Verb::Rm(rm) => rm.run(),
            Verb::Prune(prune) => prune.run(),
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
            let done = match file.as_os_str() == "-" {
                true => store.import_reader("standard input", std::io::stdin().lock()),
                false => store.import(file),
            };
            loaded.extend(done.with_context(|| format!("cannot load {}", file.display()))?);
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

impl Pull {
    fn run(self) -> anyhow::Result<()> {
        let store = open(&self.data)?;
        let auth = self.auth()?;
        let progress = Progress::new(self.output.output.is_some());
        let mut pulled = Vec::new();
        for image in &self.images {
            let layers = std::sync::Mutex::new(BTreeMap::new());
            let on_event = |event: PullEvent| match event {
                PullEvent::Resolved { digest } => progress.say(&format!("pulling {image} ({digest})")),
                PullEvent::Layer { digest, done, total } => {
                    let Ok(mut layers) = layers.lock() else { return };
                    layers.insert(digest, (done, total));
                    let sum = |of: fn(&(u64, u64)) -> u64| layers.values().map(of).sum::<u64>() as f64 / 1e6;
                    progress.say(&format!("pulling {image}: {:.1} of {:.1} MB", sum(|l| l.0), sum(|l| l.1)));
                }
                PullEvent::Unpacking => progress.say(&format!("unpacking {image}")),
            };
            let id = super::block_on(store.pull(image, auth.clone(), &on_event))?.map_err(|error| anyhow::anyhow!(error.chain()))?;
            pulled.push(json!({"image": image, "id": id}));
        }
        drop(progress);
        let text = || self.images.iter().map(|name| format!("Pulled {name}\n")).collect();
        self.output.print(&pulled, text)
    }

    fn auth(&self) -> anyhow::Result<Option<cri::AuthConfig>> {
        let Some(username) = self.username.clone() else { return Ok(None) };
        let mut password = String::new();
        if self.password_stdin {
            // Longer than any token; stdin may be endless.
            std::io::stdin().lock().take(64 << 10).read_to_string(&mut password).context("read the password")?;
        }
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        Ok(Some(cri::AuthConfig { username, password, ..cri::AuthConfig::default() }))
    }
}

impl Save {
    fn run(self) -> anyhow::Result<()> {
        let store = open(&self.data)?;
        let Some(path) = &self.file else {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            store.export(&self.images, &mut out)?;
            return out.flush().context("write the archive");
        };
        let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = std::io::BufWriter::new(file);
        let written = store.export(&self.images, &mut out).map_err(anyhow::Error::from);
        if let Err(error) = written.and_then(|()| Ok(out.flush()?)) {
            let _ = std::fs::remove_file(path);
            return Err(error.context(format!("cannot write {}", path.display())));
        }
        Ok(())
    }
}

impl Rm {
    fn run(self) -> anyhow::Result<()> {
        let store = open(&self.data)?;
        let mut removed = Vec::new();
        for image in &self.images {
            let gone = store.untag(image)?;
            removed.push(gone.with_context(|| format!("there is no image {image:?}; `sagong image ls` lists them"))?);
        }
        self.output.print(&removed, || removed.iter().map(|name| format!("Removed {name}\n")).collect())
    }
}

impl Prune {
    fn run(self) -> anyhow::Result<()> {
        let (removed, freed) = open(&self.data)?.prune()?;
        self.output.print(&json!({"removed": removed, "freedBytes": freed}), || {
            let lines: String = removed.iter().map(|name| format!("Removed {name}\n")).collect();
            format!("{lines}Freed {:.1} MB.\n", freed as f64 / 1e6)
        })
    }
}
