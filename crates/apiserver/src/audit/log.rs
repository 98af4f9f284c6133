//! The audit log: a line of JSON for each event, in a file that is begun anew when it is large.

use super::event::Event;
use super::{ERRORS, LogSettings};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Whether requests wait for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They do; what cannot be written is lost.
    #[default]
    Blocking,
    /// They do, and fail when their first event cannot be written.
    BlockingStrict,
    /// They do not.
    Batch,
}

/// Events that wait in batch mode; more are dropped.
const QUEUE: usize = 10_000;

/// A log.
pub enum Log {
    /// Written by the requests themselves.
    Direct(Mutex<Sink>, bool),
    /// Written by a thread.
    Queued(SyncSender<String>),
}

impl Log {
    /// Opens a log.
    pub fn open(settings: &LogSettings) -> Result<Self, String> {
        let sink = Sink::open(settings)?;
        match settings.mode {
            Mode::Blocking => Ok(Self::Direct(Mutex::new(sink), false)),
            Mode::BlockingStrict => Ok(Self::Direct(Mutex::new(sink), true)),
            Mode::Batch => {
                let (sender, receiver) = sync_channel(QUEUE);
                let thread = std::thread::Builder::new().name("audit-log".into());
                thread.spawn(move || drain(sink, &receiver)).map_err(|e| format!("start the audit log: {e}"))?;
                Ok(Self::Queued(sender))
            }
        }
    }

    /// Writes an event; false when the request must fail for that.
    pub fn push(&self, event: &Event) -> bool {
        let Ok(mut line) = serde_json::to_string(event) else { return true };
        line.push('\n');
        match self {
            Self::Direct(sink, strict) => sink.lock().write(&line) || !strict,
            Self::Queued(sender) => {
                if sender.try_send(line).is_err() {
                    ERRORS.inc(&["log"]);
                }
                true
            }
        }
    }
}

fn drain(mut sink: Sink, events: &Receiver<String>) {
    while let Ok(mut lines) = events.recv() {
        // What has come in the meantime goes with it.
        while let Ok(line) = events.try_recv() {
            lines.push_str(&line);
            if lines.len() > 1 << 20 {
                break;
            }
        }
        sink.write(&lines);
    }
}

/// The file behind a log.
pub struct Sink {
    settings: LogSettings,
    out: Box<dyn Write + Send>,
    size: u64,
}

impl Sink {
    fn open(settings: &LogSettings) -> Result<Self, String> {
        if settings.path == Path::new("-") {
            return Ok(Self { settings: settings.clone(), out: Box::new(io::stdout()), size: 0 });
        }
        let file = create(&settings.path).map_err(|e| format!("ensureLogFile {}: {e}", settings.path.display()))?;
        let size = file.metadata().map_or(0, |m| m.len());
        Ok(Self { settings: settings.clone(), out: Box::new(file), size })
    }

    fn write(&mut self, lines: &str) -> bool {
        let limit = self.settings.max_size << 20;
        if limit > 0 && self.size > 0 && self.size + lines.len() as u64 > limit {
            if let Err(error) = self.rotate() {
                tracing::warn!(%error, "cannot begin a new audit log; the old one goes on");
            }
        }
        self.size += lines.len() as u64;
        match self.out.write_all(lines.as_bytes()).and_then(|()| self.out.flush()) {
            Ok(()) => true,
            Err(error) => {
                ERRORS.inc(&["log"]);
                tracing::error!(%error, "cannot write the audit log");
                false
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        if path == Path::new("-") {
            return Ok(());
        }
        let stamp = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        fs::rename(path, backup(path, &stamp))?;
        self.out = Box::new(create(path)?);
        self.size = 0;
        self.clean()
    }

    /// Removes old logs that are too many or too old. Their names sort by age.
    fn clean(&self) -> io::Result<()> {
        let path = &self.settings.path;
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (start, end) = affixes(path);
        let mut old: Vec<PathBuf> = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        old.retain(|p| stamp_of(p, &start, &end).is_some());
        old.sort();
        let surplus = old.len().saturating_sub(self.settings.max_backups);
        let surplus = if self.settings.max_backups == 0 { 0 } else { surplus };
        let age = SignedDuration::from_hours(24 * i64::try_from(self.settings.max_age).unwrap_or(i64::MAX / 24));
        let oldest = Timestamp::now().checked_sub(age).ok().filter(|_| self.settings.max_age > 0);
        let oldest = oldest.map(|at| at.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string());
        for (at, file) in old.iter().enumerate() {
            let aged = oldest.as_ref().is_some_and(|o| stamp_of(file, &start, &end).is_some_and(|s| s < *o));
            if at < surplus || aged {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// What names of old logs begin and end with: `audit-`, `.log`.
fn affixes(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    let end = text(path.extension()).map_or(String::new(), |e| format!(".{e}"));
    (format!("{}-", text(path.file_stem()).unwrap_or_default()), end)
}

fn backup(path: &Path, stamp: &str) -> PathBuf {
    let (start, end) = affixes(path);
    path.with_file_name(format!("{start}{stamp}{end}"))
}

fn stamp_of(path: &Path, start: &str, end: &str) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stamp = name.strip_prefix(start)?.strip_suffix(end)?;
    (stamp.len() == "2006-01-02T15-04-05.000".len()).then(|| stamp.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logs_are_begun_anew_and_old_ones_removed() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("audit.log");
        let settings =
            LogSettings { path: path.clone(), mode: Mode::Blocking, max_size: 1, max_age: 0, max_backups: 2 };
        let mut sink = Sink::open(&settings).expect("open");
        let line = format!("{}\n", "x".repeat(700 << 10));
        for _ in 0..5 {
            assert!(sink.write(&line));
            // Names have milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let files = fs::read_dir(dir.path()).expect("dir").count();
        assert_eq!(files, 3, "the log and two old ones");
        assert_eq!(fs::metadata(&path).expect("log").len(), line.len() as u64);
        let aged = dir.path().join("audit-2001-01-01T00-00-00.000.log");
        fs::write(&aged, "old").expect("write");
        let old = Sink { settings: LogSettings { max_age: 1, max_backups: 0, ..settings }, ..sink };
        old.clean().expect("clean");
        assert!(!aged.exists());
    }
}
