//! Removal of what containers and images leave behind.
//!
//! A container may make directories in each other, tens of thousands deep: a removal that calls itself for each, or
//! keeps one open for each, ends the program or its descriptors (`std::fs::remove_dir_all` does both). Here each
//! directory that is not empty is moved up to the top of the tree and emptied there: one is open at a time, and nothing
//! is found by a path that somebody could change meanwhile. What cannot be moved (a subvolume's, a lower layer's) is
//! emptied where it is.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, fstat, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;

/// Entries of a directory that are looked at before it is read anew.
const BATCH: usize = 4096;

/// Removes a directory with all that is in it, or a file; one that is not there is fine. A removal that broke off goes
/// on where it is called again. What is mounted below is an error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_directory(CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        Err(error) => return Err(error.into()),
    };
    let mut names = 0;
    empty(&top, &mut |entry| match remove_one(&top, entry)? {
        Removed::Yes => Ok(()),
        // Its own directories come up here, and are met in a later round.
        Removed::NotEmpty => {
            let directory = open_directory(&top, entry)?;
            empty(&directory, &mut |inner| match remove_one(&directory, inner)? {
                Removed::Yes => Ok(()),
                Removed::NotEmpty => move_up_or_empty(&directory, inner, &top, &mut names),
            })?;
            Ok(unlinkat(&top, entry, AtFlags::REMOVEDIR)?)
        }
    })?;
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

enum Removed {
    Yes,
    NotEmpty,
}

fn open_directory(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Calls for every entry, until there are none. Each call must take its entry away.
fn empty(directory: &OwnedFd, act: &mut dyn FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    loop {
        let mut batch: Vec<CString> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                batch.push(entry.file_name().to_owned());
            }
            if batch.len() == BATCH {
                break;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        batch.iter().try_for_each(|name| act(name))?;
    }
}

fn remove_one(directory: &OwnedFd, name: &CStr) -> io::Result<Removed> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Removed::Yes),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removed::Yes),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removed::NotEmpty),
        Err(error) => Err(error.into()),
    }
}

fn move_up_or_empty(from: &OwnedFd, name: &CStr, top: &OwnedFd, names: &mut u64) -> io::Result<()> {
    match move_up(from, name, top, names) {
        // Of another file system, or no room for one more name at the top: on a full disk it is room that is wanted.
        Err(Errno::XDEV | Errno::NOSPC | Errno::DQUOT | Errno::MLINK) => {
            empty_in_place(open_directory(from, name)?)?;
            Ok(unlinkat(from, name, AtFlags::REMOVEDIR)?)
        }
        moved => Ok(moved?),
    }
}

