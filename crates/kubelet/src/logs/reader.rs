//! Reading a container's log: `2026-01-02T15:04:05.999999999Z stdout F text`, one record per line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Pod, container and file: what of a log's path is named after pods and could be exchanged by one that may write there.
const OWN_PARTS: usize = 3;

const CHUNK: usize = 64 * 1024;
/// A record longer than this is passed on as it is: the shim writes at most 16 KiB per record.
const LONGEST: usize = 1 << 20;

/// What part of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only the last records.
    pub tail: Option<u64>,
    /// Only records from this time on.
    pub since: Option<jiff::Timestamp>,
    /// Puts the time before each line.
    pub timestamps: bool,
    /// At most this many bytes.
    pub limit: Option<u64>,
    /// Only `stdout` or `stderr`.
    pub stream: Option<String>,
    /// The log may be a link: another runtime's, which keeps its logs elsewhere.
    pub linked: bool,
}

/// Opens a log below the node's log directory without following a link there: one could name any file of the node.
pub(super) fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let root = path.ancestors().nth(OWN_PARTS).unwrap_or(Path::new("/"));
    let place = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // A pipe must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let name = path.strip_prefix(root).unwrap_or(path);
    let file = File::from(rustix::fs::openat2(&place, name, flags, Mode::empty(), resolve)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Opens a log wherever its links lead: that is for the runtime to say.
fn open_linked(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// A log that is read from where the last reading ended.
pub struct LogReader {
    path: PathBuf,
    file: Option<File>,
    inode: u64,
    options: Options,
    pending: Vec<u8>,
    left: Option<u64>,
    at_line_start: bool,
}

impl LogReader {
    /// Opens a log at the first record that is wanted; one that does not exist yet is empty.
    pub fn open(path: &Path, options: Options) -> io::Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            file: None,
            inode: 0,
            left: options.limit,
            options,
            pending: Vec::new(),
            at_line_start: true,
        };
        reader.reopen()?;
        if let (Some(file), Some(tail)) = (&mut reader.file, reader.options.tail) {
            let offset = tail_offset(file, tail)?;
            file.seek(SeekFrom::Start(offset))?;
        }
        Ok(reader)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let opened = if self.options.linked { open_linked(&self.path) } else { open(&self.path) };
        match opened {
            Ok(file) => {
                self.inode = file.metadata()?.ino();
                self.file = Some(file);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the limit is reached.
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// The next part of the output; empty when there is no more for now. Goes on in the new file after a rotation.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.is_empty() && !self.is_done() {
            let mut chunk = [0; CHUNK];
            let count = match &mut self.file {
                Some(file) => file.read(&mut chunk)?,
                None => 0,
            };
            if count > 0 {
                self.pending.extend_from_slice(&chunk[..count]);
                self.records(&mut out);
            } else if !self.rotated()? {
                break;
            }
        }
        Ok(out)
    }

    /// Turns to the file that now has the path, when that is another one.
    fn rotated(&mut self) -> io::Result<bool> {
        let changed = std::fs::metadata(&self.path).is_ok_and(|m| m.ino() != self.inode);
        if changed {
            self.reopen()?;
        }
        Ok(changed)
    }

    fn records(&mut self, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.record(&rest[..end], out);
            rest = &rest[end + 1..];
        }
        if rest.len() > LONGEST {
            self.record(rest, out);
            rest = &[];
        }
        self.pending = rest.to_vec();
    }

    fn record(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = Record::parse(line) else { return };
        if self.options.stream.as_ref().is_some_and(|s| s.as_bytes() != record.stream) {
            return;
        }
        if self.options.since.is_some_and(|since| record.timestamp().is_some_and(|t| t < since)) {
            return;
        }
        let start = out.len();
        if self.options.timestamps && self.at_line_start {
            out.extend_from_slice(record.time);
            out.push(b' ');
        }
        out.extend_from_slice(record.content);
        if !record.partial {
            out.push(b'\n');
        }
        self.at_line_start = !record.partial;
        if let Some(left) = &mut self.left {
            let length = (out.len() - start) as u64;
            if length > *left {
                out.truncate(start + usize::try_from(*left).unwrap_or(usize::MAX));
            }
            *left = left.saturating_sub(length);
        }
    }
}

struct Record<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    content: &'a [u8],
}

