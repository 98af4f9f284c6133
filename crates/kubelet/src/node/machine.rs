//! What the machine is: read once when the kubelet starts.

use crate::config::Config;
use crate::qos::kibibytes;
use api::k8s::core::v1::NodeSystemInfo;
use api::machinery::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;
use std::path::Path;

/// Facts of the machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    cpus: u64,
    memory: u64,
    swap: u64,
    storage: u64,
    hugepages: BTreeMap<String, u64>,
    machine_id: String,
    system_uuid: String,
    boot_id: String,
    kernel: String,
    os_image: String,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Machine {
    /// Reads the machine; `root_dir` says which file system pods use.
    pub fn read(root_dir: &Path) -> Self {
        let meminfo = line("/proc/meminfo");
        let kib = |key: &str| -> u64 {
            let found =
                meminfo.lines().find_map(|l| l.strip_prefix(key)?.trim().split(' ').next()?.parse::<u64>().ok());
            found.unwrap_or(0) * 1024
        };
        let machine_id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .map(line)
            .into_iter()
            .find(|l| !l.is_empty())
            .unwrap_or_default();
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: kib("MemTotal:"),
            swap: kib("SwapTotal:"),
            storage: storage(root_dir),
            hugepages: hugepages(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
        }
    }

    /// Memory in bytes.
    pub fn memory_bytes(&self) -> i64 {
        i64::try_from(self.memory).unwrap_or(i64::MAX)
    }

    /// CPUs.
    pub fn cpus(&self) -> u64 {
        self.cpus
    }

    /// Swap in bytes.
    pub fn swap_bytes(&self) -> u64 {
        self.swap
    }

    /// Sizes of huge pages in the kernel's names.
    pub fn page_sizes(&self) -> Vec<String> {
        self.hugepages.keys().map(|size| crate::qos::page_size(size)).collect()
    }

    /// Bytes in huge pages.
    pub fn hugepage_bytes(&self) -> u64 {
        self.hugepages.values().sum()
    }

    /// Bytes of the file system of pods.
    pub fn storage_bytes(&self) -> u64 {
        self.storage
    }

    /// `status.capacity`
    pub fn capacity(&self, config: &Config) -> BTreeMap<String, ApiQuantity> {
        let mut out = BTreeMap::from([
            ("cpu".to_owned(), ApiQuantity(self.cpus.to_string())),
            ("memory".to_owned(), kibibytes(self.memory)),
            ("pods".to_owned(), ApiQuantity(config.settings.pod_limit(self.cpus).to_string())),
            ("ephemeral-storage".to_owned(), kibibytes(self.storage)),
        ]);
        out.extend(self.hugepages.iter().map(|(size, bytes)| (format!("hugepages-{size}"), kibibytes(*bytes))));
        out
    }

    /// `status.nodeInfo`
    pub fn info(&self, runtime: (String, String)) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: architecture().into(),
            boot_id: self.boot_id.clone(),
            container_runtime_version: format!("{}://{}", runtime.0, runtime.1),
            kernel_version: self.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: "v1.36.0".into(),
            machine_id: self.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: self.os_image.clone(),
            swap: (self.swap > 0)
                .then(|| api::k8s::core::v1::NodeSwapStatus { capacity: i64::try_from(self.swap).ok() }),
            system_uuid: self.system_uuid.clone(),
        }
    }
}

/// Counters of the node's network interfaces.
pub fn interfaces() -> Vec<cri::InterfaceStats> {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |i: usize| numbers.get(i).copied();
        Some(cri::InterfaceStats {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_errors: at(2)?,
            tx_bytes: at(8)?,
            tx_errors: at(10)?,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Go's name of the architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn storage(path: &Path) -> u64 {
    // The directory may not exist yet; its nearest ancestor is on the same file system.
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(existing).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize))
}

fn hugepages() -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugepages-").and_then(|s| s.strip_suffix("kB")?.parse::<u64>().ok());
        let Some(kib) = size else { continue };
        let pages: u64 = line(&entry.path().join("nr_hugepages").display().to_string()).parse().unwrap_or(0);
        let label = if kib % (1024 * 1024) == 0 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
        out.insert(label, pages * kib * 1024);
    }
    out
}

fn os_image(text: &str) -> String {
    let pretty = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read() {
        let machine = Machine::read(Path::new("/var/lib/x/y"));
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.storage > 0);
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty());
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }
}