/// Moves a directory to the top under a name that nothing there has.
fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, names: &mut u64) -> rustix::io::Result<()> {
    let top: BorrowedFd<'_> = top.as_fd();
    loop {
        *names += 1;
        match renameat_with(from, name, top, format!(".removed-{names}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
    }
}

/// Empties a directory without moving anything: down into what is not empty, and back up by `..`, where the directory
/// above must be the one that was left.
fn empty_in_place(mut at: OwnedFd) -> io::Result<()> {
    let mut above: Vec<(CString, (u64, u64))> = Vec::new();
    loop {
        match first_left(&at)? {
            Some(name) => {
                let below = open_directory(&at, &name)?;
                above.push((name, identity(&at)?));
                at = below;
            }
            None => {
                let Some((name, known)) = above.pop() else { return Ok(()) };
                at = open_directory(&at, c"..")?;
                if identity(&at)? != known {
                    return Err(io::Error::other(format!("directory {name:?} was moved while it was emptied")));
                }
                unlinkat(&at, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Removes what it can of a directory, up to the first directory that is not empty.
fn first_left(directory: &OwnedFd) -> io::Result<Option<CString>> {
    loop {
        let mut removed = false;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match remove_one(directory, name)? {
                Removed::Yes => removed = true,
                Removed::NotEmpty => return Ok(Some(name.to_owned())),
            }
        }
        if !removed {
            return Ok(None);
        }
    }
}

fn identity(directory: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::os::unix::fs::symlink;

    /// Directories in each other, with a file and a sister in each.
    fn nest(top: &Path, depth: usize) {
        let mut at = open_directory(CWD, top).expect("open");
        for _ in 0..depth {
            for name in ["d", "sister"] {
                mkdirat(&at, name, Mode::RWXU).expect("mkdir");
            }
            openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("file");
            at = open_directory(&at, "d").expect("open");
        }
    }

    #[test]
    fn deep_trees_go_without_depth_in_memory_or_descriptors() {
        let dir = tempfile::tempdir().expect("tempdir");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).expect("mkdir");
        nest(&tree, 4_000);
        std::fs::create_dir(tree.join(".removed-2")).expect("mkdir");
        std::fs::write(tree.join(".removed-2/f"), "").expect("write");
        // A small stack stands for a deeper tree.
        let removal =
            std::thread::Builder::new().stack_size(128 << 10).spawn(move || remove_tree(&tree)).expect("spawn");
        removal.join().expect("no overflow").expect("removed");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("a/b")).and_then(|()| std::fs::create_dir(&outside)).expect("mkdir");
        std::fs::write(outside.join("kept"), "").expect("write");
        symlink(&outside, tree.join("a/link")).and_then(|()| symlink(&outside, tree.join("link"))).expect("link");
        remove_tree(&tree).expect("removed");
        symlink(&outside, &tree).expect("link");
        remove_tree(&tree).expect("the link");
        assert!(outside.join("kept").exists() && !tree.exists());
        remove_tree(&tree).expect("what is not there");
        std::fs::write(&tree, "").expect("write");
        remove_tree(&tree).expect("a file");
        assert!(!tree.exists());
    }

    #[test]
    fn wide_directories_take_several_rounds() {
        let dir = tempfile::tempdir().expect("tempdir");
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("sub")).expect("mkdir");
        for n in 0..BATCH + 10 {
            std::fs::write(tree.join("sub").join(n.to_string()), "").expect("write");
        }
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists());
    }

    #[test]
    fn what_stays_in_its_place_is_emptied_without_depth_too() {
        let dir = tempfile::tempdir().expect("tempdir");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).expect("mkdir");
        nest(&tree, 1_000);
        for n in 0..100 {
            std::fs::create_dir_all(tree.join(format!("wide-{n}/a"))).expect("mkdir");
        }
        let top = open_directory(CWD, &tree).expect("open");
        let emptying =
            std::thread::Builder::new().stack_size(128 << 10).spawn(move || empty_in_place(top)).expect("spawn");
        emptying.join().expect("no overflow").expect("emptied");
        assert_eq!(std::fs::read_dir(&tree).expect("list").count(), 0);
    }

    /// A directory of an overlay's lower layer cannot be renamed. Needs root.
    #[test]
    fn what_cannot_be_moved_is_removed() {
        use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
        let dir = tempfile::tempdir().expect("tempdir");
        let [lower, upper, work, shown] = ["lower", "upper", "work", "shown"].map(|name| dir.path().join(name));
        for made in [&upper, &work, &shown] {
            std::fs::create_dir(made).expect("mkdir");
        }
        std::fs::create_dir_all(lower.join("tree/a/b/c")).expect("mkdir");
        std::fs::write(lower.join("tree/a/b/c/file"), "").expect("write");
        let [l, u, w] = [&lower, &upper, &work].map(|path| path.display());
        let options = format!("lowerdir={l},upperdir={u},workdir={w},redirect_dir=off");
        let options = CString::new(options).expect("no NUL");
        mount("overlay", &shown, "overlay", MountFlags::empty(), Some(options.as_c_str())).expect("mounted");
        let removed = remove_tree(&shown.join("tree"));
        let left = shown.join("tree").exists();
        unmount(&shown, UnmountFlags::DETACH).expect("unmounted");
        removed.expect("removed");
        assert!(!left);
    }
}
