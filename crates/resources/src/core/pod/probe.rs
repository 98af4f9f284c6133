//! Handlers: probes and lifecycle hooks.

use super::Scope;
use crate::field::{Errors, Fields, Path};
use crate::names;
use crate::rules::{self, Check, Rule};
use serde_json::Value;

const WINDOWS_SIGNALS: [&str; 2] = ["SIGKILL", "SIGTERM"];
const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// How often and how long a probe waits.
const PROBE: &[Rule] = &[
    ("initialDelaySeconds", Check::NotNegative),
    ("timeoutSeconds", Check::NotNegative),
    ("periodSeconds", Check::NotNegative),
    ("successThreshold", Check::NotNegative),
    ("failureThreshold", Check::NotNegative),
    ("terminationGracePeriodSeconds", Check::Within(1, i64::MAX, "must be greater than 0")),
];
/// Only what is restarted has a grace period, and only what is not restarted may need several successes.
const READINESS: Rule =
    ("terminationGracePeriodSeconds", Check::Within(1, NONE, "must not be set for readinessProbes"));
/// The end of a range that begins with 1 and holds nothing.
const NONE: i64 = 0;
const RESTARTING: Rule = ("successThreshold", Check::In(one_success));
const PROBES: [(&str, Rule); 3] =
    [("livenessProbe", RESTARTING), ("readinessProbe", READINESS), ("startupProbe", RESTARTING)];
const HTTP: &[Rule] = &[
    ("path", Check::Given("")),
    ("port", Check::By(port_number_or_name)),
    ("scheme", Check::Among(&["HTTP", "HTTPS"])),
    ("httpHeaders", Check::In(headers)),
];
const PORT: Rule = ("port", Check::By(port_number_or_name));
/// What a handler does, in the order of the errors.
const ACTIONS: [(&str, &[Rule]); 5] = [
    ("exec", &[("command", Check::Given(""))]),
    ("httpGet", HTTP),
    ("tcpSocket", &[PORT]),
    ("grpc", &[PORT]),
    ("sleep", &[]),
];

/// Errors of a container's lifecycle hooks and its three probes.
pub fn handlers(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    lifecycle(errors, scope, c.at("lifecycle"), &path.field("lifecycle"));
    for (kind, own) in PROBES.into_iter().filter(|(kind, _)| c.has(kind)) {
        let (probe, path) = (c.at(kind), path.field(kind));
        handler(errors, scope, probe, &path);
        rules::check(errors, probe, &path, PROBE);
        rules::check(errors, probe, &path, &[own]);
    }
}

fn one_success(errors: &mut Errors, probe: &Value, path: &Path<'_>) {
    let times = probe.int("successThreshold").unwrap_or(0);
    if times != 1 {
        errors.invalid(path, times, "must be 1");
    }
}

fn lifecycle(errors: &mut Errors, scope: &Scope<'_>, lifecycle: &Value, path: &Path<'_>) {
    for hook in ["postStart", "preStop"] {
        if lifecycle.has(hook) {
            handler(errors, scope, lifecycle.at(hook), &path.field(hook));
        }
    }
    let signal = lifecycle.text("stopSignal");
    if signal.is_empty() {
        return;
    }
    let path = path.field("stopSignal");
    match scope.spec.at("os").text("name") {
        "windows" => errors.one_of(&path, signal, &WINDOWS_SIGNALS),
        "linux" => errors.one_of(&path, signal, LINUX_SIGNALS),
        "" => errors.forbidden(&path, "may not be set for containers with empty `spec.os.name`"),
        _ => {}
    }
}

/// A handler does one thing; only the first it names is looked at.
fn handler(errors: &mut Errors, scope: &Scope<'_>, handler: &Value, path: &Path<'_>) {
    let mut named = ACTIONS.iter().filter(|(kind, _)| handler.has(kind));
    match named.next() {
        None => errors.required(path, "must specify a handler type"),
        Some(("sleep", _)) => sleep(errors, scope, handler.at("sleep"), &path.field("sleep")),
        Some((kind, rules)) => rules::check(errors, handler.at(kind), &path.field(kind), rules),
    }
    named.for_each(|(kind, _)| errors.forbidden(&path.field(kind), "may not specify more than 1 handler type"));
}

fn headers(errors: &mut Errors, http: &Value, path: &Path<'_>) {
    for header in http.list("httpHeaders") {
        errors.invalid_each(path, header.text("name"), names::http_header(header.text("name")));
    }
}

fn sleep(errors: &mut Errors, scope: &Scope<'_>, action: &Value, path: &Path<'_>) {
    let seconds = action.int("seconds").unwrap_or(0);
    if let Some(grace) = scope.grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(path, seconds, &text);
    }
}

/// Errors of a port given by number or name.
pub fn port_number_or_name(errors: &mut Errors, port: &Value, path: &Path<'_>) {
    match port.as_str() {
        Some(name) => errors.invalid_each(path, name, names::port_name(name)),
        None => errors.port_number(path, port.as_i64().unwrap_or(0)),
    }
}
