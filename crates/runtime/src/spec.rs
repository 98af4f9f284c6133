//! From CRI's configuration and the image to what the shim makes.

use crate::state::SandboxRecord;
use cri::{ContainerConfig, Error, LinuxContainerResources, MountPropagation, NamespaceMode, Result, SeccompProfile};
use images::ImageInfo;
use oci::cgroup::{DeviceRule, Resources, default_rules};
use oci::seccomp::{Profile, ProfileFile};
use oci::{
    BindMount, Capabilities, ContainerSpec, DeviceNode, PidNamespace, ProcessSpec, Propagation, Rootfs, UserSpec,
};
use std::path::{Path, PathBuf};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `statfs(2)`
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Files of /proc that may be replaced: what lxcfs shows, as runc allows it.
const PROC_FILES: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Largest seccomp profile file.
const MAX_PROFILE: u64 = 1 << 20;

/// Everything a container's spec comes from.
pub(crate) struct Inputs<'a> {
    pub id: &'a str,
    pub sandbox: &'a SandboxRecord,
    pub sandbox_dir: &'a Path,
    pub config: &'a ContainerConfig,
    pub image: &'a ImageInfo,
    /// Directory of the writable layer.
    pub layer: &'a Path,
    /// The empty directory all roots are mounted on.
    pub mountpoint: &'a Path,
    /// Its AppArmor profile, loaded.
    pub apparmor: Option<&'a str>,
}

