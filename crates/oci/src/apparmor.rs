//! AppArmor: the profile that a process takes on when it becomes its program.

use crate::error::{Context, Error, Result};
use crate::path::Root;
use crate::rootfs::PROC_SUPER_MAGIC;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::Errno;
use std::path::Path;

/// The inode of every /proc itself.
const PROC_ROOT: u64 = 1;

/// The module's own file, and that of kernels before 5.8, which all modules share.
const FILES: [&str; 2] = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];

/// Asks the kernel to change to a profile at the next `execve`.
///
/// The /proc of a container is not to be trusted: what lies there may be another file system or another file
/// (CVE-2019-16884, CVE-2025-52881), and the program would run unconfined.
pub(crate) fn change_on_exec(root: &Root, profile: &str) -> Result<()> {
    let shown = || format!("apply AppArmor profile \"{profile}\"");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let proc = root.open(Path::new("/proc"), flags).context(shown)?;
    let is_proc = fstatfs(&proc).context(shown)?.f_type as u64 == PROC_SUPER_MAGIC;
    if !is_proc || fstat(&proc).context(shown)?.st_ino != PROC_ROOT {
        return Err(Error::Invalid(format!("{}: /proc is not the container's own", shown())));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let open = |file| openat2(&proc, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
    let file = match open(FILES[0]) {
        Err(Errno::NOENT) => open(FILES[1]),
        opened => opened,
    };
    let command = format!("exec {profile}");
    let written = rustix::io::write(&file.context(shown)?, command.as_bytes()).context(shown)?;
    if written == command.len() { Ok(()) } else { Err(Error::Invalid(format!("{}: cut off", shown()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_true_proc_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let attr = dir.path().join("proc/thread-self/attr/apparmor");
        std::fs::create_dir_all(&attr).unwrap();
        std::fs::write(attr.join("exec"), "").unwrap();
        let error = change_on_exec(&Root::open_dir(dir.path()).unwrap(), "p").unwrap_err().to_string();
        assert_eq!(error, "apply AppArmor profile \"p\": /proc is not the container's own");
        assert_eq!(std::fs::read(attr.join("exec")).unwrap(), b"");
        // A part of a true one.
        let linked = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc/self", linked.path().join("proc")).unwrap();
        assert!(change_on_exec(&Root::open_dir(linked.path()).unwrap(), "p").is_err());
    }

    #[test]
    fn the_file_is_found_in_our_own_proc() {
        // Without the module the kernel refuses the word; with it, the profile that does not exist.
        let error = change_on_exec(&Root::open_dir(Path::new("/")).unwrap(), "no-such-profile").unwrap_err();
        let known = [libc::EINVAL, libc::ENOENT, libc::EACCES, libc::EPERM, libc::EOPNOTSUPP];
        assert!(error.raw_os_error().is_some_and(|e| known.contains(&e)), "{error}");
    }
}
