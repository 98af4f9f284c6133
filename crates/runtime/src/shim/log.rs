//! Container logs in CRI's format: `<time> <stream> <F|P> <line>`.

use crate::records;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Longest piece of a line; longer lines are written in pieces marked P.
const MAX_LINE: usize = 16 << 10;

/// The path of a log that is not kept.
pub(crate) const NOTHING: &str = "/dev/null";

/// A log file.
pub(super) struct Log {
    /// Of the pod; the way there is the node's.
    directory: PathBuf,
    /// Below it. Whoever may write there must not lead us elsewhere by a link.
    name: PathBuf,
    file: File,
    size: Size,
}

/// What was written since the log was opened.
#[derive(Default)]
struct Size {
    written: u64,
    /// Asks for a new file; 0: never.
    limit: u64,
    told: bool,
}

impl Size {
    fn add(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
    }

    fn is_full(&self) -> bool {
        self.limit > 0 && self.written >= self.limit
    }

    /// A new file was asked for and did not come in time.
    fn overflows(&self) -> bool {
        self.is_full() && self.written / 2 >= self.limit
    }
}

impl Log {
    /// Opens `path` below `directory`; without a path nothing is kept.
    /// After `limit` bytes it is full, unless that is 0.
    pub(super) fn open(directory: &Path, path: &Path, limit: u64) -> io::Result<Self> {
        let nothing = path.as_os_str().is_empty() || path == Path::new(NOTHING);
        let name = if nothing { Path::new("") } else { path.strip_prefix(directory).unwrap_or(path) };
        let size = Size { limit: if name.as_os_str().is_empty() { 0 } else { limit }, ..Size::default() };
        Ok(Self { file: open(directory, name)?, directory: directory.into(), name: name.into(), size })
    }

    /// Opens the path anew, after it was renamed; on failure the old file stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        // Counted anew in any case: a container must not wait for a rotation that fails.
        self.size = Size { limit: self.size.limit, ..Size::default() };
        self.file = open(&self.directory, &self.name)?;
        Ok(())
    }

    /// Whether it is full.
    pub(super) fn is_full(&self) -> bool {
        self.size.is_full()
    }

    /// Whether it became full since this was asked last.
    pub(super) fn became_full(&mut self) -> bool {
        self.is_full() && !std::mem::replace(&mut self.size.told, true)
    }

    /// Whether so much was written since it was full that writers have to wait for a new file.
    pub(super) fn overflows(&self) -> bool {
        self.size.overflows()
    }

    /// Writes whole entries. A full disk loses them: the container goes on.
    fn write(&mut self, entries: &[u8]) {
        self.size.add(entries.len());
        let _ = self.file.write_all(entries);
    }
}

