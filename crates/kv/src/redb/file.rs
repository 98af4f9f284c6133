//! Opening the file, and saying clearly why it cannot be used.

use super::disk::{self, Counters};
use super::state::RING;
use crate::Error;
use redb::Database;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// No more transactions than this are seen before they are written: a crash loses fewer.
const LOST_MAX: u64 = RING as u64;

/// Makes a database; the seam for tests that inject faults.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// The file, which is closed only while a failed write is being recovered from.
pub(super) struct File {
    path: PathBuf,
    opener: Opener,
    database: Option<Database>,
    counters: Counters,
}

impl File {
    pub fn open(path: &Path, opener: Opener) -> Result<Self, Error> {
        let mut file = Self { path: path.to_owned(), opener, database: None, counters: Counters::default() };
        file.reopen()?;
        Ok(file)
    }

    /// Takes the file into use, once, when the store is opened.
    pub fn begin(&mut self) -> Result<(), Error> {
        let begun = match &self.database {
            Some(db) => disk::begin(db, self.counters, LOST_MAX),
            None => Err(redb::Error::DatabaseClosed),
        };
        self.counters = begun.map_err(|error| engine_error(&self.path, "write to", &error))?;
        Ok(())
    }

    /// Closes and opens the file.
    pub fn reopen(&mut self) -> Result<(), Error> {
        self.database = None;
        let opened = (self.opener)().and_then(|db| disk::prepare(&db).map(|counters| (db, counters)));
        let (database, counters) = opened.map_err(|error| engine_error(&self.path, "open", &error))?;
        (self.database, self.counters) = (Some(database), counters);
        Ok(())
    }

    pub fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// The counters as of the last opening.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

/// Opens a file on disk, made readable for its owner only: it holds secrets.
pub(super) fn opener(path: &Path, cache: usize) -> Opener {
    let path = path.to_owned();
    Box::new(move || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let database = Database::builder().set_cache_size(cache).create_file(file)?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            // A new file survives power loss only when its directory entry does.
            std::fs::File::open(parent)?.sync_all()?;
        }
        Ok(database)
    })
}

/// Names cause and fix of an engine's failure.
pub(super) fn engine_error(path: &Path, action: &str, error: &redb::Error) -> Error {
    let fix = match error {
        redb::Error::DatabaseAlreadyOpen => {
            "another process uses it; stop that server, or give this one another data directory".to_owned()
        }
        redb::Error::Io(io) => io_fix(io),
        redb::Error::Corrupted(what) => format!("the file is damaged ({what}); restore it from a backup"),
        redb::Error::UpgradeRequired(version) => {
            format!("file format {version} is too old; open it once with the version that wrote it and export it")
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            "it was closed after an earlier failure; see the log for the cause".to_owned()
        }
        other => format!("{other}; see the log, and restore the file from a backup if this persists"),
    };
    Error::Engine(format!("cannot {action} the store {}: {fix}", path.display()))
}

fn io_fix(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("{error}; free space on its file system"),
        io::ErrorKind::PermissionDenied => format!("{error}; run as the file's owner or change its permissions"),
        io::ErrorKind::NotFound => format!("{error}; create the directory"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{error}; mount the file system writable"),
        io::ErrorKind::InvalidData => format!("the file is damaged or no store ({error}); restore it from a backup"),
        _ => format!("{error}; check the disk and the kernel's log"),
    }
}
