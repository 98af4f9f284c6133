//! Validation of containers of all three lists.

use super::{Scope, env, probe, security, volume};
use crate::core::quantities;
use crate::field::{Errors, Fields, Path};
use crate::names;
use serde_json::Value;

const NOT_FOR_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
/// What an ephemeral container may set, of upstream's `EphemeralContainerCommon`; the others in its order.
const EPHEMERAL_FORBIDDEN: [&str; 8] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
];
const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];

/// Errors of `containers`.
pub fn containers(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let list = scope.spec.list("containers");
    if list.is_empty() {
        return errors.required(path, "");
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, c) in list.iter().enumerate() {
        let path = path.index(i);
        common(errors, scope, c, &path);
        let name = c.text("name");
        match names.contains(&name) {
            true => errors.duplicate(&path.field("name"), name),
            false => names.push(name),
        }
        probe::handlers(errors, scope, c, &path);
        restart_policy(errors, c, Kind::App, &path);
    }
    host_port_conflicts(errors, list, path);
}

/// Errors of `initContainers`.
pub fn init_containers(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let mut names: Vec<&str> = scope.spec.list("containers").iter().map(|c| c.text("name")).collect();
    for (i, c) in scope.spec.list("initContainers").iter().enumerate() {
        let item = path.index(i);
        common(errors, scope, c, &item);
        restart_policy(errors, c, Kind::Init, &item);
        let name = c.text("name");
        match names.contains(&name) {
            true => errors.duplicate(&item.field("name"), name),
            false if !name.is_empty() => names.push(name),
            false => {}
        }
        host_port_conflicts(errors, std::slice::from_ref(c), path);
        if c.text("restartPolicy") == "Always" {
            probe::handlers(errors, scope, c, &item);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if c.has(field) {
                errors.forbidden(&item.field(field), NOT_FOR_INIT);
            }
        }
        let policies = item.field("resizePolicy");
        for (j, policy) in c.list("resizePolicy").iter().enumerate() {
            if policy.text("restartPolicy") == "RestartContainer" {
                let text = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.invalid(&policies.index(j).field("restartPolicy"), "RestartContainer", text);
            }
        }
    }
}

/// Errors of `ephemeralContainers`.
pub fn ephemeral_containers(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let others: Vec<&str> =
        ["containers", "initContainers"].iter().flat_map(|l| scope.spec.list(l)).map(|c| c.text("name")).collect();
    let mut names = others.clone();
    for (i, c) in scope.spec.list("ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        common(errors, scope, c, &path);
        image_spaces(errors, c, &path);
        let (name, target) = (c.text("name"), c.text("targetContainerName"));
        match names.contains(&name) {
            true => errors.duplicate(&path.field("name"), name),
            false => names.push(name),
        }
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(&path.field("targetContainerName"), target);
        }
        for field in EPHEMERAL_FORBIDDEN {
            if !crate::field::same(c.at(field), &Value::Null) {
                errors.forbidden(&path.field(field), NOT_FOR_EPHEMERAL);
            }
        }
        if c.has("lifecycle") {
            errors.forbidden(&path.field("lifecycle"), NOT_FOR_EPHEMERAL);
        }
        let mounts = path.field("volumeMounts");
        for (j, mount) in c.list("volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.text(field).is_empty() {
                    errors.forbidden(&mounts.index(j).field(field), NOT_FOR_EPHEMERAL);
                }
            }
        }
    }
}

/// An error when an image's name is padded (checked for pods, not for templates).
pub fn image_spaces(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    let image = c.text("image");
    if image.trim() != image {
        errors.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
    }
}

