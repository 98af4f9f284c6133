//! Capabilities: names, the default set, and dropping to a set.

use crate::error::{Context, Result};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

/// Names in the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has when its pod asks for nothing: containerd's default set.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// All that exist.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The default set, with what is added and without what is dropped. `ALL` means all; drops apply
    /// first when everything is dropped, so that `drop: [ALL], add: [X]` leaves X. Names that do not exist are passed over
    /// with a warning, as runc does.
    pub fn of(add: &[String], drop: &[String]) -> Self {
        let mut set = if contains_all(drop) { 0 } else { mask(&DEFAULT_CAPABILITIES) };
        if contains_all(add) {
            set = Self::ALL.0;
        }
        set |= mask(&named(add));
        set &= !mask(&named(drop));
        Self(set)
    }

    /// Whether a capability is in the set.
    pub fn has(self, name: &str) -> bool {
        NAMES.iter().position(|n| *n == name).is_some_and(|bit| self.0 >> bit & 1 == 1)
    }

    /// Takes everything else out of the bounding set.
    pub(crate) fn limit_bounding(self) -> Result<()> {
        for bit in 0..NAMES.len() {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            let held = rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false);
            if held && self.0 >> bit & 1 == 0 {
                rustix::thread::remove_capability_from_bounding_set(one)
                    .context(|| format!("drop CAP_{}", NAMES[bit]))?;
            }
        }
        Ok(())
    }

    /// Makes this the permitted and effective set (as far as it is ours to keep); inheritable and ambient are emptied.
    pub(crate) fn apply(self) -> Result<()> {
        let mut sets = rustix::thread::capabilities(None).context(|| "read capabilities")?;
        let keep = sets.permitted & CapabilitySet::from_bits_retain(self.0);
        sets.permitted = keep;
        sets.effective = keep;
        sets.inheritable = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).context(|| "set capabilities")?;
        // Fails on kernels before 4.3 only, which have no ambient set.
        let _ = rustix::thread::clear_ambient_capability_set();
        Ok(())
    }
}

fn contains_all(list: &[String]) -> bool {
    list.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

fn named(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).filter(|name| !name.eq_ignore_ascii_case("ALL")).collect()
}

fn mask(names: &[&str]) -> u64 {
    names.iter().fold(0, |set, name| {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|n| *n == plain) {
            Some(bit) => set | 1 << bit,
            None => {
                tracing::warn!(name, "there is no such capability");
                set
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Capabilities {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        Capabilities::of(&own(add), &own(drop))
    }

    #[test]
    fn sets() {
        for (add, drop, expect) in [
            (&[][..], &[][..], 0xa80425fb),
            (&[], &["ALL"], 0),
            (&["NET_ADMIN"], &["ALL"], 1 << 12),
            (&["CAP_NET_ADMIN"], &[], 0xa80425fb | 1 << 12),
            (&["ALL"], &[], Capabilities::ALL.0),
            (&["ALL"], &["CHOWN"], Capabilities::ALL.0 & !1),
            (&[], &["chown"], 0xa80425fa),
            (&["FLY"], &["WALK"], 0xa80425fb),
        ] {
            assert_eq!(of(add, drop).0, expect, "{add:?} {drop:?}");
        }
    }
}
