//! The child: from the clone to `execve`.

use crate::cgroup::Join;
use crate::error::{Context, Error, Result, os_text};
use crate::path::{Kind, Root};
use crate::process::{Report, Stdio};
use crate::rootfs::{self, Entered, Handles};
use crate::spec::{ContainerSpec, ProcessSpec};
use crate::user::Identity;
use crate::{apparmor, console, mount, seccomp, sys};
use rustix::fs::{Access, OFlags, access};
use rustix::process::{Resource, Rlimit};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What every child is given.
pub(crate) struct Child<'a> {
    /// Seqpacket to the parent.
    pub channel: &'a OwnedFd,
    /// Pipes; `None`: a terminal is made.
    pub stdio: Option<&'a Stdio>,
    /// Its way into the cgroup.
    pub join: &'a Join,
}

impl Child<'_> {
    /// Runs the body; whatever comes back is an error, which is reported. Never returns.
    pub(crate) fn run(&self, keep: &[i32], body: impl FnOnce() -> Result<()>) -> ! {
        self.run_isolated(|| {
            self.isolate(keep)?;
            body()
        })
    }

    /// The same where a process in between has isolated already.
    pub(crate) fn run_isolated(&self, body: impl FnOnce() -> Result<()>) -> ! {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        let text = match outcome {
            Ok(Ok(())) => "the program did not start".to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "internal error of the runtime".to_string(),
        };
        // Without a reader nobody is left to tell.
        let _ = Report::Failed(text).send(self.channel.as_fd(), None);
        sys::exit_now(128)
    }

    /// Lets go of everything of the shim before anything of the container is touched.
    pub(crate) fn isolate(&self, keep: &[i32]) -> Result<()> {
        let mut keep: Vec<i32> = keep.to_vec();
        keep.push(self.channel.as_raw_fd());
        keep.extend(self.stdio.iter().flat_map(|stdio| stdio.0.iter()).map(AsRawFd::as_raw_fd));
        keep.extend(self.join.raw_fds());
        sys::close_except(&mut keep).context(|| "close descriptors")?;
        sys::reset_signals();
        // A process already inside must not reach our binary or descriptors through /proc.
        crate::idmap::hide()?;
        rustix::process::umask(rustix::fs::Mode::empty());
        self.join.enter()
    }
}

/// Leaves the node: afterwards the process is in the container's root.
pub(crate) fn enter(spec: &ContainerSpec, handles: &Handles) -> Result<Entered> {
    if spec.idmap.is_none() {
        adjust_oom_score(&spec.process);
    }
    if !spec.privileged {
        sys::unshare(libc::CLONE_NEWCGROUP).context(|| "unshare cgroup namespace")?;
    }
    rootfs::enter(spec, handles)
}

/// Furnishes the container around the process, then becomes it.
pub(crate) fn container(spec: &ContainerSpec, handles: &Handles, entered: &Entered, child: &Child<'_>) -> Result<()> {
    let terminal = spec.process.tty.then(|| console::open(entered.devpts.as_fd())).transpose()?;
    if let Some((_, peer)) = &terminal {
        console::show(entered.dev.as_fd(), peer)?;
    }
    rootfs::furnish(spec, handles, entered)?;
    become_process(&spec.process, &entered.root, terminal, child)
}

/// Leaves the node for a running container; children are born in its PID namespace.
pub(crate) fn join(process: &ProcessSpec, target: BorrowedFd<'_>, namespaces: i32) -> Result<()> {
    adjust_oom_score(process);
    sys::setns(target, namespaces | libc::CLONE_NEWPID).context(|| "join the container's namespaces")?;
    if namespaces & libc::CLONE_NEWUSER != 0 {
        become_root()?;
    }
    Ok(())
}

/// Becomes a further process of a container that was joined.
pub(crate) fn exec(process: &ProcessSpec, child: &Child<'_>) -> Result<()> {
    let root = Root::open_dir(Path::new("/"))?;
    let terminal = match process.tty {
        true => {
            let devpts =
                root.open(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY).context(|| "open /dev/pts")?;
            Some(console::open(devpts.as_fd())?)
        }
        false => None,
    };
    become_process(process, &root, terminal, child)
}

