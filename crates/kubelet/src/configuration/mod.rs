//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`): what an operator may set, with upstream's defaults.
//!
//! Fields of parts that this kubelet has; a file may hold others, which are passed over with a warning.

pub mod go_duration;
mod machine;

use api::k8s::core::v1::Taint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// String to string.
pub type Strings = BTreeMap<String, String>;

/// The configuration; field names are those of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub struct KubeletConfiguration {
    pub static_pod_path: String,
    pub max_pods: u32,
    pub pods_per_core: u32,
    pub pod_pids_limit: i64,
    #[serde(with = "go_duration")]
    pub node_status_update_frequency: Duration,
    #[serde(with = "go_duration")]
    pub node_status_report_frequency: Duration,
    pub node_lease_duration_seconds: i32,
    #[serde(rename = "imageMinimumGCAge", with = "go_duration")]
    pub image_minimum_gc_age: Duration,
    #[serde(rename = "imageMaximumGCAge", with = "go_duration")]
    pub image_maximum_gc_age: Duration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u8,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u8,
    pub serialize_image_pulls: bool,
    pub max_parallel_image_pulls: Option<u32>,
    pub image_pull_credentials_verification_policy: ImagePullCredentialsVerificationPolicy,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preloaded_images_verification_allowlist: Vec<String>,
    pub eviction_hard: Strings,
    pub eviction_soft: Strings,
    pub eviction_soft_grace_period: Strings,
    #[serde(with = "go_duration")]
    pub eviction_pressure_transition_period: Duration,
    pub eviction_max_pod_grace_period: i64,
    pub eviction_minimum_reclaim: Strings,
    pub local_storage_capacity_isolation: bool,
    pub system_reserved: Strings,
    pub kube_reserved: Strings,
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    pub system_reserved_cgroup: String,
    pub kube_reserved_cgroup: String,
    pub enforce_node_allocatable: Vec<String>,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    #[serde(rename = "cpuCFSQuotaPeriod", with = "go_duration")]
    pub cpu_cfs_quota_period: Duration,
    pub cpu_manager_policy: String,
    pub cpu_manager_policy_options: Strings,
    pub memory_manager_policy: String,
    pub reserved_memory: Vec<MemoryReservation>,
    pub topology_manager_policy: String,
    pub topology_manager_scope: String,
    pub topology_manager_policy_options: Strings,
    pub memory_throttling_factor: Option<f64>,
    pub fail_swap_on: bool,
    #[serde(rename = "singleProcessOOMKill", skip_serializing_if = "Option::is_none")]
    pub single_process_oom_kill: Option<bool>,
    pub memory_swap: MemorySwap,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub container_log_max_size: String,
    pub container_log_max_files: usize,
    #[serde(with = "go_duration")]
    pub container_log_monitor_interval: Duration,
    #[serde(with = "go_duration")]
    pub shutdown_grace_period: Duration,
    #[serde(with = "go_duration")]
    pub shutdown_grace_period_critical_pods: Duration,
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriod>,
    pub seccomp_default: bool,
    pub user_namespaces: UserNamespaces,
    pub crash_loop_back_off: CrashLoopBackOff,
    pub register_with_taints: Vec<Taint>,
    pub protect_kernel_defaults: bool,
    #[serde(rename = "resolvConf")]
    pub resolver_config: Option<String>,
    pub feature_gates: BTreeMap<String, bool>,
}

/// `reservedMemory[]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub struct MemoryReservation {
    pub numa_node: u32,
    pub limits: Strings,
}

/// `memorySwap`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub struct MemorySwap {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub swap_behavior: String,
}

/// `shutdownGracePeriodByPodPriority[]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub struct ShutdownGracePeriod {
    pub priority: i32,
    pub shutdown_grace_period_seconds: u64,
}

/// `userNamespaces`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub struct UserNamespaces {
    pub ids_per_pod: u32,
}

impl Default for UserNamespaces {
    fn default() -> Self {
        Self { ids_per_pod: 65536 }
    }
}

