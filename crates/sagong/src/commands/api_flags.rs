//! Flags of the API server: how much it does at once, what it writes down, how it encrypts. Names are kube-apiserver's.

use crate::server::ApiOptions;
use anyhow::{Result, bail};
use apiserver::Limits;
use apiserver::audit::{LogSettings, Mode, Settings};
use std::path::PathBuf;
use std::time::Duration;

/// Whether requests wait for the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum AuditMode {
    /// Requests wait
    #[default]
    Blocking,
    /// Requests wait, and fail when their first event cannot be written
    BlockingStrict,
    /// Requests do not wait
    Batch,
}

/// Flags of the API server.
#[derive(clap::Args)]
#[command(next_help_heading = "API server")]
pub struct ApiFlags {
    /// Reading requests that are answered at once
    #[arg(long, default_value_t = 400, value_name = "N")]
    max_requests_inflight: u64,
    /// Changing requests that are answered at once
    #[arg(long, default_value_t = 200, value_name = "N")]
    max_mutating_requests_inflight: u64,
    /// Seconds that a request may take
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    request_timeout: u64,
    /// Seconds that a watch lasts at least
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    min_request_timeout: u64,
    /// Share of requests, 0 to 0.02, whose HTTP/2 connection is asked to go elsewhere
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    goaway_chance: f64,
    /// File of the audit policy; without it nothing is audited
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// File of the audit log; - is standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Whether requests wait for the audit log
    #[arg(long, value_enum, default_value = "blocking", value_name = "MODE")]
    audit_log_mode: AuditMode,
    /// Format of the audit log
    #[arg(long, default_value = "json", value_name = "FORMAT")]
    audit_log_format: String,
    /// MiB after which a new audit log is begun
    #[arg(long, default_value_t = 100, value_name = "MIB")]
    audit_log_maxsize: u64,
    /// Days after which old audit logs are removed; 0: never
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    audit_log_maxage: u64,
    /// Old audit logs that are kept; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    audit_log_maxbackup: usize,
    /// Kubeconfig of the server that audit events are sent to
    #[arg(long, value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
    /// EncryptionConfiguration [default: secrets, with encryption.keys in the data directory]
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
}

impl ApiFlags {
    /// The options they give.
    pub fn options(self) -> Result<ApiOptions> {
        if self.audit_log_format != "json" {
            bail!("--audit-log-format {}: only json is written", self.audit_log_format);
        }
        if !(0.0..=0.02).contains(&self.goaway_chance) {
            bail!("--goaway-chance {}: give a share from 0 to 0.02", self.goaway_chance);
        }
        let requests = self.max_requests_inflight + self.max_mutating_requests_inflight;
        if requests == 0 {
            bail!("--max-requests-inflight and --max-mutating-requests-inflight are both 0: nothing would be answered");
        }
        let mode = match self.audit_log_mode {
            AuditMode::Blocking => Mode::Blocking,
            AuditMode::BlockingStrict => Mode::BlockingStrict,
            AuditMode::Batch => Mode::Batch,
        };
        let log = self.audit_log_path.map(|path| LogSettings {
            path,
            mode,
            max_size: self.audit_log_maxsize,
            max_age: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
        });
        Ok(ApiOptions {
            limits: Limits {
                requests,
                request_timeout: Duration::from_secs(self.request_timeout.max(1)),
                min_watch: Duration::from_secs(self.min_request_timeout.max(1)),
                goaway_chance: self.goaway_chance,
            },
            audit: Settings { policy_file: self.audit_policy_file, log, webhook_file: self.audit_webhook_config_file },
            encryption_config: self.encryption_provider_config,
        })
    }
}
