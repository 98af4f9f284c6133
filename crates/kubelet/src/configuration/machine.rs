//! What a configuration asks of the machine it is used on. Kernel tunables are not changed here, so that
//! `protectKernelDefaults` has nothing to keep them from.

use super::{Error, KubeletConfiguration};

impl KubeletConfiguration {
    /// Whether the machine is as the configuration says. `cgroup_version`: 1 or 2; `swaps`: the text of `/proc/swaps`.
    pub fn check_machine(&self, cgroup_version: u8, swaps: &str) -> Result<(), Error> {
        if cgroup_version < 2 && self.single_process_oom_kill == Some(false) {
            let why = "singleProcessOOMKill must not be explicitly set to false when using cgroup v1";
            return Err(Error::Invalid(why.into()));
        }
        // One line of headings, one for each area (proc(5)).
        if self.fail_swap_on && swaps.lines().count() > 1 {
            return Err(Error::Swap);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_must_be() {
        const NONE: &str = "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n";
        let area = format!("{NONE}/dev/sda2 partition 1000 0 -2\n");
        let check = |text: &str, version, swaps: &str, expect: Option<&str>| {
            let settings = KubeletConfiguration::parse(text).expect("settings");
            let got = settings.check_machine(version, swaps).map_err(|error| error.to_string());
            assert_eq!(
                got.err().as_deref().map(|why| why.rsplit(": ").next().unwrap_or(why)),
                expect,
                "{text} {version}"
            );
        };
        let swap = "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false";
        let group = "singleProcessOOMKill must not be explicitly set to false when using cgroup v1";
        check("{}", 1, &area, None);
        check("failSwapOn: true", 1, NONE, None);
        check("failSwapOn: true", 2, &area, Some(swap));
        check("singleProcessOOMKill: true", 1, NONE, None);
        check("singleProcessOOMKill: false", 2, NONE, None);
        check("singleProcessOOMKill: false", 1, NONE, Some(group));
    }
}