/// Gives everything up: an empty root file system, no rights, nobody's ids. For a process that lives
/// inside a pod only to reap; whoever traces it gains nothing. Needs a mount namespace of its own.
pub fn retire(in_user_namespace: bool) -> Result<()> {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
    use rustix::process::{Gid, Uid};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context(|| "make / private")?;
    let place = Root::open_dir(Path::new("."))?;
    if in_user_namespace {
        become_root()?;
    }
    let empty = mount::new("tmpfs", &[("nr_inodes", Some("1"))], mount::RDONLY)?;
    mount::attach(empty.as_fd(), place.fd())?;
    rustix::process::fchdir(&empty).context(|| "enter the empty root")?;
    rustix::process::pivot_root(".", ".").context(|| "pivot_root")?;
    unmount(".", UnmountFlags::DETACH).context(|| "detach the old root")?;
    rustix::process::chdir("/").context(|| "chdir /")?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    crate::Capabilities::default().limit_bounding()?;
    rustix::thread::set_thread_groups(&[]).context(|| "setgroups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).context(|| "setgid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context(|| "setuid")?;
    crate::Capabilities::default().apply()?;
    rustix::thread::set_no_new_privs(true).context(|| "set no_new_privs")?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).context(|| "set dumpable")
}

/// The ids of Kubernetes' own pause container.
const NOBODY: u32 = 65535;

/// In a user namespace: root of it, with no group of the host left.
pub(crate) fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).context(|| "setgroups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).context(|| "setgid 0")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context(|| "setuid 0")
}

/// Lowering needs CAP_SYS_RESOURCE; where we lack it the inherited value stays.
pub(crate) fn adjust_oom_score(process: &ProcessSpec) {
    let Some(wanted) = process.oom_score_adj else { return };
    let current = std::fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|s| s.trim().parse::<i32>().ok())
        .unwrap_or(0);
    if std::fs::write("/proc/self/oom_score_adj", wanted.to_string()).is_err() && wanted < current {
        let _ = std::fs::write("/proc/self/oom_score_adj", current.to_string());
    }
}

type Terminal = Option<(OwnedFd, OwnedFd)>;

fn become_process(process: &ProcessSpec, root: &Root, terminal: Terminal, child: &Child<'_>) -> Result<()> {
    // Quotas of keys are per user: without a keyring of its own the process has none, as with containerd.
    let _ = sys::new_session_keyring();
    let identity = process.user.resolve(root)?;
    let master = connect(terminal, child, &identity)?;
    limit_resources(process)?;
    enter_workdir(process, root)?;
    let filter = process.seccomp.as_ref().map(|p| seccomp::compile(p, process.capabilities)).transpose()?;
    let env = environment(process, &identity);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Report::Ready(identity.clone())
        .send(child.channel.as_fd(), master.as_ref().map(AsFd::as_fd))
        .context(|| "report")?;
    drop(master);
    wait_for_byte(child.channel.as_fd())?;
    process.apparmor.as_ref().map_or(Ok(()), |profile| apparmor::change_on_exec(root, profile))?;
    process.capabilities.limit_bounding()?;
    if let (Some(filter), false) = (&filter, process.no_new_privs) {
        filter.install()?;
    }
    drop_rights(process, &identity)?;
    let program = find_program(&process.args[0], &env)?;
    sys::cloexec_from(3).context(|| "mark descriptors")?;
    if let (Some(filter), true) = (&filter, process.no_new_privs) {
        filter.install()?;
    }
    let error = sys::execve(&c_string(&program)?, &c_strings(&process.args)?, &c_strings(&env)?);
    Err(Error::Invalid(format!("exec {program}: {}", os_text(&error))))
}

fn connect(terminal: Terminal, child: &Child<'_>, identity: &Identity) -> Result<Option<OwnedFd>> {
    match (terminal, child.stdio) {
        (Some((master, peer)), _) => {
            console::enter(&peer, identity.uid)?;
            Ok(Some(master))
        }
        (None, Some(stdio)) => {
            rustix::process::setsid().context(|| "setsid")?;
            stdio.install(identity.uid)?;
            Ok(None)
        }
        (None, None) => Err(Error::Invalid("a process needs stdio or a terminal".into())),
    }
}

