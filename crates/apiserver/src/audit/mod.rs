//! The audit log: who did what, when, and what came of it.
//!
//! Every request has a [`Record`], which collects what is known of it (`Audit-Id` too, without any policy). The
//! [`Policy`](policy::Policy) says whether and in how much detail it is written; events go to the [`log`] and to the
//! [`webhook`]. Stages: RequestReceived after authentication, ResponseStarted for answers that go on,
//! ResponseComplete at the end, Panic. Absent: the legacy text format.

pub mod event;
mod log;
pub mod policy;
mod record;
mod webhook;

pub use log::Mode;
pub use record::Record;

use crate::authz::Attributes;
use crate::deadline;
use crate::handlers::Request;
use crate::metrics::Family;
use crate::server::ApiServer;
use event::Event;
use log::Log;
use policy::{Level, Policy, Stage, Verdict};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use webhook::Webhook;

/// Events that were made.
pub static EVENTS: Family = Family::counter(
    "apiserver_audit_event_total",
    "Counter of audit events generated and sent to the audit backend.",
    &[],
);
/// Requests by audit level.
pub static LEVELS: Family = Family::counter(
    "apiserver_audit_level_total",
    "Counter of policy levels for audit events (1 per request).",
    &["level"],
);
/// Events that no backend took.
pub static ERRORS: Family = Family::counter(
    "apiserver_audit_error_total",
    "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
    &["plugin"],
);

/// What is audited, and where to.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// File of the policy; without it nothing is audited.
    pub policy_file: Option<PathBuf>,
    /// The log; `-` is standard output.
    pub log: Option<LogSettings>,
    /// Kubeconfig of the webhook.
    pub webhook_file: Option<PathBuf>,
}

/// How the log is written.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// File.
    pub path: PathBuf,
    /// Whether requests wait for it.
    pub mode: Mode,
    /// It is begun anew when it has so many MiB; 0: never.
    pub max_size: u64,
    /// Old logs are removed after so many days; 0: never.
    pub max_age: u64,
    /// So many old logs are kept; 0: all.
    pub max_backups: usize,
}

/// What audits a server's requests.
#[derive(Default)]
pub struct Auditor {
    policy: Option<Policy>,
    log: Option<Log>,
    webhook: Option<Arc<Webhook>>,
    server: OnceLock<Weak<ApiServer>>,
}

impl Auditor {
    /// An auditor as the settings say.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let Some(path) = &settings.policy_file else { return Ok(Self::default()) };
        Ok(Self {
            policy: Some(Policy::read(path)?),
            log: settings.log.as_ref().map(Log::open).transpose()?,
            webhook: settings.webhook_file.as_deref().map(Webhook::new).transpose()?.map(Arc::new),
            server: OnceLock::new(),
        })
    }

    /// Starts what works in the background.
    pub fn start(&self, server: &Arc<ApiServer>) {
        // Started once, when the server is built.
        let _ = self.server.set(Arc::downgrade(server));
        if let Some(webhook) = &self.webhook {
            tokio::spawn(webhook.clone().run(Arc::downgrade(server), server.stopping().clone()));
        }
    }

    /// How much of a request is audited. Its user is who sent it, before impersonation.
    pub fn judge(&self, request: &Request) -> Verdict {
        let Some(policy) = &self.policy else { return Verdict::default() };
        let verdict = policy.judge(&Attributes::of(&request.user, &request.info));
        LEVELS.inc(&[verdict.level.name()]);
        verdict
    }

    /// Writes the event of a stage; false when a log that must not miss any could not take it.
    pub fn process(&self, request: &Request, stage: Stage) -> bool {
        let record = &request.audit;
        let verdict = record.verdict();
        if verdict.level == Level::None || verdict.omits(stage) {
            return true;
        }
        self.send(&Event::of(request, stage, &verdict))
    }

    fn send(&self, event: &Event) -> bool {
        EVENTS.inc(&[]);
        if let Some(webhook) = &self.webhook {
            webhook.push(event);
        }
        self.log.as_ref().is_none_or(|log| log.push(event))
    }
}

/// Writes the last event of a request when it is dropped: its answer has ended, or nobody waits for one any more.
pub struct Completion<R: Deref<Target = Request>> {
    auditor: Arc<Auditor>,
    /// The request.
    pub request: R,
    awaited: bool,
}

impl<R: Deref<Target = Request>> Completion<R> {
    /// Completes a request that is dropped from here on.
    pub fn new(auditor: Arc<Auditor>, request: R) -> Self {
        Self { auditor, request, awaited: true }
    }

    /// What comes next completes the request.
    pub fn hand_on(mut self) {
        self.awaited = false;
    }
}

impl<R: Deref<Target = Request>> Drop for Completion<R> {
    fn drop(&mut self) {
        if !self.awaited {
            return;
        }
        let answered = self.request.audit.closed();
        if !answered && deadline::is_long_running(&self.request.info) {
            self.auditor.process(&self.request, Stage::ResponseStarted);
        }
        self.auditor.process(&self.request, Stage::ResponseComplete);
    }
}
