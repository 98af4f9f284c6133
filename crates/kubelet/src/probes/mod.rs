//! Liveness, readiness and startup probes.
//!
//! One task per probe of one instance of a container. It sleeps between probes, writes judgements that passed
//! the thresholds to [`results::ProbeResults`], and ends with the container. The pod's worker starts the tasks
//! ([`ProbeTasks::sync`]): startup first, the others once the container has started.

pub mod exec;
pub mod grpc;
pub mod http;
pub mod results;
pub mod tcp;

use crate::context::Context;
use crate::events::{EventType, reason};
use api::k8s::core::v1::{Container, Pod, Probe};
use api::machinery::util::intstr::IntOrString;
use results::ProbeKind;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often a probe that could not be carried out is tried again at once.
const RETRIES: usize = 3;

/// What one probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Fine.
    Success,
    /// Fine, with something to tell.
    Warning(String),
    /// Not fine.
    Failure(String),
    /// The probe itself did not work.
    Unknown(String),
}

/// One instance of a container that is probed.
#[derive(Clone)]
pub struct Target {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub container: Container,
    /// Its id.
    pub container_id: String,
    /// The pod's address; the node's with host networking.
    pub ip: Option<IpAddr>,
    /// When the instance started, Unix nanoseconds.
    pub started_at: i64,
}

/// The probe tasks of one pod.
#[derive(Default)]
pub struct ProbeTasks(HashMap<(String, ProbeKind), JoinHandle<()>>);

impl ProbeTasks {
    /// Sees to it that exactly the wanted probes run.
    pub fn sync(&mut self, ctx: &Arc<Context>, wanted: Vec<(Target, ProbeKind)>) {
        self.0.retain(|(id, kind), task| {
            let keep = wanted.iter().any(|(t, k)| t.container_id == *id && k == kind);
            if !keep {
                task.abort();
            }
            keep
        });
        for (target, kind) in wanted {
            let key = (target.container_id.clone(), kind);
            self.0.entry(key).or_insert_with(|| tokio::spawn(follow(ctx.clone(), target, kind)));
        }
    }
}

impl Drop for ProbeTasks {
    fn drop(&mut self) {
        self.0.values().for_each(JoinHandle::abort);
    }
}

/// The spec of a container's probe.
pub fn spec(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Startup => container.startup_probe.as_ref(),
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
}

async fn follow(ctx: Arc<Context>, target: Target, kind: ProbeKind) {
    let Some(probe) = spec(&target.container, kind).cloned() else { return };
    let delay = Duration::from_secs(probe.initial_delay_seconds.and_then(|v| u64::try_from(v).ok()).unwrap_or(0));
    let age = jiff::Timestamp::now().as_nanosecond() - i128::from(target.started_at);
    let age = Duration::from_nanos(u64::try_from(age).unwrap_or(0));
    tokio::time::sleep(delay.saturating_sub(age)).await;
    let mut ticks = tokio::time::interval(seconds(probe.period_seconds, 10));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last, mut run) = (None, 0);
    loop {
        ticks.tick().await;
        let Some(success) = judge(&ctx, &target, kind, &probe).await else { continue };
        run = if last == Some(success) { run + 1 } else { 1 };
        last = Some(success);
        let threshold =
            if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        if run < threshold.max(1) {
            continue;
        }
        ctx.probes.set(target.pod.metadata.uid.as_deref().unwrap_or_default(), &target.container_id, kind, success);
        // A failed liveness probe ends this instance; a startup probe has said all it has to say.
        if kind == ProbeKind::Startup || (kind == ProbeKind::Liveness && !success) {
            return;
        }
    }
}

/// One judgement, with its event; `None` where the probe could not be carried out.
async fn judge(ctx: &Context, target: &Target, kind: ProbeKind, probe: &Probe) -> Option<bool> {
    let mut outcome = Outcome::Unknown(String::new());
    for _ in 0..RETRIES {
        outcome = carry_out(ctx, target, probe).await;
        if !matches!(outcome, Outcome::Unknown(_)) {
            break;
        }
    }
    let result = match outcome {
        Outcome::Success | Outcome::Warning(_) => "successful",
        Outcome::Failure(_) => "failed",
        Outcome::Unknown(_) => "unknown",
    };
    let uid = target.pod.metadata.uid.as_deref().unwrap_or_default();
    ctx.probes.count(uid, &target.container.name, kind, result);
    let word = kind.word();
    let event = |reason: &str, text: String| {
        ctx.recorder.container(&target.pod, &target.container, EventType::Warning, reason, text)
    };
    match outcome {
        Outcome::Success => Some(true),
        Outcome::Warning(text) => {
            event(reason::PROBE_WARNING, format!("{word} probe warning: {text}"));
            Some(true)
        }
        Outcome::Failure(text) => {
            event(reason::UNHEALTHY, format!("{word} probe failed: {text}"));
            Some(false)
        }
        Outcome::Unknown(text) => {
            event(reason::UNHEALTHY, format!("{word} probe errored and resulted in unknown state: {text}"));
            None
        }
    }
}

async fn carry_out(ctx: &Context, target: &Target, probe: &Probe) -> Outcome {
    let timeout = seconds(probe.timeout_seconds, 1);
    let ip = target.ip.map(|ip| ip.to_string()).unwrap_or_default();
    if let Some(action) = &probe.exec {
        return exec::probe(ctx, target, action, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return http::probe(action, &target.container, &ip, timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().filter(|h| !h.is_empty()).unwrap_or(ip);
        return match port(&action.port, &target.container) {
            Ok(port) => tcp::probe(&host, port, timeout).await,
            Err(why) => Outcome::Unknown(why),
        };
    }
    if let Some(action) = &probe.grpc {
        return match u16::try_from(action.port) {
            Ok(port) => grpc::probe(&ip, port, action.service.as_deref().unwrap_or_default(), timeout).await,
            Err(_) => Outcome::Unknown(format!("invalid port number: {}", action.port)),
        };
    }
    Outcome::Unknown(format!("missing probe handler for {}:{}", crate::format::pod(&target.pod), target.container.name))
}

/// The number of a port that may be given by the name of a container port.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => match container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)) {
            Some(port) => i64::from(port.container_port),
            None => name
                .parse()
                .map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", crate::format::quote(name)))?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// `host:port`, with brackets around IPv6 addresses.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_by_number_and_name() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .expect("container");
        let text = |s: &str| IntOrString::String(s.into());
        assert_eq!(port(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(port(&text("web"), &container), Ok(8080));
        assert_eq!(port(&text("81"), &container), Ok(81));
        assert!(port(&text("x"), &container).is_err());
        assert_eq!(port(&IntOrString::Int(0), &container), Err("invalid port number: 0".into()));
    }
}
