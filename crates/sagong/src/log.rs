//! The log of a long-lived process: lines on stderr, or in a file that rotates by size.

use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Size at which a log file is put aside, bytes; one older file is kept.
const LIMIT: u64 = 10 << 20;

/// Starts logging. `RUST_LOG` selects what is logged, `info` by default.
pub fn start(file: Option<&Path>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match file {
        Some(path) => builder.with_writer(Rotating::open(path)?).init(),
        None => builder.with_writer(io::stderr).init(),
    }
    Ok(())
}

/// A file that is renamed to `<name>.1` when it has grown to [`LIMIT`].
#[derive(Clone)]
struct Rotating(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner { path: path.to_owned(), file, size }))))
    }
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock();
        if inner.size >= LIMIT {
            std::fs::rename(&inner.path, inner.path.with_added_extension("1"))?;
            inner.file = OpenOptions::new().append(true).create(true).open(&inner.path)?;
            inner.size = 0;
        }
        inner.file.write_all(line)?;
        inner.size += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Rotating {
    type Writer = Rotating;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}
