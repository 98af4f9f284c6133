//! Layers that are unpacked, and layers that are refused.

use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use tar::{Builder, EntryType, Header};

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

/// Puts a name into the header as it is, which the builder would refuse.
fn add(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, data: &[u8]) {
    let mut header = header(kind, if kind.is_dir() { 0o750 } else { 0o640 }, data.len() as u64);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    if !link.is_empty() {
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    }
    if kind == EntryType::Char {
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
    }
    header.set_cksum();
    tar.append(&header, data).unwrap();
}

type Entry<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn run(entries: &[Entry<'_>], parents: &[&Path]) -> (tempfile::TempDir, Result<u64, String>) {
    let mut tar = Builder::new(Vec::new());
    for (kind, path, link, data) in entries {
        add(&mut tar, *kind, path, link, data);
    }
    let bytes = tar.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
    let parents: Vec<OwnedFd> = parents.iter().map(|p| std::fs::File::open(p).unwrap().into()).collect();
    let result = unpack(&bytes[..], root.as_fd(), &parents, 100, 1000).map_err(|e| e.to_string());
    (dir, result)
}

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Link;
const SYM: EntryType = EntryType::Symlink;

#[test]
fn unpacks_files_links_and_times() {
    let (dir, result) = run(
        &[
            (DIR, "bin/", "", b""),
            (FILE, "bin/a", "", b"hello"),
            (LINK, "bin/b", "bin/a", b""),
            (SYM, "etc", "/bin", b""),
            (FILE, "etc/c", "", b"through the link"),
            (FILE, "/absolute", "", b"x"),
            (EntryType::Fifo, "pipe", "", b""),
        ],
        &[],
    );
    assert_eq!(result, Ok(22));
    let at = |p: &str| std::fs::symlink_metadata(dir.path().join(p)).unwrap();
    assert_eq!(at("bin/a").ino(), at("bin/b").ino());
    assert_eq!((at("bin").permissions().mode() & 0o7777, at("bin").mtime()), (0o750, 1_000_000));
    assert_eq!((at("bin/a").permissions().mode() & 0o7777, at("bin/a").mtime()), (0o640, 1_000_000));
    assert!(at("bin/c").is_file() && at("absolute").is_file() && at("pipe").file_type().is_fifo());
}

fn refused(entries: &[Entry<'_>], expect: &str) {
    let (_dir, result) = run(entries, &[]);
    let text = result.expect_err(expect);
    assert!(text.contains(expect), "{text}");
}

#[test]
fn refuses_tricks() {
    refused(&[(FILE, "../x", "", b"")], "contains \"..\"");
    refused(&[(FILE, "a/../../x", "", b"")], "contains \"..\"");
    refused(&[(SYM, "out", "/nonexistent", b""), (FILE, "out/x", "", b"")], "dangling link");
    refused(&[(LINK, "h", "../../etc/passwd", b"")], "contains \"..\"");
    refused(&[(LINK, "h", "etc/passwd", b"")], "which this layer does not have");
    refused(&[(EntryType::Char, "null", "", b"")], "character device 0:0");
    refused(&[(FILE, ".wh.", "", b"")], "names no file");
    refused(&[(FILE, "a/.wh...", "", b"")], "names no file");
    refused(&[(FILE, ".wh.gone", "", b""), (LINK, "h", "gone", b"")], "the whiteout");
    refused(&[(DIR, "d", "", b""), (LINK, "h", "d", b"")], "the directory");
}

#[test]
fn links_never_leave_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let (dir, result) = run(&[(SYM, "a", target, b""), (FILE, "a/x", "", b"x")], &[]);
    assert!(result.unwrap_err().contains("dangling link"));
    assert!(!outside.path().join("x").exists());
    drop(dir);
    // A file replaces the link itself, not what it points to.
    std::fs::write(outside.path().join("f"), "safe").unwrap();
    let victim = format!("{target}/f");
    let (dir, result) = run(&[(SYM, "f", &victim, b""), (FILE, "f", "", b"mine")], &[]);
    assert_eq!(result, Ok(4));
    assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "safe");
}

#[test]
fn whiteouts_become_overlay_marks() {
    let (dir, result) = run(
        &[
            (FILE, "d/.wh.gone", "", b""),
            (FILE, "e/.wh..wh..opq", "", b""),
            (FILE, "f/keep", "", b"1"),
            (FILE, "f/.wh.keep", "", b""),
            (FILE, ".wh.back", "", b""),
            (DIR, "back/", "", b""),
        ],
        &[],
    );
    assert_eq!(result, Ok(1));
    let gone = std::fs::symlink_metadata(dir.path().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |p: &str| {
        let mut value = [0u8; 8];
        kernel::getxattr(dir.path().join(p), OPAQUE, &mut value).is_ok_and(|n| &value[..n] == b"y")
    };
    assert!(opaque("e") && opaque("back") && !opaque("d") && !opaque("f"));
    assert!(dir.path().join("f/keep").is_file());
}

#[test]
fn unnamed_directories_inherit_from_the_layer_below() {
    let below = tempfile::tempdir().unwrap();
    std::fs::create_dir(below.path().join("tmp")).unwrap();
    std::fs::set_permissions(below.path().join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let (dir, result) = run(&[(FILE, "tmp/x", "", b"")], &[below.path()]);
    assert_eq!(result, Ok(0));
    assert_eq!(std::fs::metadata(dir.path().join("tmp")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn too_many_entries_are_refused() {
    let names: Vec<String> = (0..101).map(|i| format!("f{i}")).collect();
    let entries: Vec<Entry<'_>> = names.iter().map(|n| (FILE, n.as_str(), "", &b""[..])).collect();
    refused(&entries, "more than 100 entries");
}

#[test]
fn too_many_bytes_are_refused() {
    let half = [0u8; 600];
    refused(&[(FILE, "a", "", &half), (FILE, "b", "", &half)], "more bytes than a layer may have");
}