fn common(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    match c.text("name") {
        "" => errors.required(&path.field("name"), ""),
        name => errors.invalid_each(&path.field("name"), name, names::dns1123_label(name, false)),
    }
    if c.text("image").is_empty() {
        errors.required(&path.field("image"), "");
    }
    let policy = path.field("terminationMessagePolicy");
    match c.text("terminationMessagePolicy") {
        "" => errors.required(&policy, ""),
        text => errors.one_of(&policy, text, &["File", "FallbackToLogsOnError"]),
    }
    ports(errors, c, &path.field("ports"));
    env::env(errors, c, &path.field("env"));
    env::env_from(errors, c, &path.field("envFrom"));
    volume::mounts(errors, scope, c, &path.field("volumeMounts"));
    volume::devices(errors, scope, c, &path.field("volumeDevices"));
    pull_policy(errors, c.text("imagePullPolicy"), &path.field("imagePullPolicy"));
    let rule = quantities::container_resource_name;
    quantities::requirements(errors, c.at("resources"), &scope.claims, &path.field("resources"), rule);
    resize_policy(errors, scope, c, &path.field("resizePolicy"));
    security::container(errors, scope, c.at("securityContext"), &path.field("securityContext"));
}

/// Errors of a policy of pulling an image.
pub fn pull_policy(errors: &mut Errors, policy: &str, path: &Path<'_>) {
    match policy {
        "" => errors.required(path, ""),
        policy => errors.one_of(path, policy, &["Always", "IfNotPresent", "Never"]),
    }
}

fn ports(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in c.list("ports").iter().enumerate() {
        let (path, name) = (path.index(i), port.text("name"));
        let wrong = if name.is_empty() { Vec::new() } else { names::port_name(name) };
        if !wrong.is_empty() {
            errors.invalid_each(&path.field("name"), name, wrong);
        } else if seen.contains(&name) {
            errors.duplicate(&path.field("name"), name);
        } else if !name.is_empty() {
            seen.push(name);
        }
        for field in ["containerPort", "hostPort"] {
            match port.int(field).unwrap_or(0) {
                0 if field == "containerPort" => errors.required(&path.field(field), ""),
                0 => {}
                number => {
                    if let Some(text) = names::port_number(number) {
                        errors.invalid(&path.field(field), number, text);
                    }
                }
            }
        }
        match port.text("protocol") {
            "" => errors.required(&path.field("protocol"), ""),
            protocol => errors.one_of(&path.field("protocol"), protocol, &["SCTP", "TCP", "UDP"]),
        }
    }
}

fn host_port_conflicts(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    let mut seen: Vec<String> = Vec::new();
    for (i, c) in list.iter().enumerate() {
        let (item, ports) = (path.index(i), "ports");
        let ports_path = item.field(ports);
        for (j, port) in c.list(ports).iter().enumerate() {
            let number = port.int("hostPort").unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            match seen.contains(&key) {
                true => errors.duplicate(&ports_path.index(j).field("hostPort"), key),
                false => seen.push(key),
            }
        }
    }
}

fn resize_policy(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, policy) in c.list("resizePolicy").iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if seen.contains(&resource) {
            errors.duplicate(&path.index(i), resource);
        }
        seen.push(resource);
        for (value, supported) in [(resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            match value {
                "" => errors.required(path, ""),
                value => errors.one_of(path, value, &supported),
            }
        }
        if scope.spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// The two kinds of containers that restart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    App,
    Init,
}

fn restart_policy(errors: &mut Errors, c: &Value, kind: Kind, path: &Path<'_>) {
    let (policy, rules) = (c.text("restartPolicy"), c.list("restartPolicyRules"));
    match (c.has("restartPolicy"), rules.is_empty()) {
        (false, true) => return,
        (false, false) => {
            let text = "must specify restartPolicy when restart rules are used";
            errors.required(&path.field("restartPolicy"), text);
            if kind == Kind::Init {
                return;
            }
        }
        (true, _) => errors.one_of(&path.field("restartPolicy"), policy, &POLICIES),
    }
    let list = path.field("restartPolicyRules");
    if rules.len() > 20 {
        errors.too_many(&list, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        errors.supported(&path.field("action"), rule.text("action"), &["Restart", "RestartAllContainers"]);
        let (codes, path) = (rule.at("exitCodes"), path.field("exitCodes"));
        if codes.is_null() {
            errors.required(&path, "must be specified");
            continue;
        }
        errors.supported(&path.field("operator"), codes.text("operator"), &["In", "NotIn"]);
        if codes.list("values").len() > 255 {
            errors.too_many(&path.field("values"), codes.list("values").len(), 255);
        }
    }
}