/// `imagePullCredentialsVerificationPolicy`: which images that are here only those may use who hold credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImagePullCredentialsVerificationPolicy {
    /// None.
    NeverVerify,
    /// Those that the kubelet has pulled.
    #[default]
    NeverVerifyPreloadedImages,
    /// All that `preloadedImagesVerificationAllowlist` does not name.
    NeverVerifyAllowlistedImages,
    /// All.
    AlwaysVerify,
}

/// `crashLoopBackOff`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are KubeletConfiguration's own")]
pub struct CrashLoopBackOff {
    #[serde(with = "go_duration::optional", skip_serializing_if = "Option::is_none")]
    pub max_container_restart_period: Option<Duration>,
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> Strings {
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            static_pod_path: String::new(),
            max_pods: 110,
            pods_per_core: 0,
            pod_pids_limit: -1,
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration_seconds: 40,
            image_minimum_gc_age: Duration::from_secs(120),
            image_maximum_gc_age: Duration::ZERO,
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            // Upstream's default is one pull at a time; ours limits layers instead (`images`), and says so here.
            serialize_image_pulls: false,
            max_parallel_image_pulls: None,
            image_pull_credentials_verification_policy: ImagePullCredentialsVerificationPolicy::default(),
            preloaded_images_verification_allowlist: Vec::new(),
            eviction_hard: strings([
                ("imagefs.available", "15%"),
                ("imagefs.inodesFree", "5%"),
                ("memory.available", "100Mi"),
                ("nodefs.available", "10%"),
                ("nodefs.inodesFree", "5%"),
            ]),
            eviction_soft: Strings::new(),
            eviction_soft_grace_period: Strings::new(),
            eviction_pressure_transition_period: Duration::from_secs(300),
            eviction_max_pod_grace_period: 0,
            eviction_minimum_reclaim: Strings::new(),
            local_storage_capacity_isolation: true,
            system_reserved: Strings::new(),
            kube_reserved: Strings::new(),
            reserved_system_cpus: String::new(),
            system_reserved_cgroup: String::new(),
            kube_reserved_cgroup: String::new(),
            enforce_node_allocatable: vec!["pods".into()],
            cgroups_per_qos: true,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            cpu_manager_policy: "none".into(),
            cpu_manager_policy_options: Strings::new(),
            memory_manager_policy: "None".into(),
            reserved_memory: Vec::new(),
            topology_manager_policy: "none".into(),
            topology_manager_scope: "container".into(),
            topology_manager_policy_options: Strings::new(),
            memory_throttling_factor: Some(0.9),
            fail_swap_on: false,
            single_process_oom_kill: None,
            memory_swap: MemorySwap::default(),
            allowed_unsafe_sysctls: Vec::new(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            container_log_monitor_interval: Duration::from_secs(10),
            shutdown_grace_period: Duration::ZERO,
            shutdown_grace_period_critical_pods: Duration::ZERO,
            shutdown_grace_period_by_pod_priority: Vec::new(),
            seccomp_default: false,
            user_namespaces: UserNamespaces::default(),
            crash_loop_back_off: CrashLoopBackOff::default(),
            register_with_taints: Vec::new(),
            protect_kernel_defaults: false,
            resolver_config: None,
            feature_gates: BTreeMap::new(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to load kubelet config file, path: {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no KubeletConfiguration.
    #[error("failed to load kubelet config file, path: {path}: {why}")]
    Decode {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// A value is out of its range.
    #[error("failed to validate kubelet configuration, error: invalid configuration: {0}")]
    Invalid(String),
    /// The machine swaps, and must not.
    #[error("running with swap on is not supported, please disable swap or set --fail-swap-on flag to false")]
    Swap,
}

impl KubeletConfiguration {
    /// Reads a file (YAML or JSON) over the defaults.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: shown.clone(), source })?;
        Self::parse(&text).map_err(|why| match why {
            Error::Decode { why, .. } => Error::Decode { path: shown, why },
            other => other,
        })
    }

    /// Reads a text (YAML or JSON) over the defaults.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let failed = |why: String| Error::Decode { path: String::new(), why };
        let mut value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| failed(e.to_string()))?;
        let Some(map) = value.as_object_mut() else { return Err(failed("is not a mapping".into())) };
        let kind = (map.remove("apiVersion"), map.remove("kind"));
        if kind.1.as_ref().is_some_and(|k| k != "KubeletConfiguration") {
            return Err(failed(format!("no kind {} is registered", kind.1.unwrap_or_default())));
        }
        let known = serde_json::to_value(Self::default()).unwrap_or_default();
        for key in map.keys().filter(|key| known.get(key.as_str()).is_none()) {
            tracing::warn!(field = key, "the kubelet configuration has a field that this kubelet does not use");
        }
        let parsed: Self = serde_json::from_value(value).map_err(|e| failed(e.to_string()))?;
        parsed.validate()?;
        Ok(parsed)
    }

    fn validate(&self) -> Result<(), Error> {
        let (high, low) = (self.image_gc_high_threshold_percent, self.image_gc_low_threshold_percent);
        if high > 100 || low > 100 {
            return Err(Error::Invalid(
                "imageGCHighThresholdPercent and imageGCLowThresholdPercent must be between 0 and 100, inclusive"
                    .into(),
            ));
        }
        if low >= high && high != 100 {
            return Err(Error::Invalid(format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            )));
        }
        let one_of = |name: &str, value: &str, known: &[&str]| match known.contains(&value) {
            true => Ok(()),
            false => Err(Error::Invalid(format!("{name} has the unknown value {value:?}, known are {known:?}"))),
        };
        one_of("cpuManagerPolicy", &self.cpu_manager_policy, &["none", "static"])?;
        one_of("memoryManagerPolicy", &self.memory_manager_policy, &["None", "Static"])?;
        let policies = ["none", "best-effort", "restricted", "single-numa-node"];
        one_of("topologyManagerPolicy", &self.topology_manager_policy, &policies)?;
        one_of("topologyManagerScope", &self.topology_manager_scope, &["container", "pod"])?;
        one_of("memorySwap.swapBehavior", &self.memory_swap.swap_behavior, &["", "NoSwap", "LimitedSwap"])?;
        if self.shutdown_grace_period_critical_pods > self.shutdown_grace_period {
            return Err(Error::Invalid("shutdownGracePeriodCriticalPods must be <= shutdownGracePeriod".into()));
        }
        crate::eviction::threshold::parse(self).map_err(Error::Invalid).map(drop)
    }

    /// Largest number of pods: the smaller of both limits.
    pub fn pod_limit(&self, cpus: u64) -> u32 {
        let per_core = u64::from(self.pods_per_core).saturating_mul(cpus);
        if per_core == 0 { self.max_pods } else { self.max_pods.min(u32::try_from(per_core).unwrap_or(u32::MAX)) }
    }

    /// Bytes at which a log is rotated.
    pub fn log_max_size(&self) -> u64 {
        let parsed = api::quantity::Quantity::parse(&self.container_log_max_size).ok();
        parsed.and_then(|q| u64::try_from(q.value()).ok()).filter(|b| *b > 0).unwrap_or(10 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_over_the_defaults() {
        let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 20\n\
            evictionPressureTransitionPeriod: 1m30s\nimageMinimumGCAge: 5s\nevictionHard: {memory.available: 5%}\n\
            reservedSystemCPUs: \"0\"\nrotateCertificates: true\n";
        let got = KubeletConfiguration::parse(text).expect("parses");
        assert_eq!(
            (got.max_pods, got.eviction_pressure_transition_period, got.image_minimum_gc_age),
            (20, Duration::from_secs(90), Duration::from_secs(5))
        );
        assert_eq!((got.eviction_hard.len(), got.reserved_system_cpus.as_str()), (1, "0"));
        let shown = serde_json::to_value(&got).expect("json");
        assert_eq!(shown["evictionPressureTransitionPeriod"], "1m30s");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "kind: Pod",
            "[]",
            "imageGCLowThresholdPercent: 90",
            "cpuManagerPolicy: x",
            "evictionSoft: {memory.available: 1Gi}",
            "evictionHard: {moon.available: 1Gi}",
            "shutdownGracePeriodCriticalPods: 5s",
        ] {
            assert!(KubeletConfiguration::parse(text).is_err(), "{text}");
        }
    }
}