fn open(directory: &Path, name: &Path) -> io::Result<File> {
    if name.as_os_str().is_empty() {
        return std::fs::OpenOptions::new().append(true).open(NOTHING);
    }
    std::fs::create_dir_all(directory)?;
    // The pod's directory is named after the pod: what stands above it may be a link of the node's, itself it may not.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut place = rustix::fs::open(directory, flags, Mode::empty())?;
    for part in name.parent().into_iter().flat_map(Path::components) {
        place = enter(&place, Path::new(&part))?;
    }
    // A pipe must not hold the shim up.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK;
    let file = open_own(&place, Path::new(name.file_name().unwrap_or_default()), flags, Mode::from_raw_mode(0o640))?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

fn enter(place: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(place, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {
            open_own(place, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens what is itself in a directory, not what a link there points to.
fn open_own(place: &OwnedFd, name: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(place, name, flags | OFlags::CLOEXEC, mode, resolve)?)
}

/// Cuts one stream into lines.
pub(super) struct Lines {
    stream: &'static str,
    /// The line so far; shorter than [`MAX_LINE`].
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: &'static str) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Logs what has come; an unfinished line waits.
    pub(super) fn push(&mut self, bytes: &[u8], log: &mut Log) {
        let entries = self.entries(bytes, &timestamp(records::now()));
        log.write(&entries);
    }

    /// Logs an unfinished line at the end of the stream: as a piece, for no line end was written.
    pub(super) fn finish(&mut self, log: &mut Log) {
        log.write(&self.last_entry(&timestamp(records::now())));
    }

    fn last_entry(&mut self, time: &str) -> Vec<u8> {
        if self.rest.is_empty() {
            return Vec::new();
        }
        let rest = std::mem::take(&mut self.rest);
        [format!("{time} {} P ", self.stream).as_bytes(), &rest, b"\n"].concat()
    }

    fn entries(&mut self, mut bytes: &[u8], time: &str) -> Vec<u8> {
        let mut entries = Vec::with_capacity(bytes.len() + 64);
        while !bytes.is_empty() {
            let room = MAX_LINE - self.rest.len();
            let (piece, tag, used) = match bytes.iter().take(room + 1).position(|b| *b == b'\n') {
                Some(end) => (&bytes[..end], "F", end + 1),
                None if bytes.len() >= room => (&bytes[..room], "P", room),
                None => {
                    self.rest.extend_from_slice(bytes);
                    return entries;
                }
            };
            entries.extend_from_slice(format!("{time} {} {tag} ", self.stream).as_bytes());
            entries.extend_from_slice(&self.rest);
            entries.extend_from_slice(piece);
            entries.push(b'\n');
            self.rest = Vec::new();
            bytes = &bytes[used..];
        }
        entries
    }
}

/// RFC 3339 with nanoseconds, UTC. Days are turned into a date by Hinnant's civil-from-days.
fn timestamp(nanoseconds: i64) -> String {
    let (seconds, fraction) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (nanoseconds, expect) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_007, "2000-02-29T00:00:00.000000007Z"),
            (1_795_238_823_120_000_000, "2026-11-21T05:27:03.120000000Z"),
        ] {
            assert_eq!(timestamp(nanoseconds), expect);
        }
    }

    #[test]
    fn a_log_is_full_once_and_overflows_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), &dir.path().join("0.log"), 100).unwrap();
        let mut write = |bytes: usize, expect: (bool, bool, bool)| {
            log.write(&vec![b'x'; bytes]);
            assert_eq!((log.is_full(), log.became_full(), log.overflows()), expect);
        };
        write(99, (false, false, false));
        write(1, (true, true, false));
        write(99, (true, false, false));
        write(1, (true, false, true));
        std::fs::rename(dir.path().join("0.log"), dir.path().join("0.log.old")).unwrap();
        log.reopen().unwrap();
        assert!(!log.is_full() && !log.overflows());
        log.write(&[b'x'; 100]);
        assert!(log.became_full());
        // A link in place of the pod's directory leads nowhere.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(Log::open(&link, &link.join("1.log"), 0).is_err());
        // What is thrown away is never full.
        let mut none = Log::open(dir.path(), Path::new(""), 1).unwrap();
        none.write(b"xx");
        assert!(!none.is_full());
    }

    #[test]
    fn lines_and_pieces() {
        let mut lines = Lines::new("stdout");
        let mut push = |bytes: &[u8]| String::from_utf8(lines.entries(bytes, "T")).unwrap();
        assert_eq!(push(b"a\nb"), "T stdout F a\n");
        assert_eq!(push(b"c\n\n"), "T stdout F bc\nT stdout F \n");
        let long = vec![b'x'; MAX_LINE];
        assert_eq!(push(&long), format!("T stdout P {}\n", "x".repeat(MAX_LINE)));
        assert_eq!(push(b"y\n"), "T stdout F y\n");
        let exact = [&long[..], b"\n"].concat();
        assert_eq!(push(&exact), format!("T stdout F {}\n", "x".repeat(MAX_LINE)));
        assert_eq!(push(b"end"), "");
        assert_eq!(push(b"\n"), "T stdout F end\n");
        assert_eq!(push(b"cut"), "");
        assert_eq!(lines.last_entry("T"), b"T stdout P cut\n");
        assert!(lines.last_entry("T").is_empty());
    }
}