fn wait_for_byte(channel: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(channel, &mut byte)).context(|| "wait for the start")? {
        // The shim is gone or has given up: nobody wants this container any more.
        0 => sys::exit_now(0),
        _ => Ok(()),
    }
}

fn limit_resources(process: &ProcessSpec) -> Result<()> {
    for (resource, soft, hard) in &process.rlimits {
        let Some(resource) = resource_of(*resource) else {
            return Err(Error::Invalid(format!("unknown rlimit {resource}")));
        };
        let ours = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let cap = |value: u64| Some(value.min(ours)).filter(|v| *v != u64::MAX);
        let limit = Rlimit { current: cap(*soft), maximum: cap(*hard) };
        rustix::process::setrlimit(resource, limit).context(|| format!("set {resource:?}"))?;
    }
    Ok(())
}

fn resource_of(number: u32) -> Option<Resource> {
    [Resource::Nofile, Resource::Nproc, Resource::Core, Resource::Memlock, Resource::Stack]
        .into_iter()
        .find(|r| *r as u32 == number)
}

/// Makes the working directory when missing and goes there, by handle; then proves that it lies inside.
fn enter_workdir(process: &ProcessSpec, root: &Root) -> Result<()> {
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    let shown = || format!("chdir to cwd (\"{cwd}\") set in config.json failed");
    let dir = root.ensure(Path::new(cwd), Kind::Dir).map_err(|e| Error::Invalid(format!("{}: {e}", shown())))?;
    rustix::process::fchdir(&dir).context(shown)?;
    let actual = rustix::process::getcwd(Vec::new()).context(shown)?;
    if actual.to_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Error::Invalid("current working directory is outside of container mount namespace root".into()))
    }
}

fn environment(process: &ProcessSpec, identity: &Identity) -> Vec<String> {
    let mut env = process.env.clone();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    env
}

fn drop_rights(process: &ProcessSpec, identity: &Identity) -> Result<()> {
    use rustix::process::{Gid, Uid};
    rustix::thread::set_keep_capabilities(true).context(|| "keep capabilities")?;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).context(|| "setgroups")?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).context(|| "setgid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context(|| "setuid")?;
    process.capabilities.apply()?;
    rustix::thread::set_keep_capabilities(false).context(|| "keep capabilities")?;
    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true).context(|| "set no_new_privs")?;
    }
    Ok(())
}

/// Finds the program the way Go's `exec.LookPath` does, with its messages.
fn find_program(name: &str, env: &[String]) -> Result<String> {
    if name.contains('/') {
        return executable(name)
            .map(|()| name.to_string())
            .map_err(|why| Error::Invalid(format!("exec: \"{name}\": {why}")));
    }
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    let mut candidates = path.split(':').map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir }));
    candidates
        .find(|candidate| !name.is_empty() && executable(candidate).is_ok())
        .ok_or_else(|| Error::Invalid(format!("exec: \"{name}\": executable file not found in $PATH")))
}

fn executable(path: &str) -> std::result::Result<(), String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("stat {path}: {}", os_text(&e)))?;
    if meta.is_dir() {
        return Err("is a directory".into());
    }
    access(path, Access::EXEC_OK).map_err(|_| "permission denied".to_string())
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Invalid(format!("{text:?} contains a zero byte")))
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_go_finds_them() {
        let env = vec!["PATH=/nowhere:/bin".to_string()];
        for (name, expect) in [
            ("sh", Ok("/bin/sh")),
            ("/bin/sh", Ok("/bin/sh")),
            ("foo", Err("exec: \"foo\": executable file not found in $PATH")),
            ("", Err("exec: \"\": executable file not found in $PATH")),
            ("/foo", Err("exec: \"/foo\": stat /foo: no such file or directory")),
            ("/", Err("exec: \"/\": is a directory")),
            ("/etc/passwd", Err("exec: \"/etc/passwd\": permission denied")),
        ] {
            let found = find_program(name, &env).map_err(|e| e.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expect);
        }
    }
}