impl Inputs<'_> {
    /// Puts the spec together.
    pub(crate) fn build(&self) -> Result<ContainerSpec> {
        let security = &self.config.security_context;
        let paths = |given: &Option<Vec<String>>, default: &[&str]| match given {
            _ if security.privileged => Vec::new(),
            Some(paths) => paths.clone(),
            None => default.iter().map(ToString::to_string).collect(),
        };
        Ok(ContainerSpec {
            rootfs: Rootfs {
                lower: self.image.layers.clone(),
                upper: self.layer.join("upper"),
                work: self.layer.join("work"),
                mountpoint: self.mountpoint.into(),
                readonly: security.readonly_rootfs,
            },
            mounts: self.mounts()?,
            // Nodes cannot be made in a user namespace, beyond the standard ones.
            devices: if self.sandbox.config.namespaces.userns.is_some() { Vec::new() } else { self.devices()? },
            shm: self.shm(),
            privileged: security.privileged,
            masked_paths: paths(&security.masked_paths, &oci::MASKED_PATHS),
            readonly_paths: paths(&security.readonly_paths, &oci::READONLY_PATHS),
            pid: self.pid_namespace(),
            idmap: idmap(&self.sandbox.config.namespaces),
            cgroup: cgroup_path(self.sandbox, self.id),
            resources: resources(&self.config.resources),
            device_rules: self.device_rules()?,
            process: self.process()?,
        })
    }

    fn process(&self) -> Result<ProcessSpec> {
        let (config, image) = (self.config, &self.image.config);
        let security = &config.security_context;
        let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty());
        let capabilities = match security.privileged {
            true => Capabilities::ALL,
            false => Capabilities::of(&security.add_capabilities, &security.drop_capabilities),
        };
        Ok(ProcessSpec {
            args: self.args()?,
            env: self.environment(),
            cwd: cwd.cloned().unwrap_or_else(|| "/".into()),
            user: self.user()?,
            tty: config.tty,
            capabilities,
            no_new_privs: security.no_new_privs && !security.privileged,
            seccomp: self.seccomp()?,
            apparmor: self.apparmor.map(str::to_owned),
            oom_score_adj: i32::try_from(config.resources.oom_score_adj).ok(),
            rlimits: Vec::new(),
        })
    }

    /// Kubernetes' rule: a command replaces the image's entrypoint and arguments, arguments alone the latter.
    fn args(&self) -> Result<Vec<String>> {
        let (config, image) = (self.config, &self.image.config);
        let mut args = if config.command.is_empty() { image.entrypoint.clone() } else { config.command.clone() };
        let rest = if config.args.is_empty() && config.command.is_empty() { &image.cmd } else { &config.args };
        args.extend(rest.iter().cloned());
        if args.is_empty() {
            return Err(Error::InvalidArgument("no command specified".into()));
        }
        Ok(args)
    }

    fn environment(&self) -> Vec<String> {
        let mut env: Vec<String> = vec![DEFAULT_PATH.into()];
        env.extend(self.config.tty.then(|| "TERM=xterm".into()));
        env.extend(self.image.config.env.iter().cloned());
        env.push(format!("HOSTNAME={}", self.hostname()));
        env.extend(self.config.envs.iter().map(|(name, value)| format!("{name}={value}")));
        // Of a name that comes more than once the last counts. There may be tens of thousands.
        let mut seen = std::collections::HashSet::new();
        let last = |entry: &&String| seen.insert(entry.split('=').next().unwrap_or_default().to_owned());
        let mut env: Vec<String> = env.iter().rev().filter(last).cloned().collect();
        env.reverse();
        env
    }

    fn hostname(&self) -> String {
        let config = &self.sandbox.config;
        if config.namespaces.network == NamespaceMode::Node || config.hostname.is_empty() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            config.hostname.clone()
        }
    }

    fn user(&self) -> Result<UserSpec> {
        let security = &self.config.security_context;
        let id =
            |id: i64| u32::try_from(id).map_err(|_| Error::InvalidArgument(format!("{id} is no user or group id")));
        let user = match (security.run_as_user, security.run_as_username.as_str()) {
            (Some(uid), _) => id(uid)?.to_string(),
            (None, "") => self.image.config.user.clone(),
            (None, name) => name.to_string(),
        };
        Ok(UserSpec {
            user,
            gid: security.run_as_group.map(id).transpose()?,
            groups: security.supplemental_groups.iter().map(|gid| id(*gid)).collect::<Result<_>>()?,
            strict: security.supplemental_groups_policy == cri::SupplementalGroupsPolicy::Strict,
        })
    }

    fn seccomp(&self) -> Result<Option<Profile>> {
        let security = &self.config.security_context;
        match &security.seccomp {
            _ if security.privileged => Ok(None),
            SeccompProfile::Unconfined => Ok(None),
            SeccompProfile::RuntimeDefault => Ok(Some(Profile::Default)),
            SeccompProfile::Localhost(path) => {
                let unreadable = |e: std::io::Error| {
                    let why = oci::os_text(&e);
                    Error::Internal(format!("cannot load seccomp profile \"{path}\": open {path}: {why}"))
                };
                if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_PROFILE {
                    return Err(Error::InvalidArgument(format!("seccomp profile \"{path}\" is larger than 1 MiB")));
                }
                let file = ProfileFile::parse(&std::fs::read(path).map_err(unreadable)?);
                Ok(Some(Profile::File(Box::new(file.map_err(|e| Error::InvalidArgument(e.to_string()))?))))
            }
        }
    }

    fn pid_namespace(&self) -> PidNamespace {
        let security = &self.config.security_context;
        match security.namespaces.pid {
            _ if !security.target_id.is_empty() => PidNamespace::Shared,
            NamespaceMode::Node => PidNamespace::Host,
            // Of the pod, if the pod has one.
            NamespaceMode::Pod if self.sandbox.config.namespaces.pid == NamespaceMode::Pod => PidNamespace::Shared,
            _ => PidNamespace::Own,
        }
    }

    fn shm(&self) -> PathBuf {
        match self.sandbox.config.namespaces.ipc {
            NamespaceMode::Node => "/dev/shm".into(),
            _ => self.sandbox_dir.join(crate::shim::SHM),
        }
    }

    fn mounts(&self) -> Result<Vec<BindMount>> {
        let mapped = self.sandbox.config.namespaces.userns.is_some();
        let mut mounts: Vec<BindMount> =
            self.config.mounts.iter().map(|mount| bind(mount, mapped)).collect::<Result<_>>()?;
        for name in ["resolv.conf", "hostname"] {
            let target = Path::new("/etc").join(name);
            let own_hostname = name != "hostname" || self.sandbox.config.namespaces.network != NamespaceMode::Node;
            if own_hostname && !mounts.iter().any(|m| m.target == target) {
                let readonly = self.config.security_context.readonly_rootfs;
                mounts.push(BindMount {
                    source: self.sandbox_dir.join(name),
                    target,
                    readonly,
                    ..BindMount::default()
                });
            }
        }
        if self.config.security_context.readonly_rootfs {
            self.image_volumes(&mut mounts)?;
        }
        // A mount below another comes after it.
        mounts.sort_by_key(|m| m.target.components().count());
        Ok(mounts)
    }

    /// Paths the image calls volumes stay writable under a read-only root.
    fn image_volumes(&self, mounts: &mut Vec<BindMount>) -> Result<()> {
        for (index, volume) in self.image.config.volumes.iter().enumerate() {
            let target = PathBuf::from(volume);
            if mounts.iter().any(|m| m.target == target) {
                continue;
            }
            let source = self.layer.join("volumes").join(index.to_string());
            std::fs::create_dir_all(&source).map_err(crate::internal)?;
            mounts.push(BindMount { source, target, ..BindMount::default() });
        }
        Ok(())
    }

    fn devices(&self) -> Result<Vec<DeviceNode>> {
        let found = |host: &str, shown: &str| {
            oci::host_devices(Path::new(host), Path::new(shown))
                .map_err(|e| Error::InvalidArgument(format!("lstat {host}: {e}")))
        };
        let mut devices = Vec::new();
        if self.config.security_context.privileged {
            devices = found("/dev", "/dev")?;
        }
        for device in &self.config.devices {
            devices.extend(found(&device.host_path, &device.container_path)?);
        }
        Ok(devices)
    }

    fn device_rules(&self) -> Result<Vec<DeviceRule>> {
        if self.config.security_context.privileged {
            return Ok(vec![DeviceRule::all()]);
        }
        let mut rules = default_rules();
        for device in &self.config.devices {
            let nodes = oci::host_devices(Path::new(&device.host_path), Path::new(&device.container_path))
                .map_err(crate::internal)?;
            let access: String = device.permissions.chars().filter(|c| "rwm".contains(*c)).collect();
            rules.extend(nodes.into_iter().map(|node| DeviceRule {
                kind: if node.block { 'b' } else { 'c' },
                major: Some(node.major),
                minor: Some(node.minor),
                access: access.clone(),
            }));
        }
        Ok(rules)
    }
}

