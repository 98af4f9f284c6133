//! Handlers: probes and lifecycle hooks.

use super::Scope;
use crate::field::{Errors, Fields, Path};
use crate::names;
use serde_json::Value;

const ONE_HANDLER: &str = "may not specify more than 1 handler type";
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

/// Errors of a container's lifecycle hooks and its three probes.
pub fn handlers(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    lifecycle(errors, scope, c.at("lifecycle"), &path.field("lifecycle"));
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (probe, path) = (c.at(kind), path.field(kind));
        if probe.is_null() {
            continue;
        }
        self::probe(errors, scope, probe, &path);
        if kind == "readinessProbe" {
            if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
                let text = "must not be set for readinessProbes";
                errors.invalid(&path.field("terminationGracePeriodSeconds"), seconds, text);
            }
        } else if probe.int("successThreshold") != Some(1) {
            let value = probe.int("successThreshold").unwrap_or(0);
            errors.invalid(&path.field("successThreshold"), value, "must be 1");
        }
    }
}

fn probe(errors: &mut Errors, scope: &Scope<'_>, probe: &Value, path: &Path<'_>) {
    handler(errors, scope, probe, path);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.non_negative(&path.field(field), probe.int(field).unwrap_or(0));
    }
    if let Some(seconds) = probe.int("terminationGracePeriodSeconds").filter(|s| *s <= 0) {
        errors.invalid(&path.field("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
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

fn handler(errors: &mut Errors, scope: &Scope<'_>, handler: &Value, path: &Path<'_>) {
    let mut found = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let (action, path) = (handler.at(kind), path.field(kind));
        if action.is_null() {
            continue;
        }
        if std::mem::replace(&mut found, true) {
            errors.forbidden(&path, ONE_HANDLER);
            continue;
        }
        match kind {
            "exec" if action.list("command").is_empty() => errors.required(&path.field("command"), ""),
            "httpGet" => http_get(errors, action, &path),
            "tcpSocket" => port_number_or_name(errors, action.at("port"), &path.field("port")),
            "grpc" => port_number_or_name(errors, action.at("port"), &path.field("port")),
            "sleep" => sleep(errors, scope, action, &path),
            _ => {}
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(errors: &mut Errors, http: &Value, path: &Path<'_>) {
    if http.text("path").is_empty() {
        errors.required(&path.field("path"), "");
    }
    port_number_or_name(errors, http.at("port"), &path.field("port"));
    errors.supported(&path.field("scheme"), http.text("scheme"), &["HTTP", "HTTPS"]);
    for header in http.list("httpHeaders") {
        let name = header.text("name");
        errors.invalid_each(&path.field("httpHeaders"), name, names::http_header(name));
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
        None => {
            let number = port.as_i64().unwrap_or(0);
            if let Some(text) = names::port_number(number) {
                errors.invalid(path, number, text);
            }
        }
    }
}
