//! System calls that rustix does not carry: clone3, mount_setattr, close_range, signals, seccomp, exec.
//!
//! The module is unsafe by nature: each function wraps one system call.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// libc's constant of this name is a too narrow integer.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where [`clone3`] returns.
pub enum Forked {
    /// In the child.
    Child,
    /// In the parent, with the child's pid and pidfd.
    Parent(i32, OwnedFd),
}

/// Forks with namespace flags, straight into a v2 cgroup if one is given.
///
/// Only for single-threaded processes: the child goes on in a copy of the address space, and a lock
/// held by another thread would stay held there for ever.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain old data; all zero is its "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack: the call behaves as fork; args and pidfd live until it returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        // SAFETY: the kernel stored a new descriptor that nobody else owns.
        pid => Ok(Forked::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Forks a sibling: its parent is the caller's. As with [`clone3`], for single-threaded processes only.
pub fn clone3_sibling(flags: u64) -> io::Result<Forked> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain old data; all zero is its "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | (libc::CLONE_PIDFD | libc::CLONE_PARENT) as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // SAFETY: no CLONE_VM and no stack: the call behaves as fork; args and pidfd live until it returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        // SAFETY: the kernel stored a new descriptor that nobody else owns.
        pid => Ok(Forked::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Mount attributes to set, to clear, and a propagation type (0: unchanged).
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or 0.
    pub propagation: u64,
    /// User namespace of `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// Changes a mount, with all below it if `recursive`.
pub fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: MountAttr) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr.userns_fd,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal, attr lives until the call returns and its size is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(done).map(drop)
}

/// Marks every descriptor from `first` on as close-on-exec.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: integers only; close-on-exec invalidates no descriptor that this process owns.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Makes `fd` descriptor number `target`, without close-on-exec.
pub fn dup_to(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // SAFETY: F_SETFD on an open descriptor.
        return check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) } as i64).map(drop);
    }
    // SAFETY: only 0, 1 and 2 are ever the target; std treats them as always open and owned by nobody.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) } as i64).map(drop)
}

/// Resets all signal handlers and unblocks all signals, as a new program expects.
pub fn reset_signals() {
    // SAFETY: installs SIG_DFL only and passes a valid empty set.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Blocks signals and returns a descriptor that becomes readable when one is pending.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset; the returned descriptor is new.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) as i64)?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as i64)?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Installs a seccomp filter.
pub fn install_seccomp(filter: &[libc::sock_filter], flags: u64) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from a slice of that length and writes nothing.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    check(done).map(drop)
}

/// Leaves the caller's session keyring for an anonymous one, so that keys of the host stay there.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) })
        .map(drop)
}

/// Replaces the program; returns only on failure.
pub fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays are null-terminated and point to live C strings.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, running no destructor of the parent's state.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Signals a process by number, where no pidfd is at hand (members of a cgroup).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::kill(pid, signal) } as i64).map(drop)
}

/// Signals the process behind a pidfd.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed, flags are 0.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    check(done).map(drop)
}

/// Joins the namespaces in `flags` of a namespace file or of a pidfd's process.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: integers only; the caller is single-threaded.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) } as i64).map(drop)
}

/// Leaves namespaces for new ones.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: CLONE_FILES is never passed, so no descriptor table is split.
    check(unsafe { libc::unshare(flags) } as i64).map(drop)
}

/// Calls `bpf(2)`.
pub fn bpf(command: u32, attr: &mut [u64]) -> io::Result<i64> {
    // SAFETY: attr is a union of at most its size; the caller laid out the fields of the command.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) })
}

/// Takes a descriptor that a system call returned as a number.
pub fn own_fd(raw: i64) -> OwnedFd {
    // SAFETY: called only with a number a system call has just returned as new.
    unsafe { OwnedFd::from_raw_fd(raw as i32) }
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Closes every descriptor above 2 that is not in the list.
pub fn close_except(keep: &mut Vec<i32>) -> io::Result<()> {
    keep.sort_unstable();
    let mut first = 3u32;
    for fd in keep.iter().map(|fd| *fd as u32).filter(|fd| *fd >= 3) {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: called only where no closed descriptor has an owner that still uses or drops it: in a fresh
    // child, which ends in exec or _exit, and at the start of a shim, a fork whose copies of the zygote's owners are never
    // dropped, as it never returns to them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Brings the loopback interface of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain old data; name and flags are set before use.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) } as i64).map(drop)
}

/// Gives the pages between living allocations back to the kernel: malloc(3) keeps them once a peak is over.
/// Takes milliseconds, in which others wait to allocate. Nothing where the C library has no such call.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) is safe in threads and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Threads started from now on share `count` arenas of malloc(3), which otherwise gives each its own up to eight for every
/// processor: each keeps pages of its own. Nothing where the C library has no arenas.
pub fn share_arenas(count: usize) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers and sets a limit; it refuses what it does not know.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}