/// A mount of CRI; a missing source is made as a directory, as other runtimes do.
fn bind(mount: &cri::Mount, idmap: bool) -> Result<BindMount> {
    let (source, target) = (PathBuf::from(&mount.host_path), Path::new("/").join(&mount.container_path));
    let inside: PathBuf = target.components().collect();
    // What is bound over /proc would take the place of what masks and security modules rely on (CVE-2019-16884).
    let node_proc = || inside == Path::new("/proc") && rustix::fs::statfs(&source).is_ok_and(|s| s.f_type == PROC_SUPER_MAGIC);
    if inside.starts_with("/proc") && !node_proc() && !PROC_FILES.iter().any(|file| inside == Path::new("/proc").join(file)) {
        let shown = &mount.container_path;
        return Err(Error::InvalidArgument(format!("\"{shown}\" cannot be mounted because it is inside /proc")));
    }
    if !source.is_absolute() {
        return Err(Error::InvalidArgument(format!("host path \"{}\" is not absolute", mount.host_path)));
    }
    if !is_there(&source) {
        std::fs::create_dir_all(&source)
            .map_err(|e| Error::Internal(format!("failed to mkdir \"{}\": {}", mount.host_path, oci::os_text(&e))))?;
    }
    Ok(BindMount {
        source,
        target,
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_readonly,
        propagation: match mount.propagation {
            MountPropagation::Private => Propagation::Private,
            MountPropagation::HostToContainer => Propagation::Slave,
            MountPropagation::Bidirectional => Propagation::Shared,
        },
        idmap,
    })
}