impl<'a> Record<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
        let partial = tags.split(|b| *b == b':').next() == Some(b"P");
        Some(Self { time, stream, partial, content: parts.next().unwrap_or_default() })
    }

    fn timestamp(&self) -> Option<jiff::Timestamp> {
        std::str::from_utf8(self.time).ok()?.parse().ok()
    }
}

/// Where the last `lines` lines begin.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let (mut end, mut seen) = (length, 0);
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let size = usize::try_from(end - start).unwrap_or(block.len());
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..size])?;
        for at in (0..size).rev().filter(|at| block[*at] == b'\n') {
            let offset = start + at as u64 + 1;
            // The newline at the very end closes the last line.
            if offset == length && lines > 0 {
                continue;
            }
            seen += 1;
            if seen >= lines {
                return Ok(offset);
            }
        }
        end = start;
    }
    Ok(0)
}

/// The last lines of a log, cut to the last bytes; a message where it cannot be read.
pub fn last_lines(path: &Path, lines: usize, bytes: usize, linked: bool) -> String {
    let options = Options { tail: Some(lines as u64), linked, ..Options::default() };
    let read = || -> io::Result<Vec<u8>> {
        let (mut reader, mut all) = (LogReader::open(path, options)?, Vec::new());
        loop {
            let part = reader.read()?;
            if part.is_empty() {
                return Ok(all);
            }
            all.extend(part);
            all.drain(..all.len().saturating_sub(bytes));
        }
    };
    match read() {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("Error on reading termination message from logs: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (secret, pods) = (dir.path().join("secret"), dir.path().join("pods"));
        std::fs::create_dir_all(secret.join("c")).expect("mkdir");
        std::fs::write(secret.join("c/0.log"), "secret").expect("write");
        std::fs::create_dir_all(pods.join("p/c")).expect("mkdir");
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(dir.path().join(to), pods.join(at)).expect("link");
        link("secret/c/0.log", "p/c/0.log");
        link("secret/c", "p/linked");
        link("secret", "q");
        for path in ["p/c/0.log", "p/linked/0.log", "q/c/0.log"] {
            assert!(open(&pods.join(path)).is_err(), "{path}");
        }
        let linked = |linked: bool| LogReader::open(&pods.join("p/c/0.log"), Options { linked, ..Options::default() });
        assert!(linked(false).is_err() && linked(true).is_ok(), "another runtime's may be links");
        std::fs::remove_file(pods.join("p/c/0.log")).expect("remove");
        std::fs::write(pods.join("p/c/0.log"), "own").expect("write");
        assert!(open(&pods.join("p/c/0.log")).is_ok());
    }

    const LOG: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n2026-01-01T00:00:02.000000000Z stderr P tw\n2026-01-01T00:00:03.000000000Z stderr F o\n";

    fn check(options: Options, expect: &str) {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).expect("write");
        let mut reader = LogReader::open(&path, options).expect("open");
        let mut text = Vec::new();
        loop {
            let part = reader.read().expect("read");
            if part.is_empty() {
                break;
            }
            text.extend(part);
        }
        assert_eq!(String::from_utf8_lossy(&text), expect);
    }

    #[test]
    fn parts_are_chosen() {
        let base = Options::default;
        check(base(), "one\ntwo\n");
        check(Options { tail: Some(1), ..base() }, "o\n");
        check(Options { tail: Some(9), ..base() }, "one\ntwo\n");
        check(Options { tail: Some(0), ..base() }, "");
        check(Options { limit: Some(5), ..base() }, "one\nt");
        check(Options { stream: Some("stdout".into()), ..base() }, "one\n");
        check(Options { since: "2026-01-01T00:00:02Z".parse().ok(), ..base() }, "two\n");
        check(Options { timestamps: true, tail: Some(2), ..base() }, "2026-01-01T00:00:02.000000000Z two\n");
    }

    #[test]
    fn a_rotation_is_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).expect("write");
        let mut reader = LogReader::open(&path, Options { tail: Some(0), ..Options::default() }).expect("open");
        assert!(reader.read().expect("read").is_empty());
        std::fs::rename(&path, dir.path().join("0.log.old")).expect("rename");
        std::fs::write(&path, "2026-01-01T00:00:04Z stdout F new\n").expect("write");
        assert_eq!(reader.read().expect("read"), b"new\n");
    }
}
