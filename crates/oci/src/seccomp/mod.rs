//! Seccomp: profiles, and their compilation to a filter without a C library.

mod default;
mod numbers;
mod rules;

use crate::caps::Capabilities;
use crate::error::{Context, Error, Result};
use crate::sys;
use rules::{Action, Comparison, Condition, Rule, Rules};
use serde::{Deserialize, Serialize};

/// A profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Profile {
    /// The runtime's own; depends on the capabilities of the process.
    Default,
    /// One from a file of the node.
    File(Box<ProfileFile>),
}

/// A profile in the format of the OCI runtime specification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileFile {
    /// For calls that no rule names.
    pub default_action: String,
    /// Its error number.
    pub default_errno_ret: Option<u32>,
    /// `SECCOMP_FILTER_FLAG_*` names.
    pub flags: Vec<String>,
    /// Rules.
    pub syscalls: Vec<SyscallRule>,
}

/// A rule of a profile file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallRule {
    /// Calls.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: String,
    /// Error number of the action.
    pub errno_ret: Option<u32>,
    /// Conditions, all of which must hold.
    pub args: Option<Vec<ArgRule>>,
}

/// A condition of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArgRule {
    /// Argument, from 0.
    pub index: u32,
    /// Value, or mask of `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// Value under the mask.
    pub value_two: u64,
    /// `SCMP_CMP_*`
    pub op: String,
}

impl ProfileFile {
    /// Parses and checks a file, so that a wrong one fails before a container is made.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let file: Self = serde_json::from_slice(json)
            .map_err(|e| Error::Invalid(format!("decoding seccomp profile failed: {e}")))?;
        file.rules()?;
        Ok(file)
    }

    fn rules(&self) -> Result<Rules> {
        let mut rules = Rules::new(action(&self.default_action, self.default_errno_ret)?);
        for syscall in &self.syscalls {
            let action = action(&syscall.action, syscall.errno_ret)?;
            let conditions = syscall.args.iter().flatten().map(condition).collect::<Result<Vec<_>>>()?;
            for name in &syscall.names {
                rules.add(name, Rule { action, conditions: conditions.clone() });
            }
        }
        Ok(rules)
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<Action> {
    let number = errno.unwrap_or(libc::EPERM as u32).min(u32::from(u16::MAX)) as u16;
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(number),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(Error::Invalid(format!("seccomp action {other:?} is not supported"))),
    })
}

fn condition(arg: &ArgRule) -> Result<Condition> {
    if arg.index > 5 {
        return Err(Error::Invalid(format!("seccomp argument {} does not exist", arg.index)));
    }
    let comparison = match arg.op.as_str() {
        "SCMP_CMP_EQ" => Comparison::Eq,
        "SCMP_CMP_NE" => Comparison::Ne,
        "SCMP_CMP_LT" => Comparison::Lt,
        "SCMP_CMP_LE" => Comparison::Le,
        "SCMP_CMP_GT" => Comparison::Gt,
        "SCMP_CMP_GE" => Comparison::Ge,
        "SCMP_CMP_MASKED_EQ" => return Ok(Condition::masked(arg.index, arg.value, arg.value_two)),
        other => return Err(Error::Invalid(format!("seccomp comparison {other:?} is not supported"))),
    };
    Ok(Condition::new(arg.index, comparison, arg.value))
}

/// A compiled filter.
pub(crate) struct Filter {
    program: Vec<libc::sock_filter>,
    flags: u64,
}

impl Filter {
    pub(crate) fn install(&self) -> Result<()> {
        sys::install_seccomp(&self.program, self.flags).context(|| "install the seccomp filter")
    }
}

/// Compiles a profile for a process with these capabilities.
pub(crate) fn compile(profile: &Profile, capabilities: Capabilities) -> Result<Filter> {
    let (rules, flags) = match profile {
        Profile::Default => (default::rules(capabilities), 0),
        Profile::File(file) => {
            (file.rules()?, if file.flags.iter().any(|f| f == "SECCOMP_FILTER_FLAG_LOG") { 2 } else { 0 })
        }
    };
    Ok(Filter { program: rules.compile(), flags })
}

#[cfg(test)]
mod tests {
    use super::rules::tests::native;
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number as u32
    }

    #[test]
    fn default_profile() {
        let plain = default::rules(Capabilities::of(&[], &[]));
        for (name, first, expect) in [
            ("read", 0, ALLOW),
            ("writev", 0, ALLOW),
            ("mount", 0, errno(libc::EPERM)),
            ("chroot", 0, ALLOW),
            ("clone3", 0, errno(libc::ENOSYS)),
            ("clone", libc::SIGCHLD as u64, ALLOW),
            ("clone", libc::CLONE_NEWUSER as u64, errno(libc::EPERM)),
            ("socket", 2, ALLOW),
            ("socket", 40, errno(libc::EPERM)),
            ("personality", 0xffff_ffff, ALLOW),
            ("personality", 0x40000, errno(libc::EPERM)),
            ("io_uring_setup", 0, errno(libc::EPERM)),
            ("keyctl", 0, errno(libc::EPERM)),
        ] {
            assert_eq!(native(&plain, name, [first, 0, 0, 0, 0, 0]), expect, "{name} {first:#x}");
        }
        let all = default::rules(Capabilities::ALL);
        for name in ["mount", "clone3", "bpf", "setns", "reboot"] {
            assert_eq!(native(&all, name, [0; 6]), ALLOW, "{name}");
        }
    }

    #[test]
    fn profile_files() {
        let file = ProfileFile::parse(
            br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
                {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
                {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"}]}]}"#,
        )
        .unwrap();
        let rules = file.rules().unwrap();
        assert_eq!(native(&rules, "mkdirat", [0; 6]), errno(13));
        assert_eq!(native(&rules, "kill", [1, 9, 0, 0, 0, 0]), errno(1));
        assert_eq!(native(&rules, "kill", [1, 8, 0, 0, 0, 0]), ALLOW);
        assert!(ProfileFile::parse(br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).is_err());
        assert!(ProfileFile::parse(b"{").is_err());
    }
}