/// Whether a path leads somewhere. Of a mounted volume, what the kernel knows is enough: its server may never answer.
fn is_there(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).is_ok()
}

/// The mappings of a pod's user namespace.
pub(crate) fn idmap(namespaces: &cri::NamespaceOption) -> Option<oci::IdMap> {
    let (uids, gids) = namespaces.userns.as_ref()?;
    let ranges = |list: &[cri::IdMapping]| list.iter().map(|m| (m.container_id, m.host_id, m.length)).collect();
    Some(oci::IdMap { uids: ranges(uids), gids: ranges(gids) })
}

/// The cgroup of a container, below that of its pod.
pub(crate) fn cgroup_path(sandbox: &SandboxRecord, id: &str) -> String {
    format!("{}/{id}", sandbox.config.cgroup_parent.trim_end_matches('/'))
}

/// Limits in `oci`'s terms.
pub(crate) fn resources(r: &LinuxContainerResources) -> Resources {
    Resources {
        cpu_period: r.cpu_period,
        cpu_quota: r.cpu_quota,
        cpu_shares: r.cpu_shares,
        memory_limit: r.memory_limit_in_bytes,
        memory_swap: r.memory_swap_limit_in_bytes,
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        pids: r.pids_limit,
        hugepages: r.hugepage_limits.clone(),
        unified: r.unified.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use images::ImageConfig;

    fn check(config: ContainerConfig, verify: impl FnOnce(Result<ProcessSpec>)) {
        let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let image = ImageInfo {
            id: "sha256:0".into(),
            config: ImageConfig {
                entrypoint: strings(&["/entry"]),
                cmd: strings(&["default"]),
                env: strings(&["A=image", "B=image"]),
                user: "web".into(),
                ..ImageConfig::default()
            },
            layers: Vec::new(),
            size: 0,
            names: Vec::new(),
            digests: Vec::new(),
        };
        let sandbox_config = cri::PodSandboxConfig { hostname: "pod".into(), ..cri::PodSandboxConfig::default() };
        let sandbox = SandboxRecord { config: sandbox_config, created_at: 0, ips: Vec::new() };
        let dir = Path::new("/d");
        let inputs = Inputs {
            id: "c",
            sandbox: &sandbox,
            sandbox_dir: dir,
            config: &config,
            image: &image,
            layer: dir,
            mountpoint: dir,
            apparmor: None,
        };
        verify(inputs.process());
    }

    #[test]
    fn arguments() {
        for (command, args, expect) in [
            (&[][..], &[][..], &["/entry", "default"][..]),
            (&[], &["x"], &["/entry", "x"]),
            (&["/cmd"], &[], &["/cmd"]),
            (&["/cmd"], &["x"], &["/cmd", "x"]),
        ] {
            let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
            let config = ContainerConfig { command: own(command), args: own(args), ..ContainerConfig::default() };
            check(config, |p| assert_eq!(p.unwrap().args, expect));
        }
    }

    #[test]
    fn environment_and_user() {
        let envs = vec![("A".to_string(), "own".to_string()), ("C".into(), "x=y".into())];
        check(ContainerConfig { envs, ..ContainerConfig::default() }, |p| {
            let p = p.unwrap();
            assert_eq!(p.env, [DEFAULT_PATH, "B=image", "HOSTNAME=pod", "A=own", "C=x=y"]);
            assert_eq!(p.user.user, "web");
        });
        let mut config = ContainerConfig::default();
        config.security_context.run_as_user = Some(7);
        config.security_context.privileged = true;
        check(config, |p| {
            let p = p.unwrap();
            assert_eq!((p.user.user.as_str(), p.seccomp, p.capabilities), ("7", None, Capabilities::ALL));
        });
        let mut config = ContainerConfig::default();
        config.security_context.run_as_user = Some(-1);
        check(config, |p| assert!(p.is_err()));
    }
}
