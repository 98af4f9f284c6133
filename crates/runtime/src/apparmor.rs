//! Which AppArmor profile a container gets, as containerd decides: the one it names, else the runtime's own, which is
//! loaded when it is missing.

use cri::{Error, LinuxContainerSecurityContext, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The runtime's own profile.
const DEFAULT: &str = "sagong-default";

/// Rules of [`DEFAULT`]: everything of a container's but the kernel's switches, mounts, and processes of others.
const RULES: &str = r"
profile sagong-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  umount,
  deny mount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=sagong-default,
  ptrace (trace, read, tracedby, readby) peer=sagong-default,

  # /proc: processes and the pod's own sysctls may be written, nothing else.
  deny /proc/[^1-9st]* wkl,
  deny /proc/[^1-9st]*/** wkl,
  deny /proc/s[^ey]* wkl,
  deny /proc/t[^h]* wkl,
  deny /proc/sys/[^kn]** wkl,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} wkl,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,

  # /sys: cgroups alone.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// The node's AppArmor.
pub(crate) struct AppArmor {
    /// `/sys`
    sys: PathBuf,
    /// What compiles and loads profiles.
    parser: PathBuf,
}

impl AppArmor {
    /// The one of this kernel.
    pub(crate) fn of_node() -> Self {
        Self { sys: "/sys".into(), parser: "/sbin/apparmor_parser".into() }
    }

    /// The profile of a container, loaded; `None`: none.
    pub(crate) fn profile(&self, security: &LinuxContainerSecurityContext) -> Result<Option<String>> {
        let wanted = security.apparmor.as_str();
        match (wanted, self.is_enabled()) {
            ("" | "unconfined", false) => Ok(None),
            (_, false) => Err(Error::InvalidArgument("apparmor is not supported".into())),
            ("unconfined", true) => Ok(None),
            ("" | "runtime/default", true) if security.privileged => Ok(None),
            ("" | "runtime/default", true) => self.default_profile().map(Some),
            (name, true) => {
                let name = name.strip_prefix("localhost/").unwrap_or(name);
                match self.is_loaded(name)? {
                    true => Ok(Some(name.to_owned())),
                    false => Err(Error::InvalidArgument(format!("apparmor profile not found {name}"))),
                }
            }
        }
    }

    fn is_enabled(&self) -> bool {
        let enabled = std::fs::read_to_string(self.sys.join("module/apparmor/parameters/enabled"));
        self.sys.join("kernel/security/apparmor").exists()
            && self.parser.exists()
            && enabled.is_ok_and(|text| text.starts_with('Y'))
    }

    /// The kernel lists `name (mode)`, one a line.
    fn is_loaded(&self, name: &str) -> Result<bool> {
        let list = std::fs::read_to_string(self.sys.join("kernel/security/apparmor/profiles"));
        let list = list.map_err(|e| Error::Internal(format!("list AppArmor profiles: {e}")))?;
        Ok(list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(loaded, _)| loaded == name)))
    }

    fn default_profile(&self) -> Result<String> {
        if !self.is_loaded(DEFAULT)? {
            self.load(RULES).map_err(|why| Error::Internal(format!("load AppArmor profile {DEFAULT}: {why}")))?;
        }
        Ok(DEFAULT.into())
    }

    fn load(&self, rules: &str) -> std::result::Result<(), String> {
        // Without its cache; from stdin, which it reads where it is given no file.
        let mut command = Command::new(&self.parser);
        command.arg("-Kr").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(rules.as_bytes()));
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => written.map_err(|e| e.to_string()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A kernel whose list of profiles a parser of ours adds to.
    fn node(enabled: &str) -> (tempfile::TempDir, AppArmor) {
        let dir = tempfile::tempdir().unwrap();
        let (sys, parser) = (dir.path().join("sys"), dir.path().join("parser"));
        let (kernel, module) = (sys.join("kernel/security/apparmor"), sys.join("module/apparmor/parameters"));
        std::fs::create_dir_all(&kernel).and_then(|()| std::fs::create_dir_all(&module)).unwrap();
        std::fs::write(kernel.join("profiles"), "web (enforce)\nwith space (complain)\n").unwrap();
        std::fs::write(module.join("enabled"), enabled).unwrap();
        let script =
            format!("#!/bin/sh\nsed -n 's/^profile \\([^ ]*\\).*/\\1 (enforce)/p' >> {}/profiles\n", kernel.display());
        std::fs::write(&parser, script).unwrap();
        std::fs::set_permissions(&parser, PermissionsExt::from_mode(0o755)).unwrap();
        (dir, AppArmor { sys, parser })
    }

    fn check(node: &AppArmor, profile: &str, privileged: bool, expect: std::result::Result<Option<&str>, &str>) {
        let security = LinuxContainerSecurityContext { apparmor: profile.into(), privileged, ..Default::default() };
        let got = node.profile(&security).map_err(|e| e.to_string());
        assert_eq!(got.as_ref().map(Option::as_deref).map_err(String::as_str), expect, "{profile:?} {privileged}");
    }

    #[test]
    fn profiles_where_the_kernel_has_them() {
        let (_dir, node) = node("Y\n");
        check(&node, "unconfined", false, Ok(None));
        check(&node, "", true, Ok(None));
        assert!(!node.is_loaded(DEFAULT).unwrap());
        check(&node, "", false, Ok(Some(DEFAULT)));
        assert!(node.is_loaded(DEFAULT).unwrap());
        check(&node, "runtime/default", false, Ok(Some(DEFAULT)));
        check(&node, "web", true, Ok(Some("web")));
        check(&node, "localhost/with space", false, Ok(Some("with space")));
        check(&node, "we", false, Err("apparmor profile not found we"));
    }

    #[test]
    fn what_asks_for_one_is_refused_elsewhere() {
        let (_dir, node) = node("N\n");
        check(&node, "", false, Ok(None));
        check(&node, "unconfined", false, Ok(None));
        check(&node, "runtime/default", false, Err("apparmor is not supported"));
        check(&node, "web", false, Err("apparmor is not supported"));
    }
}
